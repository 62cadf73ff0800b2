//! Input left in the transport: deferred because the work budget was spent, core is behind, or the peer exceeds
//! its request rate.

use std::collections::{BTreeSet, VecDeque};

use relay_model::transport::Stream;

/// Streams and datagrams to be read later.
#[derive(Debug, Default)]
pub(crate) struct InputBacklog {
    /// Streams not read further: before authorisation, while core is behind, or while the peer exceeds its
    /// request rate. Oldest first, by key.
    paused: BTreeSet<Stream>,
    /// Whether some of those may be read, but the work budget was spent.
    is_resuming: bool,
    /// Streams left partly read when the work budget was spent, in the order in which to continue.
    unread: VecDeque<Stream>,
    /// Whether datagrams are left for the same reason.
    has_datagrams: bool,
}

impl InputBacklog {
    /// Whether input was left because the work budget was spent.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.is_resuming || self.has_datagrams || !self.unread.is_empty()
    }

    /// Defers a stream until requests may be read.
    pub(crate) fn pause(&mut self, stream: Stream) {
        self.paused.insert(stream);
    }

    /// Whether a stream is deferred until requests may be read.
    pub(crate) fn is_paused(&self, stream: Stream) -> bool {
        self.paused.contains(&stream)
    }

    /// Whether any stream is deferred until requests may be read.
    pub(crate) fn has_paused(&self) -> bool {
        !self.paused.is_empty()
    }

    /// Takes the deferred streams, to be read oldest first; those not reached go back with
    /// [`Self::put_paused`].
    pub(crate) fn take_paused(&mut self) -> BTreeSet<Stream> {
        std::mem::take(&mut self.paused)
    }

    /// Returns streams taken but not read; `is_resuming`: because the work budget was spent.
    pub(crate) fn put_paused(&mut self, mut left: BTreeSet<Stream>, is_resuming: bool) {
        self.paused.append(&mut left);
        self.is_resuming = is_resuming;
    }

    /// Whether deferred streams were left because the work budget was spent.
    pub(crate) fn is_resuming(&self) -> bool {
        self.is_resuming
    }

    /// Queues a stream left partly read.
    pub(crate) fn push_unread(&mut self, stream: Stream) {
        if !self.unread.contains(&stream) {
            self.unread.push_back(stream);
        }
    }

    /// Next stream left partly read.
    pub(crate) fn pop_unread(&mut self) -> Option<Stream> {
        self.unread.pop_front()
    }

    /// Records whether datagrams are left.
    pub(crate) fn set_datagrams(&mut self, are_left: bool) {
        self.has_datagrams = are_left;
    }

    /// Whether datagrams are left.
    pub(crate) fn has_datagrams(&self) -> bool {
        self.has_datagrams
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_streams_are_queued_once_in_order() {
        let mut backlog = InputBacklog::default();
        assert!(!backlog.is_due());
        for stream in [8, 4, 8] {
            backlog.push_unread(Stream(stream));
        }
        assert!(backlog.is_due());
        let order: Vec<_> = std::iter::from_fn(|| backlog.pop_unread()).collect();
        assert_eq!(order, [Stream(8), Stream(4)]);
        assert!(!backlog.is_due());
    }

    #[test]
    fn paused_streams_left_unread_are_due_at_once() {
        let mut backlog = InputBacklog::default();
        [4, 0].into_iter().for_each(|stream| backlog.pause(Stream(stream)));
        assert!(!backlog.is_due(), "they wait for permission, not for a turn");
        let mut taken = backlog.take_paused();
        assert_eq!(taken.pop_first(), Some(Stream(0)));
        backlog.put_paused(taken, true);
        assert!(backlog.is_due() && backlog.is_paused(Stream(4)) && !backlog.is_paused(Stream(0)));
        let taken = backlog.take_paused();
        backlog.put_paused(taken, false);
        assert!(!backlog.is_due() && backlog.has_paused());
    }
}
