//! Timers of peers.

use std::time::Instant;

use super::marks::Marks;
use crate::wheel::Wheel;

/// One deadline per peer, and the peers whose deadlines have passed.
pub(super) struct PeerTimers {
    wheel: Wheel,
    due: Marks,
    expired: Vec<u32>,
}

impl PeerTimers {
    /// Creates timers without deadlines.
    pub(super) fn new(now: Instant) -> Self {
        Self { wheel: Wheel::new(now), due: Marks::default(), expired: Vec::new() }
    }

    /// Sets or clears the deadline of a peer.
    #[inline]
    pub(super) fn set(&mut self, index: u32, at: Option<Instant>) {
        self.wheel.set(index, at);
    }

    /// Forgets a dropped peer.
    pub(super) fn forget(&mut self, index: u32) {
        self.wheel.clear(index);
        self.due.remove(index);
    }

    /// Calls `ready` for each peer whose deadline has passed.
    pub(super) fn expire(&mut self, now: Instant, mut ready: impl FnMut(u32)) {
        self.wheel.expire(now, &mut self.expired);
        for index in self.expired.drain(..) {
            self.due.insert(index);
            ready(index);
        }
    }

    /// Whether a deadline of the peer has passed since the last call.
    #[inline]
    pub(super) fn take_due(&mut self, index: u32) -> bool {
        self.due.remove(index)
    }

    /// Time of the next wake-up.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.wheel.next_wake()
    }

    /// Whether no peer has a deadline.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.wheel.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn expired_peer_is_due_once() {
        let now = Instant::now();
        let mut timers = PeerTimers::new(now);
        timers.set(4, Some(now + Duration::from_millis(5)));
        let mut ready = Vec::new();
        timers.expire(now, |index| ready.push(index));
        assert!(ready.is_empty() && !timers.take_due(4));
        timers.expire(now + Duration::from_secs(1), |index| ready.push(index));
        assert_eq!(ready, [4]);
        assert!(timers.take_due(4) && !timers.take_due(4));
        assert!(timers.is_empty());
    }

    #[test]
    fn dropped_peer_is_not_due() {
        let now = Instant::now();
        let mut timers = PeerTimers::new(now);
        timers.set(1, Some(now));
        timers.expire(now + Duration::from_secs(1), |_| {});
        timers.set(1, Some(now + Duration::from_secs(2)));
        timers.forget(1);
        assert!(!timers.take_due(1) && timers.is_empty());
    }
}
