//! A watch: a position on the announce board, and what its owner advertised.

use std::sync::Arc;

use relay_model::{Path, Route, WorkerId};

use super::{
    Inner,
    adverts::{Advert, AdvertTable},
    hub::{Hub, NO_POSITION, Place},
    table::{Slot, Table},
};
use crate::sync::{AtomicU64, Ordering};

/// The changes at and below a prefix, for one owner. Dropping it ends the interest.
///
/// It holds a position and one [`Advert`] for each path that its owner advertised, at most 16 bytes each.
#[derive(Debug)]
pub struct Watch {
    inner: Arc<Inner>,
    worker: WorkerId,
    prefix: Path,
    /// Version of the last change below the prefix.
    news: Arc<AtomicU64>,
    /// Up to where withdrawals were visited: slots of later ones must stay.
    position: Arc<AtomicU64>,
    seat: usize,
    /// Changes up to this version were visited, or will be by the pass under way.
    seen: u64,
    adverts: AdvertTable,
    pass: Option<Pass>,
    /// Sees changes that are held back from others.
    is_exact: bool,
}

/// Progress of a pass over all advertised and all live paths.
#[derive(Clone, Debug)]
enum Pass {
    /// Advertised paths that are withdrawn, from this slot on.
    Withdrawn(u32),
    /// Live paths, past this one.
    Live(Option<Path>),
}

/// A path that may have to be advertised, changed or ended.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The path.
    pub path: &'a Path,
    /// Its routes, best first; the last ones if it is withdrawn.
    pub routes: &'a [Route],
    /// Whether it is live.
    pub is_live: bool,
    /// Announcement that the owner made of it.
    pub advert: Option<Advert>,
}

/// Answer to a [`Candidate`]: what is advertised of it from now on.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// The visit goes on.
    Next(Option<Advert>),
    /// The visit stops here.
    Last(Option<Advert>),
}

/// Result of a visit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visited {
    /// Paths looked at, whether or not they were shown to the visitor.
    pub entries: usize,
    /// There may be more: visit again.
    pub more: bool,
    /// Withdrawals of advertised paths are lost, because the watch was not visited for too long. What
    /// its owner advertised cannot be brought up to date any more.
    pub is_lost: bool,
}

/// Remaining work of one call.
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

impl Watch {
    pub(super) fn new(inner: Arc<Inner>, worker: WorkerId, prefix: Path, place: Place) -> Self {
        let Place { news, position, seat } = place;
        let seen = news.load(Ordering::Acquire);
        let pass = Some(Pass::Live(None));
        let adverts = AdvertTable::default();
        Self { inner, worker, prefix, news, position, seat, seen, adverts, pass, is_exact: false }
    }

    /// The prefix it watches.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Shows each change at once from now on, also of a path that changes often: for relays, which must know
    /// the exact route. What was visited before may have changed meanwhile: call [`Self::restart`].
    pub fn set_exact(&mut self) {
        self.is_exact = true;
    }

    /// Paths advertised.
    pub fn advertised(&self) -> usize {
        self.adverts.len()
    }

    /// Bytes allocated for the paths advertised.
    pub fn heap_bytes(&self) -> usize {
        self.adverts.heap_bytes()
    }

    /// Makes the next visits give everything that is advertised or live once more.
    pub fn restart(&mut self) {
        self.seen = self.news.load(Ordering::Acquire);
        self.pass = Some(if self.adverts.is_empty() { Pass::Live(None) } else { Pass::Withdrawn(0) });
    }

    /// Forgets what is advertised and starts anew.
    pub fn reset(&mut self) {
        self.adverts = AdvertTable::default();
        self.restart();
    }

    /// Whether a pass over everything is under way: the first one, one after [`Self::restart`], or one
    /// that makes up for changes that the board forgot. Changes are visited after it.
    pub fn is_in_pass(&self) -> bool {
        self.pass.is_some()
    }

    /// Whether a visit would find anything. Takes no lock.
    pub fn is_pending(&self) -> bool {
        self.pass.is_some() || self.news.load(Ordering::Acquire) != self.seen
    }

