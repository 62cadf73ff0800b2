//! Application error codes as they appear on QUIC, and the end of a session.

use relay_model::{SessionCode, StreamCode};

/// Code of a reset, stop or close by the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// A code in the WebTransport application range, converted back.
    App(u32),
    /// Any other QUIC application code, unchanged.
    Foreign(u64),
}

impl Code {
    pub(crate) fn from_quic(code: u64) -> Self {
        web_transport_proto::error_from_http3(code).map_or(Self::Foreign(code), Self::App)
    }

    /// Code in the stream registry, if it is an application code.
    pub fn stream(self) -> Option<StreamCode> {
        match self {
            Self::App(code) => Some(StreamCode(code)),
            Self::Foreign(_) => None,
        }
    }

    /// Code in the session registry, if it is an application code.
    pub fn session(self) -> Option<SessionCode> {
        match self {
            Self::App(code) => Some(SessionCode(code)),
            Self::Foreign(_) => None,
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::App(code) => write!(f, "{code:#x}"),
            Self::Foreign(code) => write!(f, "foreign {code:#x}"),
        }
    }
}

/// End of a session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// Closed by this side.
    #[error("closed locally")]
    Local,
    /// Closed by the peer's application.
    #[error("closed by the peer with {code}: {reason}")]
    Peer {
        /// Close code.
        code: Code,
        /// Close reason; bytes that are not UTF-8 are replaced.
        reason: String,
    },
    /// Ended by the transport: idle timeout, stateless reset, protocol error.
    #[error("connection lost: {0}")]
    Lost(String),
}

impl Closed {
    pub(crate) fn from_quic(error: &quinn::ConnectionError) -> Self {
        match error {
            quinn::ConnectionError::LocallyClosed => Self::Local,
            quinn::ConnectionError::ApplicationClosed(close) => Self::Peer {
                code: Code::from_quic(close.error_code.into_inner()),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            other => Self::Lost(other.to_string()),
        }
    }
}

impl Closed {
    pub(crate) fn from_socket(error: &qmux::Error) -> Self {
        use web_transport_trait::Error as _;
        match error.session_error() {
            Some((code, reason)) => Self::Peer { code: Code::App(code), reason },
            None => Self::Lost(error.to_string()),
        }
    }
}

/// Converts a code to a QUIC varint in the WebTransport application range.
pub(crate) fn to_quic(code: u32) -> quinn::VarInt {
    varint(web_transport_proto::error_to_http3(code))
}

/// Converts to a varint of 62 bits, saturating.
pub(crate) fn varint(value: u64) -> quinn::VarInt {
    quinn::VarInt::from_u64(value).unwrap_or(quinn::VarInt::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_the_mapping() {
        for code in [0, 1, 0x1d, 0x1e, 0x1f, 0x33, 64, u32::MAX] {
            assert_eq!(Code::from_quic(to_quic(code).into_inner()), Code::App(code));
        }
        assert_eq!(Code::from_quic(7), Code::Foreign(7));
    }
}
