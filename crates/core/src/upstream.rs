//! Upstream of a log, from its first writer to its end. A log follows its publisher, not the session it was
//! opened on.

use std::time::Instant;

use relay_model::{LogId, Order, Path, Route, SessionId, StreamCode};

use crate::{
    event::Action,
    log::{CoreLog, LogUpstream, ReaderKey, ReaderState},
    log_orders::LogOrders,
    path_routes::PathRoutes,
    route_table::RouteTable,
};

/// Choice of the route that each log is written through.
#[derive(Debug)]
pub(crate) struct LogUpstreams<'a> {
    pub(crate) routes: &'a RouteTable,
    pub(crate) orders: LogOrders<'a>,
    pub(crate) now: Instant,
}

impl LogUpstreams<'_> {
    /// Gives every log of `path` the upstream that its routes call for. Called after each change of routes or
    /// sessions; does nothing if nothing changed.
    pub(crate) fn reselect_path(&mut self, path: &Path) {
        let logs: Vec<LogId> =
            self.orders.logs.tracks().of_path(path).flat_map(|(_, logs)| logs.iter().copied()).collect();
        for log in logs {
            self.reselect(log);
        }
    }

    fn reselect(&mut self, log: LogId) {
        let Some(state) = self.orders.logs.get(log) else { return };
        let publisher = state.key.publisher;
        let writer = state.upstream.writer();
        // An ambiguous writer ends the log itself, as it knows the time of its own request; not so if another
        // session writes, or is about to.
        let ambiguous = self.ambiguous_writer(log);
        if ambiguous.is_some_and(|of| Some(of) != writer || self.failover(log).is_some()) {
            self.orders.output.tally.ambiguous += 1;
            self.orders.close(log);
            self.orders.end(log, StreamCode::GOING_AWAY);
            return;
        }
        let routes = self.routes.get(&state.key.path);
        let own = writer.and_then(|writer| routes?.live_of(writer));
        if let Some(own) = own.filter(|own| own.publisher == publisher) {
            self.orders.logs.set_hops(log, &own.route.hops);
            self.improve(log);
            return;
        }
        let is_alive = self.orders.logs.writer(log).is_some();
        let is_leaving = |writer| routes.is_some_and(|routes| routes.is_leaving(writer, publisher));
        if is_alive && writer.is_some_and(is_leaving) {
            return; // It may still deliver its last groups and its end.
        }
        let is_unread = state.is_unread();
        match self.failover(log) {
            Some(_) if is_unread => self.orders.retire(log),
            Some(route) => self.open(log, &route),
            // Withdrawn, perhaps still delivering.
            None if is_alive => {}
            None if is_unread => self.orders.retire(log),
            // Its readers subscribe again, to the other publisher.
            None if self.is_replaced(log) => {
                self.orders.output.tally.replaced += 1;
                self.orders.end(log, StreamCode::UNROUTABLE);
            }
            None => self.orders.logs.suspend(log, self.now),
        }
    }

    /// Moves a log with readers to a better route of its publisher than its current one, if one serves all
    /// readers. Never moves between equals, as the order of routes is strict.
    pub(crate) fn improve(&mut self, log: LogId) {
        if let Some(route) = self.better_route(log) {
            self.open(log, &route);
        }
    }

    /// Makes the route's session the writer of `log`; a previous writer is ordered to close. Pulls are
    /// ordered again.
    pub(crate) fn open(&mut self, log: LogId, route: &Route) {
        self.orders.close(log);
        let Some(request) = self.orders.logs.attach_writer(log, route, self.now) else { return };
        self.orders.output.actions.push(Action::Fence { log, epoch: request.epoch });
        let order = Order::Open {
            log,
            epoch: request.epoch,
            path: request.key.path,
            publisher: route.publisher(),
            track: request.key.track,
            prefs: request.demand.prefs,
            want: request.demand.want,
            asker: request.asker,
        };
        self.orders.output.actions.order(route.session, order);
        self.orders.order_pulls(log);
    }

    /// Stops `log` from being written by `writer`, whose path is withdrawn: another route takes over, or the
    /// log ends.
    pub(crate) fn cut_off(&mut self, writer: SessionId, log: LogId) {
        let state = self.orders.logs.get(log);
        let Some(state) = state.filter(|state| state.upstream == LogUpstream::Open(writer)) else { return };
        let is_unread = state.is_unread();
        match self.failover(log) {
            _ if is_unread => self.orders.retire(log),
            Some(route) => self.open(log, &route),
            None => {
                self.orders.close(log);
                self.orders.end(log, StreamCode::UNROUTABLE);
            }
        }
    }

    /// Removes a reader, whose subscription has no entry any more, from its log.
    pub(crate) fn leave(&mut self, log: LogId, reader: ReaderKey) {
        if let Some(group) = self.orders.logs.leave(log, reader) {
            self.orders.drop_pull(log, group);
        }
        let Some(state) = self.orders.logs.get(log) else { return };
        let is_unread = state.is_unread();
        match state.upstream {
            // Others wait for streams of that session.
            LogUpstream::Open(writer) if is_unread && self.orders.logs.sessions().is_blocked(writer) => {
                self.orders.retire(log);
            }
            LogUpstream::Open(_) if is_unread && self.orders.logs.is_linger_full() => {
                self.orders.output.tally.linger_limit += 1;
                self.orders.retire(log);
            }
            LogUpstream::Open(_) if is_unread => self.orders.logs.start_linger(log, self.now),
            LogUpstream::Open(_) => {
                self.improve(log);
                self.orders.sync_demand(log);
            }
            LogUpstream::Suspended | LogUpstream::Over if is_unread => self.orders.retire(log),
            LogUpstream::Suspended | LogUpstream::Over => {}
        }
    }

    /// Merges `log` into another log of the track with the same writer, if there still is one: readers that
    /// could not share a route had a log each, until routes changed. They keep their position.
    pub(crate) fn merge(&mut self, log: LogId) {
        let Some(twin) = self.orders.logs.twin(log) else { return };
        let readers = self.orders.logs.get(log).into_iter().flat_map(CoreLog::readers);
        let readers: Vec<(ReaderKey, ReaderState)> =
            readers.map(|(reader, state)| (*reader, *state)).collect();
        for (reader, state) in readers {
            self.hand_over(reader, state, log, twin);
        }
        self.improve(twin);
        self.orders.sync_demand(twin);
        self.orders.output.tally.merged += 1;
        self.orders.retire(log);
    }

    fn hand_over(&mut self, reader: ReaderKey, state: ReaderState, log: LogId, twin: LogId) {
        if let Some(group) = self.orders.logs.leave(log, reader) {
            self.orders.drop_pull(log, group);
        }
        self.orders.logs.join(twin, reader, state.demand, state.exclude);
        self.orders.output.actions.order(reader.session, Order::Attach { sub: reader.sub, log: twin });
        if let Some(group) = state.pull {
            self.orders.pull(reader, group);
        }
    }

    /// The best route to the log's publisher that serves all readers, or else the best of all: a reader that
    /// would receive its own content finds another route on its side.
    fn failover(&self, log: LogId) -> Option<Route> {
        let (state, routes) = self.log_and_routes(log)?;
        let live = || routes.live_to(state.key.publisher);
        let serves_all = live().find(|entry| state.serves_through(&entry.route));
        serves_all.or_else(|| live().next()).map(|entry| entry.route.clone())
    }

    fn better_route(&self, log: LogId) -> Option<Route> {
        let (state, routes) = self.log_and_routes(log).filter(|(state, _)| !state.is_unread())?;
        let writer = state.upstream.writer()?;
        // A withdrawn route is left in `reselect`, not here.
        routes.live_of(writer).filter(|own| own.publisher == state.key.publisher)?;
        let mut better =
            routes.live_to(state.key.publisher).take_while(|entry| entry.route.session != writer);
        better.find(|entry| state.serves_through(&entry.route)).map(|entry| entry.route.clone())
    }

    /// Whether the publisher of `log` is gone and not expected back, while another one serves the path.
    fn is_replaced(&self, log: LogId) -> bool {
        self.log_and_routes(log)
            .is_some_and(|(state, routes)| routes.is_served() && !routes.expects(state.key.publisher))
    }

    /// Session recently asked for `log` that now announces another publisher for the path: it may already
    /// have meant that one when the request arrived, and groups of two publishers would meet in the log.
    fn ambiguous_writer(&self, log: LogId) -> Option<SessionId> {
        let (state, routes) = self.log_and_routes(log)?;
        state.asked_lately(self.now).find(|session| {
            let own = routes.of_session(*session).filter(|own| own.standing.is_announced());
            own.is_some_and(|own| own.publisher != state.key.publisher)
        })
    }

    /// `None` if the path of `log` has no route.
    fn log_and_routes(&self, log: LogId) -> Option<(&CoreLog, &PathRoutes)> {
        let state = self.orders.logs.get(log)?;
        Some((state, self.routes.get(&state.key.path)?))
    }
}
