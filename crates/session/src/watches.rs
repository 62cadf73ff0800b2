//! Announce requests of a peer, served in turn.

use crate::{dialect::AnnounceWriter, request::RequestId};

/// All announce requests of a peer.
#[derive(Debug)]
pub(crate) struct WatchList<W = AnnounceWriter> {
    entries: Vec<(RequestId, W)>,
    /// Position of the watch that sends next.
    next: usize,
    /// Whether watches have more to send, but the work budget was spent.
    is_due: bool,
}

impl<W> Default for WatchList<W> {
    fn default() -> Self {
        Self { entries: Vec::new(), next: 0, is_due: false }
    }
}

impl<W> WatchList<W> {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn add(&mut self, request: RequestId, watch: W) {
        self.entries.push((request, watch));
    }

    /// Removes a watch; false if there is none of this request.
    pub(crate) fn remove(&mut self, request: RequestId) -> bool {
        let before = self.entries.len();
        self.entries.retain(|(other, _)| *other != request);
        self.entries.len() < before
    }

    /// The watch that sends next. It stays so until [`Self::pass`].
    pub(crate) fn next(&mut self) -> Option<(RequestId, &mut W)> {
        if self.next >= self.entries.len() {
            self.next = 0;
        }
        self.entries.get_mut(self.next).map(|(request, watch)| (*request, watch))
    }

    /// Gives the turn to the next watch.
    pub(crate) fn pass(&mut self) {
        self.next += 1;
    }

    pub(crate) fn for_each(&mut self, mut change: impl FnMut(&mut W)) {
        self.entries.iter_mut().for_each(|(_, watch)| change(watch));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &W> {
        self.entries.iter().map(|(_, watch)| watch)
    }

    /// Records whether watches have more to send, but the work budget was spent.
    pub(crate) fn set_due(&mut self, is_due: bool) {
        self.is_due = is_due;
    }

    pub(crate) fn is_due(&self) -> bool {
        self.is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_take_turns_and_a_removed_one_is_skipped() {
        let mut list = WatchList::default();
        [1, 2, 3].into_iter().for_each(|id| list.add(RequestId(id), ()));
        let turn = |list: &mut WatchList<()>| {
            let id = list.next().map(|(request, ())| request.0);
            list.pass();
            id
        };
        assert_eq!([turn(&mut list), turn(&mut list)], [Some(1), Some(2)]);
        assert!(list.remove(RequestId(3)) && !list.remove(RequestId(3)));
        assert_eq!([turn(&mut list), turn(&mut list)], [Some(1), Some(2)]);
        assert_eq!(list.len(), 2);
    }
}
