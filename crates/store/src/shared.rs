//! State shared by all logs of a store, apart from the table of logs.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use relay_model::WorkerId;

use crate::{
    budget::Budget,
    group::CachedGroup,
    ready_list::{DirtyFlags, Marks, ReadyList},
    release::Release,
};

#[derive(Debug)]
pub(crate) struct StoreShared {
    pub(crate) budget: Arc<Budget>,
    /// One list of each worker.
    pub(crate) ready_lists: Box<[ReadyList]>,
    /// List of the control runtime, which reads as one more worker.
    pub(crate) control_list: ReadyList,
    pub(crate) max_age: Duration,
    pub(crate) feeds: AtomicUsize,
    pub(crate) clock: StoreClock,
    pub(crate) evicted: Evicted,
    pub(crate) release: Release,
}

/// Totals evicted since the start.
#[derive(Debug, Default)]
pub(crate) struct Evicted {
    pub(crate) groups: AtomicU64,
    /// Payload and bookkeeping bytes.
    pub(crate) bytes: AtomicU64,
}

impl StoreShared {
    /// Number of ready lists.
    pub(crate) fn readers(&self) -> usize {
        self.ready_lists.len().saturating_add(1)
    }

    pub(crate) fn ready_list(&self, worker: WorkerId) -> Option<&ReadyList> {
        let index = usize::from(worker.0);
        let control = || (index == self.ready_lists.len()).then_some(&self.control_list);
        self.ready_lists.get(index).or_else(control)
    }

    /// Counts and drops unlinked groups. Must not be called under a log's lock.
    pub(crate) fn release_evicted(&self, evicted: &mut Vec<CachedGroup>) {
        if evicted.is_empty() {
            return;
        }
        self.evicted.groups.fetch_add(evicted.len() as u64, Ordering::Relaxed);
        self.evicted.bytes.fetch_add(evicted.iter().map(CachedGroup::cost).sum(), Ordering::Relaxed);
        evicted.drain(..).for_each(|group| self.release.release(group));
    }

    /// Puts a log on the lists of `marks`. Must not be called under a log's lock.
    #[inline]
    pub(crate) fn post(&self, flags: &Arc<DirtyFlags>, marks: &mut Marks) {
        for worker in marks.drain(..) {
            if let Some(list) = self.ready_list(worker) {
                list.push(Arc::clone(flags));
            }
        }
    }
}

/// Milliseconds since the first commit, advanced by commits: precise enough to order logs by their last read,
/// without reading the time on every pull.
#[derive(Debug, Default)]
pub(crate) struct StoreClock {
    start: OnceLock<Instant>,
    ms: AtomicU64,
}

impl StoreClock {
    pub(crate) fn advance(&self, now: Instant) {
        let start = *self.start.get_or_init(|| now);
        let ms = u64::try_from(now.saturating_duration_since(start).as_millis()).unwrap_or(u64::MAX);
        if ms > self.ms.load(Ordering::Relaxed) {
            self.ms.fetch_max(ms, Ordering::Relaxed);
        }
    }

    pub(crate) fn ms(&self) -> u64 {
        self.ms.load(Ordering::Relaxed)
    }
}
