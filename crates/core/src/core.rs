//! State of the control plane, and dispatch of events to handlers.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use relay_auth::Permit;
use relay_model::{Ask, Hop, LogId, Path, SessionId, limits};

use crate::{
    action_queue::ActionQueue,
    event::{Action, CoreCounts, CoreEvent, CoreTally},
    log::CoreLog,
    missing::Missing,
    route::BroadcastState,
    session::CoreSession,
    timers::{Timer, Timers},
};

/// Settings of the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreConfig {
    /// Our own hop; chains that contain it are loops.
    pub hop: Hop,
    /// Time that an unread log keeps its upstream, and that the path and logs of a vanished publisher are
    /// kept.
    pub linger: Duration,
    /// Time that the advertised routes stay unchanged after a publisher vanishes, or withdraws while another
    /// serves the path; at most the linger.
    pub hold_down: Duration,
    /// Rule for a second publisher of a path.
    pub takeover: Takeover,
    /// Limit on the memory of ghosts, bytes; past it a lost route is withdrawn at once.
    pub stale_bytes: u64,
    /// Limit on the memory of logs that linger, bytes; past it a log without readers is retired at once.
    pub linger_bytes: u64,
}

/// Rule for a second publisher of a path. Relays of the same cluster are always admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Takeover {
    /// Any session whose permit allows the path.
    Any,
    /// Only the subject that took the path while it was free; all public sessions are one subject. Routes of
    /// others wait until its last route is gone and not expected back.
    #[default]
    Identity,
}

impl CoreConfig {
    /// Default settings of a relay with the hop id `hop`.
    pub fn new(hop: Hop) -> Self {
        let (linger, hold_back) = (limits::LINGER, limits::HOLD_DOWN);
        let takeover = Takeover::default();
        Self { hop, linger, hold_down: hold_back, takeover, stale_bytes: u64::MAX, linger_bytes: u64::MAX }
    }
}

/// Memory of a log without groups, here, in the store and at its writer, bytes.
pub(crate) const LOG_BYTES: u64 = 8 * 1024;

/// Control-plane state machine. The caller takes all actions after each [`Self::handle`] and
/// [`Self::handle_timeout`].
#[derive(Debug)]
pub struct Core {
    pub(crate) config: CoreConfig,
    pub(crate) sessions: HashMap<SessionId, CoreSession, RandomState>,
    pub(crate) broadcasts: HashMap<Path, BroadcastState, RandomState>,
    pub(crate) logs: HashMap<LogId, CoreLog, RandomState>,
    pub(crate) timers: Timers,
    pub(crate) outbox: ActionQueue,
    pub(crate) tally: CoreTally,
    /// Tracks that publishers recently reported as missing.
    pub(crate) missing: Missing,
    /// Number of ghosts over all paths.
    pub(crate) stale_routes: usize,
    /// Memory of all ghosts, bytes.
    pub(crate) ghost_bytes: u64,
    serial: u64,
}

impl Core {
    /// Creates a core without sessions.
    pub fn new(config: CoreConfig) -> Self {
        Self {
            config,
            sessions: HashMap::default(),
            broadcasts: HashMap::default(),
            logs: HashMap::default(),
            timers: Timers::default(),
            outbox: ActionQueue::default(),
            tally: CoreTally::default(),
            missing: Missing::default(),
            stale_routes: 0,
            ghost_bytes: 0,
            serial: 0,
        }
    }

    /// Sizes of the tables.
    pub fn counts(&self) -> CoreCounts {
        CoreCounts {
            sessions: self.sessions.len(),
            paths: self.broadcasts.len(),
            routes: self.sessions.values().map(|session| session.announced.len()).sum(),
            stale_routes: self.stale_routes,
            stale_bytes: self.ghost_bytes,
            logs: self.logs.len(),
            readers: self.sessions.values().map(|session| session.subs.len()).sum(),
            pulls: self.logs.values().map(|log| log.pulls().len()).sum(),
            pending: self.outbox.len(),
            timers: self.timers.len(),
        }
    }

