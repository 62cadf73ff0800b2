//! Transports of sessions, behind the session engine's `Transport` trait: QUIC, WebTransport over HTTP/3, and
//! qmux over WebSocket, TCP and Unix sockets.

pub mod qmux;
pub mod quic;
