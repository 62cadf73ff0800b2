//! A cursor into the announce board.

use std::{collections::BTreeMap, iter::Peekable, ops::Bound, sync::Arc};

use relay_model::{Path, Route, WorkerId};
use smallvec::SmallVec;

use super::{Hub, Inner, Slot, Table};
use crate::{
    bounds,
    sync::{AtomicU64, Ordering},
};

/// The newest state of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its path.
    pub path: Path,
    /// Its routes, best first; empty: withdrawn.
    pub routes: Arc<[Route]>,
}

/// What changes at and below a prefix. Dropping it ends the interest.
#[derive(Debug)]
pub struct Watch {
    inner: Arc<Inner>,
    worker: WorkerId,
    prefix: Path,
    /// Version of the last change below the prefix.
    news: Arc<AtomicU64>,
    /// Changes up to this version are reported, or will be by the comparison under way.
    seen: u64,
    /// The versions reported, by path: what has to be withdrawn, and what need not be repeated.
    reported: BTreeMap<Path, u64>,
    /// A comparison of what is live with what is reported, under way.
    comparing: Option<Progress>,
}

#[derive(Clone, Debug)]
enum Progress {
    Start,
    After(Path),
}

impl Watch {
    pub(crate) fn new(inner: Arc<Inner>, worker: WorkerId, prefix: Path, news: Arc<AtomicU64>) -> Self {
        let seen = news.load(Ordering::Acquire);
        Self {
            inner,
            worker,
            prefix,
            news,
            seen,
            reported: BTreeMap::new(),
            comparing: Some(Progress::Start),
        }
    }

    /// The prefix it watches.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Gives everything live once more, and what was not reported yet.
    pub fn again(&mut self) {
        // No slot has this version: versions count from 1.
        self.reported.values_mut().for_each(|version| *version = 0);
        self.seen = self.news.load(Ordering::Acquire);
        self.comparing = Some(Progress::Start);
    }

    /// Whether a walk would find anything. Takes no lock.
    pub fn is_pending(&self) -> bool {
        self.comparing.is_some() || self.news.load(Ordering::Acquire) != self.seen
    }

    /// Appends at most `max` changes since the last walk, the newest state of each path; a path set
    /// and withdrawn in between gives none. True: walk again, there may be more (a walk that appends
    /// nothing has still made progress).
    pub fn walk(&mut self, max: usize, out: &mut Vec<Change>) -> bool {
        if !self.is_pending() || max == 0 {
            return self.is_pending();
        }
        let inner = Arc::clone(&self.inner);
        let table = inner.table.read();
        let Some(hub) = table.hubs.get(&self.prefix) else { return false };
        let full = out.len().saturating_add(max);
        let mut scan = max.saturating_mul(bounds::BOARD_SCAN);
        if self.comparing.is_none() && self.seen < hub.forgotten {
            self.seen = hub.version.load(Ordering::Acquire);
            self.comparing = Some(Progress::Start);
        }
        if let Some(progress) = self.comparing.take() {
            self.comparing = self.compare(&table, progress, full, &mut scan, out);
        }
        if self.comparing.is_none() && self.seen >= hub.forgotten {
            self.follow(&table, hub, full, &mut scan, out);
        }
        drop(table);
        self.is_pending()
    }

    /// Reports the changes the hub remembers past `seen`.
    fn follow(&mut self, table: &Table, hub: &Hub, full: usize, scan: &mut usize, out: &mut Vec<Change>) {
        let start = hub.recent.partition_point(|(version, _)| *version <= self.seen);
        for (version, path) in hub.recent.range(start..) {
            if out.len() >= full || *scan == 0 {
                return;
            }
            *scan -= 1;
            self.report(path, table.live.get(path), out);
            self.seen = *version;
        }
        self.seen = hub.version.load(Ordering::Acquire);
    }

    /// Goes over what is live and what is reported in path order. Returns where it stopped.
    fn compare(
        &mut self,
        table: &Table,
        progress: Progress,
        full: usize,
        scan: &mut usize,
        out: &mut Vec<Change>,
    ) -> Option<Progress> {
        let mut after = match progress {
            Progress::Start => None,
            Progress::After(path) => Some(path),
        };
        loop {
            let batch = self.next_paths(table, after.as_ref());
            if batch.is_empty() {
                return None;
            }
            for path in batch {
                if out.len() >= full || *scan == 0 {
                    return Some(after.map_or(Progress::Start, Progress::After));
                }
                *scan -= 1;
                self.report(&path, table.live.get(&path), out);
                after = Some(path);
            }
        }
    }

    /// The next few paths that are live or reported.
    fn next_paths(&self, table: &Table, after: Option<&Path>) -> SmallVec<[Path; 32]> {
        let from = after.map_or(Bound::Included(&self.prefix), Bound::Excluded);
        let live = table.live.range::<Path, _>((from, Bound::Unbounded)).map(|(path, _)| path);
        let live = live.take_while(|path| path.has_prefix(&self.prefix));
        let reported = self.reported.range::<Path, _>((from, Bound::Unbounded)).map(|(path, _)| path);
        Merge { left: live.peekable(), right: reported.peekable() }.take(32).cloned().collect()
    }

    fn report(&mut self, path: &Path, slot: Option<&Slot>, out: &mut Vec<Change>) {
        let routes = match slot {
            Some(slot) if self.reported.get(path) == Some(&slot.version) => return,
            Some(slot) => {
                self.reported.insert(path.clone(), slot.version);
                Arc::clone(&slot.routes)
            }
            None if self.reported.remove(path).is_none() => return,
            None => Arc::new([]),
        };
        out.push(Change { path: path.clone(), routes });
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.inner.table.write().leave(self.worker, &self.prefix);
    }
}

/// Two ascending runs as one, without repeats.
struct Merge<L: Iterator, R: Iterator> {
    left: Peekable<L>,
    right: Peekable<R>,
}

impl<'a, L: Iterator<Item = &'a Path>, R: Iterator<Item = &'a Path>> Iterator for Merge<L, R> {
    type Item = &'a Path;

    fn next(&mut self) -> Option<&'a Path> {
        match (self.left.peek(), self.right.peek()) {
            (Some(left), Some(right)) if left == right => {
                self.right.next();
                self.left.next()
            }
            (Some(left), Some(right)) if left > right => self.right.next(),
            (None, _) => self.right.next(),
            _ => self.left.next(),
        }
    }
}
