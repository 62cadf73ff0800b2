//! QUIC and WebTransport under the session engine's Transport trait.

pub mod quic;
