//! Announcing, withdrawing and draining of routes.

use std::time::Instant;

use relay_model::{Cost, Hop, Hops, Path, Route, SessionId, limits};

use crate::{
    core::{Core, Takeover},
    event::Action,
    route::{BroadcastState, Offer},
    timers::Timer,
};

impl Core {
    /// Adds or replaces the route of `id`, a known session, to `path`; denied and looped announces are
    /// counted and dropped. The number of announces per session is limited by the session itself.
    pub(crate) fn announce(&mut self, id: SessionId, path: Path, hops: Hops, cost: Cost, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if !session.permit.publish().allows(&path) {
            self.tally.announce_denied += 1;
            return;
        }
        if !self.chain_is_sound(&hops) {
            // A looped chain still replaces the previous announce, so the previous route is withdrawn.
            self.unannounce(id, &path, false, now);
            return;
        }
        let serial = self.next_serial();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (permit, draining) = (session.permit.clone(), session.draining);
        if !session.announced.contains(&path) {
            session.announced.insert(path.clone());
            self.clear_stale(id, &path);
        }
        let offer =
            Offer { route: Route { session: id, hops, cost, stale: false }, permit, draining, serial };
        self.broadcasts.entry(path.clone()).or_default().comes(now);
        if self.reshape(&path, |broadcast, takeover| broadcast.put(&path, offer, takeover)) == Some(false) {
            self.tally.takeover_held += 1;
        }
        self.reselect_upstreams(&path, now);
    }

    /// Withdraws the route of `id`, a known session. Its log, if it writes one, may still deliver its last
    /// groups and its end, but gets no new readers. `last_word`: the peer has no other route that it could
    /// offer.
    pub(crate) fn unannounce(&mut self, id: SessionId, path: &Path, last_word: bool, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.announced.remove(path) {
            let relay = Some(path).filter(|_| last_word).and_then(|path| self.relay_of(id, path));
            self.withdrawn(id, path, relay, now);
            self.reselect_upstreams(path, now);
        }
    }

    /// Relay that announced the route of `id`; `None` for a direct publisher, and for a relay without a hop
    /// id.
    fn relay_of(&self, id: SessionId, path: &Path) -> Option<Hop> {
        let own = self.broadcasts.get(path)?.announced_by(id)?;
        let (relay, before) = own.route.hops.split_last()?;
        Some(*relay).filter(|relay| *relay != Hop::ANONYMOUS && !before.is_empty())
    }

    /// Marks `id`, a known session, as draining: all its routes, also future ones, rank last.
    pub(crate) fn drain(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.draining) else { return };
        session.draining = true;
        for path in session.announced.clone() {
            self.reshape(&path, |broadcast, _| broadcast.drain(id));
            self.reselect_upstreams(&path, now);
        }
    }

    /// Removes the route of `id` from the table; the caller updates the session's own state.
    pub(crate) fn drop_route(&mut self, id: SessionId, path: &Path) {
        self.reshape(path, |broadcast, _| broadcast.remove(id));
        self.forget_if_empty(path);
    }

    /// Applies `change` to the routes of `path` and emits one `Action::Board` if the visible routes changed.
    /// `None` for an unknown path.
    pub(crate) fn reshape<T>(
        &mut self,
        path: &Path,
        change: impl FnOnce(&mut BroadcastState, Takeover) -> T,
    ) -> Option<T> {
        let broadcast = self.broadcasts.get_mut(path)?;
        let before = broadcast.visible();
        let result = change(broadcast, self.config.takeover);
        let dropped = broadcast.reconcile(self.config.takeover);
        let routes = broadcast.visible();
        if routes != before {
            self.outbox.push(Action::Board { path: path.clone(), routes });
        }
        for (session, due) in dropped {
            self.uncount_stale(path);
            self.timers.disarm(due, Timer::Stale(path.clone(), session));
        }
        Some(result)
    }

    /// Removes a path that has neither routes nor logs.
    pub(crate) fn forget_if_empty(&mut self, path: &Path) {
        if self.broadcasts.get(path).is_some_and(|broadcast| broadcast.is_empty()) {
            self.broadcasts.remove(path);
        }
    }

    /// Checks a hop chain for length and for our own hop, and counts violations.
    fn chain_is_sound(&mut self, hops: &Hops) -> bool {
        if hops.len() > limits::HOPS {
            self.tally.too_many_hops += 1;
            return false;
        }
        if self.config.hop != Hop::ANONYMOUS && hops.contains(&self.config.hop) {
            self.tally.looped += 1;
            return false;
        }
        true
    }
}
