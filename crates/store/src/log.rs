//! Log: one track of one incarnation of a broadcast.

use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use relay_model::{Epoch, LogId};

use crate::{
    budget::BudgetShare,
    entry::{LogEnd, Resume},
    evict::{BudgetSweep, Shed},
    group::CachedGroup,
    ready_list::{DirtyFlags, Marks, WakeSet},
    shared::StoreShared,
    state::LogState,
    stats::LogStats,
    sync::{AtomicU64, Mutex, MutexGuard, Ordering},
};

/// A log: written by one [`crate::Writer`] at a time, read by one [`crate::Feed`] per worker.
#[derive(Debug)]
pub struct Log {
    pub(crate) flags: Arc<DirtyFlags>,
    pub(crate) shared: Arc<StoreShared>,
    /// Sweep over all logs, for when the budget is exceeded.
    budget_sweep: Weak<dyn BudgetSweep>,
    state: Mutex<LogState>,
    /// Time of the last read, by the store's clock.
    last_read: AtomicU64,
}

impl Drop for Log {
    fn drop(&mut self) {
        let groups = std::mem::take(&mut self.lock().groups);
        groups.into_values().for_each(|group| self.shared.release.release(group));
    }
}

impl Log {
    pub(crate) fn new(id: LogId, shared: Arc<StoreShared>, budget_sweep: Weak<dyn BudgetSweep>) -> Self {
        Self {
            flags: Arc::new(DirtyFlags::new(id, shared.readers())),
            state: Mutex::new(LogState::new(BudgetShare::new(Arc::clone(&shared.budget)))),
            last_read: AtomicU64::new(shared.clock.ms()),
            shared,
            budget_sweep,
        }
    }

    /// Id of the log.
    pub fn id(&self) -> LogId {
        self.flags.id()
    }

    /// Statistics of the log. Holds its lock while it walks the held groups.
    pub fn figures(&self) -> LogStats {
        self.lock().stats()
    }

    /// Resume point for a new writer of the same publisher. `None`: no group ever arrived live, or the latest
    /// has been evicted.
    pub fn resume(&self) -> Option<Resume> {
        self.lock().resume()
    }

    /// Number of times the log was locked.
    pub fn lock_count(&self) -> u64 {
        self.state.lock().locks
    }

    /// Fences writers below `epoch`; their open strands wait for a later one.
    pub(crate) fn fence(&self, epoch: Epoch) {
        let mut state = self.lock();
        if state.lease.fence(epoch) {
            state.suspend();
        }
    }

    /// Fences all writers for good.
    pub(crate) fn retire(&self) {
        self.lock().lease.retire();
    }

    /// Appends the end of the log, regardless of its writer.
    pub(crate) fn end(&self, end: LogEnd, wakes: &mut WakeSet) {
        self.update(wakes, |state| state.end(end));
    }

    /// Unlinks about `excess` bytes for the budget.
    pub(crate) fn shed(
        &self,
        what: Shed,
        excess: u64,
        evicted: &mut Vec<CachedGroup>,
        wakes: &mut WakeSet,
    ) -> u64 {
        self.update(wakes, |state| state.shed(what, excess, evicted))
    }

    /// Unlinks groups that are too old.
    pub(crate) fn age(&self, now: Instant, evicted: &mut Vec<CachedGroup>, wakes: &mut WakeSet) {
        self.update(wakes, |state| {
            state.age(now, self.shared.max_age, evicted);
            state.share.set(state.overhead);
        });
    }

    /// Changes the log under its lock and marks its readers.
    fn update<T>(&self, wakes: &mut WakeSet, change: impl FnOnce(&mut LogState) -> T) -> T {
        let mut marks = Marks::new();
        let mut state = self.lock();
        let before = state.journal.tail();
        let changed = change(&mut state);
        state.announce(before, &self.flags, &mut marks, wakes);
        drop(state);
        self.shared.post(&self.flags, &mut marks);
        changed
    }

    /// Runs the budget's sweep over all logs. Must not be called under a log's lock.
    pub(crate) fn sweep(&self, wakes: &mut WakeSet) {
        if let Some(budget_sweep) = self.budget_sweep.upgrade() {
            budget_sweep.sweep(wakes);
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, LogState> {
        let mut state = self.state.lock();
        state.locks += 1;
        state
    }

    pub(crate) fn touch(&self) {
        self.last_read.store(self.shared.clock.ms(), Ordering::Relaxed);
    }

    pub(crate) fn last_read(&self) -> u64 {
        self.last_read.load(Ordering::Relaxed)
    }
}
