//! Routes come, change and go.

use std::time::Instant;

use relay_model::{Cost, Hop, Hops, Path, Route, SessionId, limits};

use crate::{
    core::{Core, Takeover},
    event::Action,
    route::{Broadcast, Offer},
    timers::Timer,
};

impl Core {
    /// `id` is a known session. How many it may announce is the session's own business.
    pub(crate) fn announce(&mut self, id: SessionId, path: Path, hops: Hops, cost: Cost, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if !session.permit.publish().allows(&path) {
            self.tally.announce_denied += 1;
            return;
        }
        if !self.chain_is_sound(&hops) {
            // It takes the place of what was announced before, if only to lead nowhere.
            self.unannounce(id, &path, false, now);
            return;
        }
        let serial = self.next_serial();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let (permit, draining) = (session.permit.clone(), session.draining);
        if !session.announced.contains(&path) {
            session.announced.insert(path.clone());
            self.revive(id, &path);
        }
        let offer =
            Offer { route: Route { session: id, hops, cost, fading: false }, permit, draining, serial };
        self.broadcasts.entry(path.clone()).or_default().comes(now);
        if self.reshape(&path, |broadcast, takeover| broadcast.put(&path, offer, takeover)) == Some(false) {
            self.tally.takeover_held += 1;
        }
        self.settle(&path, now);
    }

    /// `id` is a known session. Its log, if it writes one, may still deliver its last groups and its
    /// end; nobody new finds it. `last_word`: the peer has no other route that it could offer us.
    pub(crate) fn unannounce(&mut self, id: SessionId, path: &Path, last_word: bool, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.announced.remove(path) {
            let relay = Some(path).filter(|_| last_word).and_then(|path| self.relay_of(id, path));
            self.withdrawn(id, path, relay, now);
            self.settle(path, now);
        }
    }

    /// The relay that announced the route of `id`; `None`: a publisher of its own, or one without a name.
    fn relay_of(&self, id: SessionId, path: &Path) -> Option<Hop> {
        let own = self.broadcasts.get(path)?.announced_by(id)?;
        let (relay, before) = own.route.hops.split_last()?;
        Some(*relay).filter(|relay| *relay != Hop::ANONYMOUS && !before.is_empty())
    }

    /// `id` is a known session. Its routes are the last choice from now on, also those to come.
    pub(crate) fn drain(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.draining) else { return };
        session.draining = true;
        for path in session.announced.clone() {
            self.reshape(&path, |broadcast, _| broadcast.drain(id));
            self.settle(&path, now);
        }
    }

    /// Takes the route of `id` out of the table; the caller keeps the session's side.
    pub(crate) fn drop_route(&mut self, id: SessionId, path: &Path) {
        self.reshape(path, |broadcast, _| broadcast.remove(id));
        self.forget_if_empty(path);
    }

    /// Changes the routes of `path`, and says what is shown now if that changed: once, whatever comes of
    /// it. `None` for an unknown path.
    pub(crate) fn reshape<T>(
        &mut self,
        path: &Path,
        change: impl FnOnce(&mut Broadcast, Takeover) -> T,
    ) -> Option<T> {
        let broadcast = self.broadcasts.get_mut(path)?;
        let before = broadcast.visible();
        let result = change(broadcast, self.config.takeover);
        let dropped = broadcast.tidy(self.config.takeover);
        let routes = broadcast.visible();
        if routes != before {
            self.outbox.push(Action::Board { path: path.clone(), routes });
        }
        for (session, due) in dropped {
            self.remove_ghost(path);
            self.timers.disarm(due, Timer::Ghost(path.clone(), session));
        }
        Some(result)
    }

    /// Leaves nothing of a path that has neither route nor log.
    pub(crate) fn forget_if_empty(&mut self, path: &Path) {
        if self.broadcasts.get(path).is_some_and(|broadcast| broadcast.is_empty()) {
            self.broadcasts.remove(path);
        }
    }

    /// The loop rule; counts what breaks it.
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
