//! Reasons for denying a session.

use relay_auth::Refusal;
use relay_model::SessionCode;

/// Reason for denying a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denial {
    /// The requested path is not allowed, or the request is malformed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The permit has expired.
    #[error("expired")]
    Expired,
    /// The authorizer cannot be reached or failed: nobody is admitted without its answer. Clients may retry.
    #[error("authorization unavailable")]
    Unavailable,
    /// The authorizer did not answer in time. Clients may retry.
    #[error("authorization timed out")]
    TimedOut,
}

impl Denial {
    /// Code the session is closed with. "Unauthorized" only for denials that a retry cannot change: clients
    /// do not reconnect after it.
    pub fn session_code(self) -> SessionCode {
        match self {
            Self::Refused(refusal) => refusal.session_code(),
            Self::Expired => SessionCode::UNAUTHORIZED,
            Self::Unavailable => SessionCode::INTERNAL,
            Self::TimedOut => SessionCode::TIMEOUT,
        }
    }
}
