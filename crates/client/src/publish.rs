//! What this client publishes: broadcasts, their tracks, and who is subscribed to them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use relay_model::{Path, Prefs, StreamCode, TrackInfo, TrackName, route::Hops};
use relay_wire::lite::{Announce, Status};
use tokio::sync::{mpsc, watch};

use crate::{
    grouplog::{End, GroupLog},
    publisher::Live,
};

/// All broadcasts of one client.
#[derive(Debug, Default)]
pub(crate) struct Published(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    broadcasts: HashMap<Path, Entry>,
    watchers: Vec<Watcher>,
}

#[derive(Debug, Default)]
struct Entry {
    /// `Some` while announced.
    hops: Option<Hops>,
    tracks: HashMap<TrackName, Arc<TrackState>>,
}

#[derive(Debug)]
struct Watcher {
    prefix: Path,
    events: mpsc::UnboundedSender<Announce>,
}

impl Published {
    pub(crate) fn announce(&self, path: &Path, hops: Hops) {
        let mut inner = self.lock();
        inner.broadcasts.entry(path.clone()).or_default().hops = Some(hops.clone());
        inner.tell(path, Status::Active, &hops);
    }

    pub(crate) fn withdraw(&self, path: &Path) {
        let mut inner = self.lock();
        let live = inner.broadcasts.get_mut(path).and_then(|entry| entry.hops.take());
        if live.is_some() {
            inner.tell(path, Status::Ended, &Arc::from([]));
        }
    }

    /// Withdraws it and forgets its tracks; those already subscribed go on.
    pub(crate) fn remove(&self, path: &Path) {
        self.withdraw(path);
        self.lock().broadcasts.remove(path);
    }

    /// What is announced below `prefix` now, and every change from now on.
    pub(crate) fn watch(&self, prefix: Path) -> (Vec<Announce>, mpsc::UnboundedReceiver<Announce>) {
        let mut inner = self.lock();
        let initial = inner
            .broadcasts
            .iter()
            .filter_map(|(path, entry)| announce(path, &prefix, Status::Active, entry.hops.as_ref()?))
            .collect();
        let (events, changes) = queue();
        inner.watchers.push(Watcher { prefix, events });
        (initial, changes)
    }

    pub(crate) fn add_track(&self, path: &Path, name: TrackName, track: Arc<TrackState>) {
        self.lock().broadcasts.entry(path.clone()).or_default().tracks.insert(name, track);
    }

    pub(crate) fn track(&self, path: &Path, name: &TrackName) -> Option<Arc<TrackState>> {
        self.lock().broadcasts.get(path)?.tracks.get(name).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tell(&mut self, path: &Path, status: Status, hops: &Hops) {
        self.watchers.retain(|watcher| match announce(path, &watcher.prefix, status, hops) {
            Some(message) => watcher.events.send(message).is_ok(),
            None => !watcher.events.is_closed(),
        });
    }
}

fn announce(path: &Path, prefix: &Path, status: Status, hops: &Hops) -> Option<Announce> {
    let suffix = Path::parse(path.strip_prefix(prefix)?).ok()?;
    Some(Announce { status, suffix, hops: hops.clone() })
}

/// What the stream of one subscription is told to do.
#[derive(Debug)]
pub(crate) enum Command {
    Group(Arc<GroupLog>),
    Drop {
        start: u64,
        end: u64,
        code: u64,
    },
    /// Exclusive bound; a FIN follows once the groups are out.
    End(u64),
    Abort(StreamCode),
}

/// One published track.
#[derive(Debug)]
pub(crate) struct TrackState {
    pub(crate) info: TrackInfo,
    inner: Mutex<Track>,
    live: watch::Sender<Live>,
}

#[derive(Debug)]
struct Track {
    groups: BTreeMap<u64, Arc<GroupLog>>,
    retain: usize,
    subscribers: Vec<Subscriber>,
    next_key: u64,
    ended: Option<u64>,
}

#[derive(Debug)]
struct Subscriber {
    key: u64,
    id: u64,
    prefs: Prefs,
    commands: mpsc::UnboundedSender<Command>,
}

impl TrackState {
    pub(crate) fn new(info: TrackInfo, retain: usize) -> Self {
        let inner =
            Track { groups: BTreeMap::new(), retain, subscribers: Vec::new(), next_key: 0, ended: None };
        Self { info, inner: Mutex::new(inner), live: watch::Sender::default() }
    }