    /// Memory of routes that are still advertised after their session has gone, and of logs that linger, bytes.
    pub fn stale_bytes(&self) -> u64 {
        self.ghost_bytes + self.linger_bytes()
    }

    /// Memory of logs that linger, bytes.
    pub(crate) fn linger_bytes(&self) -> u64 {
        self.timers.lingering() as u64 * LOG_BYTES
    }

    /// Counts of refused and dropped requests since the start.
    pub fn tally(&self) -> CoreTally {
        self.tally
    }

    /// Handles one event.
    pub fn handle(&mut self, event: CoreEvent, now: Instant) {
        match event {
            CoreEvent::Opened { session, permit } => self.opened(session, permit),
            CoreEvent::Revised { session, permit } => self.revised(session, permit, now),
            CoreEvent::Ask { session, ask } => self.ask(session, ask, now),
            CoreEvent::Closed { session, vanished } => self.closed(session, vanished, now),
        }
    }

    /// Runs all due timers. Call when [`Self::next_deadline`] has passed; earlier calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Log(log) => self.linger_over(log),
                Timer::Merge(log) => self.merge(log, now),
                Timer::Stale(path, session) => self.stale_due(session, &path, now),
                Timer::Brake(session) => self.brake_due(session, now),
            }
        }
    }

    /// Takes the next action.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.outbox.pop()
    }

    /// Deadline at which [`Self::handle_timeout`] is next due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Returns a number never used before, for log ids and the age of routes.
    pub(crate) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn opened(&mut self, id: SessionId, permit: Permit) {
        if self.sessions.contains_key(&id) {
            self.tally.unknown += 1;
            return;
        }
        self.sessions.insert(id, CoreSession::new(permit));
    }

    fn ask(&mut self, session: SessionId, ask: Ask, now: Instant) {
        if !self.sessions.contains_key(&session) {
            self.tally.unknown += 1;
            return;
        }
        match ask {
            Ask::Announce { path, hops, cost } => self.announce(session, path, hops, cost, now),
            Ask::Unannounce { path } => self.unannounce(session, &path, true, now),
            Ask::Subscribe { sub, path, track, prefs, want } => {
                self.subscribe((session, sub), (path, track), (prefs, want), now);
            }
            Ask::Update { sub, prefs } => self.update((session, sub), prefs),
            Ask::Unsubscribe { sub } => self.unsubscribe((session, sub), now),
            Ask::Pull { sub, group } => self.pull((session, sub), group),
            Ask::Pulled { log, epoch, group } => self.pulled(session, log, epoch, group),
            Ask::Exclude { hop } => self.exclude(session, hop, now),
            Ask::Draining => self.drain(session, now),
            Ask::Ended { log, epoch, missing } => {
                if missing {
                    self.note_missing(session, log, epoch, now);
                }
                self.ended(session, log, epoch);
            }
            Ask::StreamsBlocked { blocked } => self.streams_blocked(session, blocked),
        }
    }

    /// Withdraws the routes of a closed session or turns them into ghosts, removes its readers, then finds
    /// another upstream for the logs it wrote or suspends them.
    fn closed(&mut self, id: SessionId, vanished: bool, now: Instant) {
        let Some(session) = self.sessions.remove(&id) else {
            self.tally.unknown += 1;
            return;
        };
        if let Some(at) = session.brake.deadline() {
            self.timers.disarm(at, Timer::Brake(id));
        }
        let mut touched: BTreeSet<Path> = session.announced;
        for path in &touched {
            if vanished {
                self.vanished(id, path, now);
            } else {
                self.withdrawn(id, path, None, now);
            }
        }
        for (sub, log) in session.subs {
            self.leave(log, (id, sub), now);
        }
        touched
            .extend(session.writes.iter().filter_map(|log| self.logs.get(log)).map(|log| log.path.clone()));
        for path in &touched {
            self.reselect_upstreams(path, now);
        }
    }
}
