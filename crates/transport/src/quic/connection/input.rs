//! Input queue between received datagrams and the QUIC state machine, with a bounded share per settling.

use std::collections::VecDeque;

/// Datagrams of one connection processed between two settlings, so that one peer cannot delay the others.
pub(in crate::quic) const DATAGRAMS: usize = 64;
/// Limit of queued datagrams of one connection: as many as a fast path delivers during a long worker turn.
pub(in crate::quic) const WAITING: usize = 1_024;

/// Outcome of a received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::quic) enum DatagramOutcome {
    /// It was processed.
    Fed,
    /// It was queued for a later settling.
    Waits,
    /// It was dropped: the queue is full.
    Dropped,
}

/// Input of one connection: the share of the current settling, and the datagrams queued above it. `E` is the
/// QUIC library's event of a datagram.
#[derive(Debug)]
pub(in crate::quic) struct InputQueue<E> {
    /// Number of datagrams and endpoint events processed since the last settling.
    processed: usize,
    /// Queued datagrams with their sizes.
    waiting: VecDeque<(E, usize)>,
    /// Bytes of the queued datagrams.
    waiting_bytes: u64,
    /// Whether the session has not polled all events.
    is_behind: bool,
}

impl<E> InputQueue<E> {
    /// Creates an empty queue.
    pub(super) fn new() -> Self {
        Self { processed: 0, waiting: VecDeque::new(), waiting_bytes: 0, is_behind: false }
    }

    /// Returns whether a datagram is processed at once, as the first [`DATAGRAMS`] since the last settling are.
    #[inline]
    pub(super) fn has_share(&self) -> bool {
        self.processed < DATAGRAMS && !self.is_behind && self.waiting.is_empty()
    }

    /// Counts a processed datagram or endpoint event.
    #[inline]
    pub(super) fn count(&mut self) {
        self.processed = self.processed.saturating_add(1);
    }

    /// Queues a datagram of `bytes` for a later settling, or drops it above [`WAITING`]. `may_wait`: the endpoint
    /// allows another queued datagram.
    pub(super) fn push(&mut self, event: E, bytes: usize, may_wait: bool) -> DatagramOutcome {
        if !may_wait || self.waiting.len() >= WAITING {
            return DatagramOutcome::Dropped;
        }
        self.waiting.push_back((event, bytes));
        self.waiting_bytes = self.waiting_bytes.saturating_add(bytes as u64);
        DatagramOutcome::Waits
    }

    /// Takes the next queued datagram and its size, unless the session still has events of earlier ones to poll.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<(E, usize)> {
        if self.is_behind {
            return None;
        }
        let (event, bytes) = self.waiting.pop_front()?;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes as u64);
        Some((event, bytes))
    }

    /// Begins the share of the next settling. Returns whether anything was processed in the one before.
    #[inline]
    pub(super) fn settle(&mut self) -> bool {
        std::mem::take(&mut self.processed) > 0
    }

    /// Sets whether input must wait until the session has polled all events.
    #[inline]
    pub(super) fn set_behind(&mut self, is_behind: bool) {
        self.is_behind = is_behind;
    }

    /// Returns whether the next settling would process queued datagrams.
    pub(super) fn is_due(&self) -> bool {
        !self.waiting.is_empty() && !self.is_behind
    }

    /// Number of queued datagrams.
    pub(in crate::quic) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes of the queued datagrams.
    pub(super) fn bytes(&self) -> u64 {
        self.waiting_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_ends_at_the_limit_and_begins_anew() {
        let mut input: InputQueue<u32> = InputQueue::new();
        assert!(!input.settle());
        for _ in 0..DATAGRAMS {
            assert!(input.has_share());
            input.count();
        }
        assert!(!input.has_share());
        assert!(input.settle());
        assert!(input.has_share());
    }

    #[test]
    fn queued_datagrams_keep_their_order_and_bytes() {
        let mut input = InputQueue::new();
        for event in 0..3_u32 {
            assert_eq!(input.push(event, 100, true), DatagramOutcome::Waits);
        }
        assert_eq!((input.len(), input.bytes(), input.has_share()), (3, 300, false));
        let taken: Vec<u32> = std::iter::from_fn(|| input.pop()).map(|(event, _)| event).collect();
        assert_eq!((taken, input.bytes()), (vec![0, 1, 2], 0));
        assert!(input.has_share());
    }

    #[test]
    fn datagram_above_the_limit_is_dropped() {
        let mut input = InputQueue::new();
        for event in 0..WAITING {
            assert_eq!(input.push(event, 1, true), DatagramOutcome::Waits);
        }
        assert_eq!(input.push(WAITING, 1, true), DatagramOutcome::Dropped);
        let mut full_endpoint = InputQueue::new();
        assert_eq!(full_endpoint.push(0, 1, false), DatagramOutcome::Dropped);
        assert_eq!((input.bytes(), full_endpoint.bytes()), (WAITING as u64, 0));
    }

    #[test]
    fn input_waits_while_the_session_is_behind() {
        let mut input = InputQueue::new();
        input.push(0, 1, true);
        input.set_behind(true);
        assert!(!input.is_due() && input.pop().is_none());
        input.set_behind(false);
        assert!(input.is_due());
        assert_eq!(input.pop(), Some((0, 1)));
        assert!(!input.is_due());
    }
}
