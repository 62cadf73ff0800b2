//! Table of logs, and the sweep that keeps them within the budget.

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use relay_model::{Epoch, LogId, WorkerId, limits};

use crate::{
    board::AnnounceBoard,
    budget::Budget,
    entry::LogEnd,
    evict::{BudgetSweep, Shed},
    group::CachedGroup,
    log::Log,
    ready_list::{ReadyList, WakeSet},
    release::Release,
    shared::{Evicted, StoreClock, StoreShared},
    sync::Mutex,
};

/// Size and age limits of a store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Workers that read, not counting the control runtime, which reads as one more.
    pub workers: usize,
    /// Target size of the cache, bytes.
    pub capacity: u64,
    /// Size at which even the latest groups are evicted, bytes.
    pub ceiling: u64,
    /// Longest time a superseded group is held.
    pub max_age: Duration,
}

/// Counts of held and evicted items, for metrics and leak tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// Logs in the table.
    pub logs: usize,
    /// Live feeds.
    pub feeds: usize,
    /// Bytes of the budget in use.
    pub bytes: u64,
    /// Live paths on the announce board.
    pub board_paths: usize,
    /// Live watches of the announce board.
    pub watches: usize,
    /// Current target size of the cache, bytes.
    pub capacity: u64,
    /// Current size at which even the latest groups are evicted, bytes.
    pub ceiling: u64,
    /// Groups evicted since the start: too old, no room, or damaged and replaced.
    pub evicted_groups: u64,
    /// Bytes charged for the evicted groups.
    pub evicted_bytes: u64,
}

impl StoreCounts {
    /// Whether nothing is held now.
    pub fn is_empty(&self) -> bool {
        let Self { logs, feeds, bytes, board_paths, watches, .. } = *self;
        [logs, feeds, board_paths, watches] == [0; 4] && bytes == 0
    }
}

/// All logs, the announce board and the ready lists.
#[derive(Debug)]
pub struct Store {
    shared: Arc<StoreShared>,
    board: AnnounceBoard,
    logs: Mutex<HashMap<LogId, Arc<Log>, RandomState>>,
    sweep: Mutex<Sweep>,
    me: Weak<Self>,
}

/// State of the sweep.
#[derive(Debug, Default)]
struct Sweep {
    /// After a sweep that freed too little, the next one waits until this many bytes are used.
    not_below: u64,
    /// Capacity and ceiling of the last sweep.
    limits: (u64, u64),
    evicted: Vec<CachedGroup>,
}

impl Store {
    /// An empty store.
    pub fn new(config: StoreConfig) -> Arc<Self> {
        debug_assert!(config.workers <= limits::WORKERS, "more workers than a connection id can name");
        let workers = config.workers.min(limits::WORKERS);
        let shared = Arc::new(StoreShared {
            budget: Arc::new(Budget::new(config.capacity, config.ceiling)),
            ready_lists: (0..workers).map(ReadyList::new).collect(),
            control_list: ReadyList::new(workers),
            max_age: config.max_age,
            feeds: AtomicUsize::new(0),
            clock: StoreClock::default(),
            evicted: Evicted::default(),
            release: Release::default(),
        });
        Arc::new_cyclic(|me| Self {
            board: AnnounceBoard::new(Arc::clone(&shared)),
            shared,
            logs: Mutex::new(HashMap::default()),
            sweep: Mutex::new(Sweep::default()),
            me: Weak::clone(me),
        })
    }

    /// The announce board.
    pub fn board(&self) -> &AnnounceBoard {
        &self.board
    }

