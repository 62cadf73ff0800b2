//! Changed logs, and watchers of the announce board with changes, that are still to be delivered.

use std::{
    collections::{HashSet, VecDeque},
    rc::Rc,
};

use relay_model::{LogId, SessionId};
use relay_session::{Batch, LocalReader};

/// Batch of changes on its way to the readers of a log.
pub(super) struct Delivery {
    pub(super) log: LogId,
    pub(super) batch: Rc<Batch>,
    readers: Vec<LocalReader>,
    next: usize,
}

impl Delivery {
    /// Creates a delivery of `batch` to `readers`.
    pub(super) fn new(log: LogId, batch: Rc<Batch>, readers: Vec<LocalReader>) -> Self {
        Self { log, batch, readers, next: 0 }
    }

    /// Up to `most` of the next readers.
    pub(super) fn next(&self, most: usize) -> &[LocalReader] {
        let rest = self.readers.get(self.next..).unwrap_or_default();
        rest.get(..most).unwrap_or(rest)
    }

    /// Moves on by `count` readers. True: the batch has reached all of them.
    pub(super) fn advance(&mut self, count: usize) -> bool {
        self.next += count;
        self.next >= self.readers.len()
    }
}

/// Work that changes of the store leave for a worker.
#[derive(Default)]
pub(super) struct ChangeQueue {
    /// Logs to pull, in order; `queued` holds the same for lookups.
    logs: VecDeque<LogId>,
    queued: HashSet<LogId, foldhash::fast::RandomState>,
    /// Batch that has not reached all its readers.
    pub(super) delivery: Option<Delivery>,
    board_changed: bool,
    /// Watchers with board changes that they have not been sent yet.
    watchers: VecDeque<SessionId>,
}

impl ChangeQueue {
    /// Queues changed logs; leaves the vector empty. `board_changed`: the announce board changed too.
    pub(super) fn add(&mut self, logs: &mut Vec<LogId>, board_changed: bool) {
        self.board_changed |= board_changed;
        for log in logs.drain(..) {
            self.push(log);
        }
    }

    /// Queues a changed log.
    pub(super) fn push(&mut self, log: LogId) {
        if self.queued.insert(log) {
            self.logs.push_back(log);
        }
    }

    /// Removes the next changed log.
    pub(super) fn pop(&mut self) -> Option<LogId> {
        let log = self.logs.pop_front()?;
        self.queued.remove(&log);
        Some(log)
    }

    /// Whether a log or a batch waits.
    pub(super) fn has_logs(&self) -> bool {
        self.delivery.is_some() || !self.logs.is_empty()
    }

    /// Whether a round over all watchers has to begin: the last one is over, and the board has changed since its
    /// start. Later changes are sent to all of them in another round.
    pub(super) fn begin_board_round(&mut self) -> bool {
        self.watchers.is_empty() && std::mem::take(&mut self.board_changed)
    }

    /// Adds the watchers of a round; leaves the vector empty.
    pub(super) fn add_watchers(&mut self, watchers: &mut Vec<SessionId>) {
        self.watchers.extend(watchers.drain(..));
    }

    /// Removes the next watcher of the round.
    pub(super) fn pop_watcher(&mut self) -> Option<SessionId> {
        self.watchers.pop_front()
    }

    /// Whether watchers of the round are left.
    pub(super) fn has_watchers(&self) -> bool {
        !self.watchers.is_empty()
    }

    /// Whether nothing is left to deliver.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_logs() && !self.board_changed && self.watchers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_log_is_queued_once_until_taken() {
        let mut changes = ChangeQueue::default();
        let mut logs = vec![LogId(1), LogId(2), LogId(1)];
        changes.add(&mut logs, false);
        assert!(logs.is_empty() && changes.has_logs());
        assert_eq!(changes.pop(), Some(LogId(1)));
        changes.push(LogId(1));
        assert_eq!((changes.pop(), changes.pop(), changes.pop()), (Some(LogId(2)), Some(LogId(1)), None));
        assert!(changes.is_empty());
    }

    #[test]
    fn board_change_during_a_round_begins_another() {
        let mut changes = ChangeQueue::default();
        assert!(!changes.begin_board_round());
        changes.add(&mut Vec::new(), true);
        assert!(!changes.is_empty() && changes.begin_board_round());
        changes.add_watchers(&mut vec![SessionId(1), SessionId(2)]);
        changes.add(&mut Vec::new(), true);
        assert!(!changes.begin_board_round(), "the round is not over");
        assert_eq!(changes.pop_watcher(), Some(SessionId(1)));
        assert!(changes.has_watchers());
        assert_eq!((changes.pop_watcher(), changes.pop_watcher()), (Some(SessionId(2)), None));
        assert!(changes.begin_board_round());
        assert!(changes.is_empty());
    }
}
