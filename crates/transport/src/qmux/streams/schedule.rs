//! Order of the streams with output.

use std::{cmp::Reverse, collections::BTreeSet};

use relay_model::transport::PRIORITY_CONTROL;

/// Streams with output. The highest priority comes first; streams of equal priority alternate.
#[derive(Debug, Default)]
pub(super) struct SendSchedule {
    /// By priority, turn and id.
    ready: BTreeSet<(Reverse<i32>, u64, u64)>,
    turns: u64,
}

impl SendSchedule {
    /// Adds a stream behind those of equal priority; returns its turn, which is not 0.
    pub(super) fn add(&mut self, id: u64, priority: i32) -> u64 {
        self.turns = self.turns.saturating_add(1);
        self.ready.insert((Reverse(priority), self.turns, id));
        self.turns
    }

    /// Removes a stream.
    pub(super) fn remove(&mut self, id: u64, priority: i32, turn: u64) {
        self.ready.remove(&(Reverse(priority), turn, id));
    }

    /// Changes the priority of a stream, if it has output.
    pub(super) fn set_priority(&mut self, id: u64, turn: u64, before: i32, after: i32) {
        if turn != 0 && self.ready.remove(&(Reverse(before), turn, id)) {
            self.ready.insert((Reverse(after), turn, id));
        }
    }

    /// Takes the next stream.
    pub(super) fn pop(&mut self) -> Option<u64> {
        self.ready.pop_first().map(|(.., id)| id)
    }

    /// Returns whether no stream has output.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Returns whether the next stream carries control messages.
    pub(super) fn is_urgent(&self) -> bool {
        self.ready.first().is_some_and(|(Reverse(priority), ..)| *priority >= PRIORITY_CONTROL)
    }

    /// Removes all streams.
    pub(super) fn clear(&mut self) {
        self.ready.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(schedule: &mut SendSchedule) -> Vec<u64> {
        std::iter::from_fn(|| schedule.pop()).collect()
    }

    #[test]
    fn higher_priority_is_first_and_equals_alternate() {
        let mut schedule = SendSchedule::default();
        for (id, priority) in [(1, 0), (2, 5), (3, 0)] {
            schedule.add(id, priority);
        }
        assert_eq!(schedule.pop(), Some(2));
        assert_eq!(schedule.pop(), Some(1));
        schedule.add(1, 0);
        assert_eq!(order(&mut schedule), [3, 1]);
        assert!(schedule.is_empty());
    }

    #[test]
    fn changed_priority_moves_a_scheduled_stream_only() {
        let mut schedule = SendSchedule::default();
        schedule.add(1, 0);
        let turn = schedule.add(2, 0);
        schedule.set_priority(2, turn, 0, PRIORITY_CONTROL);
        schedule.set_priority(3, 0, 0, PRIORITY_CONTROL);
        assert!(schedule.is_urgent());
        assert_eq!(order(&mut schedule), [2, 1]);
    }

    #[test]
    fn removed_stream_has_no_output() {
        let mut schedule = SendSchedule::default();
        let turn = schedule.add(1, 7);
        schedule.remove(1, 7, turn);
        assert!(schedule.is_empty() && !schedule.is_urgent());
        schedule.add(2, 0);
        schedule.clear();
        assert_eq!(schedule.pop(), None);
    }
}
