//! Watch: a position in the changes of the announce board, and the adverts of its owner.

use std::sync::Arc;

use relay_model::{Path, Route, WorkerId};

use super::{
    adverts::{Advert, AdvertTable},
    table::{BoardInner, BoardTable, PathSlot},
    watched_prefix::{NO_POSITION, WatchPosition, WatchedPrefix},
};
use crate::sync::{AtomicU64, Ordering};

/// The changes at and below a prefix, for one owner. Dropping it ends the watch.
///
/// Holds a position and one [`Advert`] for each path that its owner advertised, at most 16 bytes each.
#[derive(Debug)]
pub struct BoardWatch {
    inner: Arc<BoardInner>,
    worker: WorkerId,
    prefix: Path,
    /// Version of the last change below the prefix.
    latest_version: Arc<AtomicU64>,
    /// Version up to which withdrawals were visited; slots withdrawn later must be kept.
    position: Arc<AtomicU64>,
    index: usize,
    /// Version up to which changes were visited, or will be by the current pass.
    seen: u64,
    adverts: AdvertTable,
    pass: Option<Pass>,
    /// Whether delayed changes are visible to this watch at once.
    is_exact: bool,
}

/// Progress of a pass over all advertised and all live paths.
#[derive(Clone, Debug)]
enum Pass {
    /// Withdrawn paths with an advert, from this slot on.
    Withdrawn(u32),
    /// Live paths, after this one.
    Live(Option<Path>),
}

/// A path that may have to be advertised, updated or withdrawn.
#[derive(Clone, Copy, Debug)]
pub struct WatchCandidate<'a> {
    /// The path.
    pub path: &'a Path,
    /// Routes of the path, best first; the last known ones if it is withdrawn.
    pub routes: &'a [Route],
    /// Whether the path is live.
    pub is_live: bool,
    /// The owner's current advert of the path.
    pub advert: Option<Advert>,
}

/// Answer to a [`WatchCandidate`]: the advert of the path from now on.
#[derive(Clone, Copy, Debug)]
pub enum VisitStep {
    /// The visit continues.
    Next(Option<Advert>),
    /// The visit stops here.
    Last(Option<Advert>),
}

/// Result of a visit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visited {
    /// Paths examined, whether or not they were shown to the visitor.
    pub entries: usize,
    /// Whether another visit may find more.
    pub more: bool,
    /// Whether withdrawals of advertised paths were lost because the watch was not visited for too long. The
    /// adverts of its owner can then no longer be brought up to date.
    pub is_lost: bool,
}

/// Work limit of one call.
struct Effort {
    entries: usize,
    max: usize,
}

impl Effort {
    /// Takes one entry; false when none is left.
    fn take(&mut self) -> bool {
        let is_left = self.entries < self.max;
        self.entries += usize::from(is_left);
        is_left
    }

    fn stop(&mut self) {
        self.max = self.entries;
    }
}

impl BoardWatch {
    pub(super) fn new(inner: Arc<BoardInner>, worker: WorkerId, prefix: Path, place: WatchPosition) -> Self {
        let WatchPosition { latest_version, position, index } = place;
        let seen = latest_version.load(Ordering::Acquire);
        let pass = Some(Pass::Live(None));
        let adverts = AdvertTable::default();
        Self { inner, worker, prefix, latest_version, position, index, seen, adverts, pass, is_exact: false }
    }

    /// The watched prefix.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Makes every change visible at once, also on a path that changes often: for relays, which need the exact
    /// route. Paths visited before may differ: call [`Self::restart`].
    pub fn set_exact(&mut self) {
        self.is_exact = true;
    }

    /// Number of adverts.
    pub fn advertised(&self) -> usize {
        self.adverts.len()
    }

    /// Bytes allocated for adverts.
    pub fn heap_bytes(&self) -> usize {
        self.adverts.heap_bytes()
    }

    /// Makes the next visits yield every advertised and every live path once more.
    pub fn restart(&mut self) {
        self.seen = self.latest_version.load(Ordering::Acquire);
        self.pass = Some(if self.adverts.is_empty() { Pass::Live(None) } else { Pass::Withdrawn(0) });
    }

    /// Drops all adverts and restarts.
    pub fn reset(&mut self) {
        self.adverts = AdvertTable::default();
        self.restart();
    }

