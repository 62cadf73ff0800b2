//! When permits end, by the wall clock.
//!
//! An expiry is a time of day, and the time of day may step: it is compared with the clock again and again,
//! and never turned into a moment of the clock that timers run by.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime},
};

use relay_model::{SessionCode, SessionId};

use super::{State, Worker};

/// How late a step of the clock may be noticed: a session ends within a second of its permit.
const RECHECK: Duration = Duration::from_millis(500);

/// The sessions of a worker whose permits end, soonest first.
#[derive(Debug, Default)]
pub(super) struct Expiring {
    sessions: BTreeSet<(SystemTime, SessionId)>,
    /// When to look again.
    look_at: Option<Instant>,
}

impl Expiring {
    /// The permit of `session` ends `at`, instead of at `before`. It is looked at in the next turn.
    pub(super) fn set(
        &mut self,
        session: SessionId,
        before: Option<SystemTime>,
        at: Option<SystemTime>,
        now: Instant,
    ) {
        self.clear(session, before);
        if let Some(at) = at {
            self.sessions.insert((at, session));
            self.look_at = Some(now);
        }
    }

    /// `session` is over; its permit ended at `at`.
    pub(super) fn clear(&mut self, session: SessionId, at: Option<SystemTime>) {
        if let Some(at) = at {
            self.sessions.remove(&(at, session));
        }
    }

    /// When [`Self::take`] is due. `None`: nothing ends.
    pub(super) fn next(&self) -> Option<Instant> {
        self.look_at.filter(|_| !self.sessions.is_empty())
    }

    /// One that has ended, if it is time to look; until there is none.
    fn take(&mut self, now: Instant, wall: SystemTime) -> Option<SessionId> {
        let (at, session) = *self.sessions.first()?;
        match at.duration_since(wall) {
            Ok(left) if !left.is_zero() => {
                self.look_at = Some(now + left.min(RECHECK));
                None
            }
            Ok(_) | Err(_) => {
                self.sessions.pop_first();
                Some(session)
            }
        }
    }
}

impl Worker {
    /// Ends the sessions whose permits have ended.
    pub(super) fn expire_permits(&mut self, now: Instant) {
        if self.expiring.next().is_none_or(|at| now < at) {
            return;
        }
        let wall = (self.shared.wall)();
        while let Some(session) = self.expiring.take(now, wall) {
            let Some(index) = self.peers.index_of(session) else { continue };
            if self.peers.get(index).is_some_and(|peer| peer.state == State::Open) {
                self.meter.sessions_expired += 1;
                self.close(index, now, SessionCode::UNAUTHORIZED, "expired");
            }
        }
    }
}
