//! Feed of a log: one worker's cursor into the journal, and replays for late joiners.

use std::sync::{Arc, atomic::Ordering};

use relay_model::{Epoch, LogId, WorkerId};

use crate::{
    entry::{CompleteGroup, LogEntry, LogHead, Lookup},
    group::{ReplayPosition, Replayed},
    journal::Pulled,
    log::Log,
};

/// Page of a group, read with [`Feed::page`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupPage {
    /// Object to continue from, if there are more.
    pub next: Option<u64>,
}

/// One worker's cursor into a log. Dropping it unregisters the worker.
#[derive(Debug)]
pub struct Feed {
    log: Arc<Log>,
    key: u64,
}

impl Log {
    /// Attaches a feed for `worker`. The feed begins exactly after the returned head: both are taken under one
    /// lock.
    pub fn feed(self: &Arc<Self>, worker: WorkerId) -> (Feed, LogHead) {
        debug_assert!(self.shared.ready_list(worker).is_some(), "no such worker: {worker:?}");
        self.touch();
        let mut state = self.lock();
        let key = state.journal.register(worker);
        let head = state.head();
        drop(state);
        self.shared.feeds.fetch_add(1, Ordering::Relaxed);
        (Feed { log: Arc::clone(self), key }, head)
    }
}

impl Feed {
    /// Id of the log.
    pub fn log_id(&self) -> LogId {
        self.log.id()
    }

    /// The log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Appends the entries since the last pull, at most 64 entries or 256 KiB (the entry that crosses it
    /// included). Takes the log's lock once.
    pub fn pull(&mut self, out: &mut Vec<LogEntry>) -> Pulled {
        self.log.touch();
        self.log.lock().journal.pull(self.key, out)
    }

    /// Replays a held group from its beginning: `Group`, then its objects, then the end of each strand that has
    /// ended. False, and nothing appended: not held, or not from the beginning.
    pub fn group(&self, sequence: u64, out: &mut Vec<LogEntry>) -> bool {
        self.group_from(sequence, 0, out)
    }

    /// Replays like [`Feed::group`], from object `object` of every strand on: for a reader that has the objects
    /// before it. Works while those objects are held, even if the group's head is gone.
    pub fn group_from(&self, sequence: u64, object: u64, out: &mut Vec<LogEntry>) -> bool {
        self.log.touch();
        let start = out.len();
        out.push(LogEntry::Group { sequence });
        let mut page = ReplayPosition::from(object);
        loop {
            let state = self.log.lock();
            let group = state.groups.get(&sequence);
            let whole = group.filter(|group| object > 0 || !group.lost_head());
            match whole.and_then(|group| group.replay(sequence, page, out)) {
                Some(Replayed::Page(next)) => page = next,
                Some(Replayed::All) => return true,
                None => {
                    drop(state);
                    out.truncate(start);
                    return false;
                }
            }
        }
    }

    /// Reads one page of a group without pinning the rest: the objects from `object` on, as many as fit one
    /// lock hold, and the end of the strands after the last one. `None`, and nothing appended: not held.
    pub fn page(&self, sequence: u64, object: u64, out: &mut Vec<LogEntry>) -> Option<GroupPage> {
        self.log.touch();
        let start = out.len();
        let state = self.log.lock();
        let group = state.groups.get(&sequence).filter(|group| object > 0 || !group.lost_head());
        match group.and_then(|group| group.replay(sequence, ReplayPosition::from(object), out)) {
            Some(Replayed::Page(next)) => Some(GroupPage { next: Some(next.object()) }),
            Some(Replayed::All) => Some(GroupPage { next: None }),
            None => {
                drop(state);
                out.truncate(start);
                None
            }
        }
    }

    /// Whether a group is held and over: no more of it will arrive. Takes the log's lock once.
    pub fn is_over(&self, sequence: u64) -> bool {
        self.log
            .lock()
            .groups
            .get(&sequence)
            .is_some_and(|group| !group.strands.is_empty() && group.is_over())
    }

    /// Looks up whether a group can be read from object `first_object` on. If the group was reset or has lost
    /// that object, only the publisher may have more: `Unknown` while the log is live; after its end `Absent`,
    /// with the code of the reset or [`relay_model::StreamCode::EVICTED`]. Takes the log's lock once. Pull
    /// first, so that no entry older than the answer is still pending.
    pub fn lookup(&self, sequence: u64, first_object: u64) -> Lookup {
        self.log.touch();
        self.log.lock().lookup(sequence, first_object)
    }

    /// Size of a finished group that can be read from object `first` on, for a reader that must know it before
    /// it responds. Takes the log's lock once, whatever the group holds. `None`: the group may still grow, was
    /// reset, or is not held.
    pub fn complete(&self, sequence: u64, first: u64) -> Option<CompleteGroup> {
        let state = self.log.lock();
        let group = state.groups.get(&sequence).filter(|group| group.is_complete(first))?;
        let bytes = (!group.lost_head()).then_some(group.payload);
        Some(CompleteGroup { bytes })
    }

    /// Epoch of the log's latest writer; under another epoch, a group number may denote another group.
    pub fn epoch(&self) -> Epoch {
        self.log.lock().lease.latest()
    }

    /// Current state of the log.
    pub fn head(&self) -> LogHead {
        self.log.lock().head()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.log.lock().journal.unregister(self.key);
        self.log.shared.feeds.fetch_sub(1, Ordering::Relaxed);
    }
}
