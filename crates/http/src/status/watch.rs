//! Watchers of the status, and the one task that samples the relay for all of them.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use relay_model::Path;
use tokio::{
    sync::{Notify, watch},
    time::{MissedTickBehavior, interval},
};

use super::Status;

/// Concurrent watchers: each costs a copy of an event per second, and perhaps a query to core.
const PLACES: usize = 128;
/// Delay after which new watchers with paths of their own are served together.
const GATHER_DELAY: Duration = Duration::from_millis(100);

/// Intervals and limits of watching.
#[derive(Clone, Copy, Debug)]
pub(super) struct WatchLimits {
    /// Time between two events.
    pub(super) every: Duration,
    /// Time without taking an event after which a place is released.
    pub(super) slow: Duration,
    /// See [`PLACES`].
    pub(super) places: usize,
}

impl Default for WatchLimits {
    fn default() -> Self {
        Self { every: Duration::from_secs(1), slow: Duration::from_secs(15), places: PLACES }
    }
}

type LatestEvent = Option<Bytes>;

/// Watchers of a relay.
pub(super) struct Watching {
    pace: WatchLimits,
    started: Instant,
    inner: Mutex<WatchersInner>,
    /// Notified when a path is requested that has no event yet.
    path_added: Notify,
}

#[derive(Default)]
struct WatchersInner {
    places: HashMap<u64, WatcherEntry>,
    serial: u64,
    /// Latest events, by the path asked for.
    events: HashMap<Option<Path>, watch::Sender<LatestEvent>>,
    /// Whether the task runs.
    running: bool,
}

/// A place as the task sees it.
struct WatcherEntry {
    path: Option<Path>,
    mark: Arc<WatcherState>,
}

/// State that a place and the task share.
#[derive(Default)]
struct WatcherState {
    /// Time at which its owner was last ready for an event, ms since the start.
    ready_ms: AtomicU64,
    /// Whether the place was released by the task.
    lost: AtomicBool,
}

/// A watcher's place; released when dropped.
pub(super) struct StatusWatcher {
    status: Status,
    key: u64,
    mark: Arc<WatcherState>,
    events: watch::Receiver<LatestEvent>,
}

impl Watching {
    pub(super) fn new(pace: WatchLimits) -> Self {
        Self { pace, started: Instant::now(), inner: Mutex::default(), path_added: Notify::new() }
    }

    pub(super) fn places(&self) -> usize {
        self.inner.lock().places.len()
    }

    fn ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Requested paths, after places whose events are not taken were released. `None`: there are no watchers, and the
    /// task has to end.
    fn asked_for(&self) -> Option<Vec<Option<Path>>> {
        let slow = u64::try_from(self.pace.slow.as_millis()).unwrap_or(u64::MAX);
        let now = self.ms();
        let mut inner = self.inner.lock();
        inner.places.retain(|_, place| {
            let is_slow = now.saturating_sub(place.mark.ready_ms.load(Ordering::Relaxed)) > slow;
            place.mark.lost.fetch_or(is_slow, Ordering::Relaxed);
            !is_slow
        });
        let WatchersInner { places, events, running, .. } = &mut *inner;
        events.retain(|path, _| places.values().any(|place| place.path == *path));
        *running = !events.is_empty();
        running.then(|| events.keys().cloned().collect())
    }

    /// Requested paths without an event yet.
    fn unserved(&self) -> Vec<Option<Path>> {
        let inner = self.inner.lock();
        let unserved = inner.events.iter().filter(|(_, event)| event.borrow().is_none());
        unserved.map(|(path, _)| path.clone()).collect()
    }

    fn publish(&self, path: &Option<Path>, event: Bytes) {
        if let Some(events) = self.inner.lock().events.get(path) {
            events.send_replace(Some(event));
        }
    }
}

/// Takes a place, and starts the task if it does not run. `None`: all places are taken.
pub(super) fn add_watcher(status: &Status, path: Option<Path>) -> Option<StatusWatcher> {
    let watching = &status.0.watching;
    let mark = Arc::new(WatcherState::default());
    mark.ready_ms.store(watching.ms(), Ordering::Relaxed);
    let mut inner = watching.inner.lock();
    if inner.places.len() >= watching.pace.places {
        return None;
    }
    inner.serial += 1;
    let key = inner.serial;
    inner.places.insert(key, WatcherEntry { path: path.clone(), mark: mark.clone() });
    let mut events = inner.events.entry(path).or_insert_with(|| watch::Sender::new(None)).subscribe();
    if events.borrow().is_some() {
        // At most as old as the time between two events.
        events.mark_changed();
    } else {
        watching.path_added.notify_one();
    }
    if !std::mem::replace(&mut inner.running, true) {
        tokio::spawn(run(status.clone()));
    }
    drop(inner);
    Some(StatusWatcher { status: status.clone(), key, mark, events })
}

impl StatusWatcher {
    /// Records that its owner is ready for an event.
    pub(super) fn is_ready(&self) {
        self.mark.ready_ms.store(self.status.0.watching.ms(), Ordering::Relaxed);
    }

    /// Whether the place was released because its events were not taken.
    pub(super) fn is_lost(&self) -> bool {
        self.mark.lost.load(Ordering::Relaxed)
    }

    /// Waits for the next event, or the latest of those missed. `None`: there are no more.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        self.events.changed().await.ok()?;
        self.events.borrow_and_update().clone()
    }
}

impl Drop for StatusWatcher {
    fn drop(&mut self) {
        self.status.0.watching.inner.lock().places.remove(&self.key);
    }
}

/// Samples the relay once a second while there are watchers.
async fn run(status: Status) {
    let mut broken = WatchTaskGuard(Some(status.clone()));
    let watching = &status.0.watching;
    let mut ticks = interval(watching.pace.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    while let Some(paths) = watching.asked_for() {
        let seen = status.sample().await;
        for path in paths {
            watching.publish(&path, status.event(&seen, path.as_ref()).await);
        }
        loop {
            tokio::select! {
                _ = ticks.tick() => break,
                () = watching.path_added.notified() => {
                    tokio::time::sleep(GATHER_DELAY).await;
                    for path in watching.unserved() {
                        watching.publish(&path, status.event(&seen, path.as_ref()).await);
                    }
                }
            }
        }
    }
    broken.0 = None;
}

/// Guard of the task: if it panics, the streams of all watchers end, and clients may reconnect.
struct WatchTaskGuard(Option<Status>);

impl Drop for WatchTaskGuard {
    fn drop(&mut self) {
        if let Some(status) = self.0.take() {
            let mut inner = status.0.watching.inner.lock();
            inner.running = false;
            inner.events.clear();
        }
    }
}
