//! Indexes over the subscriptions of an egress, so that no event scans them all.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use relay_model::transport::Stream;

/// Slots of subscriptions in the egress, by what they wait for.
#[derive(Debug, Default)]
pub(super) struct EgressIndex {
    /// Slot of the subscription that sends on a stream. A stream that is finished when it is first written is
    /// never entered.
    by_stream: HashMap<Stream, usize, RandomState>,
    /// Subscriptions that may have something to send.
    pub(super) runnable: SlotList,
    /// Subscriptions with a group older than their newest, which may expire.
    pub(super) lagging: SlotList,
    /// Groups not sent completely, of all subscriptions.
    open: usize,
}

impl EgressIndex {
    /// Enters a stream that stays open.
    pub(super) fn add_stream(&mut self, stream: Stream, slot: usize) {
        self.by_stream.insert(stream, slot);
    }

    pub(super) fn remove_stream(&mut self, stream: Stream) {
        self.by_stream.remove(&stream);
    }

    /// Slot of the subscription that sends on a stream.
    pub(super) fn slot_of(&self, stream: Stream) -> Option<usize> {
        self.by_stream.get(&stream).copied()
    }

    /// Counts groups begun.
    pub(super) fn begun(&mut self, groups: usize) {
        self.open += groups;
    }

    /// Counts groups sent, reset or dropped.
    pub(super) fn over(&mut self, groups: usize) {
        self.open -= groups;
    }

    /// Groups not sent completely.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Removes a subscription; its streams are removed one by one.
    pub(super) fn remove(&mut self, slot: usize) {
        self.runnable.remove(slot);
        self.lagging.remove(slot);
    }
}

/// Set of slots, each entered once, in order of entry.
#[derive(Debug, Default)]
pub(super) struct SlotList {
    slots: Vec<usize>,
    is_member: Vec<bool>,
}

impl SlotList {
    #[inline]
    pub(super) fn contains(&self, slot: usize) -> bool {
        self.is_member.get(slot).copied().unwrap_or(false)
    }

    #[inline]
    pub(super) fn insert(&mut self, slot: usize) {
        if self.contains(slot) {
            return;
        }
        if self.is_member.len() <= slot {
            self.is_member.resize(slot + 1, false);
        }
        if let Some(is_member) = self.is_member.get_mut(slot) {
            *is_member = true;
        }
        self.slots.push(slot);
    }

    #[inline]
    pub(super) fn remove(&mut self, slot: usize) {
        if self.contains(slot) {
            self.retain(|other| other != slot);
        }
    }

    /// Keeps the slots for which `keep` holds.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let is_member = &mut self.is_member;
        self.slots.retain(|slot| {
            let kept = keep(*slot);
            if !kept && let Some(is_member) = is_member.get_mut(*slot) {
                *is_member = false;
            }
            kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_is_listed_once() {
        let mut list = SlotList::default();
        [3, 1, 3].into_iter().for_each(|slot| list.insert(slot));
        assert!(list.contains(3) && !list.contains(0) && !list.contains(9));
        let mut seen = Vec::new();
        list.retain(|slot| {
            seen.push(slot);
            slot != 3
        });
        assert_eq!(seen, [3, 1]);
        assert!(!list.contains(3) && list.contains(1));
        list.insert(3);
        list.remove(1);
        assert!(list.contains(3) && !list.contains(1));
    }

    #[test]
    fn removed_subscription_is_in_no_list() {
        let mut index = EgressIndex::default();
        index.runnable.insert(2);
        index.lagging.insert(2);
        index.add_stream(Stream(7), 2);
        assert_eq!(index.slot_of(Stream(7)), Some(2));
        index.remove(2);
        index.remove_stream(Stream(7));
        assert!(!index.runnable.contains(2) && !index.lagging.contains(2));
        assert_eq!(index.slot_of(Stream(7)), None);
    }
}
