//! Upstream of a log, from its first writer to its end. A log follows its publisher, not the session it was
//! opened on.

use std::time::Instant;

use relay_model::{Epoch, LogId, Order, Path, Route, SessionId, StreamCode};

use crate::{core::Core, event::Action, log::LogUpstream, timers::Timer};

impl Core {
    /// Gives every log of `path` the upstream that its routes call for. Called after each change of routes or
    /// sessions; does nothing if nothing changed.
    pub(crate) fn reselect_upstreams(&mut self, path: &Path, now: Instant) {
        let logs: Vec<LogId> =
            self.broadcasts.get(path).map(|broadcast| broadcast.logs().collect()).unwrap_or_default();
        for log in logs {
            self.reselect_upstream(log, now);
        }
    }

    fn reselect_upstream(&mut self, log: LogId, now: Instant) {
        let Some(state) = self.logs.get(&log) else { return };
        let writer = match state.upstream {
            LogUpstream::Open(writer) => Some(writer),
            LogUpstream::Suspended | LogUpstream::Over => None,
        };
        // A doubtful writer ends the log itself, as it knows the time of its own request; not so if another
        // session writes, or is about to.
        let doubtful = self.ambiguous_writer(log, now);
        if doubtful.is_some_and(|of| Some(of) != writer || self.failover(log).is_some()) {
            self.tally.ambiguous += 1;
            self.close(log);
            self.end_log(log, StreamCode::GOING_AWAY);
            return;
        }
        let Some(state) = self.logs.get_mut(&log) else { return };
        let Some(broadcast) = self.broadcasts.get(&state.path) else { return };
        let own = writer.and_then(|writer| broadcast.route_of(writer));
        if let Some(own) = own.filter(|own| own.publisher == state.publisher) {
            state.hops = own.route.hops.clone();
            self.improve(log, now);
            return;
        }
        let alive = writer.is_some_and(|writer| self.sessions.contains_key(&writer));
        if alive && writer.is_some_and(|writer| broadcast.is_leaving(writer, state.publisher)) {
            return; // It may still deliver its last groups and its end.
        }
        match self.failover(log) {
            Some(_) if self.is_unread(log) => self.retire(log),
            Some(route) => self.open(log, &route, now),
            // Withdrawn, perhaps still delivering.
            None if alive => {}
            None if self.is_unread(log) => self.retire(log),
            // Its readers subscribe again, to the other publisher.
            None if self.is_replaced(log) => {
                self.tally.replaced += 1;
                self.end_log(log, StreamCode::UNROUTABLE);
            }
            None => self.suspend(log, now),
        }
    }

    /// Moves a log with readers to a better route of its publisher than its current one, if one serves all
    /// readers. Never moves between equals, as the order of routes is strict.
    pub(crate) fn improve(&mut self, log: LogId, now: Instant) {
        if let Some(route) = self.better_route(log) {
            self.open(log, &route, now);
        }
    }

    fn better_route(&self, log: LogId) -> Option<Route> {
        let state = self.logs.get(&log).filter(|state| !state.is_unread())?;
        let LogUpstream::Open(writer) = state.upstream else { return None };
        let broadcast = self.broadcasts.get(&state.path)?;
        // A withdrawn route is left in `settle_log`, not here.
        broadcast.route_of(writer).filter(|own| own.publisher == state.publisher)?;
        let routes = broadcast.routes_to(state.publisher);
        let mut better = routes.take_while(|candidate| candidate.route.session != writer);
        let best = better.find(|candidate| state.serves_through(&candidate.route))?;
        Some(best.route.clone())
    }

    /// The best route to the log's publisher that serves all readers, or else the best of all: a reader that
    /// would receive its own content finds another route on its side.
    pub(crate) fn failover(&self, log: LogId) -> Option<Route> {
        let state = self.logs.get(&log)?;
        let routes =
            || self.broadcasts.get(&state.path).into_iter().flat_map(|b| b.routes_to(state.publisher));
        let serves_all = routes().find(|candidate| state.serves_through(&candidate.route));
        let best = serves_all.or_else(|| routes().next());
        best.map(|candidate| candidate.route.clone())
    }

    /// Whether the publisher of `log` is gone and not expected back, while another one serves the path.
    fn is_replaced(&self, log: LogId) -> bool {
        let Some(state) = self.logs.get(&log) else { return false };
        let broadcast = self.broadcasts.get(&state.path);
        broadcast.is_some_and(|b| b.is_served() && !b.expects(state.publisher))
    }

    /// A session recently asked for `log` that now announces another publisher for the path: it may already
    /// have meant that one when the request arrived, and groups of two publishers would meet in the log.
    fn ambiguous_writer(&self, log: LogId, now: Instant) -> Option<SessionId> {
        let state = self.logs.get(&log)?;
        let broadcast = self.broadcasts.get(&state.path)?;
        state.asked_lately(now).find(|session| {
            let said = broadcast.announced_by(*session).filter(|said| said.stale.is_none());
            said.is_some_and(|said| said.publisher != state.publisher)
        })
    }

