//! Control-plane state machine: its parts, and dispatch of events to them.

use std::time::Instant;

use relay_auth::Permit;
use relay_model::{Ask, LogId, Path, SessionId};

use crate::{
    config::CoreConfig,
    event::{Action, CoreCounts, CoreEvent, CoreTally},
    inspect::{self, Listing, ListingQuery},
    log::{ReaderKey, TrackDemand},
    log_orders::LogOrders,
    log_table::{LogTable, LogTimer},
    missing::MissingTracks,
    output::CoreOutput,
    route_table::{ChainError, LostRoute, RouteAnnounce, RouteLoss, RouteTable, RouteUpdate},
    session_table::SessionTable,
    subscribe::Subscriptions,
    throttle::SubscribeRequest,
    upstream::LogUpstreams,
};

/// Control-plane state machine. The caller takes all actions after each [`Self::handle`] and
/// [`Self::handle_timeout`].
#[derive(Debug)]
pub struct Core {
    pub(crate) sessions: SessionTable,
    pub(crate) routes: RouteTable,
    pub(crate) logs: LogTable,
    /// Tracks that publishers recently reported as missing.
    missing: MissingTracks,
    output: CoreOutput,
}

/// Owner of a deadline that has passed.
enum DueTimer {
    Log(LogTimer),
    Route(LostRoute),
    /// Release of a queued request.
    Session(SessionId),
}

impl Core {
    /// Creates a core without sessions.
    pub fn new(config: CoreConfig) -> Self {
        Self {
            sessions: SessionTable::default(),
            routes: RouteTable::new(&config),
            logs: LogTable::new(&config),
            missing: MissingTracks::default(),
            output: CoreOutput::default(),
        }
    }

    /// Sizes of the tables.
    pub fn counts(&self) -> CoreCounts {
        let unrouted = self.logs.tracks().paths().filter(|path| self.routes.get(path).is_none()).count();
        CoreCounts {
            sessions: self.sessions.len(),
            paths: self.routes.paths().len() + unrouted,
            routes: self.routes.announced(),
            stale_routes: self.routes.stale_routes(),
            stale_bytes: self.routes.stale_bytes(),
            logs: self.logs.iter().len(),
            readers: self.logs.sessions().readers(),
            pulls: self.logs.iter().map(|(_, log)| log.pulls().len()).sum(),
            pending: self.output.actions.len(),
            timers: self.logs.deadlines() + self.routes.deadlines() + self.sessions.deadlines(),
        }
    }

    /// Memory of routes that are still advertised after their session has gone, and of logs that linger, bytes.
    pub fn stale_bytes(&self) -> u64 {
        self.routes.stale_bytes() + self.logs.linger_bytes()
    }

    /// Counts of refused and dropped requests since the start.
    pub fn tally(&self) -> CoreTally {
        self.output.tally
    }

    /// Lists what is served. Takes time in proportion to the known paths and the readers of what is listed.
    pub fn look(&self, query: &ListingQuery) -> Listing {
        inspect::list(query, &self.routes, &self.logs)
    }

    /// Handles one event.
    pub fn handle(&mut self, event: CoreEvent, now: Instant) {
        match event {
            CoreEvent::Opened { session, permit } => {
                if !self.sessions.open(session, permit) {
                    self.output.tally.unknown += 1;
                }
            }
            CoreEvent::Revised { session, permit } => self.revised(session, permit, now),
            CoreEvent::Ask { session, ask } => self.ask(session, ask, now),
            CoreEvent::Closed { session, vanished } => self.closed(session, vanished, now),
        }
    }

