//! What carries sessions, under the session engine's Transport trait: QUIC, WebTransport, and qmux over
//! whatever carries bytes in order.

pub mod qmux;
pub mod quic;
