//! What one connection is told.

use std::time::Duration;

use super::{Framing, Over};

/// For one connection.
#[derive(Clone, Debug)]
pub struct Config {
    /// How streams are laid out.
    pub framing: Framing,
    /// What carries them. [`Framing::Legacy`] has no frame ends of its own and needs a WebSocket.
    pub over: Over,
    /// Whether we dialled.
    pub is_client: bool,
    /// The protocol agreed on outside (a WebSocket's subprotocol, ALPN).
    pub protocol: Option<&'static str>,
    /// What we speak, best first: agreed on in-band when there is no `protocol`, over bytes. Empty: nothing
    /// is said about it.
    pub protocols: &'static [&'static str],
    /// Raw path and query of the URL; `None` where SETUP carries them.
    pub target: Option<String>,
    /// Round trip time as the kernel measured it during the handshake.
    pub rtt: Option<Duration>,
    /// Silence after which the peer is given up; the peer may ask for less.
    pub idle: Duration,
    /// Where growth of the streams the peer may open stops, in each direction; `None` = that of
    /// [`relay_model::limits`].
    pub max_streams: Option<u64>,
    /// Where a client's masks come from; servers use none.
    pub mask_seed: u64,
}

impl Config {
    /// A server's connection with nothing agreed on and nothing known.
    pub fn new(framing: Framing, over: Over) -> Self {
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
