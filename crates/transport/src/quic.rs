//! Sans-IO QUIC without sockets, clock or wakers: one [`Endpoint`] per worker, one [`QuicConnection`] per peer.
//!
//! A worker's turn, in order:
//!
//! 1. Call [`Endpoint::handle`] for every received datagram; collect the key of each [`FeedOutcome::Conn`] and
//!    [`FeedOutcome::New`], send each [`FeedOutcome::Respond`].
//! 2. Call [`Endpoint::handle_timeout`] for each connection whose [`QuicConnection::next_deadline`] passed.
//! 3. Call [`Endpoint::process_connection`] once for each connection touched by 1 or 2: it exchanges events with the
//!    endpoint, advances the handshake and the CONNECT, and sets the valve. Then check
//!    [`QuicConnection::phase`]: at `Ready` create a session (`Ready` is also the first event of its `poll`); at
//!    `Drained` call [`Endpoint::remove`].
//! 4. The session polls and writes ([`relay_model::transport::Transport`]).
//! 5. Flush: call [`QuicConnection::poll_transmit`] until it returns `None`, then [`Endpoint::process_connection`] again only
//!    if a session closed the connection, then read [`QuicConnection::next_deadline`] again.
//!
//! A connection that never becomes `Ready` needs no session: it closes itself after `limits::SETUP_TIMEOUT`
//! and only has to be flushed, timed and removed.

mod cid;
mod code;
mod config;
mod connection;
mod endpoint;
mod handshakes;
mod rate;
mod tls;
mod versions;
mod webtransport;

use std::net::{IpAddr, SocketAddr};

pub use config::{ConfigError, Congestion, OutgoingConfig, QuicConfig, QuicTuning, certificate, mtu};
pub use connection::{QuicConnection, SessionLayer};
pub use endpoint::{ConnectError, Endpoint};
pub use quinn_proto::EcnCodepoint as Ecn;
pub use relay_wire::Version;
pub use tls::{Clients, PeerCertificate, RootsError, ServerTls, Tickets};

/// ALPN of HTTP/3, for WebTransport (RFC 9114 §3.2). Raw QUIC uses the names of the [`Version`]s.
pub const H3: &str = "h3";

/// Key of a connection of one endpoint: slot and generation, so that a stale key matches nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnKey {
    slot: u32,
    generation: u32,
}

impl ConnKey {
    /// Index of the slot: small, dense, reused by later generations.
    pub fn slot(self) -> usize {
        self.slot as usize
    }

    /// Packs slot and generation into one integer, for timers and poll tokens.
    pub fn to_u64(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.slot)
    }

    /// Inverse of [`ConnKey::to_u64`].
    pub fn from_u64(raw: u64) -> Self {
        Self { slot: raw as u32, generation: (raw >> 32) as u32 }
    }
}

/// Result of a received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedOutcome {
    /// Nothing to do: the datagram was dropped or ignored.
    Nothing,
    /// The datagram was passed to this connection.
    Conn(ConnKey),
    /// The datagram was dropped, because too many are queued for this connection or the endpoint.
    Dropped(ConnKey),
    /// The datagram opened this connection.
    New(ConnKey),
    /// A stateless response is to be sent; its bytes are in the buffer passed to [`Endpoint::handle`].
    Respond(Transmit),
    /// Like `Respond`, for a connection attempt refused because of [`Endpoint::refuse_new`].
    Refused(Transmit),
}

/// Datagrams to send: the whole buffer passed to the call that returned this value. The QUIC library writes
/// from offset 0 and measures by the buffer, so that each transmit needs its own, empty buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Destination address.
    pub destination: SocketAddr,
    /// ECN mark, if any.
    pub ecn: Option<Ecn>,
    /// Bytes of all segments together.
    pub len: usize,
    /// Bytes of each datagram but the last; `None` for a single datagram.
    pub segment_size: Option<usize>,
    /// Local address to send from, if known.
    pub src_ip: Option<IpAddr>,
}

/// Phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnPhase {
    /// Handshake or CONNECT in progress.
    Opening,
    /// Usable by a session.
    Ready,
    /// Closed or lost. A session still gets its `Closed` event from `poll`.
    Closed,
    /// Closed, with nothing more to send: remove the connection once its session is gone.
    Drained,
}

/// Traffic of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnTraffic {
    /// Bytes received (UDP payload, or bytes of the carrier).
    pub bytes_in: u64,
    /// Bytes sent (UDP payload, or bytes of the carrier).
    pub bytes_out: u64,
}

/// Counters of one endpoint since its creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointStats {
    /// Connections accepted.
    pub accepted: u64,
    /// Retry packets sent.
    pub retries: u64,
    /// Connection attempts refused, or failed in their first packet.
    pub refused: u64,
    /// Other stateless responses: version negotiation, stateless resets, refusals.
    pub responses: u64,
    /// Datagrams dropped because too many were queued.
    pub dropped: u64,
    /// Datagrams of unknown connections that were dropped without a response.
    pub strays: u64,
}

#[cfg(test)]
mod tests;
