//! Races of attach, commit and clear: no wake-up is lost in any interleaving.
//!
//! Runs on real threads; with `RUSTFLAGS="--cfg shuttle"` on a scheduler that explores interleavings.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use relay_model::{Cost, Epoch, LogId, Path, Route, SessionId, WorkerId};

use crate::{
    Advert, Feed, LogEnd, LogEntry, ObjectHead, Store, StoreConfig, VisitStep, WakeSet, WatchCandidate,
};

#[cfg(shuttle)]
use shuttle::thread;
#[cfg(not(shuttle))]
use std::thread;

const LOGS: u64 = 2;
#[cfg(not(shuttle))]
const GROUPS: u64 = 300;
#[cfg(shuttle)]
const GROUPS: u64 = 4;

/// Mailbox that wakes a worker, like an eventfd.
#[cfg(not(shuttle))]
fn mailbox() -> (impl Fn() + Send + Sync, impl Fn()) {
    let (wake, woken) = std::sync::mpsc::sync_channel::<()>(1);
    let wake = std::sync::Mutex::new(wake);
    let ring = move || {
        let _ = wake.lock().unwrap().try_send(());
    };
    let wait = move || woken.recv_timeout(Duration::from_secs(20)).expect("a wake-up was lost");
    (ring, wait)
}

#[cfg(shuttle)]
fn mailbox() -> (impl Fn() + Send + Sync, impl Fn()) {
    let (wake, woken) = shuttle::sync::mpsc::sync_channel::<()>(1);
    let wake = shuttle::sync::Mutex::new(wake);
    let ring = move || {
        let _ = wake.lock().unwrap().try_send(());
    };
    // A lost wake-up is a deadlock, which shuttle reports.
    let wait = move || woken.recv().unwrap();
    (ring, wait)
}

fn store(workers: usize) -> Arc<Store> {
    Store::new(StoreConfig {
        workers,
        capacity: 1 << 40,
        ceiling: 1 << 41,
        max_age: Duration::from_secs(600),
    })
}

fn write(store: &Store, log: LogId, now: Instant) {
    let mut writer = store.create(log).writer(Epoch(1)).unwrap();
    let mut wakes = WakeSet::new();
    for group in 0..GROUPS {
        writer.open_group(group);
        let payload = store.budget().chunk(vec![group as u8; 3]);
        writer.object(group, 0, ObjectHead::frame(0, None, 3), payload);
        writer.finish(group, 0);
        if group + 1 == GROUPS {
            writer.end(LogEnd { final_group: Some(GROUPS), code: None });
        }
        writer.commit(now, &mut wakes).unwrap();
        store.wake(&mut wakes, None);
    }
}

struct Follower {
    feed: Feed,
    finished: u64,
    ended: bool,
}

impl Follower {
    fn attach(store: &Store, log: LogId, worker: WorkerId) -> Self {
        let (feed, head) = store.create(log).feed(worker);
        let mut follower = Self { feed, finished: 0, ended: head.end.is_some() };
        let mut entries = Vec::new();
        for group in head.groups {
            assert!(follower.feed.group(group.sequence, &mut entries));
        }
        follower.take(entries);
        follower
    }

    /// Counts each group once, as a replay may be ahead of the journal.
    fn take(&mut self, entries: Vec<LogEntry>) {
        for entry in entries {
            match entry {
                LogEntry::Finish { group, .. } if group == self.finished => self.finished += 1,
                LogEntry::Finish { group, .. } => {
                    assert!(group < self.finished, "group {group} came too early")
                }
                LogEntry::End(_) => self.ended = true,
                _ => {}
            }
        }
    }

    fn pull(&mut self) -> bool {
        let mut entries = Vec::new();
        let pulled = self.feed.pull(&mut entries);
        assert!(!pulled.lagged);
        self.take(entries);
        pulled.more
    }

    fn done(&self) -> bool {
        self.ended && self.finished == GROUPS
    }
}

