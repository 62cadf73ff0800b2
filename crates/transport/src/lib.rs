//! Transports of sessions, behind the session engine's `Transport` trait: QUIC, WebTransport over HTTP/3, and
//! qmux over WebSocket, TCP and Unix sockets.

#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::needless_pass_by_ref_mut,
        clippy::manual_let_else
    )
)]
#![warn(unused_qualifications, unnameable_types)]

pub mod qmux;
pub mod quic;

#[cfg(test)]
#[path = "../../../fuzz/corpus.rs"]
mod corpus;
