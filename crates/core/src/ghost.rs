//! Routes that are gone, and still shown.
//!
//! Of publishers that vanish without a word, and may come back: their routes stay on the board for a
//! moment, so that a failover or a quick return is one update or none; and as a last resort for a while
//! longer, so that who asks for them waits instead of failing.
//!
//! And of sessions that say goodbye while others serve the path: in a mesh those may be about to say the
//! same, so the route stays on the board for the same moment, and all that comes of it is one update. A relay
//! that takes back what it said speaks for all who have it from there. Where two relays had it from a
//! third, each could otherwise wait for the other, and show it the dead route meanwhile. Relays are told of
//! that at once. Who only reads is still shown the dead route for that moment: a relay that had it from
//! there may know of another publisher, and has kept it to itself until now.

use std::time::Instant;

use relay_model::{Hop, Path, SessionId};

use crate::{
    core::Core,
    route::{Ghost, Gone},
    timers::Timer,
};

/// Most ghosts at once. They cost what live routes cost, without a session that could be closed for
/// them: past it, who goes is gone at once.
pub(crate) const GHOSTS: usize = 100_000;
/// Memory of a ghost beside its path, bytes: what a route costs with its hop chain.
const GHOST_BYTES: u64 = 1_280;

/// Memory of one ghost of `path`, bytes.
pub(crate) fn ghost_footprint(path: &Path) -> u64 {
    GHOST_BYTES + path.as_str().len() as u64
}

impl Core {
    /// The session of this route vanished, and is forgotten already.
    pub(crate) fn vanished(&mut self, id: SessionId, path: &Path, now: Instant) {
        self.haunt(id, path, now, None);
    }

    /// The session of this route says goodbye; the caller keeps the session's side. Where it is the last
    /// word of `relay` about the path, that speaks for others too, see [`Gone`].
    pub(crate) fn withdrawn(&mut self, id: SessionId, path: &Path, relay: Option<Hop>, now: Instant) {
        let serial = self.next_serial();
        self.haunt(id, path, now, Some(Gone { relay, serial }));
    }

    /// `id` announces `path` again, which it had withdrawn: the route it has takes the ghost's place.
    pub(crate) fn revive(&mut self, id: SessionId, path: &Path) {
        let ghost = self.broadcasts.get_mut(path).and_then(|broadcast| broadcast.ghost_of(id));
        if let Some(due) = ghost.map(|ghost| ghost.due) {
            self.remove_ghost(path);
            self.timers.disarm(due, Timer::Ghost(path.clone(), id));
        }
    }

    fn add_ghost(&mut self, path: &Path) {
        self.ghosts += 1;
        self.ghost_bytes += ghost_footprint(path);
    }

    /// A ghost of `path` is gone.
    pub(crate) fn remove_ghost(&mut self, path: &Path) {
        self.ghosts -= 1;
        self.ghost_bytes -= ghost_footprint(path);
    }

    /// Leaves a ghost of the route of `id`, if it counts and there is a use for one.
    fn haunt(&mut self, id: SessionId, path: &Path, now: Instant, gone: Option<Gone>) {
        let Some(broadcast) = self.broadcasts.get(path) else { return };
        let alone = broadcast.routes().len() == 1;
        let admitted = broadcast.announced_by(id).is_some_and(|own| own.admitted);
        let wanted = admitted && !(gone.is_some() && alone);
        let is_full = self.ghosts >= GHOSTS || self.ghost_bytes >= self.config.ghost_bytes;
        if wanted && is_full {
            self.tally.ghost_limit += 1;
        }
        if !wanted || is_full {
            self.drop_route(id, path);
            return;
        }
        let until = now + self.config.linger;
        let due = until.min(now + self.config.hold_back);
        // It may go in the same breath; then this is disarmed again.
        self.add_ghost(path);
        self.timers.arm(due, Timer::Ghost(path.clone(), id));
        let ghost = Ghost { gone, held_back: true, due, until };
        self.reshape(path, |broadcast, _| broadcast.haunt(id, ghost));
        self.forget_if_empty(path);
    }

    /// The deadline of a ghost is over: of its hold-back, or of its linger.
    pub(crate) fn ghost_due(&mut self, id: SessionId, path: &Path, now: Instant) {
        let Some(ghost) = self.broadcasts.get_mut(path).and_then(|broadcast| broadcast.ghost_of(id)) else {
            return;
        };
        if ghost.held_back && ghost.gone.is_none() {
            // It may go in the same breath; then this is disarmed again.
            (ghost.held_back, ghost.due) = (false, ghost.until);
            self.timers.arm(ghost.until, Timer::Ghost(path.clone(), id));
            self.reshape(path, |_, _| ());
        } else {
            self.remove_ghost(path);
            self.drop_route(id, path);
        }
        self.settle(path, now);
    }
}
