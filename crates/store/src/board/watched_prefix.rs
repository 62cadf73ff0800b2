//! Watched prefix: its recent changes, and the positions of its watches.

use std::{collections::VecDeque, sync::Arc};

use relay_model::WorkerId;
use smallvec::SmallVec;

use crate::{
    bounds,
    slots::Slots,
    sync::{AtomicU64, Ordering},
};

/// Position of a watch that needs no withdrawals: it has advertised nothing.
pub(super) const NO_POSITION: u64 = u64::MAX;

/// A watched prefix.
#[derive(Debug)]
pub(super) struct WatchedPrefix {
    /// Version of the last change below the prefix; a watch at that version need not lock.
    pub(super) version: Arc<AtomicU64>,
    /// The last changes below the prefix, ascending: version and slot. A slot may repeat.
    pub(super) recent: VecDeque<(u64, u32)>,
    /// Changes up to this version may be missing in `recent`.
    pub(super) forgotten: u64,
    /// Highest withdrawal no longer kept: a watch with adverts and a lower position has missed withdrawals.
    pub(super) lost: u64,
    /// Live paths below the prefix; the length of `recent` is bounded in proportion to the cost of a pass over
    /// them.
    live: usize,
    watches: SmallVec<[(WorkerId, usize); 2]>,
    /// Positions of the watches, by index.
    positions: Slots<Arc<AtomicU64>>,
    /// Lowest position, and the sweep that computed it.
    lowest: (u64, u64),
}

/// Change of one path.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotChange {
    pub(super) version: u64,
    pub(super) slot: u32,
    pub(super) presence: PresenceChange,
}

/// Effect of a change on whether its path is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PresenceChange {
    /// The path became live.
    Added,
    /// The path was withdrawn.
    Removed,
    /// The path is as live as before.
    Unchanged,
}

impl PresenceChange {
    pub(super) fn between(was_live: bool, is_live: bool) -> Self {
        match (was_live, is_live) {
            (false, true) => Self::Added,
            (true, false) => Self::Removed,
            _ => Self::Unchanged,
        }
    }

    /// Number of live paths after the change of one of them.
    pub(super) fn apply(self, live: usize) -> usize {
        match self {
            Self::Added => live.saturating_add(1),
            Self::Removed => live.saturating_sub(1),
            Self::Unchanged => live,
        }
    }
}

/// State shared between a watch and its prefix.
#[derive(Debug)]
pub(super) struct WatchPosition {
    /// Version of the last change below the prefix.
    pub(super) latest_version: Arc<AtomicU64>,
    /// The watch no longer needs withdrawals up to this version.
    pub(super) position: Arc<AtomicU64>,
    pub(super) index: usize,
}

impl WatchedPrefix {
    pub(super) fn new(version: u64, live: usize) -> Self {
        Self {
            version: Arc::new(AtomicU64::new(version)),
            recent: VecDeque::new(),
            forgotten: version,
            lost: 0,
            live,
            watches: SmallVec::new(),
            positions: Slots::default(),
            lowest: (NO_POSITION, 0),
        }
    }

    pub(super) fn join(&mut self, worker: WorkerId) -> WatchPosition {
        match self.watches.iter_mut().find(|(at, _)| *at == worker) {
            Some((_, count)) => *count += 1,
            None => self.watches.push((worker, 1)),
        }
        let position = Arc::new(AtomicU64::new(NO_POSITION));
        let index = self.positions.insert(Arc::clone(&position));
        WatchPosition { latest_version: Arc::clone(&self.version), position, index }
    }

    /// Removes a watch. Returns whether none is left.
    pub(super) fn leave(&mut self, worker: WorkerId, index: usize) -> bool {
        if let Some((_, count)) = self.watches.iter_mut().find(|(at, _)| *at == worker) {
            *count -= 1;
        }
        self.watches.retain(|(_, count)| *count > 0);
        self.positions.remove(index);
        self.watches.is_empty()
    }

    pub(super) fn watches(&self) -> usize {
        self.watches.iter().map(|(_, count)| count).sum()
    }

    pub(super) fn workers(&self) -> impl Iterator<Item = WorkerId> {
        self.watches.iter().map(|(worker, _)| *worker)
    }

    /// Records a change of a path below the prefix.
    pub(super) fn change(&mut self, change: SlotChange) {
        self.live = change.presence.apply(self.live);
        self.recent.push_back((change.version, change.slot));
        while self.recent.len() > bounds::BOARD_CHANGES.max(self.live / bounds::BOARD_CHANGES_SHARE) {
            if let Some((version, _)) = self.recent.pop_front() {
                self.forgotten = version;
            }
        }
        self.version.store(change.version, Ordering::Release);
    }

    /// Lowest position of the watches. Computed once per sweep.
    pub(super) fn lowest(&mut self, sweep: u64) -> u64 {
        if self.lowest.1 != sweep {
            let lowest = self.positions.values().map(|position| position.load(Ordering::Acquire)).min();
            self.lowest = (lowest.unwrap_or(NO_POSITION), sweep);
        }
        self.lowest.0
    }
}
