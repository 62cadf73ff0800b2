//! Reasons for refusing a session, and their session codes.

use relay_model::SessionCode;

/// Reason for refusing a request target; its text is the close reason sent to the peer. Contains no data of the
/// peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Invalid path in the target: bad escape, dot segment, escaped slash, control character, too long.
    #[error("malformed request target")]
    Malformed,
    /// Nothing is granted at the path, or credentials are not accepted.
    #[error("unauthorized")]
    Unauthorized,
    /// The token cannot be parsed, or has invalid claims.
    #[error("malformed token")]
    MalformedToken,
    /// The key of the token is unknown. It may be fetched: see [`crate::Policy::missing_key`].
    #[error("token of an unknown key")]
    UnknownKey,
    /// The signature of the token does not verify.
    #[error("token with a wrong signature")]
    BadSignature,
    /// `aud` of the token does not name this relay, or is absent although required.
    #[error("token for another audience")]
    OtherAudience,
    /// `iss` of the token is not accepted.
    #[error("token of another issuer")]
    OtherIssuer,
    /// The token, grant or certificate has expired.
    #[error("expired")]
    Expired,
    /// The token is not valid yet.
    #[error("token is not valid yet")]
    NotYetValid,
    /// The token is valid but grants nothing at this path, or grants more than the `scope` of its key.
    #[error("token grants nothing here")]
    OutOfScope,
}

impl Refusal {
    /// All refusals, for metrics.
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

    /// Returns the code with which the session is closed. Clients stop reconnecting after
    /// [`SessionCode::UNAUTHORIZED`].
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

    /// Returns a short lower-case name, for metrics.
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