    pub(crate) fn live(&self) -> watch::Receiver<Live> {
        self.live.subscribe()
    }

    pub(crate) fn set_retain(&self, retain: usize) {
        let mut track = self.lock();
        track.retain = retain;
        track.trim();
    }

    /// Adds a subscription; its commands begin with what is held that it wants.
    pub(crate) fn subscribe(&self, id: u64, prefs: Prefs) -> (u64, mpsc::UnboundedReceiver<Command>) {
        let (commands, receiver) = queue();
        let mut track = self.lock();
        let key = track.next_key;
        track.next_key += 1;
        for group in track.held(&prefs) {
            let _ = commands.send(Command::Group(group));
        }
        if let Some(end) = track.ended {
            let _ = commands.send(Command::End(end));
        }
        track.subscribers.push(Subscriber { key, id, prefs, commands });
        self.tell(&track, true);
        (key, receiver)
    }

    pub(crate) fn update(&self, key: u64, prefs: Prefs) {
        let mut track = self.lock();
        if let Some(subscriber) = track.subscribers.iter_mut().find(|s| s.key == key) {
            subscriber.prefs = prefs;
        }
        self.live.send_modify(|live| live.updates += 1);
        self.tell(&track, false);
    }

    pub(crate) fn unsubscribe(&self, key: u64) {
        let mut track = self.lock();
        track.subscribers.retain(|s| s.key != key);
        self.tell(&track, false);
    }

    pub(crate) fn open(&self, group: Arc<GroupLog>) {
        let mut track = self.lock();
        for subscriber in track.subscribers.iter().filter(|s| wants(&s.prefs, group.sequence)) {
            let _ = subscriber.commands.send(Command::Group(group.clone()));
        }
        track.groups.insert(group.sequence, group);
        track.trim();
    }

    pub(crate) fn group(&self, sequence: u64) -> Option<Arc<GroupLog>> {
        self.lock().groups.get(&sequence).cloned()
    }

    /// The ids of live subscriptions that want `sequence`.
    pub(crate) fn ids(&self, sequence: u64) -> Vec<u64> {
        self.lock().subscribers.iter().filter(|s| wants(&s.prefs, sequence)).map(|s| s.id).collect()
    }

    pub(crate) fn dropped(&self, start: u64, end: u64, code: u64) {
        self.command(|| Command::Drop { start, end, code });
    }

    pub(crate) fn end(&self, bound: u64) {
        self.lock().ended = Some(bound);
        self.command(|| Command::End(bound));
    }

    pub(crate) fn abort(&self, code: StreamCode) {
        for group in self.lock().groups.values() {
            group.end(End::Reset(code));
        }
        self.command(|| Command::Abort(code));
    }

    fn command(&self, command: impl Fn() -> Command) {
        for subscriber in &self.lock().subscribers {
            let _ = subscriber.commands.send(command());
        }
    }

    fn tell(&self, track: &Track, joined: bool) {
        self.live.send_modify(|live| {
            live.subscriptions = track.subscribers.iter().map(|s| (s.id, s.prefs)).collect();
            live.peak = live.peak.max(live.subscriptions.len());
            live.ever += u64::from(joined);
        });
    }

    fn lock(&self) -> MutexGuard<'_, Track> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Track {
    fn trim(&mut self) {
        while self.groups.len() > self.retain.max(1) {
            self.groups.pop_first();
        }
    }

    fn held(&self, prefs: &Prefs) -> Vec<Arc<GroupLog>> {
        match prefs.start {
            None => self.groups.values().next_back().cloned().into_iter().collect(),
            Some(_) => self.groups.values().filter(|g| wants(prefs, g.sequence)).cloned().collect(),
        }
    }
}

fn wants(prefs: &Prefs, sequence: u64) -> bool {
    prefs.start.is_none_or(|start| sequence >= start) && prefs.end.is_none_or(|end| sequence <= end)
}

/// What the application itself writes is its own to bound.
#[expect(clippy::disallowed_methods, reason = "fed by the application, never by the peer")]
fn queue<T>() -> (mpsc::UnboundedSender<T>, mpsc::UnboundedReceiver<T>) {
    mpsc::unbounded_channel()
}
