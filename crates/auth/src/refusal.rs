//! Why a session was not admitted, and what its peer is told.

use relay_model::SessionCode;

/// Why a request target was not admitted. Carries nothing the peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The target is no path: bad escape, dot segment, escaped slash, control character, too long.
    #[error("malformed request target")]
    Malformed,
    /// Nothing is allowed there, or a credential is not accepted.
    #[error("unauthorized")]
    Unauthorized,
    /// What was shown is no token, or says what no token may say.
    #[error("malformed token")]
    MalformedToken,
    /// The token names a key that is not known here. It may turn up: see [`crate::Policy::missing_key`].
    #[error("token of an unknown key")]
    UnknownKey,
    /// Somebody else made the token.
    #[error("token with a wrong signature")]
    BadSignature,
    /// The token names others than this relay in `aud`, or nobody where it must name this relay.
    #[error("token for another audience")]
    OtherAudience,
    /// The `iss` of the token is not accepted here.
    #[error("token of another issuer")]
    OtherIssuer,
    /// The token, grant or certificate is over.
    #[error("expired")]
    Expired,
    /// The token does not hold yet.
    #[error("token is not valid yet")]
    NotYetValid,
    /// The token is good, but not for this path, or grants more than its key may.
    #[error("token grants nothing here")]
    OutOfScope,
}

impl Refusal {
    /// Every one there is, for whoever counts them.
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::Unauthorized,
        Self::MalformedToken,
        Self::UnknownKey,
        Self::BadSignature,
        Self::OtherAudience,
        Self::OtherIssuer,
        Self::Expired,
        Self::NotYetValid,
        Self::OutOfScope,
    ];

    /// The code the session is closed with: the one place where reasons become wire codes. Clients stop
    /// reconnecting at [`SessionCode::UNAUTHORIZED`], whatever the reason.
    pub fn session_code(self) -> SessionCode {
        match self {
            Self::Malformed => SessionCode::PROTOCOL_VIOLATION,
            Self::Unauthorized
            | Self::MalformedToken
            | Self::UnknownKey
            | Self::BadSignature
            | Self::OtherAudience
            | Self::OtherIssuer
            | Self::Expired
            | Self::NotYetValid
            | Self::OutOfScope => SessionCode::UNAUTHORIZED,
        }
    }

    /// A short lower-case name, for counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unauthorized => "unauthorized",
            Self::MalformedToken => "malformed_token",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::OtherAudience => "other_audience",
            Self::OtherIssuer => "other_issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::OutOfScope => "out_of_scope",
        }
    }
}
