//! A relay of one worker with real sessions, a real store and a real fan-out. Core and the worker are
//! stand-ins: one route decides, and orders are executed in the next turn.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::{Index, IndexMut},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use relay_auth::{Permit, Policy};
use relay_model::{
    Ask, Epoch, Hop, LogId, Order, Path, Prefs, Route, Scope, SessionCode, SessionId, StreamCode, SubId,
    TrackName, Want, WorkerId, limits::SessionLimits, transport::Transport,
};
use relay_session::{
    Cx, Fanout, Session, SessionConfig, SessionOutput, Work,
    pair::{Pair, PairOptions},
};
use relay_store::{LogEnd, Store, WakeSet};

use relay_wire::lite::Version;

use crate::peer::{Peer, path};

pub(crate) const MS: Duration = Duration::from_millis(1);
/// Work units of one call into a session: few, so that most work is done in parts.
const BUDGET: u32 = 7;
const WORKER: WorkerId = WorkerId(0);

/// State of one client's session.
pub(crate) struct Seat {
    pub(crate) id: SessionId,
    pub(crate) session: Option<Session>,
    pub(crate) permit: Permit,
    /// Whether an `Authorize` is answered.
    pub(crate) admit: bool,
    pub(crate) authorizes: Vec<String>,
    is_let_in: bool,
    /// Hop excluded by the peer.
    pub(crate) exclude: Hop,
    pub(crate) orders: VecDeque<Order>,
}

/// A track pulled from a publisher.
pub(crate) struct Pull {
    pub(crate) key: (Path, TrackName),
    pub(crate) source: usize,
    pub(crate) epoch: Epoch,
    pub(crate) readers: BTreeMap<(usize, SubId), (Prefs, Want)>,
    /// Fetches waiting for old groups.
    pub(crate) fetches: BTreeMap<u64, Vec<(usize, SubId)>>,
    /// Whether its publisher left, and its log waits for another session of that publisher.
    pub(crate) orphan: bool,
    pub(crate) ended: bool,
    /// Union of the readers' preferences sent last.
    pub(crate) said: Option<(Prefs, Want)>,
}

pub(crate) struct Relay {
    pub(crate) seed: u64,
    /// Version of the peers that connect from now on.
    pub(crate) version: Version,
    /// Whether their URL comes with the connection.
    pub(crate) has_url: bool,
    /// Limits of the sessions that begin from now on.
    pub(crate) limits: SessionLimits,
    /// Whether logs wait for their publisher when its session ends.
    pub(crate) lingers: bool,
    pub(crate) now: Instant,
    pub(crate) started: Instant,
    pub(crate) store: Arc<Store>,
    pub(crate) fanout: Fanout,
    pub(crate) meter: relay_meter::Worker,
    pub(crate) seats: Vec<Seat>,
    pub(crate) peers: Vec<Peer>,
    /// While on, asks are not processed.
    pub(crate) core_sleeps: bool,
    /// Work units of one call into a session.
    pub(crate) budget: u32,
    /// Whether each turn is limited to one work budget; the rest waits for the next turn.
    pub(crate) is_strict: bool,
    /// Every ask, in order.
    pub(crate) asks: Vec<(usize, Ask)>,
    wakes: WakeSet,
    mail: VecDeque<(usize, Ask)>,
    routes: BTreeMap<Path, Vec<Route>>,
    pub(crate) pulls: BTreeMap<LogId, Pull>,
    /// Whether the next subscriber gets its own log.
    pub(crate) apart: bool,
    logs: u64,
}

impl Index<usize> for Relay {
    type Output = Peer;

    fn index(&self, at: usize) -> &Peer {
        &self.peers[at]
    }
}

impl IndexMut<usize> for Relay {
    fn index_mut(&mut self, at: usize) -> &mut Peer {
        &mut self.peers[at]
    }
}

/// Options of the relay's end of a link, with ample credit.
pub(crate) fn host() -> PairOptions {
    PairOptions { uni_streams: 1_024, bidi_streams: 2_048, ..PairOptions::default() }
}

/// Options of a subscriber's end, with ample credit.
pub(crate) fn guest() -> PairOptions {
    PairOptions { uni_streams: 1_024, bidi_streams: 100, ..PairOptions::default() }
}

/// Permit of a client that may do everything.
pub(crate) fn everything() -> Permit {
    permit("", Scope::everything(), Scope::everything())
}

