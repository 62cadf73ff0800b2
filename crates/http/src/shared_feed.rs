//! Feed of a log that all its HTTP readers share: its events are drained once for all of them, so that a slow reader
//! does not delay them. Each reader reads groups from the log at its own position.

use parking_lot::Mutex;
use relay_model::{Epoch, LogId};
use relay_store::{CompleteGroup, Feed, GroupPage, LogEntry, LogHead, Lookup};

/// Shared feed of a log, with the state that its events describe.
#[derive(Debug)]
pub(crate) struct SharedFeed(Mutex<FeedState>);

#[derive(Debug)]
struct FeedState {
    feed: Feed,
    latest: Option<u64>,
    has_ended: bool,
}

impl SharedFeed {
    pub(crate) fn new((feed, head): (Feed, LogHead)) -> Self {
        Self(Mutex::new(FeedState { feed, latest: head.latest, has_ended: head.end.is_some() }))
    }

    /// Drains pending events; fetched groups that did not arrive are added to `failed`.
    pub(crate) fn drain(&self, failed: &mut Vec<u64>) {
        let mut state = self.0.lock();
        let mut entries = Vec::new();
        loop {
            let pulled = state.feed.pull(&mut entries);
            for entry in entries.drain(..) {
                match entry {
                    LogEntry::Group { sequence } => state.latest = state.latest.max(Some(sequence)),
                    LogEntry::Absent { group, .. } => failed.push(group),
                    LogEntry::End(_) => state.has_ended = true,
                    _ => {}
                }
            }
            if pulled.lagged {
                let LogHead { latest, end, .. } = state.feed.head();
                (state.latest, state.has_ended) = (latest, end.is_some());
            } else if !pulled.more {
                return;
            }
        }
    }

    /// Id of the log.
    pub(crate) fn log(&self) -> LogId {
        self.0.lock().feed.log_id()
    }

    /// Epoch of the latest writer.
    pub(crate) fn epoch(&self) -> Epoch {
        self.0.lock().feed.epoch()
    }

    /// See [`Feed::complete`].
    pub(crate) fn complete(&self, group: u64, frame: u64) -> Option<CompleteGroup> {
        self.0.lock().feed.complete(group, frame)
    }

    /// Latest group, and whether the log has ended.
    pub(crate) fn head(&self) -> (Option<u64>, bool) {
        let state = self.0.lock();
        (state.latest, state.has_ended)
    }

    /// See [`Feed::lookup`]; and whether the group is filled by a fetch.
    pub(crate) fn lookup(&self, group: u64, frame: u64) -> (Lookup, bool) {
        let state = self.0.lock();
        let found = state.feed.lookup(group, frame);
        let is_fetched =
            || state.feed.head().groups.iter().any(|held| held.sequence == group && held.fetched);
        (found, found == Lookup::Held && is_fetched())
    }

    /// See [`Feed::page`].
    pub(crate) fn page(&self, group: u64, frame: u64, out: &mut Vec<LogEntry>) -> Option<GroupPage> {
        self.0.lock().feed.page(group, frame, out)
    }
}
