//! Tests of the store through its public surface.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use relay_model::{Epoch, LogId, WorkerId};

use crate::{Feed, Log, LogEntry, LogHead, ObjectHead, Store, StoreConfig, WakeSet, Writer};

mod budget;
mod fencing;
mod fetch;
mod model;
mod order;
mod release;
mod resume;
mod stats;

const W0: WorkerId = WorkerId(0);
const W1: WorkerId = WorkerId(1);

/// A store with one log, a writer of epoch 1 and a clock.
struct Fixture {
    store: Arc<Store>,
    log: Arc<Log>,
    writer: Writer,
    now: Instant,
    wakes: WakeSet,
}

impl Fixture {
    fn new() -> Self {
        Self::with(1 << 40, 1 << 41)
    }

    fn with(capacity: u64, ceiling: u64) -> Self {
        let store =
            Store::new(StoreConfig { workers: 2, capacity, ceiling, max_age: Duration::from_secs(30) });
        let log = store.create(LogId(1));
        let writer = log.writer(Epoch(1)).unwrap();
        Self { store, log, writer, now: Instant::now(), wakes: WakeSet::new() }
    }

    fn commit(&mut self) {
        self.writer.commit(self.now, &mut self.wakes).unwrap();
    }

    fn later(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn chunk(&self, bytes: &[u8]) -> Bytes {
        self.store.budget().chunk(bytes.to_vec())
    }

    /// Stages a group of one-piece objects, opened and not finished.
    fn group(&mut self, sequence: u64, objects: &[&[u8]]) {
        self.writer.open_group(sequence);
        for (id, payload) in (0..).zip(objects) {
            self.object(sequence, id, payload);
        }
    }

    fn object(&mut self, group: u64, id: u64, payload: &[u8]) {
        let payload = self.chunk(payload);
        self.writer.object(group, 0, ObjectHead::frame(id, None, payload.len() as u64), payload);
    }

    /// Stages an object of declared size `size` with the first bytes `payload`.
    fn partial(&mut self, group: u64, id: u64, size: u64, payload: &[u8]) {
        let payload = self.chunk(payload);
        self.writer.object(group, 0, ObjectHead::frame(id, None, size), payload);
    }
}

/// Numbers of the groups held from their beginning.
fn held(head: &LogHead) -> Vec<u64> {
    head.groups.iter().map(|group| group.sequence).collect()
}

fn pull(feed: &mut Feed) -> Vec<LogEntry> {
    let mut out = Vec::new();
    while feed.pull(&mut out).more {}
    out
}

fn replay(feed: &Feed, sequence: u64) -> Option<Vec<LogEntry>> {
    let mut out = Vec::new();
    feed.group(sequence, &mut out).then_some(out)
}

fn opened(sequence: u64) -> LogEntry {
    LogEntry::Group { sequence }
}

fn object(group: u64, id: u64, payload: &'static [u8]) -> LogEntry {
    let head = ObjectHead::frame(id, None, payload.len() as u64);
    LogEntry::Object { group, strand: 0, head, payload: Bytes::from_static(payload) }
}

fn data(group: u64, object: u64, offset: u64, payload: &'static [u8]) -> LogEntry {
    LogEntry::Data { group, strand: 0, object, offset, payload: Bytes::from_static(payload) }
}

fn finish(group: u64) -> LogEntry {
    LogEntry::Finish { group, strand: 0 }
}

fn reset(group: u64, code: relay_model::StreamCode) -> LogEntry {
    LogEntry::Reset { group, strand: 0, code }
}
