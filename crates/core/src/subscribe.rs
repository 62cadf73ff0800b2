//! Subscribing, updating and unsubscribing. A track is requested upstream once for all readers.

use std::time::Instant;

use relay_model::{Hop, Hops, LogId, Order, Path, Prefs, SessionId, StreamCode, SubId, TrackName, Want};

use crate::{
    brake::Braked,
    core::Core,
    event::Action,
    log::{CoreLog, LogUpstream, ReaderKey},
    route::{PublisherId, RouteEntry},
    timers::Timer,
};

impl Core {
    /// Handles a subscription; the reader's session is known.
    pub(crate) fn subscribe(
        &mut self,
        reader: ReaderKey,
        (path, track): (Path, TrackName),
        (prefs, want): (Prefs, Want),
        now: Instant,
    ) {
        let (id, sub) = reader;
        let Some(session) = self.sessions.get(&id) else { return };
        if session.subs.contains_key(&sub) || session.brake.holds(sub) {
            // The peer would take a reply as one to its first subscription.
            self.tally.unknown += 1;
            return;
        }
        self.serve(reader, (path, track), (prefs, want), false, now);
    }

    /// Attaches a reader to a log of the track, or refuses it. `has_turn`: the brake released it.
    pub(crate) fn serve(
        &mut self,
        reader: ReaderKey,
        (path, track): (Path, TrackName),
        (prefs, want): (Prefs, Want),
        has_turn: bool,
        now: Instant,
    ) {
        let (id, sub) = reader;
        // Unknown and forbidden paths get the same reply.
        let Some(RouteEntry { route, publisher, stale: ghost, .. }) = self.resolve(id, &path) else {
            self.outbox.order(id, Order::Refuse { sub, code: StreamCode::UNROUTABLE });
            return;
        };
        if self.is_mistaken(id, &path, publisher, prefs) {
            self.tally.unroutable += 1;
            self.outbox.order(id, Order::Refuse { sub, code: StreamCode::GOING_AWAY });
            return;
        }
        let log = match self.shared_log(id, &path, publisher, &track) {
            Some(log) => {
                self.join(log, reader, prefs, want);
                self.improve(log, now);
                self.sync_prefs(log);
                self.queue_beside(log, id);
                log
            }
            None => {
                if ghost.is_none() {
                    let key = (path.clone(), publisher, track.clone());
                    if self.missing.contains(&key, now) {
                        self.tally.missing += 1;
                        self.outbox.order(id, Order::Refuse { sub, code: StreamCode::NOT_FOUND });
                        return;
                    }
                    let (path, track) = (path.clone(), track.clone());
                    let braked = Braked { sub, path, track, prefs, want };
                    if !has_turn && self.is_held_back(id, braked, now) {
                        return;
                    }
                }
                let log = self.create(path, publisher, track, &route.hops, id);
                self.join(log, reader, prefs, want);
                match ghost {
                    None => self.open(log, &route, now),
                    Some(_) => self.arm(log, now),
                }
                log
            }
        };
        self.outbox.order(id, Order::Attach { sub, log });
    }

    /// Updates preferences; the reader's session is known. Unknown subscriptions are ones we refused.
    pub(crate) fn update(&mut self, reader: ReaderKey, prefs: Prefs) {
        let Some(session) = self.sessions.get_mut(&reader.0) else { return };
        let Some(log) = session.subs.get(&reader.1).copied() else {
            if !session.brake.update(reader.1, prefs) {
                self.tally.unknown += 1;
            }
            return;
        };
        if let Some(state) = self.logs.get_mut(&log) {
            state.update(reader, prefs);
            self.sync_prefs(log);
        }
    }

    /// Ends a subscription; the reader's session is known. Unknown subscriptions are ones we refused.
    pub(crate) fn unsubscribe(&mut self, reader: ReaderKey, now: Instant) {
        let log = self.sessions.get_mut(&reader.0).and_then(|session| session.subs.remove(&reader.1));
        match log {
            Some(log) => self.leave(log, reader, now),
            None if self.release_braked(reader) => {}
            None => self.tally.unknown += 1,
        }
    }