/// Worker: attaches to every log, then sleeps until it is woken.
fn follow(store: &Store, worker: WorkerId) {
    let (ring, wait) = mailbox();
    store.ready_list(worker).set_waker(Box::new(ring));
    let mut followers: Vec<Follower> =
        (0..LOGS).map(|log| Follower::attach(store, LogId(log), worker)).collect();
    while !followers.iter().all(Follower::done) {
        let mut logs = Vec::new();
        store.ready_list(worker).take(&mut logs);
        for log in &logs {
            for follower in followers.iter_mut().filter(|follower| follower.feed.log_id() == *log) {
                while follower.pull() {}
            }
        }
        if logs.is_empty() && !followers.iter().all(Follower::done) {
            wait();
        }
    }
}

fn logs() {
    let store = store(2);
    let now = Instant::now();
    let writers = (0..LOGS).map(|log| {
        let store = Arc::clone(&store);
        thread::spawn(move || write(&store, LogId(log), now))
    });
    let readers = (0..2).map(|worker| {
        let store = Arc::clone(&store);
        thread::spawn(move || follow(&store, WorkerId(worker)))
    });
    let threads: Vec<_> = writers.chain(readers).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    (0..LOGS).for_each(|log| assert!(store.retire(LogId(log))));
    assert_eq!(store.counts().bytes, 0);
}

fn announce(store: &Store) {
    let mut wakes = WakeSet::new();
    let mut now = Instant::now();
    for cost in 1..=GROUPS {
        // Slow enough that no change is delayed.
        now += Duration::from_secs(1);
        let route = Route {
            session: SessionId(1),
            hops: Arc::new([]),
            cost: Cost { warm: 0, cold: cost },
            stale: false,
        };
        store.board().set(Path::parse("a/b").unwrap(), vec![route], now, &mut wakes);
        store.wake(&mut wakes, None);
    }
}

fn watch(store: &Store, worker: WorkerId) {
    let (ring, wait) = mailbox();
    store.ready_list(worker).set_waker(Box::new(ring));
    let mut watch = store.board().watch(worker, Path::parse("a").unwrap());
    let (mut last, mut news) = (0, true);
    while last < GROUPS {
        let mut visitor = |candidate: WatchCandidate<'_>| {
            let cost = candidate.routes.first().map_or(0, |route| route.cost.cold);
            if candidate.advert.is_none_or(|advert| advert.mark != cost) {
                assert!(cost > last, "a change went backwards or came twice");
                last = cost;
            }
            VisitStep::Next(Some(Advert { id: 0, mark: cost }))
        };
        while news && watch.visit(1, &mut visitor).more {}
        news = store.ready_list(worker).take(&mut Vec::new());
        if !news && last < GROUPS {
            wait();
            news = store.ready_list(worker).take(&mut Vec::new());
        }
    }
}

fn board() {
    let store = store(2);
    let core = Arc::clone(&store);
    let mut threads = vec![thread::spawn(move || announce(&core))];
    for worker in 0..2 {
        let store = Arc::clone(&store);
        threads.push(thread::spawn(move || watch(&store, WorkerId(worker))));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[cfg(not(shuttle))]
#[test]
fn every_feed_sees_everything_whenever_it_attached() {
    (0..20).for_each(|_| logs());
}

#[cfg(not(shuttle))]
#[test]
fn every_watch_sees_the_newest_state_whenever_it_attached() {
    (0..20).for_each(|_| board());
}

#[cfg(shuttle)]
#[test]
fn every_feed_sees_everything_in_any_interleaving() {
    shuttle::check_random(logs, 10_000);
    shuttle::check_pct(logs, 10_000, 4);
}

#[cfg(shuttle)]
#[test]
fn every_watch_sees_the_newest_state_in_any_interleaving() {
    shuttle::check_random(board, 10_000);
    shuttle::check_pct(board, 10_000, 3);
}
