//! Queues of peers with something to send.

use std::collections::VecDeque;

use super::marks::Marks;

/// Peers with something to send, apart by socket: those with a socket of their own need not wait while the worker's
/// UDP socket is full.
#[derive(Debug, Default)]
pub(super) struct FlushQueue {
    udp: VecDeque<u32>,
    streams: VecDeque<u32>,
    queued: Marks,
}

impl FlushQueue {
    /// Queues a peer.
    #[inline]
    pub(super) fn push(&mut self, index: u32, is_stream: bool) {
        if self.queued.insert(index) {
            let queue = if is_stream { &mut self.streams } else { &mut self.udp };
            queue.push_back(index);
        }
    }

    /// Removes the first peer of the UDP socket. It can be queued again after [`Self::unmark`].
    #[inline]
    pub(super) fn pop_udp(&mut self) -> Option<u32> {
        self.udp.pop_front()
    }

    /// Removes the first peer with a socket of its own.
    #[inline]
    pub(super) fn pop_stream(&mut self) -> Option<u32> {
        self.streams.pop_front()
    }

    /// Lets a removed peer be queued again. Also called for a dropped peer.
    #[inline]
    pub(super) fn unmark(&mut self, index: u32) {
        self.queued.remove(index);
    }

    /// Removes all.
    pub(super) fn clear(&mut self) {
        self.udp.clear();
        self.streams.clear();
        self.queued.clear();
    }

    /// Whether a peer can be flushed. `is_full`: those of the UDP socket cannot.
    #[inline]
    pub(super) fn has_any(&self, is_full: bool) -> bool {
        !self.streams.is_empty() || (!is_full && !self.udp.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_is_queued_once_until_unmarked() {
        let mut queue = FlushQueue::default();
        queue.push(1, false);
        queue.push(1, false);
        assert_eq!(queue.pop_udp(), Some(1));
        queue.push(1, false);
        assert_eq!(queue.pop_udp(), None, "still marked");
        queue.unmark(1);
        queue.push(1, false);
        assert_eq!(queue.pop_udp(), Some(1));
    }

    #[test]
    fn full_udp_socket_leaves_streams_ready() {
        let mut queue = FlushQueue::default();
        queue.push(1, false);
        assert!(queue.has_any(false) && !queue.has_any(true));
        queue.push(2, true);
        assert!(queue.has_any(true));
        assert_eq!((queue.pop_stream(), queue.pop_stream()), (Some(2), None));
        queue.clear();
        assert!(!queue.has_any(false));
    }
}