    /// Makes the route's session the writer of `log`; a previous writer is ordered to close. Pulls are
    /// ordered again.
    pub(crate) fn open(&mut self, log: LogId, route: &Route, now: Instant) {
        self.close(log);
        let Some(state) = self.logs.get_mut(&log) else { return };
        if let Some(at) = state.deadline.take() {
            self.timers.disarm(at, Timer::Log(log));
        }
        state.epoch = Epoch(state.epoch.0 + 1);
        state.asked = state.wanted();
        state.hops = route.hops.clone();
        state.upstream = LogUpstream::Open(route.session);
        state.ask_of(route.session, now);
        if let Some(session) = self.sessions.get_mut(&route.session) {
            session.writes.insert(log);
        }
        let (epoch, (prefs, want)) = (state.epoch, state.asked);
        let (path, track) = (state.path.clone(), state.track.clone());
        let asker = state.readers().next().map_or(state.asker, |((session, _), _)| *session);
        self.outbox.push(Action::Fence { log, epoch });
        let publisher = route.publisher();
        let order = Order::Open { log, epoch, path, publisher, track, prefs, want, asker };
        self.outbox.order(route.session, order);
        self.order_pulls(log);
        self.plan_merge(log, now);
    }

    /// Orders the writer, if there is one, to close; the log is suspended without a deadline.
    pub(crate) fn close(&mut self, log: LogId) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        let LogUpstream::Open(writer) = state.upstream else { return };
        state.upstream = LogUpstream::Suspended;
        self.cancel_merge(log);
        if let Some(session) = self.sessions.get_mut(&writer) {
            session.writes.remove(&log);
            self.outbox.order(writer, Order::Close { log });
        }
    }

    fn suspend(&mut self, log: LogId, now: Instant) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        if state.upstream != LogUpstream::Suspended {
            state.upstream = LogUpstream::Suspended;
            self.cancel_merge(log);
            self.arm(log, now);
        }
    }

    /// Starts the linger of an unread open log, or of a suspended one.
    pub(crate) fn arm(&mut self, log: LogId, now: Instant) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        if state.deadline.is_none() {
            let at = now + self.config.linger;
            state.deadline = Some(at);
            self.timers.arm(at, Timer::Log(log));
        }
    }

    /// Handles the end of the linger of `log`.
    pub(crate) fn linger_over(&mut self, log: LogId) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        state.deadline = None;
        match state.upstream {
            LogUpstream::Open(_) if state.is_unread() => self.retire(log),
            LogUpstream::Suspended => {
                self.tally.abandoned += 1;
                self.end_log(log, StreamCode::UNROUTABLE);
            }
            LogUpstream::Open(_) | LogUpstream::Over => {}
        }
    }

    /// Ends a log that has no writer (any more).
    pub(crate) fn end_log(&mut self, log: LogId, code: StreamCode) {
        self.outbox.push(Action::End { log, code });
        self.finish(log);
    }

    /// Handles the writer's report that `log` has ended. Readers stay until they have read it.
    pub(crate) fn ended(&mut self, id: SessionId, log: LogId, epoch: Epoch) {
        let is_newest = self.logs.get(&log).is_some_and(|state| state.epoch == epoch);
        let wrote =
            is_newest && self.sessions.get_mut(&id).is_some_and(|session| session.writes.remove(&log));
        if wrote {
            self.finish(log);
        } else {
            // The report crossed our own order to close.
            self.tally.unknown += 1;
        }
    }

    /// Marks `log` as ended; the next subscription to the track gets a new log.
    fn finish(&mut self, log: LogId) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        state.upstream = LogUpstream::Over;
        state.stop_pulls();
        let is_unread = state.is_unread();
        self.cancel_merge(log);
        if is_unread {
            self.retire(log);
        } else {
            self.forget_log(log);
        }
    }

    /// Drops an unread log; its writer, if there is one, is ordered to close.
    pub(crate) fn retire(&mut self, log: LogId) {
        self.close(log);
        self.forget_log(log);
        if self.logs.remove(&log).is_some() {
            self.outbox.push(Action::Retire { log });
        }
    }

    /// Removes a log from the track table.
    fn forget_log(&mut self, log: LogId) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        if let Some(at) = state.deadline.take() {
            self.timers.disarm(at, Timer::Log(log));
        }
        let path = state.path.clone();
        if let Some(broadcast) = self.broadcasts.get_mut(&path) {
            broadcast.remove_log(state.publisher, &state.track, log);
        }
        self.forget_if_empty(&path);
    }

    fn is_unread(&self, log: LogId) -> bool {
        self.logs.get(&log).is_some_and(|state| state.is_unread())
    }
}
