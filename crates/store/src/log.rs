//! One track of one incarnation of a broadcast.

use std::{
    sync::{Arc, Weak},
    time::Instant,
};

use relay_model::{Epoch, LogId, WorkerId};

use crate::{
    bell::{Flags, Marks, Rings},
    budget::Share,
    entry::{End, Head, Resume},
    evict::Shed,
    feed::Feed,
    group::Group,
    shared::Shared,
    state::State,
    store::Store,
    sync::{AtomicU64, Mutex, MutexGuard, Ordering},
    writer::Writer,
};

/// A log: written by one [`Writer`] at a time, followed by one [`Feed`] a worker.
#[derive(Debug)]
pub struct Log {
    pub(crate) flags: Arc<Flags>,
    pub(crate) shared: Arc<Shared>,
    /// For the sweep over other logs, when the budget asks for it.
    pub(crate) store: Weak<Store>,
    state: Mutex<State>,
    /// When it was last read, by the store's clock.
    last_read: AtomicU64,
}

impl Drop for Log {
    fn drop(&mut self) {
        let groups = std::mem::take(&mut self.lock().groups);
        groups.into_values().for_each(|group| self.shared.release.release(group));
    }
}

impl Log {
    pub(crate) fn new(id: LogId, shared: Arc<Shared>, store: Weak<Store>) -> Self {
        Self {
            flags: Arc::new(Flags::new(id, shared.bells.len())),
            state: Mutex::new(State::new(Share::new(Arc::clone(&shared.budget)))),
            last_read: AtomicU64::new(shared.clock.ms()),
            shared,
            store,
        }
    }

    /// Its id.
    pub fn id(&self) -> LogId {
        self.flags.id()
    }

    /// Claims the log for the writer of `epoch`; an older writer is fenced by that and what it left
    /// open may be continued. `None`: fenced, held by a writer of this epoch, or ended.
    pub fn writer(self: &Arc<Self>, epoch: Epoch) -> Option<Writer> {
        let mut state = self.lock();
        if state.end.is_some() || !state.seat.claim(epoch) {
            return None;
        }
        state.suspend();
        drop(state);
        Some(Writer::new(Arc::clone(self), epoch))
    }

    /// Follows the log for `worker`. What is in the head is not in the feed, what comes after is:
    /// interest is registered and the head read under one lock.
    pub fn feed(self: &Arc<Self>, worker: WorkerId) -> (Feed, Head) {
        debug_assert!(self.shared.bell(worker).is_some(), "no such worker: {worker:?}");
        self.touch();
        let mut state = self.lock();
        let key = state.journal.register(worker);
        let head = state.head();
        drop(state);
        (Feed::new(Arc::clone(self), key), head)
    }

    /// Where a new writer of the same publisher goes on. `None`: no group ever came live, or the
    /// latest is gone from the cache.
    pub fn resume(&self) -> Option<Resume> {
        self.lock().resume()
    }

    /// How often the log was locked.
    pub fn lock_count(&self) -> u64 {
        self.state.lock().locks
    }

    /// Fences writers below `epoch`; what they left open waits for a later one.
    pub(crate) fn fence(&self, epoch: Epoch) {
        let mut state = self.lock();
        if state.seat.fence(epoch) {
            state.suspend();
        }
    }

    /// Nobody writes to it any more.
    pub(crate) fn retire(&self) {
        self.lock().seat.retire();
    }

    /// Appends the end, whoever the writer is.
    pub(crate) fn end(&self, end: End, rings: &mut Rings) {
        self.update(rings, |state| state.end(end));
    }

    /// Unlinks about `excess` bytes for the budget.
    pub(crate) fn shed(&self, what: Shed, excess: u64, trash: &mut Vec<Group>, rings: &mut Rings) -> u64 {
        self.update(rings, |state| state.shed(what, excess, trash))
    }

    /// Unlinks what is too old.
    pub(crate) fn age(&self, now: Instant, trash: &mut Vec<Group>, rings: &mut Rings) {
        self.update(rings, |state| {
            state.age(now, self.shared.max_age, trash);
            state.share.set(state.overhead);
        });
    }

    /// Changes the log under its lock and tells who reads it.
    fn update<T>(&self, rings: &mut Rings, change: impl FnOnce(&mut State) -> T) -> T {
        let mut marks = Marks::new();
        let mut state = self.lock();
        let before = state.journal.tail();
        let changed = change(&mut state);
        state.announce(before, &self.flags, &mut marks, rings);
        drop(state);
        self.shared.post(&self.flags, &mut marks);
        changed
    }

    /// Asks the budget's sweep over all logs. Not under any log's lock.
    pub(crate) fn sweep(&self, rings: &mut Rings) {
        if let Some(store) = self.store.upgrade() {
            store.sweep(rings);
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
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
