//! Engine of a worker: everything between its socket and its sessions, one turn at a time.
//!
//! [`Worker::turn`] takes the time and an [`Io`], so a test drives it without epoll. The steps of a turn:
//! receive and feed; settle peers that were fed or are due; letters of other threads; changes of logs, once a
//! log for all its readers here; flush every connection that has something to send; send events to core and
//! wake other workers. Each step has a [share](share) of the turn that the others cannot use up; the rest
//! of a step comes next turn, in the order in which it came. A session has a budget of work for each call
//! ([`Work`]): a session that has used it up waits behind all that have not.
//!
//! Each connection's share runs guarded: a panic costs that connection only.

mod admit;
mod carrier;
mod delivery;
mod drain;
mod expiry;
mod finish;
mod flush;
mod inspect;
mod memory;
mod peer;
mod ready;
mod receive;
mod revoke;
mod share;
mod stream;
#[cfg(test)]
mod tests;
mod trace;

use std::{
    collections::{HashSet, VecDeque},
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::Sender;
use relay_core::CoreEvent;
use relay_meter::{CounterBoard, Worker as Meter};
use relay_model::{Hop, LogId, SessionId, WorkerId, limits::SessionLimits};
use relay_session::{Cx, Fanout, Session, SessionOutput, Work};
use relay_store::{Store, WakeSet};
use relay_transport::quic::{self, Endpoint};

use crate::{
    gate::{Gate, WallClock},
    ledger::MemoryLedger,
    mailbox::{Mailbox, WorkerMessage},
    outbox::PacketQueue,
    slots::SessionSlots,
    socket::{Io, UdpReceived},
    wheel::Wheel,
};
use carrier::{Conn, PeerCarrier};
use delivery::Delivery;
use drain::Ending;
use expiry::Expiring;
use memory::Uncharged;
use peer::{PeerState, WorkerPeer};
use ready::ReadyQueue;
pub use revoke::IDENTITY_CHANGED;
use stream::{StreamSockets, turn_away};
pub use trace::SESSIONS;

/// Delay before a full socket is tried again without a writable event: if the kernel lacks memory,
/// none comes.
const RETRY_FULL: Duration = Duration::from_millis(5);

/// Part of a connection's work in a turn, for faults and panic counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TurnStage {
    /// Fed datagrams or bytes take effect.
    Feed,
    /// The session handles transport events.
    Input,
    /// Due timers run.
    Timeout,
    /// An order of core is executed.
    Order,
    /// Changes of a log or of the announce board are delivered.
    News,
    /// Packets are written.
    Flush,
}

/// Test hook called at each stage of each session, which may panic to inject a fault.
pub type Fault = Arc<dyn Fn(TurnStage, SessionId) + Send + Sync>;

/// State shared by the workers of a relay.
pub struct WorkerShared {
    /// QUIC keys, TLS, limits.
    pub quic: quic::QuicConfig,
    /// Logs and the announce board.
    pub store: Arc<Store>,
    /// Memory accounting of sessions.
    pub ledger: Arc<MemoryLedger>,
    /// Authorizer of sessions.
    pub gate: Arc<dyn Gate>,
    /// Source of the time of day.
    pub wall: WallClock,
    /// Address the relay listens on.
    pub local: SocketAddr,
    /// Hop id of the relay.
    pub hop: Hop,
    /// Published counters.
    pub board: Arc<CounterBoard>,
    /// Start time of the process.
    pub started: Instant,
    /// Limits of each session that is not a relay of the same cluster.
    pub limits: SessionLimits,
    /// Fault injection, for tests.
    pub fault: Option<Fault>,
}

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

/// One worker: its endpoint, connections and sessions.
pub struct Worker {
    id: WorkerId,
    shared: Arc<WorkerShared>,
    mailbox: Arc<Mailbox>,
    core: Sender<Vec<CoreEvent>>,
    /// Events to be sent to core.
    events: Vec<CoreEvent>,

