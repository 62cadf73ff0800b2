//! State of the board under its lock: slots of paths, and watched prefixes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
    time::Instant,
};

use foldhash::fast::RandomState;
use relay_model::{Path, Route, WorkerId};
use smallvec::SmallVec;

use super::{
    pace::ChangePace,
    watched_prefix::{PresenceChange, SlotChange, WatchPosition, WatchedPrefix},
};
use crate::{bounds, shared::StoreShared, slots::Slots, sync::RwLock};

/// State of a board, shared with its watches.
#[derive(Debug)]
pub(crate) struct BoardInner {
    pub(super) shared: Arc<StoreShared>,
    pub(super) table: RwLock<BoardTable>,
}

/// Workers whose watches have changes to visit.
pub(super) type Wakes = SmallVec<[WorkerId; 8]>;

/// Paths, and the prefixes that are watched.

#[derive(Debug, Default)]
pub(super) struct BoardTable {
    /// Version of the last change; counts from 1.
    version: u64,
    /// Slots by path: live paths, and withdrawn ones that are still needed.
    paths: BTreeMap<Path, u32>,
    slots: Slots<PathSlot>,
    live: usize,
    /// Withdrawals in order: version and slot. An entry is void if its slot has another version by now.
    withdrawn: VecDeque<(u64, u32)>,
    /// Number of withdrawals that starts the next sweep.
    sweep_at: usize,
    sweeps: u64,
    /// Slots with a delayed change, by the time it is due.
    held: BTreeSet<(Instant, u32)>,
    /// Prefixes with a watch.
    watched_prefixes: HashMap<Path, WatchedPrefix, RandomState>,
}

/// State of one path.
#[derive(Debug)]
pub(super) struct PathSlot {
    pub(super) path: Path,
    /// Newest routes, best first; of a withdrawn path the last ones.
    pub(super) routes: Arc<[Route]>,
    pub(super) is_live: bool,
    /// Version of the path's last change.
    version: u64,
    pace: ChangePace,
    /// Delayed change: the time it is due, and the routes then.
    held: Option<(Instant, Vec<Route>)>,
}

impl BoardTable {
    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn watches(&self) -> usize {
        self.watched_prefixes.values().map(WatchedPrefix::watches).sum()
    }

    pub(super) fn watched(&self, prefix: &Path) -> Option<&WatchedPrefix> {
        self.watched_prefixes.get(prefix)
    }

    /// Withdrawals that some watch may need, ascending: version and slot.
    pub(super) fn withdrawn(&self) -> &VecDeque<(u64, u32)> {
        &self.withdrawn
    }

    pub(super) fn slot(&self, slot: u32) -> Option<&PathSlot> {
        self.slots.get(usize::try_from(slot).ok()?)
    }

