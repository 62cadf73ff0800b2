//! Following a log: one worker's cursor into the journal, and replays for late joiners.

use std::sync::{Arc, atomic::Ordering};

use relay_model::{Epoch, LogId};

use crate::{
    entry::{CompleteGroup, Entry, Head, Lookup},
    group::{Page, Replayed},
    log::Log,
};

/// What a pull left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Pull again: there is more now.
    pub more: bool,
    /// Entries were dropped before this feed saw them. This pull took none: read [`Feed::head`] and
    /// the groups of interest anew with [`Feed::group`], then pull on (entries may repeat what the
    /// replay had).
    pub lagged: bool,
}

/// One worker's place in a log. Dropping it ends the worker's interest.
#[derive(Debug)]
pub struct Feed {
    log: Arc<Log>,
    key: u64,
}

impl Feed {
    pub(crate) fn new(log: Arc<Log>, key: u64) -> Self {
        log.shared.feeds.fetch_add(1, Ordering::Relaxed);
        Self { log, key }
    }

    /// The log's id.
    pub fn log_id(&self) -> LogId {
        self.log.id()
    }

    /// The log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Appends what came since the last pull, at most 64 entries or 256 KiB (the entry that crosses
    /// it included). One lock of the log.
    pub fn pull(&mut self, out: &mut Vec<Entry>) -> Pulled {
        self.log.touch();
        self.log.lock().journal.pull(self.key, out)
    }

    /// Replays a held group from its beginning: `Group`, then its objects, then how its strands
    /// ended if they did. False, and nothing appended: not held, or not from the beginning.
    pub fn group(&self, sequence: u64, out: &mut Vec<Entry>) -> bool {
        self.group_from(sequence, 0, out)
    }

    /// As [`Feed::group`], from object `object` of every strand on: for a reader that has what comes
    /// before it. Works while those objects are held, also when the group's head is gone.
    pub fn group_from(&self, sequence: u64, object: u64, out: &mut Vec<Entry>) -> bool {
        self.log.touch();
        let start = out.len();
        out.push(Entry::Group { sequence });
        let mut page = Page::from(object);
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

    /// Reads on in a group without holding what it reads: the objects from `object` on, as many as one lock is
    /// worth, and how the strands ended if these were the last. The object to go on from, if there are more.
    /// `None`, and nothing appended: not held.
    #[allow(clippy::option_option, reason = "both are answers")]
    pub fn page(&self, sequence: u64, object: u64, out: &mut Vec<Entry>) -> Option<Option<u64>> {
        self.log.touch();
        let start = out.len();
        let state = self.log.lock();
        let group = state.groups.get(&sequence).filter(|group| object > 0 || !group.lost_head());
        match group.and_then(|group| group.replay(sequence, Page::from(object), out)) {
            Some(Replayed::Page(next)) => Some(Some(next.object())),
            Some(Replayed::All) => Some(None),
            None => {
                drop(state);
                out.truncate(start);
                None
            }
        }
    }

    /// Whether a group is held and nothing more comes of it. One lock of the log.
    pub fn is_over(&self, sequence: u64) -> bool {
        self.log
            .lock()
            .groups
            .get(&sequence)
            .is_some_and(|group| !group.strands.is_empty() && group.is_over())
    }

    /// Whether a group can be read from object `first_object` on. Of a group that is interrupted, or
    /// has lost that object, only the publisher may have more: unknown while the log goes on; after
    /// its end absent, with the code of the interruption or [`relay_model::StreamCode::EVICTED`]. One
    /// lock of the log. Pull first, so that nothing older than the answer is still to come.
    pub fn lookup(&self, sequence: u64, first_object: u64) -> Lookup {
        self.log.touch();
        self.log.lock().lookup(sequence, first_object)
    }

    /// Whether a group is complete and can be read from object `first` on: what a reader must know before it answers.
    /// One lock of the log, whatever the group holds. `None`: it may still grow, was interrupted, or is not held.
    pub fn complete(&self, sequence: u64, first: u64) -> Option<CompleteGroup> {
        let state = self.log.lock();
        let group = state.groups.get(&sequence).filter(|group| group.is_complete(first))?;
        let bytes = (!group.lost_head()).then_some(group.payload);
        Some(CompleteGroup { bytes })
    }

    /// Epoch of the log's latest writer: under another one, a group number may stand for another group.
    pub fn epoch(&self) -> Epoch {
        self.log.lock().seat.latest()
    }

    /// The log as it is now.
    pub fn head(&self) -> Head {
        self.log.lock().head()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.log.lock().journal.unregister(self.key);
        self.log.shared.feeds.fetch_sub(1, Ordering::Relaxed);
    }
}
