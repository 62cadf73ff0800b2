//! Peers whose memory charge is to be updated.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::marks::Marks;

/// Interval of updating the charges of active peers.
const INTERVAL: Duration = Duration::from_millis(500);
/// Bytes received by the worker after which the charges are updated earlier.
const INPUT: u64 = 256 * 1024;

/// Active peers whose charge is updated once per [`INTERVAL`] and once per [`INPUT`] bytes.
#[derive(Debug)]
pub(super) struct ChargeQueue {
    peers: VecDeque<u32>,
    queued: Marks,
    due: Instant,
    /// Bytes that the worker had received at the last update.
    received: u64,
}

impl ChargeQueue {
    /// Creates an empty queue, due at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { peers: VecDeque::new(), queued: Marks::default(), due: now, received: 0 }
    }

    /// Queues a peer.
    #[inline]
    pub(super) fn push(&mut self, index: u32) {
        if self.queued.insert(index) {
            self.peers.push_back(index);
        }
    }

    /// Begins an update of all queued peers if it is due; `received`: bytes received by the worker so far.
    #[inline]
    pub(super) fn begin_round(&mut self, now: Instant, received: u64) -> bool {
        let is_due = now >= self.due || received.wrapping_sub(self.received) >= INPUT;
        let begins = is_due && !self.peers.is_empty();
        if begins {
            (self.due, self.received) = (now + INTERVAL, received);
        }
        begins
    }

    /// Removes the next peer of a round; skips dropped ones.
    pub(super) fn pop(&mut self) -> Option<u32> {
        loop {
            let index = self.peers.pop_front()?;
            if self.queued.remove(index) {
                return Some(index);
            }
        }
    }

    /// Time of the next round, if there is something to update.
    pub(super) fn next(&self) -> Option<Instant> {
        (!self.peers.is_empty()).then_some(self.due)
    }

    /// Forgets a dropped peer.
    pub(super) fn forget(&mut self, index: u32) {
        self.queued.remove(index);
    }

    /// Removes all.
    pub(super) fn clear(&mut self) {
        self.peers.clear();
        self.queued.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_is_due_after_the_interval_or_enough_input() {
        let now = Instant::now();
        let mut queue = ChargeQueue::new(now);
        assert!(!queue.begin_round(now, 0), "nothing is queued");
        queue.push(1);
        assert_eq!(queue.next(), Some(now));
        assert!(queue.begin_round(now, 0));
        assert!(!queue.begin_round(now, INPUT - 1));
        assert!(queue.begin_round(now, INPUT));
        assert!(!queue.begin_round(now + INTERVAL / 2, INPUT));
        assert!(queue.begin_round(now + INTERVAL, INPUT));
    }

    #[test]
    fn peer_is_updated_once_a_round() {
        let mut queue = ChargeQueue::new(Instant::now());
        [1, 2, 1, 3].into_iter().for_each(|index| queue.push(index));
        queue.forget(2);
        assert_eq!(std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>(), [1, 3]);
        queue.push(1);
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(queue.next(), None);
    }
}