/// Permit of a relay of the same cluster.
pub(crate) fn cluster_peer() -> Permit {
    let policy = Policy::public(Scope::everything(), Scope::everything()).for_peers();
    policy.admit("/", SystemTime::UNIX_EPOCH).expect("the root is open to all")
}

/// Permit of a client at `root`; scopes are absolute.
pub(crate) fn permit(root: &str, publish: Scope, subscribe: Scope) -> Permit {
    let policy = Policy::public(publish, subscribe);
    policy.admit(&format!("/{root}"), SystemTime::UNIX_EPOCH).expect("something is allowed")
}

impl Relay {
    /// A relay whose peers speak moq-lite-05.
    pub(crate) fn new(seed: u64) -> Self {
        Self::of(Version::V05, seed)
    }

    /// A relay whose peers speak `version`.
    pub(crate) fn of(version: Version, seed: u64) -> Self {
        let now = Instant::now();
        let store = Store::new(relay_store::StoreConfig {
            workers: 1,
            capacity: 256 << 20,
            ceiling: 512 << 20,
            max_age: Duration::from_secs(30),
        });
        Self {
            seed,
            version,
            has_url: false,
            limits: SessionLimits::default(),
            lingers: false,
            started: now,
            now,
            store,
            fanout: Fanout::new(WORKER),
            meter: relay_meter::Worker::default(),
            seats: Vec::new(),
            peers: Vec::new(),
            core_sleeps: false,
            budget: BUDGET,
            is_strict: false,
            apart: false,
            asks: Vec::new(),
            wakes: WakeSet::new(),
            mail: VecDeque::new(),
            routes: BTreeMap::new(),
            pulls: BTreeMap::new(),
            logs: 0,
        }
    }

    /// Adds a peer on a link, without sending SETUP.
    pub(crate) fn link(&mut self, ours: PairOptions, theirs: PairOptions) -> usize {
        let at = self.peers.len();
        let id = SessionId::new(WORKER, at as u64 + 1);
        let config = SessionConfig {
            id,
            worker: WORKER,
            hop: Hop(1_000),
            stamp: Hop(9_000 + at as u64),
            version: self.version.into(),
            has_url: self.has_url,
            started: self.started,
            limits: self.limits,
        };
        let pair = Pair::with(self.seed.wrapping_mul(31) + at as u64, ours, theirs);
        self.peers.push(Peer::new(self.version, pair, self.now));
        self.peers[at].hop = Hop(100 + at as u64);
        self.seats.push(Seat {
            id,
            session: Some(Session::new(config)),
            permit: everything(),
            admit: true,
            authorizes: Vec::new(),
            is_let_in: self.has_url,
            exclude: Hop::ANONYMOUS,
            orders: VecDeque::new(),
        });
        self.with(at, |session, _, cx| session.start(cx));
        at
    }

    /// Adds an admitted peer.
    pub(crate) fn connect(&mut self, ours: PairOptions, theirs: PairOptions) -> usize {
        let at = self.link(ours, theirs);
        self.let_in(at);
        at
    }

    /// Sends the peer's SETUP, in versions that have one, and waits for its admission.
    pub(crate) fn let_in(&mut self, at: usize) {
        if self.peers[at].version.has_setup() {
            self.peers[at].setup();
            self.until("SETUP", |relay| !relay.peers[at].setups.is_empty());
        } else {
            if self.peers[at].version.has_legacy_setup() {
                self.peers[at].hello();
            }
            self.until("announce request", |relay| !relay.peers[at].asked.is_empty());
        }
    }

    /// Adds a publisher of one broadcast, and waits until the relay knows it.
    pub(crate) fn publisher(&mut self, broadcast: &str, names: &[&str]) -> usize {
        self.publisher_on(host(), guest(), broadcast, names)
    }

    pub(crate) fn publisher_on(
        &mut self,
        ours: PairOptions,
        theirs: PairOptions,
        broadcast: &str,
        names: &[&str],
    ) -> usize {
        let at = self.connect(ours, theirs);
        self.peers[at].publish(broadcast, names, &[]);
        let broadcast = path(broadcast);
        let id = self.seats[at].id;
        self.until("announce", |relay| {
            relay.routes.get(&broadcast).is_some_and(|routes| routes.iter().any(|route| route.session == id))
        });
        at
    }

    pub(crate) fn subscriber(&mut self) -> usize {
        self.connect(host(), guest())
    }