    /// Removes a reader from its log; the caller updates the session's own state.
    pub(crate) fn leave(&mut self, log: LogId, reader: ReaderKey, now: Instant) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        let abandoned = state.remove(reader);
        let (upstream, unread) = (state.upstream, state.is_unread());
        if let Some(group) = abandoned {
            self.drop_pull(log, group);
        }
        match upstream {
            // Others wait for streams of that session.
            LogUpstream::Open(writer) if unread && self.is_blocked(writer) => self.retire(log),
            LogUpstream::Open(_) if unread && self.linger_bytes() >= self.config.linger_bytes => {
                self.tally.linger_limit += 1;
                self.retire(log);
            }
            LogUpstream::Open(_) if unread => self.arm(log, now),
            LogUpstream::Open(_) => {
                self.improve(log, now);
                self.sync_prefs(log);
            }
            LogUpstream::Suspended | LogUpstream::Over if unread => self.retire(log),
            LogUpstream::Suspended | LogUpstream::Over => {}
        }
    }

    /// Sets the hop excluded by `id`, a known session. Open subscriptions stay, whatever their route.
    pub(crate) fn exclude(&mut self, id: SessionId, hop: Hop, now: Instant) {
        let exclude = Some(hop).filter(|hop| *hop != Hop::ANONYMOUS);
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.exclude != exclude) else {
            return;
        };
        session.exclude = exclude;
        let subs: Vec<(SubId, LogId)> = session.subs.iter().map(|(sub, log)| (*sub, *log)).collect();
        for (sub, log) in subs {
            if let Some(state) = self.logs.get_mut(&log) {
                state.set_exclude((id, sub), exclude);
                self.improve(log, now);
            }
        }
    }

    /// Sends the writer of an open log its new preferences if those of its readers changed.
    pub(crate) fn sync_prefs(&mut self, log: LogId) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        let LogUpstream::Open(session) = state.upstream else { return };
        if !self.sessions.contains_key(&session) {
            return; // Closing: the next writer gets them when it opens.
        }
        let wanted = state.wanted_of_open();
        if wanted != state.asked {
            state.asked = wanted;
            let (prefs, want) = wanted;
            self.outbox.order(session, Order::Prefs { log, prefs, want });
        }
    }

    /// The best route `id` may be served through; without a usable route, the ghost to wait for. `None`
    /// (counted) if there is neither.
    fn resolve(&mut self, id: SessionId, path: &Path) -> Option<RouteEntry> {
        let session = self.sessions.get(&id)?;
        if !session.permit.subscribe().allows(path) {
            self.tally.subscribe_denied += 1;
            return None;
        }
        let best = self.broadcasts.get(path).and_then(|broadcast| {
            let ghosts = broadcast.last_resorts().filter(|_| !broadcast.is_served());
            let mut routes = broadcast.usable().chain(ghosts);
            routes.find(|candidate| self.may_read(id, candidate.route.session, &candidate.route.hops))
        });
        let best = best.cloned();
        if best.is_none() {
            self.tally.unroutable += 1;
        }
        best
    }

    /// Whether the publisher advertised to `id` is not the one that would serve it: a start group refers to
    /// the advertised one, and groups of two publishers would meet in its log.
    fn is_mistaken(&self, id: SessionId, path: &Path, publisher: PublisherId, prefs: Prefs) -> bool {
        prefs.start.floor().is_some_and(|floor| floor > 0)
            && self.broadcasts.get(path).is_some_and(|broadcast| {
                let mut shown = broadcast.routes().iter().filter(|candidate| candidate.admitted);
                let shown = shown.find(|shown| self.may_read(id, shown.route.session, &shown.route.hops));
                shown.is_some_and(|shown| shown.stale.is_some() && shown.publisher != publisher)
            })
    }

    /// Records whether requests to the peer of `id` wait for stream credit. While they do, unread logs keep
    /// no stream that others wait for.
    pub(crate) fn streams_blocked(&mut self, id: SessionId, blocked: bool) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.blocked = blocked;
        if blocked {
            let writes: Vec<LogId> = session.writes.iter().copied().collect();
            for log in writes {
                if self.logs.get(&log).is_some_and(CoreLog::is_unread) {
                    self.retire(log);
                }
            }
        }
    }

    fn is_blocked(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| session.blocked)
    }

    /// Queues the request for a log under `asker` as well: it may still be queued under the session that
    /// asked first.
    fn queue_beside(&mut self, log: LogId, asker: SessionId) {
        if let Some(LogUpstream::Open(writer)) = self.logs.get(&log).map(|state| state.upstream)
            && self.is_blocked(writer)
        {
            self.outbox.order(writer, Order::Asked { log, asker });
        }
    }

    fn create(
        &mut self,
        path: Path,
        publisher: PublisherId,
        track: TrackName,
        hops: &Hops,
        asker: SessionId,
    ) -> LogId {
        let log = LogId(self.next_serial());
        self.outbox.push(Action::Create { log });
        self.broadcasts.entry(path.clone()).or_default().add_log(publisher, track.clone(), log);
        self.logs.insert(log, CoreLog::new(path, publisher, track, hops.clone(), asker));
        log
    }

    pub(crate) fn join(&mut self, log: LogId, (id, sub): ReaderKey, prefs: Prefs, want: Want) {
        let (Some(state), Some(session)) = (self.logs.get_mut(&log), self.sessions.get_mut(&id)) else {
            return;
        };
        state.add((id, sub), prefs, want, session.exclude);
        session.subs.insert(sub, log);
        // A suspended log waits for its publisher, not for readers.
        if state.upstream != LogUpstream::Suspended
            && let Some(at) = state.deadline.take()
        {
            self.timers.disarm(at, Timer::Log(log));
        }
    }

    /// A flowing or suspended log of the track, on a route that `id` may be served through.
    fn shared_log(
        &self,
        id: SessionId,
        path: &Path,
        publisher: PublisherId,
        track: &TrackName,
    ) -> Option<LogId> {
        let logs = self.broadcasts.get(path)?.logs_of(publisher, track);
        logs.iter().copied().find(|log| {
            self.logs.get(log).is_some_and(|state| match state.upstream {
                LogUpstream::Open(writer) => self.may_read(id, writer, &state.hops),
                LogUpstream::Suspended => self.may_pass(id, &state.hops),
                LogUpstream::Over => false,
            })
        })
    }

    /// Split horizon: a session is never served its own content.
    fn may_read(&self, id: SessionId, writer: SessionId, hops: &Hops) -> bool {
        id != writer && self.may_pass(id, hops)
    }

    fn may_pass(&self, id: SessionId, hops: &Hops) -> bool {
        let exclude: Option<Hop> = self.sessions.get(&id).and_then(|session| session.exclude);
        exclude.is_none_or(|hop| !hops.contains(&hop))
    }
}
