//! Routes come, change and go.

use std::time::Instant;

use relay_model::{Hop, Hops, Order, Path, Route, SessionCode, SessionId, limits};

use crate::{core::Core, event::Action};

impl Core {
    /// `id` is a known session.
    pub(crate) fn announce(&mut self, id: SessionId, path: Path, hops: Hops, cost: u64, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.killed {
            return;
        }
        if !session.permit.publish().allows(&path) {
            self.tally.announce_denied += 1;
            return;
        }
        if !self.chain_is_sound(&hops) {
            // It takes the place of what was announced before, if only to lead nowhere.
            self.unannounce(id, &path, now);
            return;
        }
        let serial = self.next_serial();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if !session.announced.contains(&path) {
            if session.announced.len() >= limits::ANNOUNCES {
                self.kill(id, "too many announces");
                self.tally.announce_limit += 1;
                return;
            }
            session.announced.insert(path.clone());
        }
        let broadcast = self.broadcasts.entry(path.clone()).or_default();
        if broadcast.put(&path, Route { session: id, hops, cost }, serial) {
            self.show(&path);
        }
        self.settle(&path, now);
    }

    /// `id` is a known session. Its log, if it writes one, may still deliver its last groups and its
    /// end; nobody new finds it.
    pub(crate) fn unannounce(&mut self, id: SessionId, path: &Path, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if session.announced.remove(path) {
            self.drop_route(id, path);
            self.settle(path, now);
        }
    }

    /// Takes the route of `id` out of the table; the caller keeps the session's side.
    pub(crate) fn drop_route(&mut self, id: SessionId, path: &Path) {
        if self.broadcasts.get_mut(path).is_some_and(|broadcast| broadcast.remove(id)) {
            self.show(path);
        }
        self.forget_if_empty(path);
    }

    /// Leaves nothing of a path that has neither route nor log.
    pub(crate) fn forget_if_empty(&mut self, path: &Path) {
        if self.broadcasts.get(path).is_some_and(|broadcast| broadcast.is_empty()) {
            self.broadcasts.remove(path);
        }
    }

    fn show(&mut self, path: &Path) {
        let routes = self.broadcasts.get(path).map(|broadcast| broadcast.visible()).unwrap_or_default();
        self.outbox.push(Action::Board { path: path.clone(), routes });
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

    fn kill(&mut self, id: SessionId, reason: &'static str) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.killed = true;
            self.outbox.order(id, Order::Kill { code: SessionCode::PROTOCOL_VIOLATION, reason });
        }
    }
}
