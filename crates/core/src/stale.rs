//! Ghosts: routes that are gone but still advertised.
//!
//! Vanished publishers (no close, no withdrawal) may come back. Their routes stay on the board during the
//! hold-back, so that a failover or a quick return causes at most one update, and then until the end of the
//! linger as a last resort, so that subscriptions wait instead of failing.
//!
//! Withdrawn routes stay on the board during the hold-back if others serve the path: in a mesh those may be
//! about to withdraw too, and all of it becomes one update. A relay that withdraws its last route to a path
//! also invalidates the older routes through it. Where two relays had their route from a third, each could
//! otherwise wait for the other and advertise the dead route meanwhile. Peer relays get such a withdrawal at
//! once; plain subscribers are shown the dead route during the hold-back, as a relay that had its route from
//! there may know another publisher that it has not advertised until now.

use std::time::Instant;

use relay_model::{Hop, Path, SessionId};

use crate::{
    core::Core,
    route::{StaleState, Withdrawal},
    timers::Timer,
};

/// Limit on ghosts. A ghost costs as much as a live route, without a session that could be closed for it;
/// past the limit, lost routes are withdrawn at once.
pub(crate) const STALE_ROUTES: usize = 100_000;
/// Memory of a ghost without its path, bytes: a route with its hop chain.
const STALE_ROUTE_BYTES: u64 = 1_280;

/// Memory of one ghost of `path`, bytes.
pub(crate) fn stale_footprint(path: &Path) -> u64 {
    STALE_ROUTE_BYTES + path.as_str().len() as u64
}

impl Core {
    /// Handles the route of a vanished session that is already removed.
    pub(crate) fn vanished(&mut self, id: SessionId, path: &Path, now: Instant) {
        self.mark_stale(id, path, now, None);
    }

    /// Handles a withdrawn route; the caller updates the session's own state. `relay`: the announcing relay,
    /// if it has no other route to the path, see [`Withdrawal`].
    pub(crate) fn withdrawn(&mut self, id: SessionId, path: &Path, relay: Option<Hop>, now: Instant) {
        let serial = self.next_serial();
        self.mark_stale(id, path, now, Some(Withdrawal { relay, serial }));
    }

    /// Removes the ghost of a route that `id` announces again.
    pub(crate) fn clear_stale(&mut self, id: SessionId, path: &Path) {
        let ghost = self.broadcasts.get_mut(path).and_then(|broadcast| broadcast.stale_of(id));
        if let Some(due) = ghost.map(|ghost| ghost.due) {
            self.uncount_stale(path);
            self.timers.disarm(due, Timer::Stale(path.clone(), id));
        }
    }

    fn count_stale(&mut self, path: &Path) {
        self.stale_routes += 1;
        self.ghost_bytes += stale_footprint(path);
    }

    /// Updates the counts after a ghost of `path` was removed.
    pub(crate) fn uncount_stale(&mut self, path: &Path) {
        self.stale_routes -= 1;
        self.ghost_bytes -= stale_footprint(path);
    }

    /// Turns the route of `id` into a ghost if it was admitted and a ghost is useful; drops it otherwise.
    fn mark_stale(&mut self, id: SessionId, path: &Path, now: Instant, gone: Option<Withdrawal>) {
        let Some(broadcast) = self.broadcasts.get(path) else { return };
        let alone = broadcast.routes().len() == 1;
        let admitted = broadcast.announced_by(id).is_some_and(|own| own.admitted);
        let wanted = admitted && !(gone.is_some() && alone);
        let is_full = self.stale_routes >= STALE_ROUTES || self.ghost_bytes >= self.config.stale_bytes;
        if wanted && is_full {
            self.tally.stale_limit += 1;
        }
        if !wanted || is_full {
            self.drop_route(id, path);
            return;
        }
        let until = now + self.config.linger;
        let due = until.min(now + self.config.hold_down);
        // `reshape` may drop the ghost at once, and then disarms this timer.
        self.count_stale(path);
        self.timers.arm(due, Timer::Stale(path.clone(), id));
        let ghost = StaleState { withdrawal: gone, in_hold_down: true, due, until };
        self.reshape(path, |broadcast, _| broadcast.mark_stale(id, ghost));
        self.forget_if_empty(path);
    }

    /// Handles the end of a ghost's hold-back or linger.
    pub(crate) fn stale_due(&mut self, id: SessionId, path: &Path, now: Instant) {
        let Some(ghost) = self.broadcasts.get_mut(path).and_then(|broadcast| broadcast.stale_of(id)) else {
            return;
        };
        if ghost.in_hold_down && ghost.withdrawal.is_none() {
            // `reshape` may drop the ghost at once, and then disarms this timer.
            (ghost.in_hold_down, ghost.due) = (false, ghost.until);
            self.timers.arm(ghost.until, Timer::Stale(path.clone(), id));
            self.reshape(path, |_, _| ());
        } else {
            self.uncount_stale(path);
            self.drop_route(id, path);
        }
        self.reselect_upstreams(path, now);
    }
}
