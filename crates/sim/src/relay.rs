//! One relay: the real control and data planes, with messages between them delivered in any order that the
//! channels of a real relay allow.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use relay_auth::{Permit, Policy};
use relay_core::{Action, Core, CoreEvent};
use relay_model::{
    Ask, Hop, Order, Path, Scope, SessionId, WorkerId, limits::SessionLimits, transport::TransportClosed,
};
use relay_session::{
    Cx, Fanout, Session, SessionConfig, SessionOutput, Work,
    pair::{PairEnd, Rng},
};
use relay_store::{Store, WakeSet};
use relay_wire::lite::Version;

/// Work budget of each call of a session: small, so that most work is done in parts.
const BUDGET: u32 = 7;
/// Workers of each relay: two, so that its sessions can be out of step.
const WORKERS: u16 = 2;
/// Cache size in bytes, far more than a run uses.
const MEMORY: u64 = 64 << 20;

/// A simulated relay.
pub struct SimRelay {
    /// Hop id.
    pub hop: Hop,
    store: Arc<Store>,
    core: Core,
    workers: Vec<SimWorker>,
    sessions: BTreeMap<SessionId, SimSession>,
    wake_set: WakeSet,
    /// Time at which the announce board has a held-back change due.
    board_due: Option<Instant>,
    /// Permits of clients, and of other relays.
    permits: [Permit; 2],
    started: Instant,
    next: u64,
    /// Sessions closed for a protocol violation, with the reason.
    pub closed_by_us: Vec<(SessionId, String)>,
}

struct SimWorker {
    fanout: Fanout,
    meter: relay_meter::Worker,
    to_core: VecDeque<CoreEvent>,
    from_core: VecDeque<PlaneMessage>,
}

enum PlaneMessage {
    Order(SessionId, Order),
    Done(SessionId, u32),
}

struct SimSession {
    session: Session,
    worker: usize,
    is_admitted: bool,
    is_peer: bool,
    /// Requests that core has not handled.
    asked: u32,
}

impl SimRelay {
    /// Creates a relay without sessions.
    pub fn new(hop: Hop, now: Instant) -> Self {
        let store = Store::new(relay_store::StoreConfig {
            workers: usize::from(WORKERS),
            capacity: MEMORY,
            ceiling: 2 * MEMORY,
            max_age: Duration::from_secs(30),
        });
        let everything = Policy::public(Scope::everything(), Scope::everything());
        let permits = [everything.clone(), everything.for_peers()];
        Self {
            hop,
            store,
            core: Core::new(relay_core::CoreConfig::new(hop)),
            workers: (0..WORKERS).map(SimWorker::new).collect(),
            sessions: BTreeMap::new(),
            wake_set: WakeSet::new(),
            board_due: None,
            permits: permits
                .map(|policy| policy.admit("/", SystemTime::UNIX_EPOCH).expect("the root is open to all")),
            started: now,
            next: 0,
            closed_by_us: Vec::new(),
        }
    }

    /// Opens a session on a new link, to another relay or to a client.
    pub fn connect(&mut self, version: Version, is_peer: bool, rng: &mut Rng) -> SessionId {
        let worker = rng.below(u64::from(WORKERS)) as u16;
        self.next += 1;
        let id = SessionId::new(WorkerId(worker), self.next);
        let session = Session::new(SessionConfig {
            id,
            worker: WorkerId(worker),
            hop: self.hop,
            stamp: Hop(rng.draw() >> 11 | 1),
            version: version.into(),
            has_url: true,
            started: self.started,
            limits: SessionLimits::default(),
        });
        self.sessions.insert(
            id,
            SimSession { session, worker: usize::from(worker), is_admitted: false, is_peer, asked: 0 },
        );
        id
    }

