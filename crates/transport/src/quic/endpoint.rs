//! QUIC endpoint of one worker with all its connections.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use aws_lc_rs::rand;
use bytes::BytesMut;
use quinn_proto::{ConnectionHandle, DatagramEvent, EndpointEvent, Incoming};
use relay_model::WorkerId;

use super::{
    ConnKey, ConnPhase, Ecn, EndpointStats, FeedOutcome, OutgoingConfig, QuicConfig, QuicConnection,
    Transmit, config::Most, connection::DatagramOutcome, handshakes::HandshakeLimiter, versions::VersionSet,
};

/// Limit of queued datagrams over all connections of an endpoint.
const WAITING: usize = 4_096;

/// An outgoing connection could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect: {0}")]
pub struct ConnectError(#[from] quinn_proto::ConnectError);

/// QUIC endpoint of one worker. Owns its connections and routes datagrams to them.
pub struct Endpoint {
    inner: quinn_proto::Endpoint,
    /// Indexed by the QUIC library's handle, which is reused only after [`Endpoint::remove`].
    slots: Vec<ConnSlot>,
    live: usize,
    handshakes: HandshakeLimiter,
    /// Number of queued datagrams over all connections.
    waiting: usize,
    /// Connection that is processing a datagram; still set after a panic only.
    feeding: Option<ConnKey>,
    versions: VersionSet,
    most: Most,
    /// Whether new connections are refused.
    refusing: bool,
    stats: EndpointStats,
}

#[derive(Default)]
struct ConnSlot {
    generation: u32,
    conn: Option<Box<QuicConnection>>,
}

impl Endpoint {
    /// Creates an endpoint for `worker`. `seed` fixes its randomness (tests); `None` draws it from the system.
    /// `mtu_discovery`: the socket sets DF, so that the path MTU may be probed.
    pub fn new(config: &QuicConfig, worker: WorkerId, mtu_discovery: bool, seed: Option<[u8; 32]>) -> Self {
        let cid_seed = seed.unwrap_or_else(|| {
            let mut drawn = [0; 32];
            rand::fill(&mut drawn).expect("the system provides random bytes");
            drawn
        });
        let inner = quinn_proto::Endpoint::new(
            Arc::new(config.endpoint(worker, cid_seed)),
            Some(config.server.clone()),
            mtu_discovery,
            seed,
        );
        Self {
            inner,
            slots: Vec::new(),
            live: 0,
            handshakes: HandshakeLimiter::default(),
            waiting: 0,
            feeding: None,
            versions: config.versions,
            most: config.most,
            refusing: false,
            stats: EndpointStats::default(),
        }
    }

    /// Processes one received datagram. `remote` may be v4-mapped; it is canonicalised here. A stateless response
    /// is written to `out`, which is cleared first.
    pub fn handle(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local_ip: Option<IpAddr>,
        ecn: Option<Ecn>,
        data: BytesMut,
        out: &mut Vec<u8>,
    ) -> FeedOutcome {
        out.clear();
        self.feeding = None;
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let bytes = data.len();
        match self.inner.handle(now, remote, local_ip, ecn, data, out) {
            None => {
                self.stats.strays = self.stats.strays.saturating_add(1);
                FeedOutcome::Nothing
            }
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let key = self.key(handle);
                let Some(conn) = find(&mut self.slots, key) else { return FeedOutcome::Nothing };
                self.feeding = Some(key);
                let fed = conn.receive(event, bytes, self.waiting < WAITING);
                self.feeding = None;
                match fed {
                    DatagramOutcome::Fed => FeedOutcome::Conn(key),
                    DatagramOutcome::Waits => {
                        self.waiting += 1;
                        FeedOutcome::Conn(key)
                    }
                    DatagramOutcome::Dropped => {
                        self.stats.dropped = self.stats.dropped.saturating_add(1);
                        FeedOutcome::Dropped(key)
                    }
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.decide(incoming, now, out),
            Some(DatagramEvent::Response(transmit)) => {
                self.stats.responses = self.stats.responses.saturating_add(1);
                FeedOutcome::Respond(transmit.into())
            }
        }
    }

    /// Returns whether any connection has queued datagrams.
    #[inline]
    pub fn has_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Starts an outgoing connection; flush it to send its first packet. It carries raw QUIC streams for any
    /// ALPN.
    pub fn connect(
        &mut self,
        now: Instant,
        config: &OutgoingConfig,
        remote: SocketAddr,
        server_name: &str,
    ) -> Result<ConnKey, ConnectError> {
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let (handle, conn) = self.inner.connect(now, config.inner.clone(), remote, server_name)?;
        Ok(self.insert(handle, QuicConnection::new(conn, now, false, VersionSet::ALL, self.most)))
    }

    /// Handles the due timers of a connection. Unknown keys are ignored.
    pub fn handle_timeout(&mut self, key: ConnKey, now: Instant) {
        if let Some(conn) = self.conn(key) {
            conn.handle_timeout(now);
        }
    }

    /// Processes the effects of input, a timeout or a close on a connection, once per batch. Unknown keys are
    /// `Drained`.
    pub fn process_connection(&mut self, key: ConnKey, now: Instant) -> ConnPhase {
        let Self { inner, slots, handshakes, waiting, .. } = self;
        let Some(conn) = find(slots, key) else { return ConnPhase::Drained };
        *waiting = waiting.saturating_sub(conn.feed_waiting());
        while let Some(event) = conn.link.quic.poll_endpoint_events() {
            // Passed on by `remove`: until then the library must not reuse the handle.
            if event.is_drained() {
                continue;
            }
            if let Some(reply) = inner.handle_event(ConnectionHandle(key.slot()), event) {
                conn.feed(reply, 0);
            }
        }
        if conn.advance(now) {
            handshakes.leave();
        }
        conn.phase()
    }

    /// Returns the connection of `key`; `None` once removed.
    pub fn conn(&mut self, key: ConnKey) -> Option<&mut QuicConnection> {
        find(&mut self.slots, key)
    }

    /// Removes a connection, which is drained, or is dropped without a close after a panic.
    pub fn remove(&mut self, key: ConnKey) {
        let slot = self.slots.get_mut(key.slot()).filter(|slot| slot.generation == key.generation);
        let Some(conn) = slot.and_then(|slot| slot.conn.take()) else { return };
        self.waiting = self.waiting.saturating_sub(conn.input.len());
        if conn.handshake.is_unvalidated() {
            self.handshakes.leave();
        }
        self.live = self.live.saturating_sub(1);
        self.inner.handle_event(ConnectionHandle(key.slot()), EndpointEvent::drained());
    }

    /// After a panic of [`Endpoint::handle`]: returns the connection that was processing the datagram, which must
    /// be removed. `None`: the panic was in the endpoint itself, whose state is unreliable.
    pub fn suspect(&self) -> Option<ConnKey> {
        self.feeding
    }

    /// Sets whether new connections are refused, with CONNECTION_REFUSED before any handshake (RFC 9000 §20.1).
    pub fn refuse_new(&mut self, on: bool) {
        self.refusing = on;
    }

    /// Appends the keys of all connections, for closing them at shutdown.
    pub fn keys(&self, out: &mut Vec<ConnKey>) {
        let held = self.slots.iter().enumerate().filter(|(_, slot)| slot.conn.is_some());
        out.extend(held.map(|(index, slot)| ConnKey { slot: index as u32, generation: slot.generation }));
    }

    /// Number of connections, draining ones included.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Returns whether there are no connections.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Counters of the endpoint.
    pub fn stats(&self) -> &EndpointStats {
        &self.stats
    }

    /// Accepts, refuses or retries a connection attempt at once: an undecided attempt could buffer megabytes.
    fn decide(&mut self, incoming: Incoming, now: Instant, out: &mut Vec<u8>) -> FeedOutcome {
        if self.refusing {
            self.stats.refused = self.stats.refused.saturating_add(1);
            return FeedOutcome::Refused(self.inner.refuse(incoming, out).into());
        }
        let validated = incoming.remote_address_validated();
        if !validated && self.handshakes.is_crowded(now) && incoming.may_retry() {
            return match self.inner.retry(incoming, out) {
                Ok(transmit) => {
                    self.stats.retries = self.stats.retries.saturating_add(1);
                    FeedOutcome::Respond(transmit.into())
                }
                Err(error) => {
                    self.inner.ignore(error.into_incoming());
                    FeedOutcome::Nothing
                }
            };
        }
        if !validated {
            self.handshakes.begin(now);
        }
        match self.inner.accept(incoming, now, out, None) {
            Ok((handle, conn)) => {
                self.stats.accepted = self.stats.accepted.saturating_add(1);
                if !validated {
                    self.handshakes.enter();
                }
                let conn = QuicConnection::new(conn, now, !validated, self.versions, self.most);
                FeedOutcome::New(self.insert(handle, conn))
            }
            Err(error) => {
                self.stats.refused = self.stats.refused.saturating_add(1);
                error.response.map_or(FeedOutcome::Nothing, |transmit| FeedOutcome::Respond(transmit.into()))
            }
        }
    }

    fn insert(&mut self, handle: ConnectionHandle, conn: QuicConnection) -> ConnKey {
        if self.slots.len() <= handle.0 {
            self.slots.resize_with(handle.0 + 1, ConnSlot::default);
        }
        if let Some(slot) = self.slots.get_mut(handle.0) {
            debug_assert!(slot.conn.is_none(), "handles are reused after removal only");
            slot.generation = slot.generation.wrapping_add(1);
            slot.conn = Some(Box::new(conn));
            self.live = self.live.saturating_add(1);
        }
        self.key(handle)
    }

    fn key(&self, handle: ConnectionHandle) -> ConnKey {
        let generation = self.slots.get(handle.0).map_or(0, |slot| slot.generation);
        ConnKey { slot: handle.0 as u32, generation }
    }
}

fn find(slots: &mut [ConnSlot], key: ConnKey) -> Option<&mut QuicConnection> {
    let slot = slots.get_mut(key.slot()).filter(|slot| slot.generation == key.generation)?;
    slot.conn.as_deref_mut()
}

impl From<quinn_proto::Transmit> for Transmit {
    fn from(from: quinn_proto::Transmit) -> Self {
        Self {
            destination: from.destination,
            ecn: from.ecn,
            len: from.size,
            segment_size: from.segment_size,
            src_ip: from.src_ip,
        }
    }
}
