//! Settings of a relay.

use std::{
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use relay_core::Takeover;
use relay_model::{
    Hop,
    limits::{self, SessionLimits},
};
use relay_transport::quic::{Clients, QuicTuning, Tickets};
use rustls::server::ResolvesServerCert;

use crate::{
    engine::Fault,
    gate::{Gate, WallClock},
    ledger::StateLimits,
    socket::Steering,
};

/// Default of [`CacheLimits::max_age`].
const MAX_AGE: Duration = Duration::from_secs(30);
/// Default of [`CacheLimits::capacity`].
const CACHE_BYTES: u64 = 256 * 1024 * 1024;
/// Default of [`CacheLimits::ceiling`].
const MEMORY_BYTES: u64 = 512 * 1024 * 1024;
/// Default of [`RelayOptions::state`].
const STATE: StateLimits = StateLimits { clients: 256 * 1024 * 1024, peers: 128 * 1024 * 1024 };
/// Default of [`RelayOptions::stream_sockets`], for the most common limit of 1,024 descriptors.
const STREAM_SOCKETS: usize = 768;

/// Limits on the group cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// Target size, bytes.
    pub capacity: u64,
    /// Hard limit, bytes: past it even the latest groups are evicted.
    pub ceiling: u64,
    /// Longest time that a superseded group is cached.
    pub max_age: Duration,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { capacity: CACHE_BYTES, ceiling: MEMORY_BYTES, max_age: MAX_AGE }
    }
}

/// Settings of a relay. [`RelayOptions::new`] sets defaults.
#[derive(Clone)]
pub struct RelayOptions {
    /// Address to listen on. Port 0 takes any free one; an unspecified IPv6 address includes IPv4.
    pub bind: SocketAddr,
    /// With a `bind` of 127.0.0.1: also listen on ::1, if the machine has IPv6.
    pub loopback_v6: bool,
    /// Worker threads, each with its own socket, endpoint and sessions. Default: one per core.
    pub workers: usize,
    /// Source of the TLS certificate.
    pub resolver: Arc<dyn ResolvesServerCert>,
    /// Trust anchors for client certificates; `None` requests none.
    pub clients: Option<Arc<Clients>>,
    /// TLS session tickets. Renew them when the certificate changes, so that earlier sessions cannot be
    /// resumed.
    pub tickets: Arc<Tickets>,
    /// Key for reset tokens and connection ids, which must be stable over restarts.
    pub secret: [u8; 32],
    /// QUIC settings.
    pub tuning: QuicTuning,
    /// Authorizer of sessions, such as a `relay_auth::Policy`.
    pub gate: Arc<dyn Gate>,
    /// Source of the time of day, for the expiry of permits. Default: the system clock.
    pub wall: WallClock,
    /// Hop id of the relay. Anonymous by default; give each relay its own.
    pub hop: Hop,
    /// Time that the path of a vanished publisher is kept.
    pub linger: Duration,
    /// Limits on the group cache.
    pub cache: CacheLimits,
    /// Limits on the memory of sessions without payload, bytes: above three quarters the largest are closed.
    pub state: StateLimits,
    /// Rule for a second publisher of a path.
    pub takeover: Takeover,
    /// Limits of each session that is not a relay of the same cluster.
    pub session_limits: SessionLimits,
    /// Distribution of datagrams to workers.
    pub steering: Steering,
    /// Limit on stream sockets over all workers; each takes a descriptor.
    pub stream_sockets: usize,
    /// Fault injection, for tests.
    pub fault: Option<Fault>,
}

impl RelayOptions {
    /// Settings with defaults for all but the arguments.
    pub fn new(
        bind: SocketAddr,
        resolver: Arc<dyn ResolvesServerCert>,
        secret: [u8; 32],
        gate: Arc<dyn Gate>,
    ) -> Self {
        Self {
            bind,
            loopback_v6: false,
            workers: thread::available_parallelism().map_or(1, usize::from).min(limits::WORKERS),
            resolver,
            clients: None,
            tickets: Arc::default(),
            secret,
            tuning: QuicTuning::default(),
            gate,
            wall: Arc::new(SystemTime::now),
            hop: Hop::ANONYMOUS,
            linger: limits::LINGER,
            cache: CacheLimits::default(),
            state: STATE,
            takeover: Takeover::default(),
            session_limits: SessionLimits::default(),
            steering: Steering::default(),
            stream_sockets: STREAM_SOCKETS,
            fault: None,
        }
    }
}
