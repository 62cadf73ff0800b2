//! Log: one track of one incarnation of a broadcast.

use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use relay_model::{Epoch, LogId, WorkerId};

use crate::{
    budget::BudgetShare,
    entry::{LogEnd, LogHead, Resume},
    evict::Shed,
    feed::Feed,
    group::CachedGroup,
    ready_list::{DirtyFlags, Marks, WakeSet},
    shared::StoreShared,
    state::LogState,
    store::Store,
    sync::{AtomicU64, Mutex, MutexGuard, Ordering},
    writer::Writer,
};

/// A log: written by one [`Writer`] at a time, read by one [`Feed`] per worker.
#[derive(Debug)]
pub struct Log {
    pub(crate) flags: Arc<DirtyFlags>,
    pub(crate) shared: Arc<StoreShared>,
    /// For sweeps over the other logs, when the budget is exceeded.
    pub(crate) store: Weak<Store>,
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
    pub(crate) fn new(id: LogId, shared: Arc<StoreShared>, store: Weak<Store>) -> Self {
        Self {
            flags: Arc::new(DirtyFlags::new(id, shared.ready_lists.len())),
            state: Mutex::new(LogState::new(BudgetShare::new(Arc::clone(&shared.budget)))),
            last_read: AtomicU64::new(shared.clock.ms()),
            shared,
            store,
        }
    }

    /// Id of the log.
    pub fn id(&self) -> LogId {
        self.flags.id()
    }

    /// Claims the log for the writer of `epoch`, which fences older writers and may continue their open
    /// strands. `None`: the epoch is fenced or already has a writer, or the log has ended.
    pub fn writer(self: &Arc<Self>, epoch: Epoch) -> Option<Writer> {
        let mut state = self.lock();
        if state.end.is_some() || !state.lease.claim(epoch) {
            return None;
        }
        state.suspend();
        drop(state);
        Some(Writer::new(Arc::clone(self), epoch))
    }

    /// Attaches a feed for `worker`. The feed begins exactly after the returned head: both are taken under one
    /// lock.
    pub fn feed(self: &Arc<Self>, worker: WorkerId) -> (Feed, LogHead) {
        debug_assert!(self.shared.ready_list(worker).is_some(), "no such worker: {worker:?}");
        self.touch();
        let mut state = self.lock();
        let key = state.journal.register(worker);
        let head = state.head();
        drop(state);
        (Feed::new(Arc::clone(self), key), head)
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
        trash: &mut Vec<CachedGroup>,
        wakes: &mut WakeSet,
    ) -> u64 {
        self.update(wakes, |state| state.shed(what, excess, trash))
    }

    /// Unlinks groups that are too old.
    pub(crate) fn age(&self, now: Instant, trash: &mut Vec<CachedGroup>, wakes: &mut WakeSet) {
        self.update(wakes, |state| {
            state.age(now, self.shared.max_age, trash);
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
        if let Some(store) = self.store.upgrade() {
            store.sweep(wakes);
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
