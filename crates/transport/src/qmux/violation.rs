//! Protocol violations by the peer.

use relay_model::transport::TransportClosed;

/// Protocol violation, which closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(super) struct Violation {
    /// QUIC transport error code (RFC 9000 §20.1), which qmux shares.
    pub(super) code: u64,
    /// WebSocket close code, for violations of the WebSocket protocol (RFC 6455 §7.4).
    pub(super) websocket: Option<u16>,
    /// Description, sent as close reason.
    pub(super) what: &'static str,
}

/// Transport error codes (RFC 9000 §20.1).
mod code {
    pub(super) const FLOW_CONTROL: u64 = 0x3;
    pub(super) const STREAM_LIMIT: u64 = 0x4;
    pub(super) const STREAM_STATE: u64 = 0x5;
    pub(super) const FINAL_SIZE: u64 = 0x6;
    pub(super) const FRAME_ENCODING: u64 = 0x7;
    pub(super) const PARAMETERS: u64 = 0x8;
    pub(super) const PROTOCOL: u64 = 0xa;
}

impl Violation {
    /// Returns the reason of the session's end.
    pub(super) fn closed(self) -> TransportClosed {
        TransportClosed::Lost(self.to_string())
    }

    const fn new(code: u64, what: &'static str) -> Self {
        Self { code, websocket: None, what }
    }

    pub(super) const fn flow(what: &'static str) -> Self {
        Self::new(code::FLOW_CONTROL, what)
    }

    pub(super) const fn limit(what: &'static str) -> Self {
        Self::new(code::STREAM_LIMIT, what)
    }

    pub(super) const fn state(what: &'static str) -> Self {
        Self::new(code::STREAM_STATE, what)
    }

    pub(super) const fn size(what: &'static str) -> Self {
        Self::new(code::FINAL_SIZE, what)
    }

    pub(super) const fn encoding(what: &'static str) -> Self {
        Self::new(code::FRAME_ENCODING, what)
    }

    pub(super) const fn parameters(what: &'static str) -> Self {
        Self::new(code::PARAMETERS, what)
    }

    pub(super) const fn protocol(what: &'static str) -> Self {
        Self::new(code::PROTOCOL, what)
    }

    /// Creates a violation of the WebSocket protocol.
    pub(super) const fn websocket(close: u16, what: &'static str) -> Self {
        Self { code: code::PROTOCOL, websocket: Some(close), what }
    }
}
