//! QUIC without sockets, clock or wakes: one [`Endpoint`] a worker, one [`Connection`] a peer.
//!
//! A worker's turn, in order:
//!
//! 1. [`Endpoint::handle`] every received datagram; note the key of each [`Fed::Conn`] and
//!    [`Fed::New`], send each [`Fed::Respond`].
//! 2. [`Endpoint::handle_timeout`] for each connection whose [`Connection::next_deadline`] passed.
//! 3. [`Endpoint::settle`] once for each connection touched by 1 or 2: events are exchanged with the
//!    endpoint, the handshake and the CONNECT go on, the valve is set. Then look at
//!    [`Connection::phase`]: at `Ready` make a session (`Ready` is also the first event its
//!    `poll` will see); `Drained` means [`Endpoint::remove`] it.
//! 4. The session polls and writes ([`relay_session::transport::Transport`]).
//! 5. Flush: [`Connection::poll_transmit`] until it gives `None`, then [`Endpoint::settle`] again only
//!    if a session closed it, then read [`Connection::next_deadline`] anew.
//!
//! A connection that never becomes `Ready` needs no session: it closes itself at
//! `limits::SETUP_TIMEOUT` and must only be flushed, timed and removed.

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

pub use config::{ClientConfig, Config, ConfigError, Congestion, Tuning, certificate, mtu};
pub use connection::Connection;
pub use endpoint::{ConnectError, Endpoint};
pub use quinn_proto::EcnCodepoint as Ecn;
pub use relay_wire::lite::Version;
pub use tls::{Clients, PeerCertificate, RootsError, Tickets, Tls};

/// ALPN of WebTransport. The names of raw QUIC are those of the [`Version`]s.
pub const H3: &str = "h3";

/// Key of a connection of one endpoint: a slot and its generation, so that a stale key finds nothing.
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

    /// Slot and generation in one number, for a timer or a poll token.
    pub fn to_u64(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.slot)
    }

    /// The inverse of [`ConnKey::to_u64`].
    pub fn from_u64(raw: u64) -> Self {
        Self { slot: raw as u32, generation: (raw >> 32) as u32 }
    }
}

/// What a received datagram led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fed {
    /// Nothing to do: dropped or ignored.
    Nothing,
    /// This connection took it.
    Conn(ConnKey),
    /// It was for this connection, which has too many waiting, and is lost.
    Dropped(ConnKey),
    /// It opened this connection.
    New(ConnKey),
    /// Send this; its bytes are in the buffer given to [`Endpoint::handle`].
    Respond(Transmit),
    /// As `Respond`: a new connection was refused because of [`Endpoint::refuse_new`].
    Refused(Transmit),
}

/// What to send: the whole buffer given to the call that returned it, which held nothing else
/// (the QUIC library writes from offset 0 and measures by the buffer: one buffer a transmit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub destination: SocketAddr,
    /// ECN mark, if any.
    pub ecn: Option<Ecn>,
    /// Bytes, all segments together.
    pub len: usize,
    /// Set when there is more than one datagram: each but the last has this many bytes.
    pub segment_size: Option<usize>,
    /// Local address to send from, if known.
    pub src_ip: Option<IpAddr>,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Handshake or CONNECT not done.
    Opening,
    /// Sessions may use it.
    Ready,
    /// Closed or lost. A session still gets its `Closed` event from `poll`.
    Closed,
    /// Closed, and nothing more will be sent: remove it once its session is gone.
    Drained,
}

/// What one connection has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes received, UDP payload.
    pub bytes_in: u64,
    /// Bytes sent, UDP payload.
    pub bytes_out: u64,
}

/// Counters of one endpoint since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections accepted.
    pub accepted: u64,
    /// Retry packets sent instead.
    pub retries: u64,
    /// Connection attempts refused, or that failed in their first packet.
    pub refused: u64,
    /// Other stateless answers: version negotiation, resets, refusals.
    pub responses: u64,
    /// Datagrams of connections that had too many waiting.
    pub dropped: u64,
    /// Datagrams that belonged to nobody and got no answer.
    pub strays: u64,
}

#[cfg(test)]
mod tests;
