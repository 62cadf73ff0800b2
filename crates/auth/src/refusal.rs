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
}

impl Refusal {
    /// The code the session is closed with: the one place where reasons become wire codes.
    pub fn session_code(self) -> SessionCode {
        match self {
            Self::Malformed => SessionCode::PROTOCOL_VIOLATION,
            Self::Unauthorized => SessionCode::UNAUTHORIZED,
        }
    }

    /// A short lower-case name, for counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unauthorized => "unauthorized",
        }
    }
}