    /// Slots at and below `prefix` in the order of their paths, starting after `after`.
    pub(super) fn below<'a>(
        &'a self,
        prefix: &'a Path,
        after: Option<&Path>,
    ) -> impl Iterator<Item = (u32, &'a PathSlot)> {
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let paths = self.paths.range::<Path, _>((from, Bound::Unbounded));
        let below = paths.take_while(move |(path, _)| path.has_prefix(prefix));
        below.filter_map(|(_, slot)| Some((*slot, self.slot(*slot)?)))
    }

    pub(super) fn set(&mut self, path: Path, routes: Vec<Route>, now: Instant, wakes: &mut Wakes) {
        let id = match self.paths.get(&path) {
            Some(id) => *id,
            None if routes.is_empty() => return,
            None => match self.insert(path) {
                Some(id) => id,
                None => return,
            },
        };
        let Some(slot) = self.slot_mut(id) else { return };
        let (newest, is_live) = slot.seen(true);
        if is_live != routes.is_empty() && (routes.is_empty() || *newest == *routes) {
            return;
        }
        let before = slot.held.take();
        let due = before.as_ref().map(|(due, _)| *due).or_else(|| slot.pace.due(now));
        let is_shown = slot.is_shown(&routes);
        // A withdrawal is never delayed: readers must not request a path that is gone. Its return is.
        match due.filter(|_| !routes.is_empty() && !is_shown) {
            Some(due) => {
                slot.held = Some((due, routes));
                self.held.insert((due, id));
                self.touch(id, wakes);
            }
            None => {
                if let Some((due, _)) = before {
                    self.held.remove(&(due, id));
                }
                if is_shown { self.touch(id, wakes) } else { self.apply(id, routes, now, wakes) }
            }
        }
    }

    /// Marks a change that only exact watches see.
    fn touch(&mut self, id: u32, wakes: &mut Wakes) {
        self.version += 1;
        let version = self.version;
        let Some(slot) = self.slot_mut(id) else { return };
        slot.version = version;
        let (path, is_gone) = (slot.path.clone(), !slot.is_live && slot.held.is_none());
        self.announce_change(
            &path,
            SlotChange { version, slot: id, presence: PresenceChange::Unchanged },
            wakes,
        );
        if is_gone {
            self.withdrawn.push_back((version, id));
        }
    }

    /// Records a change in the watched prefixes of its path, and adds their workers to `wakes`.
    fn announce_change(&mut self, path: &Path, change: SlotChange, wakes: &mut Wakes) {
        for prefix in prefixes(path.as_str()) {
            let Some(watched) = self.watched_prefixes.get_mut(prefix) else { continue };
            watched.change(change);
            for worker in watched.workers() {
                if !wakes.contains(&worker) {
                    wakes.push(worker);
                }
            }
        }
    }

    /// Time at which the next delayed change is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.held.first().map(|(due, _)| *due)
    }

    /// Applies the delayed changes that are due. Returns when the next one is.
    pub(super) fn release(&mut self, now: Instant, wakes: &mut Wakes) -> Option<Instant> {
        while let Some((due, id)) = self.held.first().copied().filter(|(due, _)| *due <= now) {
            self.held.remove(&(due, id));
            let Some(slot) = self.slot_mut(id) else { continue };
            let Some((_, routes)) = slot.held.take() else { continue };
            if !slot.is_shown(&routes) {
                self.apply(id, routes, now, wakes);
            }
        }
        self.next_due()
    }

    pub(super) fn join(&mut self, worker: WorkerId, prefix: &Path) -> WatchPosition {
        if !self.watched_prefixes.contains_key(prefix) {
            let live = self.below(prefix, None).filter(|(_, slot)| slot.is_live).count();
            self.watched_prefixes.insert(prefix.clone(), WatchedPrefix::new(self.version, live));
        }
        let version = self.version;
        self.watched_prefixes
            .entry(prefix.clone())
            .or_insert_with(|| WatchedPrefix::new(version, 0))
            .join(worker)
    }

    pub(super) fn leave(&mut self, worker: WorkerId, prefix: &Path, index: usize) {
        if self.watched_prefixes.get_mut(prefix).is_some_and(|watched| watched.leave(worker, index)) {
            self.watched_prefixes.remove(prefix);
        }
    }

    fn slot_mut(&mut self, slot: u32) -> Option<&mut PathSlot> {
        self.slots.get_mut(usize::try_from(slot).ok()?)
    }

    /// Allocates a slot for `path`. `None` beyond 2^32 paths, which no memory holds.
    fn insert(&mut self, path: Path) -> Option<u32> {
        let slot = PathSlot {
            path: path.clone(),
            routes: Arc::new([]),
            is_live: false,
            version: 0,
            pace: ChangePace::default(),
            held: None,
        };
        let id = u32::try_from(self.slots.insert(slot)).ok()?;
        self.paths.insert(path, id);
        Some(id)
    }

    fn apply(&mut self, id: u32, routes: Vec<Route>, now: Instant, wakes: &mut Wakes) {
        self.version += 1;
        let version = self.version;
        let Some(slot) = self.slot_mut(id) else { return };
        let (was_live, is_live) = (slot.is_live, !routes.is_empty());
        if is_live {
            slot.routes = routes.into();
        }
        (slot.is_live, slot.version) = (is_live, version);
        slot.pace.count(now);
        let path = slot.path.clone();
        let presence = PresenceChange::between(was_live, is_live);
        self.live = presence.apply(self.live);
        self.announce_change(&path, SlotChange { version, slot: id, presence }, wakes);
        if presence == PresenceChange::Removed {
            self.withdrawn.push_back((version, id));
            if self.withdrawn.len() >= self.sweep_at.max(bounds::BOARD_WITHDRAWN) {
                self.sweep(now);
            }
        }
    }

    /// Frees slots of withdrawn paths that no watch needs any more and whose rate limit is idle. Slots above
    /// the bound are freed in any case; watches that needed them have lost withdrawals.
    fn sweep(&mut self, now: Instant) {
        self.sweeps += 1;
        let most = self.live.max(bounds::BOARD_WITHDRAWN_MAX);
        let queue = std::mem::take(&mut self.withdrawn);
        let mut surplus = queue.len().saturating_sub(most);
        for (version, id) in queue {
            let known = self.slot(id).filter(|slot| !slot.is_live && slot.version == version);
            let Some(slot) = known else {
                surplus = surplus.saturating_sub(1);
                continue;
            };
            let is_quiet = slot.pace.is_idle(now) && slot.held.is_none();
            let path = slot.path.clone();
            let is_surplus = surplus > 0 && slot.held.is_none();
            if is_surplus || is_quiet && self.is_passed(&path, version) {
                surplus = surplus.saturating_sub(1);
                self.free(id, &path, version);
            } else {
                self.withdrawn.push_back((version, id));
            }
        }
        self.sweep_at = 2 * self.withdrawn.len();
    }

    /// Whether every watch above `path` has passed the version of its withdrawal.
    fn is_passed(&mut self, path: &Path, version: u64) -> bool {
        let sweep = self.sweeps;
        prefixes(path.as_str()).all(|prefix| {
            self.watched_prefixes.get_mut(prefix).is_none_or(|watched| watched.lowest(sweep) >= version)
        })
    }

    fn free(&mut self, id: u32, path: &Path, version: u64) {
        for prefix in prefixes(path.as_str()) {
            if let Some(watched) = self.watched_prefixes.get_mut(prefix) {
                watched.lost = watched.lost.max(version);
            }
        }
        self.paths.remove(path);
        self.slots.remove(id as usize);
    }

    /// Slots in use.
    #[cfg(all(test, not(shuttle)))]
    pub(super) fn slots(&self) -> usize {
        self.paths.len()
    }

    /// Changes kept by watched prefixes.
    #[cfg(all(test, not(shuttle)))]
    pub(super) fn remembered(&self) -> usize {
        self.watched_prefixes.values().map(|watched| watched.recent.len()).sum()
    }

    #[cfg(all(test, not(shuttle)))]
    pub(super) fn watched_prefixes(&self) -> usize {
        self.watched_prefixes.len()
    }
}

impl PathSlot {
    /// Routes, and whether the path is live, as seen by a watch: an exact watch sees a delayed change.
    pub(super) fn seen(&self, is_exact: bool) -> (&[Route], bool) {
        match &self.held {
            Some((_, routes)) if is_exact => (routes, true),
            _ => (&self.routes, self.is_live),
        }
    }

    /// Whether watches see these routes already.
    fn is_shown(&self, routes: &[Route]) -> bool {
        if self.is_live { *self.routes == *routes } else { routes.is_empty() }
    }
}

/// Every prefix of a normalised path, from the root to the path itself.
pub(super) fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let cuts = path.match_indices('/').map(|(at, _)| at);
    let root = (!path.is_empty()).then_some("");
    root.into_iter().chain(cuts.chain([path.len()]).filter_map(|at| path.get(..at)))
}
