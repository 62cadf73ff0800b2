//! One worker: its socket, its sessions, and the turn that runs them.

mod delivery;
mod flush;
mod messages;
mod receive;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use mio::Registry;
use relay_core::CoreEvent;
use relay_model::{LogId, SessionId, WorkerId};

use super::{
    change_queue::ChangeQueue, core_queue::CoreQueue, host::SessionHost, peers::PeerSet,
    quic_endpoint::QuicEndpoint, shared::WorkerShared, turn_clock::TurnClock, udp_port::UdpPort,
};
use crate::{
    mailbox::{Mailbox, WorkerMessage},
    socket::Io,
};

/// Delay before core is tried again when its channel is full.
pub(super) const RETRY_CORE: Duration = Duration::from_millis(1);

/// Time of the next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextTurn {
    /// At once: there is work left.
    Now,
    /// At this time, or when the socket or another thread wakes the worker.
    At(Instant),
    /// When the socket or another thread wakes the worker.
    Idle,
}

/// One worker: its sessions, its UDP socket, and the work that other threads leave for it.
pub struct Worker {
    id: WorkerId,
    shared: Arc<WorkerShared>,
    pub(super) host: SessionHost,
    pub(super) udp: UdpPort,
    /// Changes of the store that are to be delivered.
    pub(super) changes: ChangeQueue,
    mailbox: Arc<Mailbox>,
    messages: VecDeque<WorkerMessage>,
    clock: TurnClock,
    /// Sessions here changed a log after this turn took the changed logs.
    woke_itself: bool,
    /// Buffers reused each turn.
    changed: Vec<LogId>,
    watchers: Vec<SessionId>,
}

impl Worker {
    /// Creates a worker without connections. `mtu_discovery`: its socket never fragments.
    pub fn new(
        id: WorkerId,
        shared: Arc<WorkerShared>,
        mailbox: Arc<Mailbox>,
        core: Sender<Vec<CoreEvent>>,
        mtu_discovery: bool,
        now: Instant,
    ) -> Self {
        let peers = PeerSet::new(id, QuicEndpoint::new(&shared.quic, id, mtu_discovery), now);
        Self {
            id,
            host: SessionHost::new(shared.clone(), mailbox.clone(), CoreQueue::new(core), peers),
            shared,
            udp: UdpPort::new(),
            changes: ChangeQueue::default(),
            mailbox,
            messages: VecDeque::new(),
            clock: TurnClock::new(now),
            woke_itself: false,
            changed: Vec::new(),
            watchers: Vec::new(),
        }
    }

    /// Registers stream sockets at `registry`; the token of the peer at index `i` is `first + i`. Limits them
    /// to `max`, for the limit on open files.
    pub fn watch_streams(&mut self, registry: Registry, first: usize, max: usize) {
        self.host.peers.streams.watch(registry, first, max);
    }

    /// Marks the socket as readable.
    pub fn readable(&mut self) {
        self.udp.set_readable();
    }

    /// Marks the socket as writable.
    pub fn writable(&mut self) {
        self.udp.set_writable();
    }

    /// Whether the socket is full, so that [`Worker::writable`] must be called once it has room.
    pub fn is_full(&self) -> bool {
        self.udp.is_full()
    }

    /// Marks the stream socket of the peer at `index` as readable or writable.
    pub fn stream_ready(&mut self, index: usize, readable: bool, writable: bool) {
        let Ok(index) = u32::try_from(index) else { return };
        let peers = &mut self.host.peers;
        let Some(stream) = peers.slots.get_mut(index).and_then(|peer| peer.carrier.stream()) else { return };
        if stream.set_ready(readable, writable) {
            peers.ready.push(index);
        }
    }

    /// Counts a wake-up of the thread.
    pub fn woken(&mut self) {
        self.host.meter.wakes += 1;
    }

