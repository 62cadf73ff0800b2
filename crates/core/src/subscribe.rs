//! Readers come, change and go. However many, a track is asked for once.

use std::time::Instant;

use relay_model::{
    Hop, Hops, LogId, Order, Path, Prefs, Route, SessionId, StreamCode, TrackName, Want, limits,
};

use crate::{
    core::Core,
    event::Action,
    log::{Log, Reader, Upstream},
    route::Publisher,
};

impl Core {
    /// The reader's session is known.
    pub(crate) fn subscribe(
        &mut self,
        reader: Reader,
        path: Path,
        track: TrackName,
        prefs: Prefs,
        want: Want,
    ) {
        let (id, sub) = reader;
        let Some(session) = self.sessions.get(&id) else { return };
        if session.subs.contains_key(&sub) {
            // An answer would be taken for one to the first.
            self.tally.unknown += 1;
            return;
        }
        if session.killed || session.subs.len() >= limits::SUBSCRIPTIONS {
            self.tally.subscribe_limit += 1;
            self.outbox.order(id, Order::Refuse { sub, code: StreamCode::CANCEL });
            return;
        }
        // Whether it is not there or not allowed is not told apart.
        let Some((route, publisher)) = self.resolve(id, &path) else {
            self.outbox.order(id, Order::Refuse { sub, code: StreamCode::UNROUTABLE });
            return;
        };
        let log = match self.shared_log(id, &path, publisher, &track) {
            Some(log) => {
                self.join(log, reader, prefs, want);
                self.sync_prefs(log);
                log
            }
            None => {
                let log = self.create(path, publisher, track, &route.hops);
                self.join(log, reader, prefs, want);
                self.open(log, &route);
                log
            }
        };
        self.outbox.order(id, Order::Attach { sub, log });
    }

    /// The reader's session is known. Unknown subscriptions are ones we refused.
    pub(crate) fn update(&mut self, reader: Reader, prefs: Prefs) {
        let log = self.sessions.get(&reader.0).and_then(|session| session.subs.get(&reader.1)).copied();
        let Some(log) = log else {
            self.tally.unknown += 1;
            return;
        };
        if let Some(state) = self.logs.get_mut(&log) {
            state.update(reader, prefs);
            self.sync_prefs(log);
        }
    }

    /// The reader's session is known. Unknown subscriptions are ones we refused.
    pub(crate) fn unsubscribe(&mut self, reader: Reader, now: Instant) {
        let log = self.sessions.get_mut(&reader.0).and_then(|session| session.subs.remove(&reader.1));
        match log {
            Some(log) => self.leave(log, reader, now),
            None => self.tally.unknown += 1,
        }
    }

    /// Takes a reader out of its log; the caller keeps the session's side.
    pub(crate) fn leave(&mut self, log: LogId, reader: Reader, now: Instant) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        state.remove(reader);
        match state.upstream {
            Upstream::Open(_) if state.is_unread() => self.arm(log, now),
            Upstream::Open(_) => self.sync_prefs(log),
            Upstream::Suspended | Upstream::Over if state.is_unread() => self.retire(log),
            Upstream::Suspended | Upstream::Over => {}
        }
    }

    /// Tells the writer of an open log when what its readers want has changed.
    pub(crate) fn sync_prefs(&mut self, log: LogId) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        let Upstream::Open(session) = state.upstream else { return };
        if !self.sessions.contains_key(&session) {
            return; // It is closing: whoever writes next is told.
        }
        let wanted = state.wanted_of_open();
        if wanted != state.asked {
            state.asked = wanted;
            let (prefs, want) = wanted;
            self.outbox.order(session, Order::Prefs { log, prefs, want });
        }
    }

    /// The best route `id` may be served through. `None`, counted, without any.
    fn resolve(&mut self, id: SessionId, path: &Path) -> Option<(Route, Publisher)> {
        let session = self.sessions.get(&id)?;
        if !session.permit.subscribe().allows(path) {
            self.tally.subscribe_denied += 1;
            return None;
        }
        let mut routes =
            self.broadcasts.get(path).map(|broadcast| broadcast.routes()).unwrap_or_default().iter();
        let best = routes.find(|candidate| self.may_read(id, candidate.route.session, &candidate.route.hops));
        let best = best.map(|candidate| (candidate.route.clone(), candidate.publisher));
        if best.is_none() {
            self.tally.unroutable += 1;
        }
        best
    }

    fn create(&mut self, path: Path, publisher: Publisher, track: TrackName, hops: &Hops) -> LogId {
        let log = LogId(self.next_serial());
        self.outbox.push(Action::Create { log });
        self.broadcasts.entry(path.clone()).or_default().add_log(publisher, track.clone(), log);
        self.logs.insert(log, Log::new(path, publisher, track, hops.clone()));
        log
    }

    fn join(&mut self, log: LogId, (id, sub): Reader, prefs: Prefs, want: Want) {
        let (Some(state), Some(session)) = (self.logs.get_mut(&log), self.sessions.get_mut(&id)) else {
            return;
        };
        state.add((id, sub), prefs, want);
        session.subs.insert(sub, log);
        if let Some(at) = state.deadline.take() {
            self.timers.disarm(at, log);
        }
    }

    /// A log of the track that flows, on a route `id` may be served through.
    fn shared_log(
        &self,
        id: SessionId,
        path: &Path,
        publisher: Publisher,
        track: &TrackName,
    ) -> Option<LogId> {
        let logs = self.broadcasts.get(path)?.logs_of(publisher, track);
        logs.iter().copied().find(|log| {
            self.logs.get(log).is_some_and(|state| match state.upstream {
                Upstream::Open(writer) => self.may_read(id, writer, &state.hops),
                Upstream::Suspended | Upstream::Over => false,
            })
        })
    }

    /// Split horizon: nobody is served what comes from themselves.
    pub(crate) fn may_read(&self, id: SessionId, writer: SessionId, hops: &Hops) -> bool {
        let exclude: Option<Hop> = self.sessions.get(&id).and_then(|session| session.exclude);
        id != writer && exclude.is_none_or(|hop| !hops.contains(&hop))
    }
}