    /// Shows at most `max` candidates in their newest state. A candidate may be unchanged, and one that is
    /// withdrawn is shown only if it is advertised. The visitor runs under the board's lock. A call ends
    /// where a pass ends.
    pub fn visit(&mut self, max: usize, mut visitor: impl FnMut(Candidate<'_>) -> Step) -> Visited {
        if !self.is_pending() || max == 0 {
            return Visited { more: self.is_pending(), ..Visited::default() };
        }
        let inner = Arc::clone(&self.inner);
        let table = inner.table.read();
        let Some(hub) = table.hub(&self.prefix) else { return Visited::default() };
        if !self.adverts.is_empty() && self.position.load(Ordering::Acquire) < hub.lost {
            return Visited { is_lost: true, ..Visited::default() };
        }
        let mut effort = Effort { entries: 0, max };
        if self.pass.is_none() && self.seen < hub.forgotten {
            self.seen = hub.version.load(Ordering::Acquire);
            self.pass = Some(Pass::Withdrawn(0));
        }
        match self.pass.take() {
            None => self.visit_changes(&table, hub, &mut effort, &mut visitor),
            Some(Pass::Withdrawn(from)) => {
                self.pass = Some(self.visit_withdrawn(&table, from, &mut effort, &mut visitor));
            }
            Some(Pass::Live(after)) => self.pass = self.visit_live(&table, after, &mut effort, &mut visitor),
        }
        self.publish_position(hub);
        drop(table);
        Visited { entries: effort.entries, more: self.is_pending(), is_lost: false }
    }

    /// Shows paths that changed after version `since` and are not advertised, with their last routes if
    /// they are withdrawn; moves `since`. For an owner that promised announcements before these changes.
    /// The changes themselves remain to be visited.
    pub fn visit_missed(
        &mut self,
        since: &mut u64,
        max: usize,
        mut visitor: impl FnMut(Candidate<'_>) -> Step,
    ) -> Visited {
        let inner = Arc::clone(&self.inner);
        let table = inner.table.read();
        let Some(hub) = table.hub(&self.prefix) else { return Visited::default() };
        // Withdrawals are there also if the hub has forgotten them: this watch has not passed them.
        let changes = if *since >= hub.forgotten { &hub.recent } else { table.withdrawn() };
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
        self.publish_position(hub);
        Visited { entries: effort.entries, more, is_lost: false }
    }

    /// Version up to which [`Self::visit_missed`] has nothing for a watch whose first pass is under way.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Calls `visitor` with live paths past `after` and their routes, `max` at most; returns their number
    /// and moves `after`. Fewer than `max`: all were visited.
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

    /// Visits the changes that the hub remembers past `seen`.
    fn visit_changes(
        &mut self,
        table: &Table,
        hub: &Hub,
        effort: &mut Effort,
        visitor: &mut impl FnMut(Candidate<'_>) -> Step,
    ) {
        let start = hub.recent.partition_point(|(version, _)| *version <= self.seen);
        for (version, id) in hub.recent.range(start..) {
            if !effort.take() {
                return;
            }
            self.seen = *version;
            // The slot may have been freed since, and taken by a path elsewhere.
            if let Some(slot) = table.slot(*id).filter(|slot| slot.path.has_prefix(&self.prefix)) {
                self.show_change(*id, slot, effort, visitor);
            }
        }
        self.seen = hub.version.load(Ordering::Acquire);
    }

    /// Visits what is advertised and withdrawn. Returns where the pass goes on.
    fn visit_withdrawn(
        &mut self,
        table: &Table,
        from: u32,
        effort: &mut Effort,
        visitor: &mut impl FnMut(Candidate<'_>) -> Step,
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

    /// Visits what is live, in the order of the paths. Returns where the pass goes on.
    fn visit_live(
        &mut self,
        table: &Table,
        after: Option<Path>,
        effort: &mut Effort,
        visitor: &mut impl FnMut(Candidate<'_>) -> Step,
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
        slot: &Slot,
        effort: &mut Effort,
        visitor: &mut impl FnMut(Candidate<'_>) -> Step,
    ) {
        if slot.seen(self.is_exact).1 {
            self.show(id, slot, effort, visitor);
        } else if self.adverts.get(id).is_some() {
            self.show(id, slot, effort, visitor);
            // Its slot is about to be freed.
            self.adverts.remove(id);
        }
    }

    fn show(
        &mut self,
        id: u32,
        slot: &Slot,
        effort: &mut Effort,
        visitor: &mut impl FnMut(Candidate<'_>) -> Step,
    ) {
        let before = self.adverts.get(id);
        let (routes, is_live) = slot.seen(self.is_exact);
        let step = visitor(Candidate { path: &slot.path, routes, is_live, advert: before });
        let (Step::Next(after) | Step::Last(after)) = step;
        match after {
            Some(advert) if before != Some(advert) => self.adverts.set(id, advert),
            None if before.is_some() => {
                self.adverts.remove(id);
            }
            _ => {}
        }
        if matches!(step, Step::Last(_)) {
            effort.stop();
        }
    }

    /// Publishes which withdrawals this watch does not need any more. Under the board's lock.
    fn publish_position(&self, hub: &Hub) {
        let before = self.position.load(Ordering::Acquire);
        let position = match self.pass {
            _ if self.adverts.is_empty() => NO_POSITION,
            // What is advertised is as new as the board.
            _ if before == NO_POSITION => hub.version.load(Ordering::Acquire),
            None => self.seen.max(before),
            // A pass has not found every withdrawal yet.
            Some(_) => before,
        };
        self.position.store(position, Ordering::Release);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.inner.table.write().leave(self.worker, &self.prefix, self.seat);
    }
}
