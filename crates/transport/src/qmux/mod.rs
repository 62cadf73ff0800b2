//! Streams over one ordered carrier of bytes: qmux and the older framing, over WebSocket, TCP and Unix
//! sockets. Sans-IO: bytes in, bytes out, no socket and no clock.
//!
//! A worker's turn with a [`Connection`]:
//!
//! 1. While [`Connection::wants_input`], read the socket and give what came to [`Connection::receive`];
//!    at its end, or when it fails, call [`Connection::end_of_input`]. While it wants none, leave the
//!    socket unread: the peer is ahead of us.
//! 2. When [`Connection::timeout`] is due, [`Connection::handle_timeout`].
//! 3. Look at [`Connection::phase`]: at `Ready` make a session, which polls and writes
//!    ([`relay_session::transport::Transport`]).
//! 4. While the socket takes more, [`Connection::transmit`] and write. Keep what the socket left and write
//!    it before transmitting again, so that little is decided early.
//! 5. If then [`Connection::has_event`], let the session poll again (what was sent has made room), and go
//!    on with 4.
//! 6. At `Closed` flush, then shut down writing and read on (what comes is thrown away), so that the
//!    farewell arrives. At `Drained` drop it and close the socket.
//!
//! Nothing here wakes anybody: every change comes from one of these calls.

mod carrier;
mod clock;
mod config;
mod connection;
mod counts;
mod datagrams;
mod frame;
mod limits;
mod output;
mod params;
mod recv;
mod send;
mod streams;
mod violation;
mod websocket;

pub use config::Config;
pub use connection::Connection;

pub use crate::quic::{Phase, Traffic};

/// How streams are laid out on the carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// `webtransport`: frames without offsets, credit and parameters; WebSocket only.
    Legacy,
    /// `qmux-00`: credit, one frame a WebSocket message.
    Qmux00,
    /// `qmux-01`: records of frames, datagrams, pings.
    Qmux01,
}

/// What carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Over {
    /// Messages of a WebSocket, whose upgrade is done.
    WebSocket,
    /// Bytes: TCP, TLS or a Unix socket.
    Bytes,
}

#[cfg(test)]
mod tests;
