//! What can go wrong in a client.

use std::sync::Arc;

use relay_model::SessionCode;

use crate::code::{Closed, Code};

/// Why an operation failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The address is none this client can dial.
    #[error("bad url: {0}")]
    Url(String),
    /// A path or track name is over its limit.
    #[error("bad name: {0}")]
    Name(String),
    /// The host's name stands for no address.
    #[error("cannot resolve {host}: {why}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver says.
        why: String,
    },
    /// The socket could not be made or bound.
    #[error("socket: {0}")]
    Io(#[from] Arc<std::io::Error>),
    /// The session has ended.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The dial took longer than `ClientConfig::connect_timeout`.
    #[error("connect timed out")]
    ConnectTimeout,
    /// TLS could not be set up, or QUIC refused the configuration.
    #[error("setup: {0}")]
    Setup(String),
    /// HTTP/3 or WebTransport establishment failed, with what the server said.
    #[error("webtransport: {0}")]
    WebTransport(String),
    /// A WebSocket or another stream socket came to no session, with what the server said.
    #[error("{0}")]
    Socket(String),
    /// The server refused CONNECT, or the upgrade to a WebSocket, with this HTTP status.
    #[error("refused with http status {0}")]
    Status(u16),
    /// The session's version has no such thing.
    #[error("{0} has no {1}")]
    Unsupported(&'static str, &'static str),
    /// The peer reset the stream.
    #[error("reset with {0}")]
    Reset(Code),
    /// The peer stopped the stream we write.
    #[error("stopped with {0}")]
    Stopped(Code),
    /// The peer broke the encoding.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The peer broke a rule of the protocol.
    #[error("protocol violation: {0}")]
    Protocol(&'static str),
    /// The stream ended in the middle of a message or frame.
    #[error("stream ended in the middle of a message")]
    Truncated,
    /// The subscription is over; the event before says how.
    #[error("subscription ended")]
    Ended,
}

impl Error {
    /// Whether the server says that the credential does not allow it: trying again is of no use.
    pub fn is_unauthorized(&self) -> bool {
        match self {
            Self::Closed(Closed::Peer { code, .. }) => code.session() == Some(SessionCode::UNAUTHORIZED),
            Self::Status(status) => matches!(status, 401 | 403),
            _ => false,
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<quinn::ConnectionError> for Error {
    fn from(error: quinn::ConnectionError) -> Self {
        Self::Closed(Closed::from_quic(&error))
    }
}

impl From<quinn::ReadError> for Error {
    fn from(error: quinn::ReadError) -> Self {
        match error {
            quinn::ReadError::Reset(code) => Self::Reset(Code::from_quic(code.into_inner())),
            quinn::ReadError::ConnectionLost(error) => error.into(),
            other => Self::Setup(other.to_string()),
        }
    }
}

impl From<quinn::WriteError> for Error {
    fn from(error: quinn::WriteError) -> Self {
        match error {
            quinn::WriteError::Stopped(code) => Self::Stopped(Code::from_quic(code.into_inner())),
            quinn::WriteError::ConnectionLost(error) => error.into(),
            other => Self::Setup(other.to_string()),
        }
    }
}

impl From<qmux::Error> for Error {
    fn from(error: qmux::Error) -> Self {
        use web_transport_trait::Error as _;
        let code = || error.stream_error().map_or(Code::Foreign(u64::MAX), Code::App);
        match &error {
            qmux::Error::StreamReset(_) => Self::Reset(code()),
            qmux::Error::StreamStop(_) => Self::Stopped(code()),
            qmux::Error::Http(status) => Self::Status(*status),
            qmux::Error::DatagramsUnsupported | qmux::Error::FrameTooLarge => Self::Setup(error.to_string()),
            _ => Self::Closed(Closed::from_socket(&error)),
        }
    }
}

impl From<relay_wire::Error> for Error {
    fn from(error: relay_wire::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}
