//! Routes that are gone, and still shown.
//!
//! Of publishers that vanish without a word, and may come back: their routes stay on the board for a
//! moment, so that a failover or a quick return is one update or none; and as a last resort for a while
//! longer, so that who asks for them waits instead of failing.
//!
//! And of sessions that say goodbye while others serve the path: in a mesh those may be about to say the
//! same, so the route stays on the board for the same moment, and all that comes of it is one update.

use std::time::Instant;

use relay_model::{Path, SessionId};

use crate::{core::Core, route::Ghost, timers::Timer};

/// Most ghosts at once. They cost what live routes cost, without a session that could be closed for
/// them: past it, who goes is gone at once.
pub(crate) const GHOSTS: usize = 100_000;

impl Core {
    /// The session of this route vanished, and is forgotten already.
    pub(crate) fn haunt(&mut self, id: SessionId, path: &Path, now: Instant) {
        if self.is_haunted(id, path) {
            return;
        }
        let until = now + self.config.linger;
        let due = self.hold_back_end(now);
        let ghost = Ghost { gone: false, held_back: true, due, until };
        let haunts = self.reshape(path, |broadcast, _| broadcast.haunt(id, ghost)) == Some(true);
        self.ghost_made(id, path, due, haunts);
    }

    /// The session of this route says goodbye to it; the caller keeps the session's side.
    pub(crate) fn withdraw(&mut self, id: SessionId, path: &Path, now: Instant) {
        if self.is_haunted(id, path) {
            return;
        }
        let due = self.hold_back_end(now);
        let ghost = Ghost { gone: true, held_back: true, due, until: due };
        let haunts = self.reshape(path, |broadcast, _| broadcast.withdraw(id, ghost)) == Some(true);
        self.ghost_made(id, path, due, haunts);
    }

    /// `id` announces `path` again, which it had withdrawn: the route it has takes the ghost's place.
    pub(crate) fn revive(&mut self, id: SessionId, path: &Path) {
        let ghost = self.broadcasts.get_mut(path).and_then(|broadcast| broadcast.ghost_of(id));
        if let Some(due) = ghost.map(|ghost| ghost.due) {
            self.ghosts -= 1;
            self.timers.disarm(due, Timer::Ghost(path.clone(), id));
        }
    }

    /// Whether there are too many ghosts for one more; then the route is dropped.
    fn is_haunted(&mut self, id: SessionId, path: &Path) -> bool {
        let full = self.ghosts >= GHOSTS;
        if full {
            self.tally.ghost_limit += 1;
            self.drop_route(id, path);
        }
        full
    }

    /// Until when what is shown stays as it is, if somebody goes now.
    fn hold_back_end(&self, now: Instant) -> Instant {
        now + self.config.linger.min(self.config.hold_back)
    }

    /// Counts the ghost that was just made, if one was.
    fn ghost_made(&mut self, id: SessionId, path: &Path, due: Instant, made: bool) {
        if made {
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
        if ghost.held_back && !ghost.gone {
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
