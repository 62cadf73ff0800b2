//! Errors of a client.

use std::sync::Arc;

use relay_model::SessionCode;

use crate::code::{Closed, Code};

/// Error of an operation.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The URL is malformed or has an unknown scheme.
    #[error("bad url: {0}")]
    Url(String),
    /// A path or track name is over its limit.
    #[error("bad name: {0}")]
    Name(String),
    /// The host name has no address.
    #[error("cannot resolve {host}: {why}")]
    Resolve {
        /// Host name.
        host: String,
        /// Error of the resolver.
        why: String,
    },
    /// The socket could not be created, bound or connected.
    #[error("socket: {0}")]
    Io(#[from] Arc<std::io::Error>),
    /// The session has ended.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The dial took longer than `ClientConfig::connect_timeout`.
    #[error("connect timed out")]
    ConnectTimeout,
    /// TLS or QUIC rejected the configuration.
    #[error("setup: {0}")]
    Setup(String),
    /// HTTP/3 or WebTransport setup failed, with the server's error.
    #[error("webtransport: {0}")]
    WebTransport(String),
    /// A session on a WebSocket or another stream socket was not established, with the server's error.
    #[error("{0}")]
    Socket(String),
    /// The server refused CONNECT, or the WebSocket upgrade, with this HTTP status.
    #[error("refused with http status {0}")]
    Status(u16),
    /// The session's version does not have this feature.
    #[error("{0} has no {1}")]
    Unsupported(&'static str, &'static str),
    /// The peer reset the stream.
    #[error("reset with {0}")]
    Reset(Code),
    /// The peer stopped the stream that we send on.
    #[error("stopped with {0}")]
    Stopped(Code),
    /// The peer sent a malformed encoding.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The peer violated the protocol.
    #[error("protocol violation: {0}")]
    Protocol(&'static str),
    /// The stream ended in the middle of a message or frame.
    #[error("stream ended in the middle of a message")]
    Truncated,
    /// The subscription has ended; the previous event has the cause.
    #[error("subscription ended")]
    Ended,
}

impl Error {
    /// Whether the server refuses the credential, so that retrying is of no use.
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

impl From<relay_wire::DecodeError> for Error {
    fn from(error: relay_wire::DecodeError) -> Self {
        Self::Malformed(error.to_string())
    }
}
