//! Published broadcasts, their tracks and subscriptions.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use relay_model::{Cost, Hops, Path, Prefs, Start, StreamCode, TrackInfo, TrackName};
use tokio::{
    sync::{mpsc, watch},
    time::{Duration, Instant},
};

use crate::{
    carrier::Carrier,
    group_log::{End, FrameSpan, GroupLog},
    publisher::TrackFigures,
};

/// All broadcasts of one publisher, shared by its sessions.
#[derive(Debug, Default)]
pub(crate) struct Published(Mutex<PublishedInner>);

#[derive(Debug, Default)]
struct PublishedInner {
    broadcasts: HashMap<Path, BroadcastEntry>,
    watchers: Vec<AnnounceWatcher>,
}

#[derive(Debug, Default)]
struct BroadcastEntry {
    /// `Some` while announced.
    route: Option<AdvertisedRoute>,
    tracks: HashMap<TrackName, Arc<TrackState>>,
}

/// Route of an announced broadcast, as it is advertised.
#[derive(Clone, Debug)]
pub(crate) struct AdvertisedRoute {
    /// Hop chain, original publisher first, without this client.
    pub(crate) hops: Hops,
    pub(crate) cost: Cost,
}

/// Announcement or route change (`Some`), or end, of a broadcast below a watched prefix.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) suffix: Path,
    pub(crate) shown: Option<AdvertisedRoute>,
}

#[derive(Debug)]
struct AnnounceWatcher {
    prefix: Path,
    events: mpsc::UnboundedSender<Change>,
}

impl Published {
    pub(crate) fn announce(&self, path: &Path, shown: AdvertisedRoute) {
        let mut inner = self.lock();
        inner.broadcasts.entry(path.clone()).or_default().route = Some(shown.clone());
        inner.notify_watchers(path, Some(&shown));
    }

    pub(crate) fn withdraw(&self, path: &Path) {
        let mut inner = self.lock();
        let live = inner.broadcasts.get_mut(path).and_then(|entry| entry.route.take());
        if live.is_some() {
            inner.notify_watchers(path, None);
        }
    }

    /// Whether any broadcast is announced.
    pub(crate) fn is_announcing(&self) -> bool {
        self.lock().broadcasts.values().any(|entry| entry.route.is_some())
    }

    /// Withdraws a broadcast and drops its tracks; existing subscriptions continue.
    pub(crate) fn remove(&self, path: &Path) {
        self.withdraw(path);
        self.lock().broadcasts.remove(path);
    }

    /// Returns what is announced below `prefix` now, and a receiver of all later changes.
    pub(crate) fn watch(&self, prefix: Path) -> (Vec<Change>, mpsc::UnboundedReceiver<Change>) {
        let mut inner = self.lock();
        let initial = inner
            .broadcasts
            .iter()
            .filter_map(|(path, entry)| change(path, &prefix, Some(entry.route.as_ref()?)))
            .collect();
        let (events, changes) = queue();
        inner.watchers.push(AnnounceWatcher { prefix, events });
        (initial, changes)
    }

    pub(crate) fn add_track(&self, path: &Path, name: TrackName, track: Arc<TrackState>) {
        self.lock().broadcasts.entry(path.clone()).or_default().tracks.insert(name, track);
    }

