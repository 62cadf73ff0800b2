//! Publishers that vanish without a word, and may come back.
//!
//! Their routes stay on the board for a moment, so that a failover or a quick return is one update or
//! none; and as a last resort for a while longer, so that who asks for them waits instead of failing.

use std::time::Instant;

use relay_model::{Path, SessionId};

use crate::{core::Core, route::Ghost, timers::Timer};

/// Most ghosts at once. They cost what live routes cost, without a session that could be closed for
/// them: past it, who vanishes says goodbye.
pub(crate) const GHOSTS: usize = 100_000;

impl Core {
    /// The session of this route vanished, and is forgotten already.
    pub(crate) fn haunt(&mut self, id: SessionId, path: &Path, now: Instant) {
        if self.ghosts >= GHOSTS {
            self.tally.ghost_limit += 1;
            self.drop_route(id, path);
            return;
        }
        let until = now + self.config.linger;
        let due = until.min(now + self.config.hold_back);
        let ghost = Ghost { held_back: true, due, until };
        if self.reshape(path, |broadcast, _| broadcast.haunt(id, ghost)) == Some(true) {
            self.ghosts += 1;
            self.timers.arm(due, Timer::Ghost(path.clone(), id));
        }
        self.forget_if_empty(path);
    }

    /// The deadline of a ghost is over: of its hold-back, or of its linger.
    pub(crate) fn ghost_due(&mut self, id: SessionId, path: &Path, now: Instant) {
        let Some(ghost) = self.broadcasts.get_mut(path).and_then(|broadcast| broadcast.ghost_of(id)) else {
            return;
        };
        if ghost.held_back {
            // It may go in the same breath; then this is disarmed again.
            (ghost.held_back, ghost.due) = (false, ghost.until);
            self.timers.arm(ghost.until, Timer::Ghost(path.clone(), id));
            self.reshape(path, |_, _| ());
        } else {
            self.ghosts -= 1;
            self.drop_route(id, path);
        }
        self.settle(path, now);
    }
}
