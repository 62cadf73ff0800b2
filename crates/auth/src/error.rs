//! Detailed errors of tokens, for their owners. They never contain a part of the token.

use std::time::SystemTime;

use relay_model::PatternError;

use crate::{Algorithm, KeyId, Refusal, json::ObjectError};

/// Reason for rejecting a token. Contains only validated values of the token: key id, algorithm and times.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`crate::TOKEN_BYTES`]; not parsed.
    #[error("the token is longer than {} bytes", crate::TOKEN_BYTES)]
    TooLong,
    /// Not three base64url parts (RFC 7515 §7.1).
    #[error("not a token: expected three base64url parts separated by dots")]
    Shape,
    /// The header is malformed.
    #[error("the header {0}")]
    Header(ObjectError),
    /// `alg` is not a string, or not a supported algorithm; `none` is not supported.
    #[error("the header's `alg` is not one of {}", Algorithm::NAMES)]
    UnknownAlgorithm,
    /// `kid` is not a string, or too long.
    #[error("the header's `kid` is not a string, or too long: {}", crate::NoKeyId)]
    BadKeyId,
    /// `crit` is present, and no extension is supported (RFC 7515 §4.1.11).
    #[error("the header has `crit`, and critical extensions are not supported")]
    Critical,
    /// No key has this `kid`, or without `kid` the key is ambiguous.
    #[error("{}", unknown(.0.as_ref()))]
    UnknownKey(Option<KeyId>),
    /// The key has another algorithm than the header.
    #[error("algorithm mismatch: the header has {token}, the key {key}")]
    OtherAlgorithm {
        /// Algorithm in the header.
        token: Algorithm,
        /// Algorithm of the key.
        key: Algorithm,
    },
    /// `key_ops` of the key does not include `verify` (RFC 7517 §4.3).
    #[error("the key cannot verify: its `key_ops` has no `verify`")]
    KeyCannotVerify,
    /// The signature does not verify: made with another key, or the token was modified.
    #[error("the signature does not verify with the key")]
    BadSignature,
    /// The payload is malformed.
    #[error("the payload {0}")]
    Payload(ObjectError),
    /// A claim is invalid.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// `aud` is present without any of the names of this relay.
    #[error("the token is for another audience: no value of its `aud` is in `auth.audience`")]
    Audience,
    /// `auth.audience` is set and the token has no `aud`.
    #[error("the token has no `aud`, and `auth.audience` is set")]
    NoAudience,
    /// `iss` is not an accepted issuer.
    #[error("the token is of another issuer: its `iss` is not in `auth.issuer`")]
    Issuer,
    /// The token grants nothing.
    #[error("the token grants nothing: it needs `put` or `get`, or `publish` or `subscribe`")]
    Useless,
    /// The token has expired.
    #[error("the token expired at {}", unix(*.at))]
    Expired {
        /// Value of `exp`.
        at: SystemTime,
    },
    /// The token is not valid yet.
    #[error("the token is not valid before {}", unix(*.at))]
    NotYetValid {
        /// Value of `nbf`.
        at: SystemTime,
    },
    /// The token grants more than the `scope` of its key.
    #[error("the token grants more than the `scope` of its key")]
    ExceedsKey,
}

/// Invalid claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{claim}` {fault}")]
pub struct ClaimError {
    /// Name of the claim.
    pub claim: &'static str,
    /// Fault of its value.
    pub fault: Fault,
}

/// Fault of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not a string.
    #[error("is not a string")]
    Text,
    /// A path that is too long or too deep.
    #[error("is too long or too deep for a path")]
    Path,
    /// Not a pattern.
    #[error("is not a pattern: {0}")]
    Pattern(PatternError),
    /// Dot segments.
    #[error("has a segment `.` or `..`, which is not allowed in paths")]
    Dots,
    /// Control characters.
    #[error("has a control character")]
    Control,
    /// Both notations of grants.
    #[error("is mixed with `put` or `get`; use either `put` and `get` or `publish` and `subscribe`")]
    Mixed,
    /// Too many paths.
    #[error("lists more than {} paths", crate::GRANTS)]
    TooMany,
    /// Too long for a subject.
    #[error("is longer than {} bytes", crate::SUBJECT_BYTES)]
    TooLong,
    /// Reserved prefix.
    #[error("begins with `token:`, which is reserved for tokens without a subject")]
    Reserved,
    /// Not a time.
    #[error("is not a number of seconds since 1970")]
    Time,
    /// Nothing is granted.
    #[error("grants nothing")]
    Nothing,
    /// Unknown field.
    #[error("has a field other than `root`, `put`, `get`, `publish` and `subscribe`")]
    Unknown,
}

/// Error of signing a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The key has no private half, or its `key_ops` has no `sign`.
    #[error("the key cannot sign: it is a public half, or its `key_ops` has no `sign`")]
    CannotSign,
    /// The token would grant nothing.
    #[error("the token would grant nothing; specify what it may publish or subscribe to")]
    Useless,
    /// The token would grant more than the `scope` of its key.
    #[error("the token would grant more than the `scope` of its key")]
    ExceedsKey,
    /// The token would be longer than [`crate::TOKEN_BYTES`].
    #[error("the token would have {0} bytes, above the limit of {max}", max = crate::TOKEN_BYTES)]
    TooLong(usize),
    /// The token would be rejected.
    #[error("relays would reject the token: {0}")]
    Refused(TokenError),
    /// The cryptography library failed.
    #[error("signing failed")]
    Failed,
}

impl TokenError {
    /// Returns the refusal reported to the client and counted in metrics.
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
        None => "the header has no `kid`, and there is not exactly one candidate key".to_owned(),
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
