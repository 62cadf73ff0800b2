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
    bell::{Bell, Flags, Marks},
    budget::Budget,
    group::Group,
    release::Release,
};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) budget: Arc<Budget>,
    pub(crate) bells: Box<[Bell]>,
    pub(crate) max_age: Duration,
    pub(crate) feeds: AtomicUsize,
    pub(crate) clock: Clock,
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

impl Shared {
    pub(crate) fn bell(&self, worker: WorkerId) -> Option<&Bell> {
        self.bells.get(usize::from(worker.0))
    }

    /// Counts and drops unlinked groups. Must not be called under a log's lock.
    pub(crate) fn bury(&self, trash: &mut Vec<Group>) {
        if trash.is_empty() {
            return;
        }
        self.evicted.groups.fetch_add(trash.len() as u64, Ordering::Relaxed);
        self.evicted.bytes.fetch_add(trash.iter().map(Group::cost).sum(), Ordering::Relaxed);
        trash.drain(..).for_each(|group| self.release.release(group));
    }

    /// Puts a log on the lists of `marks`. Must not be called under a log's lock.
    #[inline]
    pub(crate) fn post(&self, flags: &Arc<Flags>, marks: &mut Marks) {
        for worker in marks.drain(..) {
            if let Some(bell) = self.bell(worker) {
                bell.push(Arc::clone(flags));
            }
        }
    }
}

/// Milliseconds since the first commit, advanced by commits: precise enough to order logs by their last read,
/// without reading the time on every pull.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    start: OnceLock<Instant>,
    ms: AtomicU64,
}

impl Clock {
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
