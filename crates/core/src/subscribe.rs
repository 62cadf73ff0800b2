//! Subscribing, updating and unsubscribing. A track is requested upstream once for all readers.

use relay_model::{Epoch, Hop, Hops, LogId, Order, Path, Prefs, SessionId, StreamCode};

use crate::{
    event::Action,
    log::{CoreLog, LogUpstream, ReaderKey, TrackDemand},
    missing::MissingTracks,
    publisher::TrackKey,
    route::RouteEntry,
    session_table::{SessionTable, SplitHorizon},
    throttle::{SubscribeRequest, ThrottleVerdict},
    upstream::LogUpstreams,
};

/// Sessions that subscribe, and the logs that serve them.
#[derive(Debug)]
pub(crate) struct Subscriptions<'a> {
    pub(crate) sessions: &'a mut SessionTable,
    pub(crate) missing: &'a mut MissingTracks,
    pub(crate) upstreams: LogUpstreams<'a>,
}

impl Subscriptions<'_> {
    /// Handles a subscription of a known session.
    pub(crate) fn subscribe(&mut self, id: SessionId, request: SubscribeRequest) {
        let reader = ReaderKey { session: id, sub: request.sub };
        if self.upstreams.orders.logs.sessions().log_of(reader).is_some() || self.sessions.is_queued(reader) {
            // The peer would take a reply as one to its first subscription.
            self.upstreams.orders.output.tally.unknown += 1;
            return;
        }
        self.serve(id, request, true);
    }

    /// Serves the next queued subscription of a session.
    pub(crate) fn release(&mut self, id: SessionId) {
        if let Some(request) = self.sessions.release(id, self.upstreams.now) {
            self.serve(id, request, false);
        }
    }

    /// Updates preferences; the reader's session is known. Unknown subscriptions are ones we refused.
    pub(crate) fn update(&mut self, reader: ReaderKey, prefs: Prefs) {
        let orders = &mut self.upstreams.orders;
        if let Some(log) = orders.logs.sessions().log_of(reader) {
            orders.logs.update(log, reader, prefs);
            orders.sync_demand(log);
        } else if !self.sessions.update_queued(reader, prefs) {
            orders.output.tally.unknown += 1;
        }
    }

    /// Ends a subscription; the reader's session is known. Unknown subscriptions are ones we refused.
    pub(crate) fn unsubscribe(&mut self, reader: ReaderKey) {
        if let Some(log) = self.upstreams.orders.logs.unsubscribe(reader) {
            self.upstreams.leave(log, reader);
        } else if !self.sessions.cancel_queued(reader) {
            self.upstreams.orders.output.tally.unknown += 1;
        }
    }

    /// Removes a subscription that the permit of its session allows no more, with the same code as for an
    /// unknown path.
    pub(crate) fn expel(&mut self, reader: ReaderKey, log: LogId) {
        self.upstreams.orders.logs.unsubscribe(reader);
        self.upstreams.orders.output.tally.subscribe_denied += 1;
        self.refuse(reader, StreamCode::UNROUTABLE);
        self.upstreams.leave(log, reader);
    }

    /// Sets the hop id of the peer of `id`, a known session. Open subscriptions stay, whatever their route.
    pub(crate) fn exclude(&mut self, id: SessionId, hop: Hop) {
        let exclude = Some(hop).filter(|hop| *hop != Hop::ANONYMOUS);
        if self.sessions.set_exclude(id, exclude) {
            for (reader, log) in self.upstreams.orders.logs.sessions().subs(id) {
                self.upstreams.orders.logs.set_exclude(log, reader, exclude);
                self.upstreams.improve(log);
            }
        }
    }

    /// Records the report of `writer` that its peer has no such track, as a miss of the session that `log` was
    /// opened for and of all its readers.
    pub(crate) fn note_missing(&mut self, writer: SessionId, log: LogId, epoch: Epoch) {
        let logs = &self.upstreams.orders.logs;
        let state =
            logs.get(log).filter(|state| state.epoch == epoch && logs.sessions().is_writer(writer, log));
        let Some(state) = state else { return };
        self.missing.insert(state.key.clone(), self.upstreams.now);
        let readers = state.readers().map(|(reader, _)| reader.session);
        let mut readers: Vec<SessionId> = readers.chain([state.asker]).collect();
        readers.sort_unstable();
        readers.dedup();
        for reader in readers {
            self.sessions.count_missing(reader, self.upstreams.now);
        }
    }

    /// Attaches a reader to a log of the track, or refuses it.
    fn serve(&mut self, id: SessionId, request: SubscribeRequest, is_throttled: bool) {
        let reader = ReaderKey { session: id, sub: request.sub };
        let horizon = self.sessions.horizon(id);
        // Unknown and forbidden paths get the same reply.
        let Some(entry) = self.resolve(horizon, &request.path) else {
            return self.refuse(reader, StreamCode::UNROUTABLE);
        };
        let publisher = entry.publisher;
        if self.is_mistaken(horizon, &request, &entry) {
            self.upstreams.orders.output.tally.unroutable += 1;
            return self.refuse(reader, StreamCode::GOING_AWAY);
        }
        let SubscribeRequest { path, track, demand, .. } = request.clone();
        let key = TrackKey { path, publisher, track };
        let log = match self.shared_log(horizon, &key) {
            Some(log) => {
                self.join(log, reader, demand, horizon);
                log
            }
            None if entry.standing.is_announced() => {
                if self.missing.contains(&key, self.upstreams.now) {
                    self.upstreams.orders.output.tally.missing += 1;
                    return self.refuse(reader, StreamCode::NOT_FOUND);
                }
                if is_throttled && self.must_wait(reader, request) {
                    return;
                }
                let log = self.create(key, &entry.route.hops, reader, demand, horizon);
                self.upstreams.open(log, &entry.route);
                log
            }
            None => {
                let log = self.create(key, &entry.route.hops, reader, demand, horizon);
                self.upstreams.orders.logs.start_linger(log, self.upstreams.now);
                log
            }
        };
        self.upstreams.orders.output.actions.order(id, Order::Attach { sub: reader.sub, log });
    }

    /// Whether a subscription that needs its publisher must wait: queued until its turn, or refused if the
    /// queue is full.
    fn must_wait(&mut self, reader: ReaderKey, request: SubscribeRequest) -> bool {
        match self.sessions.throttle(reader.session, request, self.upstreams.now) {
            ThrottleVerdict::Pass => return false,
            ThrottleVerdict::Queued => self.upstreams.orders.output.tally.braked += 1,
            ThrottleVerdict::Full => {
                self.upstreams.orders.output.tally.brake_refused += 1;
                self.refuse(reader, StreamCode::EXCESSIVE_LOAD);
            }
        }
        true
    }

    fn refuse(&mut self, reader: ReaderKey, code: StreamCode) {
        self.upstreams.orders.output.actions.order(reader.session, Order::Refuse { sub: reader.sub, code });
    }

    /// The best route that the session may be served through; without a live route, the stale one to wait for.
    /// `None` (counted) if there is neither.
    fn resolve(&mut self, horizon: SplitHorizon, path: &Path) -> Option<RouteEntry> {
        let tally = &mut self.upstreams.orders.output.tally;
        if !self.sessions.get(horizon.session)?.permit.subscribe().allows(path) {
            tally.subscribe_denied += 1;
            return None;
        }
        let best = self.upstreams.routes.get(path).and_then(|routes| {
            let stale = routes.stale().filter(|_| !routes.is_served());
            let mut entries = routes.live().chain(stale);
            entries.find(|entry| horizon.allows(entry.route.session, &entry.route.hops))
        });
        if best.is_none() {
            tally.unroutable += 1;
        }
        best.cloned()
    }

    /// Whether the publisher advertised to the session is not the one that would serve it: a start group refers
    /// to the advertised one, and groups of two publishers would meet in its log.
    fn is_mistaken(&self, horizon: SplitHorizon, request: &SubscribeRequest, entry: &RouteEntry) -> bool {
        request.demand.prefs.start.floor().is_some_and(|floor| floor > 0)
            && self.upstreams.routes.get(&request.path).is_some_and(|routes| {
                let allows = |shown: &&RouteEntry| horizon.allows(shown.route.session, &shown.route.hops);
                let shown = routes.admitted().find(allows);
                shown
                    .is_some_and(|shown| !shown.standing.is_announced() && shown.publisher != entry.publisher)
            })
    }

    /// Log of the track with an upstream, or waiting for one, that the session may be served through.
    fn shared_log(&self, horizon: SplitHorizon, key: &TrackKey) -> Option<LogId> {
        let logs = &self.upstreams.orders.logs;
        let serves = |state: &CoreLog| match state.upstream {
            LogUpstream::Open(writer) => horizon.allows(writer, &state.hops),
            LogUpstream::Suspended => horizon.allows_chain(&state.hops),
            LogUpstream::Over => false,
        };
        logs.tracks().of_track(key).iter().copied().find(|log| logs.get(*log).is_some_and(serves))
    }

    /// Adds a reader to a log that serves others.
    fn join(&mut self, log: LogId, reader: ReaderKey, demand: TrackDemand, horizon: SplitHorizon) {
        self.upstreams.orders.logs.join(log, reader, demand, horizon.exclude);
        self.upstreams.improve(log);
        self.upstreams.orders.sync_demand(log);
        self.upstreams.orders.queue_beside(log, reader.session);
    }

    /// Creates a log for its first reader.
    fn create(
        &mut self,
        key: TrackKey,
        hops: &Hops,
        reader: ReaderKey,
        demand: TrackDemand,
        horizon: SplitHorizon,
    ) -> LogId {
        let orders = &mut self.upstreams.orders;
        let log = orders.logs.create(key, hops.clone(), reader.session);
        orders.output.actions.push(Action::Create { log });
        orders.logs.join(log, reader, demand, horizon.exclude);
        log
    }
}