    /// Takes one turn.
    pub fn turn(&mut self, now: Instant, io: &mut impl Io) -> NextTurn {
        self.host.meter.turns += 1;
        self.clock.latest = now;
        self.host.peers.ready.begin_turn(now);
        self.host.peers.streams.refill();
        self.retry_full(now, io);
        self.receive(now, io);
        self.host.peers.expire(now);
        self.host.expire_permits(now);
        self.host.continue_drain(now);
        self.process_ready(now, io);
        self.host.charge_active(now);
        self.read_messages(now, io);
        self.deliver_changes(now, io);
        self.walk_board(now, io);
        self.flush(io);
        self.host.core.send();
        self.wake_others();
        self.publish(now, io);
        let is_empty = self.is_empty();
        self.host.drain.count_off(is_empty);
        self.mailbox.set_load(self.host.peers.slots.len());
        self.next(now)
    }

    /// Whether it is drained or shut down, with nothing left to send at any worker or out of time.
    pub fn is_done(&self, now: Instant) -> bool {
        self.host.drain.is_done(now, self.is_empty())
    }

    /// Sends the last events to core and publishes the last counters. May wait for core.
    pub fn finish(&mut self) {
        let now = Instant::now();
        for index in self.host.peers.indices() {
            self.host.report(index, now, None, None);
        }
        self.host.core.finish();
        self.publish_counters(now);
    }

    /// Recovers from a panic outside of any connection's share: ends every session, and replaces the
    /// endpoint on the same socket.
    pub fn rebuild(&mut self, now: Instant) {
        self.host.rebuild(now, |_| true);
        self.udp.clear();
    }

    /// Recovers from a panic in the endpoint itself: sessions over stream sockets stay open.
    fn rebuild_endpoint(&mut self, now: Instant) {
        self.host.rebuild(now, |peer| !peer.carrier.is_stream());
        self.udp.clear();
    }

    /// Whether no peer is left, and nothing to send.
    fn is_empty(&self) -> bool {
        self.host.peers.slots.is_empty() && self.udp.packets.is_empty() && self.messages.is_empty()
    }

    /// Wakes the workers with readers of the logs that this turn appended to.
    fn wake_others(&mut self) {
        self.woke_itself = false;
        let wakes = &mut self.host.wakes;
        if !wakes.is_empty() {
            let store = &self.shared.store;
            // Its own changes are delivered in its next turn, without a wake-up.
            self.woke_itself = wakes.contains(self.id) && store.ready_list(self.id).is_pending();
            store.wake(wakes, Some(self.id));
        }
    }

    fn publish(&mut self, now: Instant, io: &impl Io) {
        self.host.peers.ready.end_turn(now, io.now(), &mut self.host.meter);
        if self.clock.is_publish_due(now) {
            self.publish_counters(now);
        }
    }

    fn publish_counters(&mut self, now: Instant) {
        self.host.peers.gauge(now, &mut self.host.meter);
        self.shared.board.publish(usize::from(self.id.0), &self.host.meter);
    }

    fn next(&self, now: Instant) -> NextTurn {
        let (host, peers) = (&self.host, &self.host.peers);
        let is_busy = self.udp.has_input()
            || !self.messages.is_empty()
            || !self.changes.is_empty()
            || self.woke_itself
            || host.fanout.is_due()
            || !peers.ready.is_empty()
            || peers.flush.has_any(self.udp.is_full());
        if is_busy {
            return NextTurn::Now;
        }
        let behind = host.core.is_behind().then(|| now + RETRY_CORE);
        let rare = earlier(earlier(self.udp.retry_at(), host.drain.next(now)), behind);
        let first = earlier(peers.timers.next_wake(), self.clock.publish_at());
        let permits_and_charges = earlier(host.expiry.next(), peers.charges.next());
        earlier(earlier(first, permits_and_charges), rare).map_or(NextTurn::Idle, NextTurn::At)
    }
}

/// The earlier of two times, if any.
#[inline]
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