    /// Whether a pass over all paths is in progress: the first one, one after [`Self::restart`], or one that
    /// replaces changes the board no longer keeps. Changes are visited after it.
    pub fn is_in_pass(&self) -> bool {
        self.pass.is_some()
    }

    /// Whether a visit would find anything. Takes no lock.
    pub fn is_pending(&self) -> bool {
        self.pass.is_some() || self.latest_version.load(Ordering::Acquire) != self.seen
    }

    /// Shows at most `max` candidates in their newest state. A candidate may be unchanged, and a withdrawn one
    /// is shown only if it is advertised. The visitor runs under the board's lock. A call ends where a pass
    /// ends.
    pub fn visit(&mut self, max: usize, mut visitor: impl FnMut(WatchCandidate<'_>) -> VisitStep) -> Visited {
        if !self.is_pending() || max == 0 {
            return Visited { more: self.is_pending(), ..Visited::default() };
        }
        let inner = Arc::clone(&self.inner);
        let table = inner.table.read();
        let Some(watched) = table.watched(&self.prefix) else { return Visited::default() };
        if !self.adverts.is_empty() && self.position.load(Ordering::Acquire) < watched.lost {
            return Visited { is_lost: true, ..Visited::default() };
        }
        let mut effort = Effort { entries: 0, max };
        if self.pass.is_none() && self.seen < watched.forgotten {
            self.seen = watched.version.load(Ordering::Acquire);
            self.pass = Some(Pass::Withdrawn(0));
        }
        match self.pass.take() {
            None => self.visit_changes(&table, watched, &mut effort, &mut visitor),
            Some(Pass::Withdrawn(from)) => {
                self.pass = Some(self.visit_withdrawn(&table, from, &mut effort, &mut visitor));
            }
            Some(Pass::Live(after)) => self.pass = self.visit_live(&table, after, &mut effort, &mut visitor),
        }
        self.publish_position(watched);
        drop(table);
        Visited { entries: effort.entries, more: self.is_pending(), is_lost: false }
    }

    /// Shows paths that changed after version `since` and are not advertised, with their last routes if they
    /// are withdrawn; moves `since`. For an owner that promised announcements before these changes. The changes
    /// themselves remain to be visited.
    pub fn visit_missed(
        &mut self,
        since: &mut u64,
        max: usize,
        mut visitor: impl FnMut(WatchCandidate<'_>) -> VisitStep,
    ) -> Visited {
        let inner = Arc::clone(&self.inner);
        let table = inner.table.read();
        let Some(watched) = table.watched(&self.prefix) else { return Visited::default() };
        // The table keeps withdrawals that the prefix no longer has, as this watch has not passed them.
        let changes = if *since >= watched.forgotten { &watched.recent } else { table.withdrawn() };
        let mut effort = Effort { entries: 0, max };
        let mut missed = changes.range(changes.partition_point(|(version, _)| version <= since)..);
        let more = loop {
            let Some((version, id)) = missed.next() else { break false };
            if !effort.take() {
                break true;
            }
            *since = *version;
            if let Some(slot) = table.slot(*id).filter(|slot| slot.path.has_prefix(&self.prefix))
                && self.adverts.get(*id).is_none()
            {
                self.show(*id, slot, &mut effort, &mut visitor);
            }
        };
        self.publish_position(watched);
        Visited { entries: effort.entries, more, is_lost: false }
    }

    /// Version up to which [`Self::visit_missed`] has nothing for a watch that is in its first pass.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Calls `visitor` with live paths after `after` and their routes, at most `max`; returns the number of
    /// paths examined and moves `after`. Fewer than `max`: the end was reached.
    pub fn look(
        &self,
        after: &mut Option<Path>,
        max: usize,
        mut visitor: impl FnMut(&Path, &[Route]),
    ) -> usize {
        let table = self.inner.table.read();
        let (mut entries, mut last) = (0, None);
        for (_, slot) in table.below(&self.prefix, after.as_ref()).take(max) {
            entries += 1;
            let (routes, is_live) = slot.seen(self.is_exact);
            if is_live {
                visitor(&slot.path, routes);
            }
            last = Some(&slot.path);
        }
        if let Some(last) = last {
            *after = Some(last.clone());
        }
        entries
    }

    /// Visits the changes after `seen` that the prefix keeps.
    fn visit_changes(
        &mut self,
        table: &BoardTable,
        watched: &WatchedPrefix,
        effort: &mut Effort,
        visitor: &mut impl FnMut(WatchCandidate<'_>) -> VisitStep,
    ) {
        let start = watched.recent.partition_point(|(version, _)| *version <= self.seen);
        for (version, id) in watched.recent.range(start..) {
            if !effort.take() {
                return;
            }
            self.seen = *version;
            // The slot may have been freed since, and reused for a path elsewhere.
            if let Some(slot) = table.slot(*id).filter(|slot| slot.path.has_prefix(&self.prefix)) {
                self.show_change(*id, slot, effort, visitor);
            }
        }
        self.seen = watched.version.load(Ordering::Acquire);
    }

    /// Visits withdrawn paths with an advert. Returns the next stage of the pass.
    fn visit_withdrawn(
        &mut self,
        table: &BoardTable,
        from: u32,
        effort: &mut Effort,
        visitor: &mut impl FnMut(WatchCandidate<'_>) -> VisitStep,
    ) -> Pass {
        let mut from = from;
        while let Some(id) = self.adverts.next_from(from) {
            if !effort.take() {
                return Pass::Withdrawn(id);
            }
            match table.slot(id) {
                Some(slot) if slot.seen(self.is_exact).1 => {}
                Some(slot) => self.show_change(id, slot, effort, visitor),
                None => {
                    self.adverts.remove(id);
                }
            }
            let Some(next) = id.checked_add(1) else { break };
            from = next;
        }
        Pass::Live(None)
    }

    /// Visits the live paths in order. Returns the rest of the pass.
    fn visit_live(
        &mut self,
        table: &BoardTable,
        after: Option<Path>,
        effort: &mut Effort,
        visitor: &mut impl FnMut(WatchCandidate<'_>) -> VisitStep,
    ) -> Option<Pass> {
        let prefix = self.prefix.clone();
        let mut last: Option<&Path> = None;
        for (id, slot) in table.below(&prefix, after.as_ref()) {
            if !effort.take() {
                return Some(Pass::Live(last.or(after.as_ref()).cloned()));
            }
            if slot.seen(self.is_exact).1 {
                self.show_change(id, slot, effort, visitor);
            }
            last = Some(&slot.path);
        }
        None
    }

    fn show_change(
        &mut self,
        id: u32,
        slot: &PathSlot,
        effort: &mut Effort,
        visitor: &mut impl FnMut(WatchCandidate<'_>) -> VisitStep,
    ) {
        if slot.seen(self.is_exact).1 {
            self.show(id, slot, effort, visitor);
        } else if self.adverts.get(id).is_some() {
            self.show(id, slot, effort, visitor);
            // The slot of the path is about to be freed.
            self.adverts.remove(id);
        }
    }

    fn show(
        &mut self,
        id: u32,
        slot: &PathSlot,
        effort: &mut Effort,
        visitor: &mut impl FnMut(WatchCandidate<'_>) -> VisitStep,
    ) {
        let before = self.adverts.get(id);
        let (routes, is_live) = slot.seen(self.is_exact);
        let step = visitor(WatchCandidate { path: &slot.path, routes, is_live, advert: before });
        let (VisitStep::Next(after) | VisitStep::Last(after)) = step;
        match after {
            Some(advert) if before != Some(advert) => self.adverts.set(id, advert),
            None if before.is_some() => {
                self.adverts.remove(id);
            }
            _ => {}
        }
        if matches!(step, VisitStep::Last(_)) {
            effort.stop();
        }
    }

    /// Publishes the version up to which this watch needs no withdrawals. Under the board's lock.
    fn publish_position(&self, watched: &WatchedPrefix) {
        let before = self.position.load(Ordering::Acquire);
        let position = match self.pass {
            _ if self.adverts.is_empty() => NO_POSITION,
            // The first adverts are as new as the board.
            _ if before == NO_POSITION => watched.version.load(Ordering::Acquire),
            None => self.seen.max(before),
            // A pass in progress has not found every withdrawal yet.
            Some(_) => before,
        };
        self.position.store(position, Ordering::Release);
    }
}

impl Drop for BoardWatch {
    fn drop(&mut self) {
        self.inner.table.write().leave(self.worker, &self.prefix, self.index);
    }
}
