//! Journal: the entries since the slowest feed's last pull, in arrival order, bounded.

use std::collections::VecDeque;

use relay_model::WorkerId;

use crate::{bounds, entry::LogEntry};

/// Result of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Whether there are more entries now.
    pub more: bool,
    /// Whether entries were dropped before this feed read them. Such a pull takes none: read [`crate::Feed::head`] and
    /// replay the groups of interest with [`crate::Feed::group`], then continue to pull (entries may repeat parts of
    /// the replay).
    pub lagged: bool,
}

/// Entries in arrival order, kept until every reader has passed them. Without readers it is empty.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Position of the first held entry, counted over every entry pushed while there were readers.
    base: u64,
    entries: VecDeque<LogEntry>,
    bytes: u64,
    readers: Vec<JournalReader>,
    next_key: u64,
}

#[derive(Debug)]
struct JournalReader {
    key: u64,
    worker: WorkerId,
    cursor: u64,
}

impl Journal {
    /// Appends an entry if there are readers.
    pub(crate) fn push(&mut self, entry: LogEntry) {
        if self.readers.is_empty() {
            return;
        }
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while self.entries.len() > bounds::JOURNAL_ENTRIES
            || (self.bytes > bounds::JOURNAL_BYTES && self.entries.len() > 1)
        {
            self.pop();
        }
    }

