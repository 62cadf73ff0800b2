//! Who looks, and the one task that looks for all of them.

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

/// Who may look at the same time: each costs a copy of what is shown, a second, and perhaps a question to core.
const PLACES: usize = 128;
/// Newcomers with a path of their own are served together, this much later.
const GATHER_NEWCOMERS: Duration = Duration::from_millis(100);

/// How often, and how slow is too slow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Between two events.
    pub(super) every: Duration,
    /// A place whose events were not taken for so long is given up.
    pub(super) slow: Duration,
    /// See [`PLACES`].
    pub(super) places: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { every: Duration::from_secs(1), slow: Duration::from_secs(15), places: PLACES }
    }
}

type Event = Option<Bytes>;

/// Who looks at a relay.
pub(super) struct Watching {
    pace: Pace,
    started: Instant,
    inner: Mutex<Inner>,
    /// Somebody asks for what nobody has asked for yet.
    newcomer: Notify,
}

#[derive(Default)]
struct Inner {
    places: HashMap<u64, Held>,
    serial: u64,
    /// Latest events, by the path asked for.
    events: HashMap<Option<Path>, watch::Sender<Event>>,
    /// There is a task that looks.
    running: bool,
}

/// A place as the task sees it.
struct Held {
    path: Option<Path>,
    mark: Arc<Mark>,
}

/// What a place and the task tell each other.
#[derive(Default)]
struct Mark {
    /// When its owner was last ready for an event, ms since the start.
    ready_ms: AtomicU64,
    /// It was given up.
    lost: AtomicBool,
}

/// A place of somebody who looks; free again when dropped.
pub(super) struct Place {
    status: Status,
    key: u64,
    mark: Arc<Mark>,
    events: watch::Receiver<Event>,
}

impl Watching {
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, started: Instant::now(), inner: Mutex::default(), newcomer: Notify::new() }
    }

    pub(super) fn places(&self) -> usize {
        self.inner.lock().places.len()
    }

    fn ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The paths somebody asks for, after those were given up that take nothing. `None`: nobody looks, and
    /// the task is to end.
    fn asked_for(&self) -> Option<Vec<Option<Path>>> {
        let slow = u64::try_from(self.pace.slow.as_millis()).unwrap_or(u64::MAX);
        let now = self.ms();
        let mut inner = self.inner.lock();
        inner.places.retain(|_, place| {
            let is_slow = now.saturating_sub(place.mark.ready_ms.load(Ordering::Relaxed)) > slow;
            place.mark.lost.fetch_or(is_slow, Ordering::Relaxed);
            !is_slow
        });
        let Inner { places, events, running, .. } = &mut *inner;
        events.retain(|path, _| places.values().any(|place| place.path == *path));
        *running = !events.is_empty();
        running.then(|| events.keys().cloned().collect())
    }

    /// The paths nobody has had an event of yet.
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

/// Takes a place, and has somebody look if nobody does. `None`: all are taken.
pub(super) fn sit(status: &Status, path: Option<Path>) -> Option<Place> {
    let watching = &status.0.watching;
    let mark = Arc::new(Mark::default());
    mark.ready_ms.store(watching.ms(), Ordering::Relaxed);
    let mut inner = watching.inner.lock();
    if inner.places.len() >= watching.pace.places {
        return None;
    }
    inner.serial += 1;
    let key = inner.serial;
    inner.places.insert(key, Held { path: path.clone(), mark: mark.clone() });
    let mut events = inner.events.entry(path).or_insert_with(|| watch::Sender::new(None)).subscribe();
    if events.borrow().is_some() {
        // At most as old as the time between two events.
        events.mark_changed();
    } else {
        watching.newcomer.notify_one();
    }
    if !std::mem::replace(&mut inner.running, true) {
        tokio::spawn(run(status.clone()));
    }
    drop(inner);
    Some(Place { status: status.clone(), key, mark, events })
}

impl Place {
    /// Its owner could take an event now.
    pub(super) fn is_ready(&self) {
        self.mark.ready_ms.store(self.status.0.watching.ms(), Ordering::Relaxed);
    }

    /// Whether it was given up, for nobody took its events.
    pub(super) fn is_lost(&self) -> bool {
        self.mark.lost.load(Ordering::Relaxed)
    }

    /// The next event, or the latest of those missed. `None`: there are no more.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        self.events.changed().await.ok()?;
        self.events.borrow_and_update().clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.status.0.watching.inner.lock().places.remove(&self.key);
    }
}

/// Looks once a second while there is somebody to look for.
async fn run(status: Status) {
    let mut broken = Broken(Some(status.clone()));
    let watching = &status.0.watching;
    let mut ticks = interval(watching.pace.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    while let Some(paths) = watching.asked_for() {
        let seen = status.look().await;
        for path in paths {
            watching.publish(&path, status.event(&seen, path.as_ref()).await);
        }
        loop {
            tokio::select! {
                _ = ticks.tick() => break,
                () = watching.newcomer.notified() => {
                    tokio::time::sleep(GATHER_NEWCOMERS).await;
                    for path in watching.unserved() {
                        watching.publish(&path, status.event(&seen, path.as_ref()).await);
                    }
                }
            }
        }
    }
    broken.0 = None;
}

/// A task that panicked: who looks is told by the end of the events, and may come again.
struct Broken(Option<Status>);

impl Drop for Broken {
    fn drop(&mut self) {
        if let Some(status) = self.0.take() {
            let mut inner = status.0.watching.inner.lock();
            inner.running = false;
            inner.events.clear();
        }
    }
}
