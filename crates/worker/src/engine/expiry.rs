//! Expiry of permits, by the wall clock.
//!
//! An expiry is a time of day, which may step: it is compared with the wall clock periodically, and never
//! converted to a monotonic deadline.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant, SystemTime},
};

use relay_model::SessionId;

/// Longest delay until a step of the clock is noticed: a session ends within a second of its permit.
const RECHECK: Duration = Duration::from_millis(500);

/// Sessions of a worker with expiring permits, soonest first.
#[derive(Debug, Default)]
pub(super) struct ExpiryQueue {
    sessions: BTreeSet<(SystemTime, SessionId)>,
    /// Time of the next comparison.
    check_at: Option<Instant>,
}

impl ExpiryQueue {
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
            self.check_at = Some(now);
        }
    }

    /// Removes `session`, whose permit expires at `at`.
    pub(super) fn clear(&mut self, session: SessionId, at: Option<SystemTime>) {
        if let Some(at) = at {
            self.sessions.remove(&(at, session));
        }
    }

    /// Time at which [`Self::pop`] is due. `None`: no permit expires.
    pub(super) fn next(&self) -> Option<Instant> {
        self.check_at.filter(|_| !self.sessions.is_empty())
    }

    /// Removes one expired session; `None` once there is none left.
    pub(super) fn pop(&mut self, now: Instant, wall: SystemTime) -> Option<SessionId> {
        let (at, session) = *self.sessions.first()?;
        match at.duration_since(wall) {
            Ok(left) if !left.is_zero() => {
                self.check_at = Some(now + left.min(RECHECK));
                None
            }
            Ok(_) | Err(_) => {
                self.sessions.pop_first();
                Some(session)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn sessions_expire_in_the_order_of_their_permits() {
        let (mut queue, now) = (ExpiryQueue::default(), Instant::now());
        let wall = SystemTime::UNIX_EPOCH + 1_000 * SECOND;
        queue.set(SessionId(1), None, Some(wall + 2 * SECOND), now);
        queue.set(SessionId(2), None, Some(wall + SECOND), now);
        queue.set(SessionId(3), None, None, now);
        assert_eq!(queue.next(), Some(now));
        assert_eq!(queue.pop(now, wall), None);
        assert_eq!(queue.next(), Some(now + RECHECK), "checked again, as the clock may step");
        assert_eq!(queue.pop(now, wall + SECOND), Some(SessionId(2)));
        assert_eq!(queue.pop(now, wall + SECOND), None);
        assert_eq!(queue.pop(now, wall + 9 * SECOND), Some(SessionId(1)));
        assert_eq!((queue.pop(now, wall + 9 * SECOND), queue.next()), (None, None));
    }

    #[test]
    fn new_expiry_replaces_the_one_before() {
        let (mut queue, now) = (ExpiryQueue::default(), Instant::now());
        let at = SystemTime::UNIX_EPOCH + SECOND;
        queue.set(SessionId(1), None, Some(at), now);
        queue.set(SessionId(1), Some(at), Some(at + SECOND), now);
        assert_eq!(queue.pop(now, at), None);
        assert_eq!(queue.pop(now, at + SECOND), Some(SessionId(1)));
        queue.set(SessionId(1), None, Some(at), now);
        queue.clear(SessionId(1), Some(at));
        assert_eq!(queue.next(), None);
    }
}