    /// Position after the last entry.
    pub(crate) fn tail(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// Workers of the readers; a worker with several feeds repeats.
    pub(crate) fn workers(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.readers.iter().map(|reader| reader.worker)
    }

    /// Registers a reader, positioned after the last entry. Returns its key.
    pub(crate) fn register(&mut self, worker: WorkerId) -> u64 {
        let key = self.next_key;
        self.next_key += 1;
        self.readers.push(JournalReader { key, worker, cursor: self.tail() });
        key
    }

    /// Removes a reader, and the entries that only it had not passed.
    pub(crate) fn unregister(&mut self, key: u64) {
        self.readers.retain(|reader| reader.key != key);
        let keep_from = self.readers.iter().map(|reader| reader.cursor).min().unwrap_or(self.tail());
        while self.base < keep_from && self.pop().is_some() {}
        self.shrink();
    }

    /// Copies the next entries to `out`. For the slowest reader they are moved instead of cloned.
    #[inline]
    pub(crate) fn pull(&mut self, key: u64, out: &mut Vec<LogEntry>) -> Pulled {
        let Some(at) = self.readers.iter().position(|reader| reader.key == key) else {
            return Pulled { more: false, lagged: false };
        };
        let tail = self.tail();
        let others = self.readers.iter().filter(|reader| reader.key != key).map(|reader| reader.cursor);
        let others = others.min().unwrap_or(tail);
        let Some(mut cursor) = self.readers.get(at).map(|reader| reader.cursor) else {
            return Pulled { more: false, lagged: false };
        };
        let lagged = cursor < self.base;
        if lagged {
            cursor = self.base;
        } else {
            let (mut entries, mut bytes) = (0, 0);
            while cursor < tail && entries < bounds::PULL_ENTRIES && bytes < bounds::PULL_BYTES {
                let entry = if cursor == self.base && cursor < others {
                    self.pop()
                } else {
                    usize::try_from(cursor - self.base).ok().and_then(|i| self.entries.get(i).cloned())
                };
                let Some(entry) = entry else { break };
                bytes += entry.bytes();
                out.push(entry);
                entries += 1;
                cursor += 1;
            }
        }
        if let Some(reader) = self.readers.get_mut(at) {
            reader.cursor = cursor;
        }
        self.shrink();
        Pulled { more: cursor < tail, lagged }
    }

    fn pop(&mut self) -> Option<LogEntry> {
        let entry = self.entries.pop_front()?;
        self.base += 1;
        self.bytes -= entry.bytes();
        Some(entry)
    }

    fn shrink(&mut self) {
        if self.entries.is_empty() && self.entries.capacity() > bounds::JOURNAL_IDLE_ENTRIES {
            self.entries.shrink_to(0);
        }
    }

    /// Asserts the invariants that hold between calls.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        assert_eq!(self.bytes, self.entries.iter().map(LogEntry::bytes).sum::<u64>());
        let slowest = self.readers.iter().map(|reader| reader.cursor).min();
        assert!(
            slowest.unwrap_or(self.tail()) <= self.base || self.entries.is_empty(),
            "a passed entry is held"
        );
        assert!(self.readers.iter().all(|reader| reader.cursor <= self.tail()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(sequence: u64) -> LogEntry {
        LogEntry::Group { sequence }
    }

    fn all(journal: &mut Journal, key: u64) -> Vec<LogEntry> {
        let mut out = Vec::new();
        while journal.pull(key, &mut out).more {}
        out
    }

    #[test]
    fn nothing_is_held_without_readers() {
        let mut journal = Journal::default();
        journal.push(group(1));
        assert_eq!(journal.tail(), 0);
        let key = journal.register(WorkerId(0));
        journal.push(group(2));
        journal.unregister(key);
        assert!(journal.entries.is_empty());
        journal.check();
    }

    #[test]
    fn entries_stay_until_the_slowest_has_passed_them() {
        let mut journal = Journal::default();
        let (fast, slow) = (journal.register(WorkerId(0)), journal.register(WorkerId(1)));
        journal.push(group(1));
        assert_eq!(all(&mut journal, fast), [group(1)]);
        assert_eq!(journal.entries.len(), 1);
        assert_eq!(all(&mut journal, slow), [group(1)]);
        assert!(journal.entries.is_empty());
        journal.check();
    }

    #[test]
    fn a_pull_is_bounded_in_entries_and_bytes() {
        let mut journal = Journal::default();
        let key = journal.register(WorkerId(0));
        for sequence in 0..=bounds::PULL_ENTRIES as u64 {
            journal.push(group(sequence));
        }
        let mut out = Vec::new();
        assert!(journal.pull(key, &mut out).more);
        assert_eq!(out.len(), bounds::PULL_ENTRIES);
        assert!(!journal.pull(key, &mut out).more);
        let half = bytes::Bytes::from(vec![0; bounds::PULL_BYTES as usize / 2]);
        for _ in 0..3 {
            journal.push(LogEntry::Datagram { group: 0, tick: 0, payload: half.clone() });
        }
        out.clear();
        assert!(journal.pull(key, &mut out).more);
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn reader_past_the_bounded_journal_lags_once() {
        let mut journal = Journal::default();
        let (slow, fast) = (journal.register(WorkerId(0)), journal.register(WorkerId(1)));
        for sequence in 0..=bounds::JOURNAL_ENTRIES as u64 {
            journal.push(group(sequence));
            if sequence % 64 == 0 {
                all(&mut journal, fast);
            }
        }
        assert_eq!(journal.entries.len(), bounds::JOURNAL_ENTRIES);
        let mut out = Vec::new();
        assert_eq!(journal.pull(slow, &mut out), Pulled { more: true, lagged: true });
        assert!(out.is_empty());
        assert!(!journal.pull(slow, &mut out).lagged);
        assert_eq!(out.first(), Some(&group(1)));
        assert!(!journal.pull(fast, &mut Vec::new()).lagged);
        journal.check();
    }

    #[test]
    fn the_journal_is_bounded_in_bytes() {
        let mut journal = Journal::default();
        let key = journal.register(WorkerId(0));
        let half = bytes::Bytes::from(vec![0; bounds::JOURNAL_BYTES as usize / 2]);
        for _ in 0..2 {
            journal.push(LogEntry::Datagram { group: 0, tick: 0, payload: half.clone() });
        }
        assert_eq!(journal.entries.len(), 2);
        journal.push(LogEntry::Datagram { group: 0, tick: 0, payload: half.slice(..1) });
        assert_eq!(journal.entries.len(), 2);
        assert!(journal.pull(key, &mut Vec::new()).lagged);
    }
}