    /// Handles the input and due timers of a session.
    pub fn input(&mut self, id: SessionId, t: &mut PairEnd, now: Instant) {
        let Some(seat) = self.sessions.get_mut(&id) else { return };
        if !std::mem::replace(&mut seat.is_admitted, true) {
            let permit = self.permits[usize::from(seat.is_peer)].clone();
            let worker = seat.worker;
            self.workers[worker].to_core.push_back(CoreEvent::Opened { session: id, permit: permit.clone() });
            self.with(id, now, t, |session, t, cx| session.authorized(t, cx, permit));
        }
        self.with(id, now, t, |session, t, cx| session.input(t, cx));
        let due = |seat: &SimSession| seat.session.next_deadline().is_some_and(|due| due <= now);
        if self.sessions.get(&id).is_some_and(due) {
            self.with(id, now, t, |session, t, cx| session.timeout(t, cx));
        }
        let closed = self.sessions.get(&id).and_then(|seat| seat.session.closed().cloned());
        if let Some(why) = closed {
            self.leave(id, &why);
        }
    }

    /// Changes the permissions of a client, if it is admitted.
    pub fn revise(
        &mut self,
        id: SessionId,
        (publish, subscribe): (&Scope, &Scope),
        t: &mut PairEnd,
        now: Instant,
    ) {
        let Some(seat) = self.sessions.get(&id).filter(|seat| seat.is_admitted) else { return };
        // An empty permit cannot be created; one for a path that is never published is equivalent.
        let nowhere = Scope::of([Path::parse("nowhere").expect("a path")]);
        let some = |scope: &Scope| if scope.is_empty() { nowhere.clone() } else { scope.clone() };
        let permit = Policy::public(some(publish), some(subscribe))
            .admit("/", std::time::SystemTime::UNIX_EPOCH)
            .expect("something is allowed");
        self.workers[seat.worker]
            .to_core
            .push_back(CoreEvent::Revised { session: id, permit: permit.clone() });
        self.with(id, now, t, |session, t, cx| session.revised(t, cx, permit));
    }

    /// Delivers a random part of the messages between the planes; `link` looks up the link of a session.
    pub fn planes(
        &mut self,
        rng: &mut Rng,
        now: Instant,
        mut link: impl FnMut(SessionId, &mut dyn FnMut(&mut PairEnd)),
    ) {
        let mut touched = self.core.next_deadline().is_some_and(|due| due <= now);
        for _ in 0..=rng.below(3) {
            let at = rng.below(self.workers.len() as u64) as usize;
            for _ in 0..rng.below(6) {
                let Some(event) = self.workers[at].to_core.pop_front() else { break };
                self.core_takes(event, now);
                touched = true;
            }
        }
        self.core.handle_timeout(now);
        self.act(now);
        self.board_due = self.store.board().release(now, &mut self.wake_set);
        for at in 0..self.workers.len() {
            for _ in 0..rng.below(6) {
                let Some(message) = self.workers[at].from_core.pop_front() else { break };
                let id = match &message {
                    PlaneMessage::Order(id, _) | PlaneMessage::Done(id, _) => *id,
                };
                let mut message = Some(message);
                link(id, &mut |t| {
                    if let Some(message) = message.take() {
                        self.deliver(message, t, now);
                    }
                });
            }
            self.fan_out(at, now, &mut link);
        }
        self.store.wake(&mut self.wake_set, None);
        // Unchanged since the last check otherwise.
        if touched {
            self.core.check();
        }
    }

    /// Whether no messages between the planes are pending.
    pub fn is_still(&self) -> bool {
        self.workers.iter().all(|worker| worker.to_core.is_empty() && worker.from_core.is_empty())
    }