    endpoint: Endpoint,
    /// Whether the socket never fragments.
    mtu_discovery: bool,
    peers: SessionSlots<WorkerPeer>,
    /// Index of the peer by slot of its connection.
    by_conn: Vec<u32>,
    wheel: Wheel,
    expiring: Expiring,
    streams: StreamSockets,

    fanout: Fanout,
    wakes: WakeSet,
    /// Logs to pull, in order; `queued` holds the same for lookups.
    news: VecDeque<LogId>,
    queued: HashSet<LogId, foldhash::fast::RandomState>,
    /// Batch that has not reached all its readers.
    delivery: Option<Delivery>,
    board_changed: bool,
    /// Watchers with board changes that they have not been sent yet.
    board_queue: VecDeque<SessionId>,
    /// Sessions here changed a log after this turn took the changed logs.
    woke_itself: bool,

    uncharged: Uncharged,
    outbox: PacketQueue,
    /// Time since when the socket is full.
    full_since: Option<Instant>,
    /// Peers with something to settle.
    ready: ReadyQueue,
    /// Peers with something to send.
    dirty: VecDeque<u32>,
    /// The same for peers with their own sockets, which need not wait while the worker's is full.
    dirty_streams: VecDeque<u32>,

    /// Whether the socket may have datagrams.
    readable: bool,
    /// Batch of received datagrams, and the number of those already fed.
    received: Vec<UdpReceived>,
    fed: usize,
    /// Latest reading of the clock in this turn.
    clock: Instant,
    messages: VecDeque<WorkerMessage>,
    ending: Option<Ending>,
    /// Whether this worker is already subtracted from the busy ones of a drain.
    counted_off: bool,

    meter: Meter,
    published: Instant,
    /// Whether something was counted since `published`.
    unpublished: bool,
    random: Random,
    scratch: Scratch,
}

