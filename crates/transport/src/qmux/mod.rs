//! Streams over one ordered carrier of bytes: qmux and the older framing, over WebSocket, TCP and Unix
//! sockets. Sans-IO: bytes in, bytes out, no socket and no clock.

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