    /// Earliest deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        let sessions = self.sessions.values().filter_map(|seat| seat.session.next_deadline());
        sessions.chain(self.core.next_deadline()).chain(self.board_due).min()
    }

    /// Sizes of core and store, to check for leaks.
    pub fn counts(&self) -> (relay_core::CoreCounts, relay_store::StoreCounts) {
        (self.core.counts(), self.store.counts())
    }

    /// Runs `work` on a session, and then the work left over by its small budget.
    fn with(
        &mut self,
        id: SessionId,
        now: Instant,
        t: &mut PairEnd,
        work: impl FnOnce(&mut Session, &mut PairEnd, &mut Cx<'_>),
    ) {
        let Some(seat) = self.sessions.get_mut(&id) else { return };
        let worker = &mut self.workers[seat.worker];
        let mut out = Vec::new();
        let mut budget = Work::of(BUDGET);
        let mut cx = Cx {
            now,
            store: &self.store,
            fanout: &mut worker.fanout,
            wakes: &mut self.wake_set,
            meter: &mut worker.meter,
            out: &mut out,
            work: &mut budget,
        };
        work(&mut seat.session, t, &mut cx);
        while cx.work.is_spent() {
            *cx.work = Work::of(BUDGET);
            seat.session.input(t, &mut cx);
        }
        for output in out {
            if let SessionOutput::Ask(ask) = output {
                seat.asked += 1;
                worker.to_core.push_back(CoreEvent::Ask { session: id, ask });
            }
        }
    }

    fn leave(&mut self, id: SessionId, why: &TransportClosed) {
        let Some(mut seat) = self.sessions.remove(&id) else { return };
        let worker = &mut self.workers[seat.worker];
        seat.session.leave(&mut worker.fanout);
        if let TransportClosed::ByPeer(code, reason) = why
            && code.0 != 0
        {
            self.closed_by_us.push((id, format!("the peer closed: {code} {reason}")));
        }
        if matches!(why, TransportClosed::ByUs) {
            self.closed_by_us.push((id, "this relay closed it".to_owned()));
        }
        drop(seat);
        let vanished = matches!(why, TransportClosed::Lost(_));
        worker.to_core.push_back(CoreEvent::Closed { session: id, vanished });
    }

    fn core_takes(&mut self, event: CoreEvent, now: Instant) {
        if let CoreEvent::Ask { session, ask } = &event {
            debug_assert!(!matches!(ask, Ask::Announce { hops, .. } if hops.is_empty()));
            if let Some(seat) = self.sessions.get_mut(session) {
                seat.asked = seat.asked.saturating_sub(1);
            }
            let at = usize::from(session.worker().0);
            self.workers[at].from_core.push_back(PlaneMessage::Done(*session, 1));
        }
        self.core.handle(event, now);
        self.act(now);
    }

    fn act(&mut self, now: Instant) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Order { session, order } => {
                    let at = usize::from(session.worker().0);
                    self.workers[at].from_core.push_back(PlaneMessage::Order(session, order));
                }
                Action::Board { path, routes } => {
                    self.store.board().set(path, routes, now, &mut self.wake_set)
                }
                Action::Create { log } => {
                    self.store.create(log);
                }
                Action::Fence { log, epoch } => {
                    self.store.fence(log, epoch);
                }
                Action::End { log, code } => {
                    let end = relay_store::LogEnd { final_group: None, code: Some(code) };
                    self.store.end(log, end, now, &mut self.wake_set);
                }
                Action::Retire { log } => {
                    self.store.retire(log);
                }
            }
        }
    }

    fn deliver(&mut self, message: PlaneMessage, t: &mut PairEnd, now: Instant) {
        match message {
            PlaneMessage::Order(id, order) => {
                self.with(id, now, t, |session, t, cx| session.order(t, cx, order))
            }
            PlaneMessage::Done(id, count) => {
                self.with(id, now, t, |session, t, cx| session.asks_done(t, cx, count))
            }
        }
    }

    fn fan_out(
        &mut self,
        at: usize,
        now: Instant,
        link: &mut impl FnMut(SessionId, &mut dyn FnMut(&mut PairEnd)),
    ) {
        let mut dirty = Vec::new();
        let board = self.store.ready_list(WorkerId(at as u16)).take(&mut dirty);
        self.workers[at].fanout.take_due(&mut dirty);
        for log in dirty {
            while let Some(batch) = self.workers[at].fanout.pull(log, now) {
                let mut readers = Vec::new();
                self.workers[at].fanout.readers(log, &mut readers);
                for reader in readers {
                    link(reader.session, &mut |t| {
                        self.with(reader.session, now, t, |session, t, cx| {
                            session.deliver_batch(t, cx, reader.sub, &batch)
                        });
                    });
                }
                if !batch.more {
                    break;
                }
            }
        }
        if board {
            let mut watchers = Vec::new();
            self.workers[at].fanout.watchers(&mut watchers);
            for id in watchers {
                link(id, &mut |t| self.with(id, now, t, |session, t, cx| session.board(t, cx)));
            }
        }
    }
}

impl SimWorker {
    fn new(at: u16) -> Self {
        Self {
            fanout: Fanout::new(WorkerId(at)),
            meter: relay_meter::Worker::default(),
            to_core: VecDeque::new(),
            from_core: VecDeque::new(),
        }
    }
}
