//! Streams over one ordered byte carrier: qmux (draft-ietf-quic-qmux-00 and 01) and the legacy `webtransport`
//! framing, over WebSocket, TCP and Unix sockets. Sans-IO: bytes in, bytes out, no socket and no clock.
//!
//! A worker's turn with a [`QmuxConnection`]:
//!
//! 1. While [`QmuxConnection::wants_input`], read the socket and pass the bytes to [`QmuxConnection::receive`]; at
//!    its end or failure, call [`QmuxConnection::end_of_input`]. Otherwise leave the socket unread, which makes
//!    the peer wait.
//! 2. When [`QmuxConnection::timeout`] is due, [`QmuxConnection::handle_timeout`].
//! 3. Check [`QmuxConnection::phase`]: at `Ready` create a session, which polls and writes
//!    ([`relay_model::transport::Transport`]).
//! 4. While the socket is writable, call [`QmuxConnection::transmit`] and write. Keep bytes that the socket did
//!    not accept and write them before the next `transmit`, so that the order of groups is decided late.
//! 5. If [`QmuxConnection::has_event`] is then true, let the session poll again (sending made room), and continue
//!    with 4.
//! 6. At `Closed` flush, then shut down writing and keep reading (the input is discarded), so that the close
//!    arrives. At `Drained` drop the connection and close the socket.
//!
//! There are no wakers: every change results from one of these calls.

mod carrier;
mod clock;
mod config;
mod connection;
mod datagrams;
mod frame;
mod limits;
mod output;
mod params;
mod recv;
mod send;
mod stream_limits;
mod streams;
mod violation;
mod websocket;

pub use config::QmuxConfig;
pub use connection::QmuxConnection;

pub use crate::quic::{ConnPhase, ConnTraffic};

/// Framing of streams on the carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QmuxFraming {
    /// `webtransport`: frames without offsets, credit and parameters; WebSocket only (deployed relays,
    /// captured).
    Legacy,
    /// `qmux-00`: credit, one frame per WebSocket message (draft-ietf-quic-qmux-00).
    Qmux00,
    /// `qmux-01`: records of frames, datagrams, pings (draft-ietf-quic-qmux-01).
    Qmux01,
}

/// Carrier of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QmuxCarrier {
    /// WebSocket messages, after the upgrade.
    WebSocket,
    /// Byte stream: TCP, TLS or a Unix socket.
    Bytes,
}

#[cfg(test)]
mod tests;
