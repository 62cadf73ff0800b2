//! Wake-ups: a list of changed logs per worker, which is woken once a turn.
//!
//! A commit appends under the log's lock and sets the log's flag for each worker that reads it; the thread that
//! finds the flag clear puts the log on that worker's list. The worker clears the flag *before* it pulls, so an
//! entry that this pull misses marks the log again.

use std::{fmt, sync::Arc};

use relay_model::{LogId, WorkerId, limits};
use smallvec::SmallVec;

use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};

/// Number of ready lists: one per worker, and one for the control runtime, which reads as worker N.
const READY_LISTS: usize = limits::WORKERS + 1;
const WORDS: usize = READY_LISTS.div_ceil(64);

/// Set of workers to wake, collected over a turn and woken by [`crate::Store::wake`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WakeSet {
    words: [u64; WORDS],
}

impl WakeSet {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Whether the set contains `worker`.
    pub fn contains(&self, worker: WorkerId) -> bool {
        let index = usize::from(worker.0);
        self.words.get(index / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    pub(crate) fn mark(&mut self, worker: WorkerId) {
        let index = usize::from(worker.0);
        if let Some(word) = self.words.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// Takes all workers out of the set.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = WorkerId> + use<> {
        let mut words = std::mem::take(&mut self.words);
        let mut at = 0;
        std::iter::from_fn(move || {
            loop {
                let word = words.get_mut(at)?;
                if *word == 0 {
                    at += 1;
                    continue;
                }
                let bit = word.trailing_zeros() as usize;
                *word &= *word - 1;
                return Some(WorkerId((at * 64 + bit) as u16));
            }
        })
    }
}

/// Per-worker flags of a log with changes not yet taken. Kept apart from the log, so that a ready list pins
/// no payload.
#[derive(Debug)]
pub(crate) struct DirtyFlags {
    id: LogId,
    dirty: Box<[AtomicBool]>,
}

/// Workers on whose list a log is put once its lock is released.
pub(crate) type Marks = SmallVec<[WorkerId; 8]>;

impl DirtyFlags {
    pub(crate) fn new(id: LogId, ready_lists: usize) -> Self {
        Self { id, dirty: (0..ready_lists).map(|_| AtomicBool::new(false)).collect() }
    }

    pub(crate) fn id(&self) -> LogId {
        self.id
    }

    /// Sets `worker`'s flag. True when the caller must put the log on the worker's list. Always a
    /// read-modify-write: a plain load may miss that the worker has just cleared it.
    pub(crate) fn set(&self, worker: WorkerId) -> bool {
        self.dirty.get(usize::from(worker.0)).is_some_and(|flag| !flag.swap(true, Ordering::AcqRel))
    }

    fn clear(&self, worker: usize) {
        if let Some(flag) = self.dirty.get(worker) {
            flag.swap(false, Ordering::AcqRel);
        }
    }
}

type WakeFn = Box<dyn Fn() + Send + Sync>;

/// List of the changed logs of one worker, and its wake-up.
pub struct ReadyList {
    worker: usize,
    dirty: Mutex<Vec<Arc<DirtyFlags>>>,
    board: AtomicBool,
    is_woken: AtomicBool,
    wakes: AtomicU64,
    waker: Mutex<Option<WakeFn>>,
}

impl ReadyList {
    pub(crate) fn new(worker: usize) -> Self {
        Self {
            worker,
            dirty: Mutex::new(Vec::new()),
            board: AtomicBool::new(false),
            is_woken: AtomicBool::new(false),
            wakes: AtomicU64::new(0),
            waker: Mutex::new(None),
        }
    }

    /// Sets the function that wakes the worker. It is called at most once until the worker's next
    /// [`ReadyList::take`], so a woken worker must take; it must not call back into the store. A list that was woken
    /// before calls it at once, so a rebuilt worker misses no wake-up.
    pub fn set_waker(&self, wake_fn: Box<dyn Fn() + Send + Sync>) {
        let mut slot = self.waker.lock();
        if self.is_woken.load(Ordering::Acquire) {
            wake_fn();
        }
        *slot = Some(wake_fn);
    }

    /// Appends the logs that changed since the last call, each once. True: the announce board changed.
    pub fn take(&self, out: &mut Vec<LogId>) -> bool {
        self.is_woken.swap(false, Ordering::AcqRel);
        for flags in self.dirty.lock().drain(..) {
            flags.clear(self.worker);
            out.push(flags.id());
        }
        self.board.swap(false, Ordering::AcqRel)
    }

    /// Number of wake-ups of the worker.
    pub fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }

    /// Whether a [`ReadyList::take`] would return anything.
    pub fn is_pending(&self) -> bool {
        self.board.load(Ordering::Acquire) || !self.dirty.lock().is_empty()
    }

    pub(crate) fn push(&self, flags: Arc<DirtyFlags>) {
        self.dirty.lock().push(flags);
    }

    pub(crate) fn mark_board(&self) {
        self.board.swap(true, Ordering::AcqRel);
    }

    pub(crate) fn wake(&self) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            self.wakes.fetch_add(1, Ordering::Relaxed);
            let slot = self.waker.lock();
            if let Some(wake_fn) = slot.as_ref() {
                wake_fn();
            }
        }
    }
}

impl fmt::Debug for ReadyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyList").field("worker", &self.worker).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn wake_set_holds_every_worker_and_the_control_runtime() {
        let mut wakes = WakeSet::new();
        let all = [0, 63, 64, 255, 256].map(WorkerId);
        all.iter().for_each(|worker| wakes.mark(*worker));
        assert!(wakes.contains(WorkerId(256)) && !wakes.contains(WorkerId(1)));
        assert_eq!(wakes.take().collect::<Vec<_>>(), all);
        assert!(wakes.is_empty());
    }

    #[test]
    fn list_wakes_its_worker_once_until_it_is_taken() {
        let count = Arc::new(AtomicUsize::new(0));
        let ready_list = ReadyList::new(0);
        ready_list.wake();
        let counter = Arc::clone(&count);
        ready_list.set_waker(Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        assert_eq!(count.load(Ordering::Relaxed), 1, "woken before the function was set");
        ready_list.wake();
        assert_eq!(count.load(Ordering::Relaxed), 1);
        ready_list.take(&mut Vec::new());
        ready_list.wake();
        assert_eq!(count.load(Ordering::Relaxed), 2);
        assert_eq!(ready_list.wakes(), 2);
    }
}
