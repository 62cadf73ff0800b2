//! Streams whose write was refused, in order of the refusal.

use std::collections::BTreeMap;

use crate::qmux::send::Parked;

/// Streams with credit of their own that wait for room in the connection, oldest first, by exemption from the
/// media valve.
#[derive(Debug, Default)]
pub(super) struct BlockedWrites {
    control: BTreeMap<u64, u64>,
    media: BTreeMap<u64, u64>,
    places: u64,
    /// Whether some may have become writable.
    is_retry: bool,
}

impl BlockedWrites {
    /// Appends a stream; returns its place.
    pub(super) fn add(&mut self, id: u64, is_exempt: bool) -> u64 {
        self.places = self.places.saturating_add(1);
        let place = self.places;
        self.queue(is_exempt).insert(place, id);
        place
    }

    /// Removes a stream, if it waits for room in the connection.
    pub(super) fn remove(&mut self, parked: Parked) {
        if let Some(place) = parked.place {
            self.queue(parked.exempt).remove(&place);
        }
    }

    /// Takes the oldest stream of a queue.
    pub(super) fn pop(&mut self, is_exempt: bool) -> Option<u64> {
        self.queue(is_exempt).pop_first().map(|(_, id)| id)
    }

    /// Sets whether some streams may have become writable.
    pub(super) fn set_retry(&mut self, is_retry: bool) {
        self.is_retry = is_retry;
    }

    /// Returns whether some streams may have become writable.
    pub(super) fn is_retry(&self) -> bool {
        self.is_retry
    }

    /// Numbers of waiting streams: exempt from the valve, and not.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.control.len(), self.media.len())
    }

    /// Removes all streams.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn queue(&mut self, is_exempt: bool) -> &mut BTreeMap<u64, u64> {
        if is_exempt { &mut self.control } else { &mut self.media }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_leave_in_the_order_of_their_refusal() {
        let mut blocked = BlockedWrites::default();
        for id in [9, 3, 6] {
            blocked.add(id, true);
        }
        blocked.add(1, false);
        assert_eq!(blocked.len(), (3, 1));
        assert_eq!([blocked.pop(true), blocked.pop(true), blocked.pop(false)], [Some(9), Some(3), Some(1)]);
        assert_eq!(blocked.pop(false), None);
    }

    #[test]
    fn stream_without_a_place_is_not_queued() {
        let mut blocked = BlockedWrites::default();
        let place = blocked.add(5, false);
        blocked.remove(Parked { exempt: false, place: None });
        blocked.remove(Parked { exempt: true, place: Some(place) });
        assert_eq!(blocked.len(), (0, 1));
        blocked.remove(Parked { exempt: false, place: Some(place) });
        assert_eq!(blocked.len(), (0, 0));
    }

    #[test]
    fn cleared_queues_have_nothing_to_retry() {
        let mut blocked = BlockedWrites::default();
        blocked.add(5, false);
        blocked.set_retry(true);
        blocked.clear();
        assert_eq!((blocked.is_retry(), blocked.len()), (false, (0, 0)));
    }
}
