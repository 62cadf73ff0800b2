//! The announce board: live paths in order, for sessions and HTTP readers that watch a prefix.
//!
//! Core sets routes, watches visit changes. A watch is a position in the changes of its prefix plus a compact
//! entry for each path it advertised ([`BoardWatch`]). Every path has a slot, kept while the path is live and until
//! all watches above it have passed its withdrawal. The board's lock is never held together with another one.

use std::{sync::Arc, time::Instant};

use relay_model::{Path, Route, WorkerId};

use crate::{ready_list::WakeSet, shared::StoreShared, sync::RwLock};

mod adverts;
mod pace;
mod table;
mod watch;
mod watched_prefix;

pub use adverts::Advert;
pub use pace::PATH_CHANGES_PER_SECOND;
pub use watch::{BoardWatch, VisitStep, Visited, WatchCandidate};

use table::{BoardInner, BoardTable, Wakes};

/// Live paths with their routes, and the watches of their prefixes.
#[derive(Debug)]
pub struct AnnounceBoard {
    inner: Arc<BoardInner>,
}

/// Newest state of a live path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LivePath {
    /// The path.
    pub path: Path,
    /// Routes of the path, best first.
    pub routes: Arc<[Route]>,
}

impl AnnounceBoard {
    pub(crate) fn new(shared: Arc<StoreShared>) -> Self {
        Self { inner: Arc::new(BoardInner { shared, table: RwLock::new(BoardTable::default()) }) }
    }

    /// Sets the routes of `path`, best first; empty withdraws it. Workers that watch a prefix of `path` are
    /// added to `wake_set`. A change above [`PATH_CHANGES_PER_SECOND`] is delayed until [`Self::release`]. For
    /// core only.
    pub fn set(&self, path: Path, routes: Vec<Route>, now: Instant, wake_set: &mut WakeSet) {
        let mut wakes = Wakes::new();
        self.inner.table.write().set(path, routes, now, &mut wakes);
        self.wake(wakes, wake_set);
    }

    /// Applies the changes due by `now`. Returns when the next one is due. For core only.
    pub fn release(&self, now: Instant, wake_set: &mut WakeSet) -> Option<Instant> {
        let due = self.inner.table.read().next_due();
        if due.is_none_or(|due| due > now) {
            return due;
        }
        let mut wakes = Wakes::new();
        let due = self.inner.table.write().release(now, &mut wakes);
        self.wake(wakes, wake_set);
        due
    }

    /// Watches the paths at and below `prefix` for `worker`. The first visits yield the live paths.
    pub fn watch(&self, worker: WorkerId, prefix: Path) -> BoardWatch {
        let place = self.inner.table.write().join(worker, &prefix);
        BoardWatch::new(Arc::clone(&self.inner), worker, prefix, place)
    }

    /// Live paths at and below `prefix`, at most `max`, in order, starting after `after`.
    pub fn list(&self, prefix: &Path, after: Option<&Path>, max: usize) -> Vec<LivePath> {
        let table = self.inner.table.read();
        let slots = table.below(prefix, after).filter(|(_, slot)| slot.is_live).take(max);
        slots
            .map(|(_, slot)| LivePath { path: slot.path.clone(), routes: Arc::clone(&slot.routes) })
            .collect()
    }

    /// Number of live paths.
    pub fn paths(&self) -> usize {
        self.inner.table.read().live()
    }

    /// Number of live watches.
    pub fn watches(&self) -> usize {
        self.inner.table.read().watches()
    }

    fn wake(&self, workers: Wakes, wake_set: &mut WakeSet) {
        for worker in workers {
            if let Some(list) = self.inner.shared.ready_list(worker) {
                list.mark_board();
                wake_set.mark(worker);
            }
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests;