    /// Runs all due timers. Call when [`Self::next_deadline`] has passed; earlier calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.pop_due(now) {
            match timer {
                DueTimer::Log(LogTimer::Linger(log)) => self.orders().linger_over(log),
                DueTimer::Log(LogTimer::Merge(log)) => self.upstreams(now).merge(log),
                DueTimer::Route(lost) => {
                    let path = lost.path.clone();
                    let update = self.routes.expire(lost);
                    self.routes_changed(&path, update, now);
                }
                DueTimer::Session(session) => self.subscriptions(now).release(session),
            }
        }
    }

    /// Takes the next action.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.output.actions.pop()
    }

    /// Deadline at which [`Self::handle_timeout`] is next due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let next = [self.logs.next_deadline(), self.routes.next_deadline(), self.sessions.next_deadline()];
        next.into_iter().flatten().min()
    }

    /// Takes the first timer that is due; of several at one time those of logs are first, then those of routes.
    fn pop_due(&mut self, now: Instant) -> Option<DueTimer> {
        let due = self.next_deadline().filter(|due| *due <= now)?;
        let log = self.logs.pop_due(due).map(DueTimer::Log);
        let route = || self.routes.pop_due(due).map(DueTimer::Route);
        log.or_else(route).or_else(|| self.sessions.pop_due(due).map(DueTimer::Session))
    }

    fn ask(&mut self, id: SessionId, ask: Ask, now: Instant) {
        let Some(session) = self.sessions.get(id) else {
            self.output.tally.unknown += 1;
            return;
        };
        let reader = |sub| ReaderKey { session: id, sub };
        match ask {
            Ask::Announce { path, hops, cost } => {
                let permit = session.permit.clone();
                self.announce(RouteAnnounce { session: id, path, hops, cost, permit }, now);
            }
            Ask::Unannounce { path } => self.withdraw(id, &path, RouteLoss::LastWithdrawn, now),
            Ask::Subscribe { sub, path, track, prefs, want } => {
                let request = SubscribeRequest { sub, path, track, demand: TrackDemand { prefs, want } };
                self.subscriptions(now).subscribe(id, request);
            }
            Ask::Update { sub, prefs } => self.subscriptions(now).update(reader(sub), prefs),
            Ask::Unsubscribe { sub } => self.subscriptions(now).unsubscribe(reader(sub)),
            Ask::Pull { sub, group } => self.orders().pull(reader(sub), group),
            Ask::Pulled { log, epoch, group } => self.orders().pulled(id, log, epoch, group),
            Ask::Exclude { hop } => self.subscriptions(now).exclude(id, hop),
            Ask::Draining => self.drain(id, now),
            Ask::Ended { log, epoch, missing } => {
                if missing {
                    self.subscriptions(now).note_missing(id, log, epoch);
                }
                self.orders().ended(id, log, epoch);
            }
            Ask::StreamsBlocked { blocked } => self.orders().streams_blocked(id, blocked),
        }
    }

    /// Adds or replaces the route of a known session; denied and looped announces are counted and dropped.
    fn announce(&mut self, announce: RouteAnnounce, now: Instant) {
        let path = announce.path.clone();
        if !announce.permit.publish().allows(&path) {
            self.output.tally.announce_denied += 1;
            return;
        }
        match self.routes.check_chain(&announce.hops) {
            Ok(()) => {
                let update = self.routes.announce(announce, now);
                self.routes_changed(&path, update, now);
                return;
            }
            Err(ChainError::TooLong) => self.output.tally.too_many_hops += 1,
            Err(ChainError::Looped) => self.output.tally.looped += 1,
        }
        // A looped chain still replaces the previous announce, so the previous route is withdrawn.
        self.withdraw(announce.session, &path, RouteLoss::Withdrawn, now);
    }

    /// Withdraws the route of a known session. Its log, if it writes one, may still deliver its last groups and
    /// its end, but gets no new readers.
    fn withdraw(&mut self, session: SessionId, path: &Path, loss: RouteLoss, now: Instant) {
        if let Some(update) = self.routes.withdraw(session, path, loss, now) {
            self.routes_changed(path, update, now);
        }
    }

    /// Ranks all routes of a known session last, also future ones.
    fn drain(&mut self, session: SessionId, now: Instant) {
        for path in self.routes.drain(session) {
            let update = self.routes.drain_path(session, &path);
            self.routes_changed(&path, update, now);
        }
    }

    /// Applies a new permit of the same subject. All that lies outside of it ends at once, as if the session
    /// had never had it. What a wider permit allows takes a new request.
    fn revised(&mut self, id: SessionId, permit: Permit, now: Instant) {
        if !self.sessions.revise(id, permit.clone()) {
            self.output.tally.unknown += 1;
            return;
        }
        let announced = self.routes.announced_by(id).filter(|path| !permit.publish().allows(path));
        let withdrawn: Vec<Path> = announced.cloned().collect();
        let (writes, subs) = (self.logs.sessions().writes(id), self.logs.sessions().subs(id));
        for path in withdrawn {
            self.output.tally.announce_denied += 1;
            self.withdraw(id, &path, RouteLoss::Withdrawn, now);
        }
        for log in writes {
            if self.logs.get(log).is_some_and(|log| !permit.publish().allows(&log.key.path)) {
                self.upstreams(now).cut_off(id, log);
            }
        }
        for (reader, log) in subs {
            if self.logs.get(log).is_some_and(|log| !permit.subscribe().allows(&log.key.path)) {
                self.subscriptions(now).expel(reader, log);
            }
        }
    }

    /// Withdraws the routes of a closed session or keeps them as stale, removes its readers, then finds
    /// another upstream for the logs it wrote or suspends them.
    fn closed(&mut self, id: SessionId, vanished: bool, now: Instant) {
        if !self.sessions.close(id) {
            self.output.tally.unknown += 1;
            return;
        }
        let loss = if vanished { RouteLoss::Vanished } else { RouteLoss::Withdrawn };
        let logs = self.logs.close(id);
        let mut touched = self.routes.close(id);
        for path in &touched {
            let update = self.routes.lose(id, path, loss, now);
            self.advertise(path, update);
        }
        for (sub, log) in logs.subs {
            self.upstreams(now).leave(log, ReaderKey { session: id, sub });
        }
        let path_of = |log: &LogId| self.logs.get(*log).map(|log| log.key.path.clone());
        touched.extend(logs.writes.iter().filter_map(path_of));
        for path in &touched {
            self.upstreams(now).reselect_path(path);
        }
    }

    /// Advertises changed routes, and gives the logs of their path the upstream that they call for.
    fn routes_changed(&mut self, path: &Path, update: RouteUpdate, now: Instant) {
        self.advertise(path, update);
        self.upstreams(now).reselect_path(path);
    }

    fn advertise(&mut self, path: &Path, update: RouteUpdate) {
        if let Some(routes) = update.advertised {
            self.output.actions.push(Action::Board { path: path.clone(), routes });
        }
        self.output.tally.takeover_held += u64::from(update.is_waiting);
        self.output.tally.stale_limit += u64::from(update.is_over_limit);
    }

    fn orders(&mut self) -> LogOrders<'_> {
        LogOrders { logs: &mut self.logs, output: &mut self.output }
    }

    fn upstreams(&mut self, now: Instant) -> LogUpstreams<'_> {
        let orders = LogOrders { logs: &mut self.logs, output: &mut self.output };
        LogUpstreams { routes: &self.routes, orders, now }
    }

    fn subscriptions(&mut self, now: Instant) -> Subscriptions<'_> {
        let orders = LogOrders { logs: &mut self.logs, output: &mut self.output };
        let upstreams = LogUpstreams { routes: &self.routes, orders, now };
        Subscriptions { sessions: &mut self.sessions, missing: &mut self.missing, upstreams }
    }
}
