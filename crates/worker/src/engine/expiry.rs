//! Expiry of permits, by the wall clock.
//!
//! An expiry is a time of day, which may step: it is compared with the wall clock periodically, and never
//! converted to a monotonic deadline.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime},
};

use relay_model::{SessionCode, SessionId};

use super::{PeerState, Worker};

/// Longest delay until a step of the clock is noticed: a session ends within a second of its permit.
const RECHECK: Duration = Duration::from_millis(500);

/// Sessions of a worker with expiring permits, soonest first.
#[derive(Debug, Default)]
pub(super) struct Expiring {
    sessions: BTreeSet<(SystemTime, SessionId)>,
    /// Time of the next comparison.
    look_at: Option<Instant>,
}

impl Expiring {
    /// Sets the expiry of `session` to `at`, replacing `before`. It is checked in the next turn.
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

    /// Removes `session`, whose permit expires at `at`.
    pub(super) fn clear(&mut self, session: SessionId, at: Option<SystemTime>) {
        if let Some(at) = at {
            self.sessions.remove(&(at, session));
        }
    }

    /// Time at which [`Self::take`] is due. `None`: no permit expires.
    pub(super) fn next(&self) -> Option<Instant> {
        self.look_at.filter(|_| !self.sessions.is_empty())
    }

    /// Takes one expired session; `None` once there is none left.
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
    /// Ends the sessions whose permits have expired.
    pub(super) fn expire_permits(&mut self, now: Instant) {
        if self.expiring.next().is_none_or(|at| now < at) {
            return;
        }
        let wall = (self.shared.wall)();
        while let Some(session) = self.expiring.take(now, wall) {
            let Some(index) = self.peers.index_of(session) else { continue };
            if self.peers.get(index).is_some_and(|peer| peer.state == PeerState::Open) {
                self.meter.sessions_expired += 1;
                self.close(index, now, SessionCode::UNAUTHORIZED, "expired");
            }
        }
    }
}