    /// The byte budget.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.shared.budget
    }

    /// Ready list of `worker`. Workers are `0..=StoreConfig::workers`; the last is the control runtime. Any other
    /// index is a bug of the caller.
    pub fn ready_list(&self, worker: WorkerId) -> &ReadyList {
        let list = self.shared.ready_list(worker);
        debug_assert!(list.is_some(), "no such worker: {worker:?}");
        list.unwrap_or(&self.shared.control_list)
    }

    /// Wakes every worker in `wakes` once and empties it, except `skip`: a worker that takes its own list
    /// before it sleeps need not wake itself.
    pub fn wake(&self, wakes: &mut WakeSet, skip: Option<WorkerId>) {
        for worker in wakes.take().filter(|worker| Some(*worker) != skip) {
            if let Some(list) = self.shared.ready_list(worker) {
                list.wake();
            }
        }
    }

    /// Returns the log with this id, created if necessary.
    pub fn create(&self, id: LogId) -> Arc<Log> {
        let mut logs = self.logs.lock();
        let log = logs
            .entry(id)
            .or_insert_with(|| Arc::new(Log::new(id, Arc::clone(&self.shared), self.me.clone())));
        Arc::clone(log)
    }

    /// Looks up a log by its id.
    pub fn log(&self, id: LogId) -> Option<Arc<Log>> {
        self.logs.lock().get(&id).cloned()
    }

    /// Fences writers below `epoch`. False: no such log.
    pub fn fence(&self, id: LogId, epoch: Epoch) -> bool {
        self.log(id).is_some_and(|log| {
            log.fence(epoch);
            true
        })
    }

    /// Appends the end of a log, regardless of its writer. False: no such log.
    pub fn end(&self, id: LogId, end: LogEnd, now: Instant, wakes: &mut WakeSet) -> bool {
        self.shared.clock.advance(now);
        self.log(id).is_some_and(|log| {
            log.end(end, wakes);
            true
        })
    }

    /// Removes a log from the table and fences its writer for good; its groups are released with the last feed.
    /// False: no such log.
    pub fn retire(&self, id: LogId) -> bool {
        let log = self.logs.lock().remove(&id);
        log.is_some_and(|log| {
            log.retire();
            true
        })
    }

    /// Counts of held and evicted items.
    pub fn counts(&self) -> StoreCounts {
        let StoreShared { budget, feeds, evicted, .. } = &*self.shared;
        StoreCounts {
            logs: self.logs.lock().len(),
            feeds: feeds.load(Ordering::Relaxed),
            bytes: budget.used(),
            board_paths: self.board.paths(),
            watches: self.board.watches(),
            capacity: budget.capacity(),
            ceiling: budget.ceiling(),
            evicted_groups: evicted.groups.load(Ordering::Relaxed),
            evicted_bytes: evicted.bytes.load(Ordering::Relaxed),
        }
    }

    /// Evicts groups that are too old or exceed the budget, also from logs without a writer. For timers, and
    /// after the limits were lowered; commits do the same for the logs they write.
    pub fn trim(&self, now: Instant, wakes: &mut WakeSet) {
        self.shared.clock.advance(now);
        let mut evicted = Vec::new();
        for log in self.least_recently_read() {
            log.age(now, &mut evicted, wakes);
            self.shared.release_evicted(&mut evicted);
        }
        self.sweep(wakes);
    }

    fn shed(
        &self,
        logs: &[Arc<Log>],
        what: Shed,
        target: u64,
        evicted: &mut Vec<CachedGroup>,
        wakes: &mut WakeSet,
    ) {
        for log in logs {
            let excess = self.shared.budget.used().saturating_sub(target);
            if excess == 0 {
                return;
            }
            log.shed(what, excess, evicted, wakes);
            self.shared.release_evicted(evicted);
        }
    }

    fn least_recently_read(&self) -> Vec<Arc<Log>> {
        let mut logs: Vec<Arc<Log>> = self.logs.lock().values().cloned().collect();
        logs.sort_by_cached_key(|log| (log.last_read(), log.id()));
        logs
    }
}

impl BudgetSweep for Store {
    /// Evicts from all logs, least recently read first: superseded groups down to a little under the capacity;
    /// if the ceiling is still met, also groups that fetches are bringing, then whole latest groups. One sweep
    /// at a time, and none while the last one's shortfall has not grown (unless the limits changed): memory
    /// pinned by slow readers cannot be freed here.
    fn sweep(&self, wakes: &mut WakeSet) {
        let budget = &self.shared.budget;
        let Some(mut sweep) = self.sweep.try_lock() else { return };
        let (capacity, ceiling) = (budget.capacity(), budget.ceiling());
        if sweep.limits != (capacity, ceiling) {
            sweep.limits = (capacity, ceiling);
            sweep.not_below = 0;
        }
        let used = budget.used();
        if used <= capacity {
            sweep.not_below = 0;
            return;
        }
        if used < sweep.not_below {
            return;
        }
        let slack = capacity / SLACK;
        let logs = self.least_recently_read();
        self.shed(&logs, Shed::Superseded, capacity - slack, &mut sweep.evicted, wakes);
        for what in [Shed::Fetches, Shed::Latest] {
            if budget.used() >= ceiling {
                self.shed(&logs, what, ceiling.saturating_sub(slack + 1), &mut sweep.evicted, wakes);
            }
        }
        let used = budget.used();
        let next = used.saturating_add(slack);
        sweep.not_below = match used {
            _ if used <= capacity => 0,
            _ if used < ceiling => next.min(ceiling),
            _ => next,
        };
    }
}

/// A sweep frees this fraction (1/n) more than the capacity requires, so that the next is not due at once.
const SLACK: u64 = 32;