    /// Waits until the relay subscribed to `name`. Returns the subscribe id.
    pub(crate) fn upstream(&mut self, publisher: usize, name: &str) -> u64 {
        self.until("upstream SUBSCRIBE", |relay| relay.peers[publisher].serving(name).is_some());
        self.peers[publisher].serving(name).unwrap().1.id
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.turn();
        }
    }

    /// Runs until `done`, at most for a minute.
    pub(crate) fn until(&mut self, what: &str, done: impl FnMut(&Self) -> bool) {
        self.until_within(Duration::from_secs(60), what, done);
    }

    pub(crate) fn until_within(&mut self, most: Duration, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let end = self.now + most;
        while !done(self) {
            assert!(self.now < end, "seed {}: no {what} in {most:?}", self.seed);
            self.turn();
        }
    }

    /// Advances by a millisecond: one turn of the worker, then of the peers.
    pub(crate) fn turn(&mut self) {
        self.now += MS;
        for at in 0..self.peers.len() {
            self.peers[at].pair.advance(self.now);
            self.with(at, |session, t, cx| session.input(t, cx));
            let mut calls = 0;
            while self.seats[at]
                .session
                .as_ref()
                .and_then(Session::next_deadline)
                .is_some_and(|due| due <= self.now)
            {
                self.with(at, |session, t, cx| session.timeout(t, cx));
                calls += 1;
                assert!(calls < 10_000, "seed {}: a timer stays due", self.seed);
            }
            self.bury(at);
        }
        if !self.core_sleeps {
            self.core();
        }
        self.store.board().release(self.now, &mut self.wakes);
        for at in 0..self.peers.len() {
            if std::mem::take(&mut self.seats[at].is_let_in) {
                let permit = self.seats[at].permit.clone();
                self.with(at, |session, t, cx| session.authorized(t, cx, permit));
            }
            while let Some(order) = self.seats[at].orders.pop_front() {
                self.with(at, |session, t, cx| session.order(t, cx, order));
            }
            self.bury(at);
        }
        self.fan_out();
        self.store.wake(&mut self.wakes, None);
        for peer in &mut self.peers {
            peer.turn(self.now);
        }
    }

    /// Drops a session as a worker does when its connection is gone.
    pub(crate) fn drop_session(&mut self, at: usize) {
        if let Some(mut session) = self.seats[at].session.take() {
            session.leave(&mut self.fanout);
            drop(session);
            self.peers[at].pair.a.close(self.now, SessionCode::INTERNAL, "");
            self.forget(at);
        }
    }

    pub(crate) fn is_alive(&self, at: usize) -> bool {
        self.seats[at].session.is_some() && self.peers[at].closed.is_none()
    }

    /// Runs `work` on a session as its worker does.
    pub(crate) fn with(
        &mut self,
        at: usize,
        work: impl FnOnce(&mut Session, &mut relay_session::pair::PairEnd, &mut Cx<'_>),
    ) {
        let mut out = Vec::new();
        let Some(session) = &mut self.seats[at].session else { return };
        let mut cx = Cx {
            now: self.now,
            store: &self.store,
            fanout: &mut self.fanout,
            wakes: &mut self.wakes,
            meter: &mut self.meter,
            out: &mut out,
            work: &mut Work::of(self.budget),
        };
        work(session, &mut self.peers[at].pair.a, &mut cx);
        while cx.work.is_spent() && !self.is_strict {
            *cx.work = Work::of(self.budget);
            session.input(&mut self.peers[at].pair.a, &mut cx);
        }
        for output in out {
            match output {
                SessionOutput::Ask(ask) => {
                    self.asks.push((at, ask.clone()));
                    self.mail.push_back((at, ask));
                }
                SessionOutput::Authorize { target, .. } => {
                    self.seats[at].authorizes.push(target);
                    self.seats[at].is_let_in = self.seats[at].admit;
                }
            }
        }
    }

    fn bury(&mut self, at: usize) {
        if self.seats[at].session.as_ref().is_some_and(|session| session.closed().is_some()) {
            self.drop_session(at);
        }
    }

    fn fan_out(&mut self) {
        let mut dirty = Vec::new();
        let board = self.store.ready_list(WORKER).take(&mut dirty);
        self.fanout.take_due(&mut dirty);
        for log in dirty {
            while let Some(batch) = self.fanout.pull(log, self.now) {
                let mut readers = Vec::new();
                self.fanout.readers(log, &mut readers);
                for reader in readers {
                    let Some(at) = self.seats.iter().position(|seat| seat.id == reader.session) else {
                        continue;
                    };
                    self.with(at, |session, t, cx| session.deliver_batch(t, cx, reader.sub, &batch));
                }
                if !batch.more {
                    break;
                }
            }
        }
        if board {
            let mut watchers = Vec::new();
            self.fanout.watchers(&mut watchers);
            for id in watchers {
                let Some(at) = self.seats.iter().position(|seat| seat.id == id) else { continue };
                self.with(at, |session, t, cx| session.board(t, cx));
            }
        }
    }

    // Core.

    /// Drops asks in flight. Returns their number.
    pub(crate) fn forget_mail(&mut self) -> usize {
        std::mem::take(&mut self.mail).len()
    }

    fn core(&mut self) {
        for (at, ask) in std::mem::take(&mut self.mail) {
            if self.seats[at].session.is_none() {
                continue;
            }
            self.handle(at, ask);
            self.with(at, |session, t, cx| session.asks_done(t, cx, 1));
        }
    }

    fn handle(&mut self, at: usize, ask: Ask) {
        let session = self.seats[at].id;
        match ask {
            Ask::Announce { path, hops, cost } => {
                let routes = self.routes.entry(path.clone()).or_default();
                routes.retain(|route| route.session != session);
                routes.insert(0, Route { session, hops, cost, stale: false });
                self.store.board().set(path.clone(), routes.clone(), self.now, &mut self.wakes);
            }
            Ask::Unannounce { path } => self.unroute(&path, session),
            Ask::Subscribe { sub, path, track, prefs, want } => {
                self.subscribe(at, sub, (path, track), prefs, want)
            }
            Ask::Update { sub, prefs } => {
                for pull in self.pulls.values_mut() {
                    if let Some(reader) = pull.readers.get_mut(&(at, sub)) {
                        reader.0 = prefs;
                    }
                }
                self.union_all();
            }
            Ask::Unsubscribe { sub } => self.unsubscribe(|reader| *reader == (at, sub)),
            Ask::Exclude { hop } => self.seats[at].exclude = hop,
            Ask::Draining | Ask::StreamsBlocked { .. } => {}
            Ask::Pull { sub, group } => self.fetch(at, sub, group),
            Ask::Pulled { log, epoch, group } => {
                if let Some(pull) = self.pulls.get_mut(&log).filter(|pull| pull.epoch == epoch) {
                    pull.fetches.remove(&group);
                }
            }
            Ask::Ended { log, .. } => {
                if let Some(pull) = self.pulls.get_mut(&log) {
                    pull.ended = true;
                }
                self.sweep();
            }
        }
    }

    fn subscribe(&mut self, at: usize, sub: SubId, key: (Path, TrackName), prefs: Prefs, want: Want) {
        let me = self.seats[at].id;
        if !self.seats[at].permit.subscribe().allows(&key.0) {
            self.seats[at].orders.push_back(Order::Refuse { sub, code: StreamCode::UNROUTABLE });
            return;
        }
        let open = self.pulls.iter_mut().find(|(_, pull)| pull.key == key && !pull.ended);
        let apart = std::mem::take(&mut self.apart);
        if let Some((log, pull)) = open.filter(|_| !apart) {
            pull.readers.insert((at, sub), (prefs, want));
            self.seats[at].orders.push_back(Order::Attach { sub, log: *log });
            return self.union_all();
        }
        let route =
            self.routes.get(&key.0).and_then(|routes| routes.iter().find(|route| route.session != me));
        let Some(source) =
            route.and_then(|route| self.seats.iter().position(|seat| seat.id == route.session))
        else {
            self.seats[at].orders.push_back(Order::Refuse { sub, code: StreamCode::UNROUTABLE });
            return;
        };
        self.logs += 1;
        let (log, epoch) = (LogId(self.logs), Epoch(1));
        self.store.create(log);
        self.store.fence(log, epoch);
        let (path, track) = key.clone();
        let publisher = publisher_of(&self.routes, &path, self.seats[source].id);
        let open = Order::Open { log, epoch, path, publisher, track, prefs, want, asker: me };
        self.seats[source].orders.push_back(open);
        self.seats[at].orders.push_back(Order::Attach { sub, log });
        let readers = [((at, sub), (prefs, want))].into();
        self.pulls.insert(
            log,
            Pull {
                key,
                source,
                epoch,
                readers,
                fetches: BTreeMap::new(),
                orphan: false,
                ended: false,
                said: None,
            },
        );
    }

    fn fetch(&mut self, at: usize, sub: SubId, group: u64) {
        let wanted = self.pulls.iter_mut().find(|(_, pull)| pull.readers.contains_key(&(at, sub)));
        let Some((log, pull)) = wanted.filter(|(_, pull)| !pull.ended) else { return };
        let waiting = pull.fetches.entry(group).or_default();
        if waiting.is_empty() {
            let asker = self.seats[at].id;
            self.seats[pull.source].orders.push_back(Order::Pull { log: *log, group, asker });
        }
        waiting.push((at, sub));
    }

    /// Continues the logs of a track with another session of its publisher.
    pub(crate) fn resume(&mut self, name: &str, source: usize) {
        for (log, pull) in &mut self.pulls {
            if pull.key.1.as_str() != name || pull.ended {
                continue;
            }
            let publisher = publisher_of(&self.routes, &pull.key.0, self.seats[source].id);
            (pull.source, pull.orphan, pull.epoch) = (source, false, Epoch(pull.epoch.0 + 1));
            self.store.fence(*log, pull.epoch);
            let union = pull.readers.values().copied().reduce(|a, b| (a.0.union(b.0), a.1.max(b.1)));
            let (prefs, want) = union.expect("a reader");
            let (path, track) = pull.key.clone();
            let (log, epoch) = (*log, pull.epoch);
            let asker = self.seats[pull.readers.keys().next().expect("a reader").0].id;
            let open = Order::Open { log, epoch, path, publisher, track, prefs, want, asker };
            self.seats[source].orders.push_back(open);
        }
    }

    /// Marks all routes of the broadcast as withdrawn but unconfirmed.
    pub(crate) fn fade(&mut self, broadcast: &str) {
        let routes = self.routes.get_mut(&path(broadcast)).expect("announced");
        routes.iter_mut().for_each(|route| route.stale = true);
        self.store.board().set(path(broadcast), routes.clone(), self.now, &mut self.wakes);
    }

    fn unroute(&mut self, path: &Path, session: SessionId) {
        if let Some(routes) = self.routes.get_mut(path) {
            routes.retain(|route| route.session != session);
            self.store.board().set(path.clone(), routes.clone(), self.now, &mut self.wakes);
        }
        self.routes.retain(|_, routes| !routes.is_empty());
    }

    fn forget(&mut self, at: usize) {
        self.mail.retain(|(from, _)| *from != at);
        self.seats[at].orders.clear();
        let id = self.seats[at].id;
        for path in self.routes.keys().cloned().collect::<Vec<_>>() {
            self.unroute(&path, id);
        }
        let now = self.now;
        for (log, pull) in &mut self.pulls {
            if pull.source == at && !pull.ended && self.lingers {
                pull.orphan = true;
                self.store.fence(*log, Epoch(pull.epoch.0 + 1));
            } else if pull.source == at && !pull.ended {
                pull.ended = true;
                let end = LogEnd { final_group: None, code: Some(StreamCode::SESSION_CLOSED) };
                self.store.end(*log, end, now, &mut self.wakes);
            }
        }
        self.unsubscribe(|reader| reader.0 == at);
    }

    /// Closes all sessions and checks that nothing is leaked.
    pub(crate) fn disperse(&mut self) {
        for at in 0..self.peers.len() {
            if self.peers[at].closed.is_none() {
                self.peers[at].close(SessionCode::NONE, "bye");
            }
        }
        let seed = self.seed;
        self.until("end of all sessions", |relay| relay.seats.iter().all(|seat| seat.session.is_none()));
        // The withdrawal of a path that changed often is delayed.
        self.until("withdrawal of all paths", |relay| relay.store.board().paths() == 0);
        assert_eq!(self.fanout.logs(), 0, "seed {seed}");
        let mut watchers = Vec::new();
        self.fanout.watchers(&mut watchers);
        assert_eq!(watchers, [], "seed {seed}");
        // Large groups are released by a thread of the store.
        self.until_released();
        let counts = self.store.counts();
        assert_eq!((counts.logs, counts.feeds, counts.bytes), (0, 0, 0), "seed {seed}: {counts:?}");
        assert_eq!((counts.board_paths, counts.watches), (0, 0), "seed {seed}: {counts:?}");
    }
}

impl Relay {
    fn until_released(&self) {
        let began = std::time::Instant::now();
        while self.store.counts().bytes > 0 && began.elapsed() < Duration::from_secs(10) {
            std::thread::yield_now();
        }
    }
}

/// First hop of a session's route.
fn publisher_of(routes: &BTreeMap<Path, Vec<Route>>, path: &Path, session: SessionId) -> Hop {
    let route = routes.get(path).and_then(|routes| routes.iter().find(|route| route.session == session));
    route.map_or(Hop::ANONYMOUS, Route::publisher)
}