    pub(crate) fn track(&self, path: &Path, name: &TrackName) -> Option<Arc<TrackState>> {
        self.lock().broadcasts.get(path)?.tracks.get(name).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, PublishedInner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PublishedInner {
    fn notify_watchers(&mut self, path: &Path, shown: Option<&AdvertisedRoute>) {
        self.watchers.retain(|watcher| match change(path, &watcher.prefix, shown) {
            Some(change) => watcher.events.send(change).is_ok(),
            None => !watcher.events.is_closed(),
        });
    }
}

fn change(path: &Path, prefix: &Path, shown: Option<&AdvertisedRoute>) -> Option<Change> {
    let suffix = Path::parse(path.strip_prefix(prefix)?).ok()?;
    Some(Change { suffix, shown: shown.cloned() })
}

/// Instruction to the stream of one subscription.
#[derive(Debug)]
pub(crate) enum SubscriberCommand {
    Group(Arc<GroupLog>, FrameSpan),
    Drop {
        start: u64,
        end: u64,
        code: u64,
    },
    /// Exclusive bound; a FIN follows once the groups are sent.
    End(u64),
    Abort(StreamCode),
}

/// One published track.
#[derive(Debug)]
pub(crate) struct TrackState {
    pub(crate) info: TrackInfo,
    inner: Mutex<TrackInner>,
    live: watch::Sender<TrackFigures>,
}

#[derive(Debug)]
struct TrackInner {
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
    /// Carrier of its session.
    carrier: Carrier,
    commands: mpsc::UnboundedSender<SubscriberCommand>,
}

impl TrackState {
    pub(crate) fn new(info: TrackInfo, retain: usize) -> Self {
        let inner =
            TrackInner { groups: BTreeMap::new(), retain, subscribers: Vec::new(), next_key: 0, ended: None };
        Self { info, inner: Mutex::new(inner), live: watch::Sender::default() }
    }

    pub(crate) fn live(&self) -> watch::Receiver<TrackFigures> {
        self.live.subscribe()
    }

    pub(crate) fn set_retain(&self, retain: usize) {
        let mut track = self.lock();
        track.retain = retain;
        track.trim();
    }

    /// Adds a subscription received on `carrier`; its commands begin with the cached groups that it wants.
    pub(crate) fn subscribe(
        &self,
        id: u64,
        prefs: Prefs,
        carrier: Carrier,
    ) -> (u64, mpsc::UnboundedReceiver<SubscriberCommand>) {
        let (commands, receiver) = queue();
        let mut track = self.lock();
        let key = track.next_key;
        track.next_key += 1;
        for group in track.cached_groups(&prefs, self.info.max_age_ms) {
            let span = span(&prefs, group.sequence);
            let _ = commands.send(SubscriberCommand::Group(group, span));
        }
        if let Some(end) = track.ended {
            let _ = commands.send(SubscriberCommand::End(end));
        }
        track.subscribers.push(Subscriber { key, id, prefs, carrier, commands });
        self.tell(&track, true);
        (key, receiver)
    }

    /// Updates a subscription, and sends cached groups that only the new preferences want.
    pub(crate) fn update(&self, key: u64, prefs: Prefs) {
        let mut track = self.lock();
        let held = track.cached_groups(&prefs, self.info.max_age_ms);
        if let Some(subscriber) = track.subscribers.iter_mut().find(|s| s.key == key) {
            let old = std::mem::replace(&mut subscriber.prefs, prefs);
            for group in held {
                if let Some(span) = newly_wanted(&old, &prefs, group.sequence) {
                    let _ = subscriber.commands.send(SubscriberCommand::Group(group, span));
                }
            }
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
            let span = span(&subscriber.prefs, group.sequence);
            let _ = subscriber.commands.send(SubscriberCommand::Group(group.clone(), span));
        }
        track.groups.insert(group.sequence, group);
        let now = Instant::now();
        for superseded in track.groups.values().rev().skip(1) {
            superseded.supersede(now);
        }
        track.trim();
    }

    pub(crate) fn group(&self, sequence: u64) -> Option<Arc<GroupLog>> {
        self.lock().groups.get(&sequence).cloned()
    }

    /// Subscription ids and carriers of the live subscriptions that want `sequence`.
    pub(crate) fn readers(&self, sequence: u64) -> Vec<(u64, Carrier)> {
        let track = self.lock();
        let readers = track.subscribers.iter().filter(|s| wants(&s.prefs, sequence));
        readers.map(|s| (s.id, s.carrier.clone())).collect()
    }

    /// Updates the counters.
    pub(crate) fn count(&self, change: impl FnOnce(&mut TrackFigures)) {
        self.live.send_modify(change);
    }

    pub(crate) fn dropped(&self, start: u64, end: u64, code: u64) {
        self.command(|| SubscriberCommand::Drop { start, end, code });
    }

    pub(crate) fn end(&self, bound: u64) {
        self.lock().ended = Some(bound);
        self.command(|| SubscriberCommand::End(bound));
    }

    pub(crate) fn abort(&self, code: StreamCode) {
        for group in self.lock().groups.values() {
            group.end(End::Reset(code));
        }
        self.command(|| SubscriberCommand::Abort(code));
    }

    fn command(&self, command: impl Fn() -> SubscriberCommand) {
        for subscriber in &self.lock().subscribers {
            let _ = subscriber.commands.send(command());
        }
    }

    fn tell(&self, track: &TrackInner, joined: bool) {
        self.live.send_modify(|live| {
            live.subscriptions = track.subscribers.iter().map(|s| (s.id, s.prefs)).collect();
            live.peak = live.peak.max(live.subscriptions.len());
            live.ever += u64::from(joined);
        });
    }

    fn lock(&self) -> MutexGuard<'_, TrackInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TrackInner {
    fn trim(&mut self) {
        while self.groups.len() > self.retain.max(1) {
            self.groups.pop_first();
        }
    }

    /// Cached groups that a subscription begins with.
    fn cached_groups(&self, prefs: &Prefs, max_age_ms: u64) -> Vec<Arc<GroupLog>> {
        let wanted = self.groups.values().filter(|g| wants(prefs, g.sequence)).cloned();
        match prefs.start {
            Start::Latest => {
                let latest = self.groups.values().next_back().filter(|g| wants(prefs, g.sequence));
                latest.cloned().into_iter().collect()
            }
            Start::Group(_) => wanted.collect(),
            Start::Fresh { .. } => {
                let budget = Duration::from_millis(prefs.max_age_ms.min(max_age_ms));
                let fresh = |g: &Arc<GroupLog>| g.superseded().is_none_or(|at| at.elapsed() <= budget);
                wanted.filter(fresh).collect()
            }
        }
    }
}

fn wants(prefs: &Prefs, sequence: u64) -> bool {
    prefs.start.floor().is_none_or(|floor| sequence >= floor) && prefs.end.is_none_or(|end| sequence <= end)
}

/// Wanted frames of a wanted group.
fn span(prefs: &Prefs, sequence: u64) -> FrameSpan {
    FrameSpan {
        first: if prefs.start.floor() == Some(sequence) { prefs.start_frame } else { 0 },
        last: prefs.end_frame.filter(|_| prefs.end == Some(sequence)),
    }
}

/// Frames of a group that only the new preferences want: all, or those after the old end.
fn newly_wanted(old: &Prefs, new: &Prefs, sequence: u64) -> Option<FrameSpan> {
    let span_now = span(new, sequence);
    if !wants(old, sequence) {
        return wants(new, sequence).then_some(span_now);
    }
    let old_last = span(old, sequence).last?;
    let more = wants(new, sequence) && span_now.last.is_none_or(|last| last > old_last);
    more.then(|| FrameSpan { first: old_last.saturating_add(1), ..span_now })
}

/// Creates an unbounded queue for data of the application, which bounds it.
#[expect(clippy::disallowed_methods, reason = "fed by the application, never by the peer")]
fn queue<T>() -> (mpsc::UnboundedSender<T>, mpsc::UnboundedReceiver<T>) {
    mpsc::unbounded_channel()
}
