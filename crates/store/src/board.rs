//! The announce board: what is live, ordered by path, for everybody who watches a prefix.
//!
//! Core sets, watches walk. A watch is a cursor into the changes its prefix remembers; what it has
//! reported it knows, so changes of one path collapse and a watch too far behind compares instead.
//! The board's lock is held together with no other.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use foldhash::fast::RandomState;
use relay_model::{Path, Route, WorkerId};
use smallvec::SmallVec;

use crate::{
    bell::Rings,
    bounds,
    shared::Shared,
    sync::{AtomicU64, Ordering, RwLock},
};

mod watch;

pub use watch::{Change, Watch};

/// What is announced, and who watches.
#[derive(Debug)]
pub struct Board {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    shared: Arc<Shared>,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// Of the last change; counts from 1.
    version: u64,
    live: BTreeMap<Path, Slot>,
    /// Prefixes that somebody watches.
    hubs: HashMap<Path, Hub, RandomState>,
}

/// A live path.
#[derive(Debug)]
struct Slot {
    routes: Arc<[Route]>,
    version: u64,
}

/// A watched prefix.
#[derive(Debug)]
struct Hub {
    /// Version of the last change below the prefix: a watch that has it need not lock.
    version: Arc<AtomicU64>,
    /// The last changes below the prefix, ascending; a path may repeat.
    recent: VecDeque<(u64, Path)>,
    /// Changes up to this version may be forgotten.
    forgotten: u64,
    /// Live paths below the prefix: what a comparison costs, so what remembering may cost.
    live: usize,
    watches: SmallVec<[(WorkerId, usize); 2]>,
}

impl Board {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { inner: Arc::new(Inner { shared, table: RwLock::new(Table::default()) }) }
    }

    /// Sets the routes of `path`, best first; empty withdraws it. Workers that watch a prefix of it
    /// go into `rings`. For core only.
    pub fn set(&self, path: Path, routes: Vec<Route>, rings: &mut Rings) {
        let mut workers = SmallVec::<[WorkerId; 8]>::new();
        self.inner.table.write().set(path, routes, &mut workers);
        for worker in workers {
            if let Some(bell) = self.inner.shared.bell(worker) {
                bell.mark_board();
                rings.mark(worker);
            }
        }
    }

    /// Watches everything at and below `prefix` for `worker`. Its first walk gives what is live.
    pub fn watch(&self, worker: WorkerId, prefix: Path) -> Watch {
        let news = self.inner.table.write().join(worker, &prefix);
        Watch::new(Arc::clone(&self.inner), worker, prefix, news)
    }

    /// What is live at and below `prefix`, at most `max` paths in order, from the first past `after` on: for who
    /// looks once, and holds no more than a place.
    pub fn list(&self, prefix: &Path, after: Option<&Path>, max: usize) -> Vec<Change> {
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let table = self.inner.table.read();
        let live = table.live.range::<Path, _>((from, Bound::Unbounded));
        let below = live.take_while(|(path, _)| path.has_prefix(prefix)).take(max);
        below.map(|(path, slot)| Change { path: path.clone(), routes: Arc::clone(&slot.routes) }).collect()
    }

    /// Live paths.
    pub fn paths(&self) -> usize {
        self.inner.table.read().live.len()
    }

    /// Live watches.
    pub fn watches(&self) -> usize {
        let table = self.inner.table.read();
        table.hubs.values().flat_map(|hub| hub.watches.iter()).map(|(_, count)| count).sum()
    }
}

impl Table {
    fn set(&mut self, path: Path, routes: Vec<Route>, workers: &mut SmallVec<[WorkerId; 8]>) {
        let before = self.live.get(&path);
        if before.map_or(routes.is_empty(), |slot| *slot.routes == *routes) {
            return;
        }
        let was_live = before.is_some();
        self.version += 1;
        let is_live = !routes.is_empty();
        if is_live {
            self.live.insert(path.clone(), Slot { routes: routes.into(), version: self.version });
        } else {
            self.live.remove(&path);
        }
        for prefix in prefixes(path.as_str()) {
            if let Some(hub) = self.hubs.get_mut(prefix) {
                hub.live = hub.live + usize::from(is_live) - usize::from(was_live);
                hub.change(self.version, &path);
                let watching = hub.watches.iter().map(|(worker, _)| *worker);
                workers.extend(
                    watching.filter(|worker| !workers.contains(worker)).collect::<SmallVec<[_; 8]>>(),
                );
            }
        }
    }

    fn join(&mut self, worker: WorkerId, prefix: &Path) -> Arc<AtomicU64> {
        let Self { version, live, hubs } = self;
        let hub =
            hubs.entry(prefix.clone()).or_insert_with(|| Hub::new(*version, below(live, prefix).count()));
        match hub.watches.iter_mut().find(|(at, _)| *at == worker) {
            Some((_, count)) => *count += 1,
            None => hub.watches.push((worker, 1)),
        }
        Arc::clone(&hub.version)
    }

    fn leave(&mut self, worker: WorkerId, prefix: &Path) {
        let Some(hub) = self.hubs.get_mut(prefix) else { return };
        if let Some((_, count)) = hub.watches.iter_mut().find(|(at, _)| *at == worker) {
            *count -= 1;
        }
        hub.watches.retain(|(_, count)| *count > 0);
        if hub.watches.is_empty() {
            self.hubs.remove(prefix);
        }
    }
}

impl Hub {
    fn new(version: u64, live: usize) -> Self {
        Self {
            version: Arc::new(AtomicU64::new(version)),
            recent: VecDeque::new(),
            forgotten: version,
            live,
            watches: SmallVec::new(),
        }
    }

    fn change(&mut self, version: u64, path: &Path) {
        self.recent.push_back((version, path.clone()));
        while self.recent.len() > bounds::BOARD_CHANGES.max(self.live / 2) {
            if let Some((version, _)) = self.recent.pop_front() {
                self.forgotten = version;
            }
        }
        self.version.store(version, Ordering::Release);
    }
}

/// Every prefix of a normalised path, the root first, itself last.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let cuts = path.match_indices('/').map(|(at, _)| at);
    let root = (!path.is_empty()).then_some("");
    root.into_iter().chain(cuts.chain([path.len()]).filter_map(|at| path.get(..at)))
}

/// The live paths at and below `prefix`, in order.
fn below<'a>(live: &'a BTreeMap<Path, Slot>, prefix: &'a Path) -> impl Iterator<Item = (&'a Path, &'a Slot)> {
    live.range::<Path, _>(prefix..).take_while(move |(path, _)| path.has_prefix(prefix))
}

#[cfg(all(test, not(shuttle)))]
mod tests;
