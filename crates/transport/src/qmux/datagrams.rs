//! Bounded datagram queue.

use std::collections::VecDeque;

use bytes::Bytes;

/// Datagram queue that drops the oldest entries above its capacity.
#[derive(Debug, Default)]
pub(super) struct DatagramQueue {
    queue: VecDeque<Bytes>,
    bytes: usize,
}

/// Overhead in bytes charged per datagram, so that empty datagrams are bounded too.
const PLACE: usize = 64;

impl DatagramQueue {
    pub(super) fn push(&mut self, datagram: Bytes, cap: usize) {
        self.bytes += datagram.len() + PLACE;
        self.queue.push_back(datagram);
        while self.bytes > cap && self.pop().is_some() {}
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let datagram = self.queue.pop_front()?;
        self.bytes -= datagram.len() + PLACE;
        Some(datagram)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_datagrams_are_dropped_above_the_cap() {
        let mut queue = DatagramQueue::default();
        for byte in 0..4_u8 {
            queue.push(Bytes::copy_from_slice(&[byte; 36]), 3 * (36 + PLACE));
        }
        let kept: Vec<u8> = std::iter::from_fn(|| queue.pop()).map(|datagram| datagram[0]).collect();
        assert_eq!(kept, [1, 2, 3]);
        assert!(queue.is_empty());
    }

    #[test]
    fn empty_datagrams_are_bounded_too() {
        let mut queue = DatagramQueue::default();
        (0..100).for_each(|_| queue.push(Bytes::new(), 10 * PLACE));
        assert_eq!(std::iter::from_fn(|| queue.pop()).count(), 10);
    }
}
