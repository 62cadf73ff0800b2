//! Settings of one connection.

use std::time::Duration;

use super::{QmuxCarrier, QmuxFraming};

/// Settings of one connection.
#[derive(Clone, Debug)]
pub struct QmuxConfig {
    /// Framing of the streams.
    pub framing: QmuxFraming,
    /// Carrier of the frames. [`QmuxFraming::Legacy`] relies on message boundaries and needs a WebSocket.
    pub over: QmuxCarrier,
    /// Whether this end opened the connection.
    pub is_client: bool,
    /// Application protocol negotiated outside (WebSocket subprotocol, ALPN).
    pub protocol: Option<&'static str>,
    /// Supported application protocols, preferred first. Negotiated in-band over [`QmuxCarrier::Bytes`] when `protocol`
    /// is `None`. Empty: not sent.
    pub protocols: &'static [&'static str],
    /// Raw path and query of the URL; `None` if SETUP carries them.
    pub target: Option<String>,
    /// Round-trip time measured by the kernel during the TCP handshake.
    pub rtt: Option<Duration>,
    /// Idle timeout; a shorter one of the peer takes precedence.
    pub idle: Duration,
    /// Limit up to which the peer's stream credit grows, per direction; `None` = the limits of
    /// [`relay_model::limits`].
    pub max_streams: Option<u64>,
    /// Seed of a client's WebSocket masks; unused by servers.
    pub mask_seed: u64,
}

impl QmuxConfig {
    /// Settings of a server connection without a negotiated protocol, target or round-trip time.
    pub fn new(framing: QmuxFraming, over: QmuxCarrier) -> Self {
        Self {
            framing,
            over,
            is_client: false,
            protocol: None,
            protocols: &[],
            target: None,
            rtt: None,
            idle: super::limits::IDLE,
            max_streams: None,
            mask_seed: 0,
        }
    }
}
