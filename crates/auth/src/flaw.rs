//! What is wrong with a token, in as much detail as its owner may want. Never a part of it.

use std::time::SystemTime;

use relay_model::PatternError;

use crate::{Algorithm, KeyId, Refusal, json::ObjectError};

/// Why a token is refused. Holds nothing of it but the names that were found to be harmless.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// More than [`crate::TOKEN_BYTES`]; nothing of it was read.
    #[error("the token is longer than {} bytes", crate::TOKEN_BYTES)]
    TooLong,
    /// Not three parts of base64url.
    #[error("not a token: three parts of base64url with dots between them")]
    Shape,
    /// The header is no good.
    #[error("the header {0}")]
    Header(ObjectError),
    /// `alg` is no text, or no algorithm of ours: `none` is not one.
    #[error("the header's `alg` is none of {}", Algorithm::NAMES)]
    UnknownAlgorithm,
    /// `kid` is no text, or longer than one may be.
    #[error("the header's `kid` is no text, or too long: {}", crate::NoKeyId)]
    BadKeyId,
    /// `crit` asks for something we do not do.
    #[error("the header has `crit`: the token must not be accepted by who does not know what it asks for")]
    Critical,
    /// No key of that name is known, or several could be meant.
    #[error("{}", unknown(.0.as_ref()))]
    UnknownKey(Option<KeyId>),
    /// The key is for another algorithm.
    #[error("the header says {token}, the key is for {key}")]
    OtherAlgorithm {
        /// What the token says.
        token: Algorithm,
        /// What the key is for.
        key: Algorithm,
    },
    /// `key_ops` of the key has no `verify`.
    #[error("the key may not verify: see its `key_ops`")]
    KeyCannotVerify,
    /// Somebody else made it, or changed it.
    #[error("the signature is not the key's")]
    BadSignature,
    /// The payload is no good.
    #[error("the payload {0}")]
    Payload(ObjectError),
    /// A claim is no good.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// `aud` has none of the names of this relay, or it has none.
    #[error("the token is for somebody else: its `aud` has no value of `auth.audience`")]
    Audience,
    /// `auth.audience` is set and the token has no `aud`.
    #[error("the token has no `aud`, and `auth.audience` is set")]
    NoAudience,
    /// `iss` is not one of those that are accepted.
    #[error("the token's `iss` is no value of `auth.issuer`")]
    Issuer,
    /// It grants nothing.
    #[error("the token grants nothing: it needs `put` or `get`, or `publish` or `subscribe`")]
    Useless,
    /// Over.
    #[error("the token expired at {}", unix(*.at))]
    Expired {
        /// When.
        at: SystemTime,
    },
    /// To come.
    #[error("the token holds from {} on", unix(*.at))]
    NotYetValid {
        /// From when on.
        at: SystemTime,
    },
    /// It grants more than its key may.
    #[error("the token grants more than the `scope` of its key")]
    ExceedsKey,
}

/// What is wrong with one claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{claim}` {fault}")]
pub struct ClaimError {
    /// Which.
    pub claim: &'static str,
    /// What.
    pub fault: Fault,
}

/// What is wrong with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No text.
    #[error("is no text")]
    Text,
    /// Too long or deep.
    #[error("is longer or deeper than a path can be")]
    Path,
    /// No pattern.
    #[error("is no pattern: {0}")]
    Pattern(PatternError),
    /// Dot segments.
    #[error("has a segment `.` or `..`, which no path here can have")]
    Dots,
    /// Control characters.
    #[error("has a control character")]
    Control,
    /// Both ways to write grants.
    #[error("stands beside `put` or `get`; a token has either these or `publish` and `subscribe`")]
    Mixed,
    /// Too many.
    #[error("lists more than {} paths", crate::GRANTS)]
    TooMany,
    /// Too long.
    #[error("is longer than {} bytes", crate::SUBJECT_BYTES)]
    TooLong,
    /// Ours.
    #[error("begins with `token:`, which the relay itself calls tokens without a subject")]
    Reserved,
    /// No time.
    #[error("is no number of seconds since 1970")]
    Time,
    /// Nothing is granted.
    #[error("allows nothing")]
    Nothing,
    /// A field nobody knows.
    #[error("has a field that is none of `root`, `put`, `get`, `publish` and `subscribe`")]
    Unknown,
}

/// Why a token was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// There is no private half, or `key_ops` has no `sign`.
    #[error("the key cannot sign: it is a public half, or its `key_ops` has no `sign`")]
    CannotSign,
    /// It would grant nothing.
    #[error("the token would grant nothing: say what it may publish or subscribe to")]
    Useless,
    /// It would grant more than the key may.
    #[error("the token would grant more than the `scope` of its key")]
    ExceedsKey,
    /// Nobody would read it.
    #[error("the token would have {0} bytes, and relays read {max}", max = crate::TOKEN_BYTES)]
    TooLong(usize),
    /// It would be refused.
    #[error("relays would refuse the token: {0}")]
    Refused(Flaw),
    /// The library said no.
    #[error("signing failed")]
    Failed,
}

impl Flaw {
    /// What a client is told, and counters count.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::TooLong
            | Self::Shape
            | Self::Header(_)
            | Self::UnknownAlgorithm
            | Self::BadKeyId
            | Self::Critical
            | Self::Payload(_)
            | Self::Claim(_)
            | Self::Useless => Refusal::MalformedToken,
            Self::UnknownKey(_) => Refusal::UnknownKey,
            Self::OtherAlgorithm { .. } | Self::KeyCannotVerify | Self::BadSignature => Refusal::BadSignature,
            Self::Audience | Self::NoAudience => Refusal::OtherAudience,
            Self::Issuer => Refusal::OtherIssuer,
            Self::Expired { .. } => Refusal::Expired,
            Self::NotYetValid { .. } => Refusal::NotYetValid,
            Self::ExceedsKey => Refusal::OutOfScope,
        }
    }
}

fn unknown(id: Option<&KeyId>) -> String {
    match id {
        Some(id) => format!("no key with the `kid` {id} is known"),
        None => "the header has no `kid`, and there is not exactly one key that it could be".to_owned(),
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