/// Vectors reused each turn.
#[derive(Default)]
struct Scratch {
    due: Vec<u32>,
    logs: Vec<LogId>,
    watchers: Vec<SessionId>,
    unsegmented: Vec<u32>,
    out: Vec<SessionOutput>,
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
        Self {
            endpoint: Endpoint::new(&shared.quic, id, mtu_discovery, None),
            id,
            shared,
            mailbox,
            core,
            events: Vec::new(),
            mtu_discovery,
            peers: SessionSlots::new(id),
            by_conn: Vec::new(),
            wheel: Wheel::new(now),
            expiring: Expiring::default(),
            streams: StreamSockets::default(),
            fanout: Fanout::new(id),
            wakes: WakeSet::new(),
            news: VecDeque::new(),
            queued: HashSet::default(),
            delivery: None,
            board_changed: false,
            board_queue: VecDeque::new(),
            woke_itself: false,
            uncharged: Uncharged::new(now),
            outbox: PacketQueue::default(),
            full_since: None,
            ready: ReadyQueue::new(now),
            dirty: VecDeque::new(),
            dirty_streams: VecDeque::new(),
            readable: true,
            received: Vec::new(),
            fed: 0,
            clock: now,
            messages: VecDeque::new(),
            ending: None,
            counted_off: false,
            meter: Meter::default(),
            published: now,
            unpublished: false,
            random: Random::new(),
            scratch: Scratch::default(),
        }
    }

    /// Marks the socket as readable.
    pub fn readable(&mut self) {
        self.readable = true;
    }

    /// Marks the socket as writable.
    pub fn writable(&mut self) {
        self.full_since = None;
    }

    /// Whether the socket is full, so that [`Worker::writable`] must be called once it has room.
    pub fn is_full(&self) -> bool {
        self.full_since.is_some()
    }

    /// Counts a wake-up of the thread.
    pub fn woken(&mut self) {
        self.meter.wakes += 1;
    }

    /// Takes one turn.
    pub fn turn(&mut self, now: Instant, io: &mut impl Io) -> NextTurn {
        self.meter.turns += 1;
        self.clock = now;
        self.begin_turn(now);
        self.streams.refill();
        self.retry_full(now, io);
        self.receive(now, io);
        self.expire(now);
        self.expire_permits(now);
        self.part(now);
        self.process_ready(now, io);
        self.charge_active(now);
        self.read_messages(now, io);
        self.deliver_changes(now, io);
        self.walk_board(now, io);
        self.flush(io);
        self.send_events();
        self.publish(now, io);
        self.count_off();
        self.mailbox.set_load(self.peers.len());
        self.next(now)
    }

    /// Whether it is drained or shut down, with nothing left to send at any worker or out of time.
    pub fn is_done(&self, now: Instant) -> bool {
        self.ending
            .as_ref()
            .is_some_and(|ending| now >= ending.until() || (self.has_nobody() && ending.is_everybody_done()))
    }

    /// Whether no peer is left, and nothing to send.
    fn has_nobody(&self) -> bool {
        self.peers.is_empty() && self.outbox.is_empty() && self.messages.is_empty()
    }

    /// Sends the last events to core and publishes the last counters. May wait for core.
    pub fn finish(&mut self) {
        let now = Instant::now();
        self.report_all(now);
        let _ = self.core.send(std::mem::take(&mut self.events));
        self.gauge(now);
        self.shared.board.publish(usize::from(self.id.0), &self.meter);
    }

    /// Recovers from a panic outside of any connection's share: ends every session, and replaces the
    /// endpoint on the same socket.
    pub fn rebuild(&mut self, now: Instant) {
        self.rebuild_without(now, |_| true);
    }

    /// Recovers from a panic in the endpoint itself: sessions over stream sockets stay open.
    fn rebuild_endpoint(&mut self, now: Instant) {
        self.rebuild_without(now, |peer| !peer.carrier.is_stream());
    }

    fn rebuild_without(&mut self, now: Instant, ends: impl Fn(&WorkerPeer) -> bool) {
        self.meter.panics_endpoint += 1;
        tracing::error!(worker = self.id.0, "endpoint lost to a panic: rebuilding it, all its sessions end");
        let indices: Vec<u32> = self.peers.indices().collect();
        for index in indices {
            if self.peers.get(index).is_some_and(&ends) {
                let Some(peer) = self.peers.remove(index) else { continue };
                self.forget_session(peer, now);
            }
        }
        self.endpoint = Endpoint::new(&self.shared.quic, self.id, self.mtu_discovery, None);
        self.by_conn.clear();
        self.wheel = Wheel::new(now);
        self.outbox.clear();
        self.uncharged.clear();
        self.ready.clear();
        self.dirty.clear();
        self.dirty_streams.clear();
        self.received.clear();
        self.fed = 0;
        self.readable = true;
        let left: Vec<u32> = self.peers.indices().collect();
        for index in left {
            if let Some(peer) = self.peers.get_mut(index) {
                (peer.is_touched, peer.is_dirty, peer.is_uncharged) = (false, false, false);
            }
            self.touch(index);
        }
    }

    /// Runs a session's part of a stage. Returns false if it panicked and was dropped.
    fn with_session(
        &mut self,
        index: u32,
        stage: TurnStage,
        now: Instant,
        run: impl FnOnce(&mut Session, &mut Conn<'_>, &mut Cx<'_>),
    ) -> bool {
        let Self { peers, endpoint, shared, fanout, wakes, meter, scratch, .. } = self;
        let Some(peer) = peers.get_mut(index) else { return false };
        let Some(session) = peer.session.as_deref_mut() else { return true };
        let Some(mut conn) = peer.carrier.conn(endpoint) else { return true };
        let id = peer.id;
        let survived = guard(|| {
            shared.fault(stage, id);
            let mut work = Work::new();
            let (store, work) = (&shared.store, &mut work);
            let mut cx = Cx { now, store, fanout, wakes, meter, out: &mut scratch.out, work };
            run(session, &mut conn, &mut cx);
            let is_spent = cx.work.is_spent();
            if is_spent {
                conn.hold_input();
            }
            is_spent
        });
        let Some(is_spent) = survived else {
            self.scratch.out.clear();
            self.drop_panicked(index, stage);
            return false;
        };
        if is_spent {
            self.put_behind(index, now);
        }
        self.mark_dirty(index);
        if !self.scratch.out.is_empty() {
            self.take_outputs(index, now);
        }
        true
    }

    /// Drops a connection and its session after a panic in `stage`; everything else stays.
    fn drop_panicked(&mut self, index: u32, stage: TurnStage) {
        *self.panics(stage) += 1;
        let Some(peer) = self.peers.remove(index) else { return };
        tracing::error!(session = %peer.id, ?stage, "session lost to a panic");
        let key = peer.carrier.key();
        self.wheel.clear(index);
        self.forget_session(peer, Instant::now());
        if let Some(key) = key
            && guard(|| self.endpoint.remove(key)).is_none()
        {
            tracing::error!("a panic while a lost connection was removed");
            self.meter.panics_endpoint += 1;
        }
    }

    /// Ends a peer's session: its readers, its writers, and its entry in core.
    fn forget_session(&mut self, mut peer: WorkerPeer, now: Instant) {
        self.report_lost(&mut peer, now);
        if let Some(mut session) = peer.session.take() {
            let fanout = &mut self.fanout;
            if guard(|| session.leave(fanout)).is_none() || guard(|| drop(session)).is_none() {
                tracing::error!(session = %peer.id, "a panic while a session was dropped");
            }
        }
        self.count_end(peer.id, peer.state, true);
        self.forget_carrier(peer);
    }

    /// Drops the carrier of a peer.
    fn forget_carrier(&mut self, mut peer: WorkerPeer) {
        if peer.carrier.is_stream() {
            self.streams.forget();
            turn_away(&mut peer.carrier, self.ending.is_some(), None);
            if guard(|| drop(peer)).is_none() {
                tracing::error!("a panic while a lost connection was dropped");
            }
        }
    }

    /// Counts the end of a session. `vanished`: neither side closed it.
    fn count_end(&mut self, id: SessionId, state: PeerState, vanished: bool) {
        match state {
            PeerState::Opening | PeerState::Waiting | PeerState::Asked(_) | PeerState::Placed(_) => {
                self.meter.sessions_abandoned += 1
            }
            PeerState::Open => {
                self.meter.sessions_closed += 1;
                self.events.push(CoreEvent::Closed { session: id, vanished });
            }
            PeerState::Over => {}
        }
    }

    fn mark_dirty(&mut self, index: u32) {
        if let Some(peer) = self.peers.get_mut(index)
            && !std::mem::replace(&mut peer.is_dirty, true)
        {
            let dirty = if peer.carrier.is_stream() { &mut self.dirty_streams } else { &mut self.dirty };
            dirty.push_back(index);
        }
    }

    /// Touches the peers whose deadlines have passed.
    fn expire(&mut self, now: Instant) {
        let mut due = std::mem::take(&mut self.scratch.due);
        self.wheel.expire(now, &mut due);
        for index in due.drain(..) {
            if let Some(peer) = self.peers.get_mut(index) {
                peer.is_due = true;
            }
            self.touch(index);
        }
        self.scratch.due = due;
    }

    fn panics(&mut self, stage: TurnStage) -> &mut u64 {
        match stage {
            TurnStage::Feed => &mut self.meter.panics_feed,
            TurnStage::Input => &mut self.meter.panics_input,
            TurnStage::Timeout => &mut self.meter.panics_timeout,
            TurnStage::Order => &mut self.meter.panics_order,
            TurnStage::News => &mut self.meter.panics_news,
            TurnStage::Flush => &mut self.meter.panics_flush,
        }
    }
}

impl WorkerShared {
    fn fault(&self, stage: TurnStage, session: SessionId) {
        if let Some(fault) = &self.fault {
            fault(stage, session);
        }
    }
}

/// Runs `share`; `None` if it panicked. State it borrowed may be inconsistent: the caller drops it.
fn guard<R>(share: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(share)).ok()
}

/// Random numbers that need not be unpredictable (splitmix64).
struct Random(u64);

impl Random {
    fn new() -> Self {
        use std::hash::{BuildHasher, Hasher};
        Self(std::hash::RandomState::new().build_hasher().finish())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
