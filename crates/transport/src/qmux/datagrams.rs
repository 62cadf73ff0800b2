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
