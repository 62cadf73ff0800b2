//! Fan-out on one worker: a log is pulled once, under one lock, for all its local readers.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use relay_model::{LogId, SessionId, Start, StreamCode, SubId, TrackInfo, WorkerId};
use relay_store::{Feed, LogEnd, LogEntry, Lookup, Store};
use smallvec::SmallVec;

use crate::{dialect::ObjectFraming, encoded_group::LocalGroup, encoding_key::EncodingKey};

/// One subscription that reads a log on this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalReader {
    /// Session of the subscription.
    pub session: SessionId,
    /// Key of the subscription in that session.
    pub sub: SubId,
}

/// Events of one pull of a log, to be given to each reader.
#[derive(Debug, Default)]
pub struct Batch {
    /// Groups that opened, in arrival order.
    pub opened: SmallVec<[Rc<LocalGroup>; 2]>,
    /// Datagrams: group sequence, tick, payload.
    pub datagrams: Vec<(u64, i64, Bytes)>,
    /// Groups the publisher will not send: first, last, code.
    pub dropped: Vec<(u64, u64, u64)>,
    /// The track's properties, once known.
    pub info: Option<TrackInfo>,
    /// End of the track; nothing follows.
    pub end: Option<LogEnd>,
    /// Whether the log has more: pull again.
    pub more: bool,
}

/// Logs read on this worker, and their local readers.
#[derive(Debug)]
pub struct Fanout {
    worker: WorkerId,
    views: HashMap<LogId, LogView, foldhash::fast::RandomState>,
    watchers: Vec<SessionId>,
    entries: Vec<LogEntry>,
    due: Due,
}

/// Logs with groups that are still being read page by page.
type Due = Rc<RefCell<Vec<LogId>>>;

/// A worker's view of a log.
#[derive(Debug)]
pub(crate) struct LogView {
    feed: Feed,
    info: Option<TrackInfo>,
    end: Option<LogEnd>,
    /// Highest group seen.
    latest: Option<u64>,
    /// The latest group and those that still have readers, in arrival order.
    groups: SmallVec<[Rc<LocalGroup>; 4]>,
    /// Groups that readers brought from another log of the track, and that exist here as well.
    brought: Vec<Rc<LocalGroup>>,
    readers: Vec<LocalReader>,
    framings: SmallVec<[ObjectFraming; 2]>,
    /// Lanes being read from the log page by page, so that a group of very many frames does not delay others.
    loading: VecDeque<(Rc<LocalGroup>, EncodingKey)>,
    log: LogId,
    due: Due,
}

impl Fanout {
    /// An empty fan-out for `worker`.
    pub fn new(worker: WorkerId) -> Self {
        Self {
            worker,
            views: HashMap::default(),
            watchers: Vec::new(),
            entries: Vec::new(),
            due: Due::default(),
        }
    }

    /// Appends logs that must be pulled although they have not changed: groups of them are being read page by
    /// page.
    pub fn take_due(&mut self, out: &mut Vec<LogId>) {
        out.append(&mut self.due.borrow_mut());
    }

    /// Whether [`Self::take_due`] would return any.
    pub fn is_due(&self) -> bool {
        !self.due.borrow().is_empty()
    }

    /// Pulls the new entries of `log`, and a page of a group being read from it. `None`: the log has no local
    /// reader. Give the batch to all of [`Self::readers`], then pull again while [`Batch::more`].
    pub fn pull(&mut self, log: LogId, now: Instant) -> Option<Rc<Batch>> {
        let view = self.views.get_mut(&log)?;
        view.prune();
        self.entries.clear();
        let pulled = view.feed.pull(&mut self.entries);
        let mut batch = Batch { more: pulled.more, ..Batch::default() };
        if pulled.lagged {
            view.resync(now, &mut batch);
        }
        for entry in self.entries.drain(..) {
            view.apply(entry, now, &mut batch);
        }
        view.load_page(&mut self.entries);
        batch.more |= !view.loading.is_empty();
        Some(Rc::new(batch))
    }

    /// The local view of a log.
    pub(crate) fn log_view(&mut self, log: LogId) -> Option<&mut LogView> {
        self.views.get_mut(&log)
    }

    /// Adds a lane of `shape` to a group of a locally read log, filled as far as the log still holds it.
    pub(crate) fn add_encoding(&mut self, log: LogId, sequence: u64, key: EncodingKey, now: Instant) {
        if let Some(view) = self.views.get_mut(&log) {
            view.load(sequence, key, now);
        }
    }

    /// Appends the local readers of `log` to `out`.
    pub fn readers(&self, log: LogId, out: &mut Vec<LocalReader>) {
        if let Some(view) = self.views.get(&log) {
            out.extend_from_slice(&view.readers);
        }
    }

    /// Appends the sessions that watch announces to `out`.
    pub fn watchers(&self, out: &mut Vec<SessionId>) {
        out.extend_from_slice(&self.watchers);
    }

    /// Number of logs with a local reader.
    pub fn logs(&self) -> usize {
        self.views.len()
    }

    pub(crate) fn worker(&self) -> WorkerId {
        self.worker
    }

    pub(crate) fn watch(&mut self, session: SessionId) {
        if !self.watchers.contains(&session) {
            self.watchers.push(session);
        }
    }

    pub(crate) fn unwatch(&mut self, session: SessionId) {
        self.watchers.retain(|watcher| *watcher != session);
    }

    /// Registers `reader` for `log`. `None`: the log is gone.
    pub(crate) fn attach(
        &mut self,
        store: &Arc<Store>,
        log: LogId,
        reader: LocalReader,
        framing: ObjectFraming,
    ) -> Option<&mut LogView> {
        use std::collections::hash_map::Entry as Slot;
        let view = match self.views.entry(log) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => slot.insert(LogView::new(store, log, self.worker, &self.due)?),
        };
        view.readers.push(reader);
        if !view.framings.contains(&framing) {
            view.framings.push(framing);
        }
        Some(view)
    }

    pub(crate) fn detach(&mut self, log: LogId, reader: LocalReader) {
        if let Some(view) = self.views.get_mut(&log) {
            view.readers.retain(|other| *other != reader);
            if view.readers.is_empty() {
                self.views.remove(&log);
            }
        }
    }
}

impl LogView {
    fn new(store: &Arc<Store>, log: LogId, worker: WorkerId, due: &Due) -> Option<Self> {
        let (feed, head) = store.log(log)?.feed(worker);
        Some(Self {
            feed,
            info: head.info,
            end: head.end,
            latest: head.latest,
            groups: SmallVec::new(),
            brought: Vec::new(),
            readers: Vec::new(),
            framings: SmallVec::new(),
            loading: VecDeque::new(),
            log,
            due: due.clone(),
        })
    }

    pub(crate) fn info(&self) -> Option<TrackInfo> {
        self.info
    }

    pub(crate) fn end(&self) -> Option<LogEnd> {
        self.end
    }

    /// Held groups with which a subscription starts, ascending: only the latest, or all from a number on, or
    /// those at or above a floor within the age budget. Later groups arrive as log events.
    pub(crate) fn first_groups(&self, start: Start, max_age_ms: u64, now: Instant) -> Vec<u64> {
        let Some(latest) = self.latest else { return Vec::new() };
        let Some(floor) = start.floor() else { return vec![latest] };
        let budget = Duration::from_millis(max_age_ms);
        let is_fresh =
            |since: Option<Instant>| since.is_none_or(|since| now.saturating_duration_since(since) <= budget);
        let held = self.feed.head().groups.into_iter();
        let wanted = held.filter(|held| {
            !held.fetched
                && (floor..=latest).contains(&held.sequence)
                && (start == Start::Group(floor) || is_fresh(held.superseded))
        });
        wanted.map(|held| held.sequence).collect()
    }

    /// Whether `sequence` is the latest group.
    pub(crate) fn is_latest(&self, sequence: u64) -> bool {
        self.latest == Some(sequence)
    }

    /// Availability of a group in the log, from object `first` on.
    pub(crate) fn lookup(&self, sequence: u64, first: u64) -> Lookup {
        self.feed.lookup(sequence, first)
    }

    /// Returns a held group with a lane of `shape`, replayed from the store if necessary.
    pub(crate) fn load(&mut self, sequence: u64, key: EncodingKey, now: Instant) -> Option<Rc<LocalGroup>> {
        let known = self.find(sequence).cloned();
        if let Some(group) = known.as_ref().filter(|group| group.has_encoding(key)) {
            return Some(group.clone());
        }
        let mut entries = Vec::new();
        let next = self.feed.page(sequence, key.first, &mut entries)?.next;
        let group = known.unwrap_or_else(|| self.hold(LocalGroup::new(sequence), now));
        group.add_encoding(key);
        group.apply_page(key, &entries, next.is_some());
        if next.is_some() {
            self.load_later(&group, [key]);
        }
        Some(group)
    }

    /// Whether the rest of a group is here, or complete in the log.
    pub(crate) fn has_all(&self, group: &LocalGroup, key: EncodingKey) -> bool {
        group.has_ended(key) || self.feed.is_over(group.sequence())
    }

    /// Schedules lanes to be read by the next pulls.
    fn load_later(&mut self, group: &Rc<LocalGroup>, keys: impl IntoIterator<Item = EncodingKey>) {
        let was_empty = self.loading.is_empty();
        self.loading.extend(keys.into_iter().map(|key| (group.clone(), key)));
        if was_empty && !self.loading.is_empty() {
            self.due.borrow_mut().push(self.log);
        }
    }

    /// Reads a page of the next lane being loaded; the lanes take turns.
    fn load_page(&mut self, entries: &mut Vec<LogEntry>) {
        let Some((group, key)) = self.loading.pop_front() else { return };
        let Some(from) = group.loads_from(key) else { return };
        entries.clear();
        match self.feed.page(group.sequence(), from, entries) {
            Some(page) => {
                group.apply_page(key, entries, page.next.is_some());
                if page.next.is_some() {
                    self.loading.push_back((group, key));
                }
            }
            None => group.fail_encoding(key, StreamCode::EVICTED),
        }
        entries.clear();
    }

    /// Whether a held group came by FETCH, or is being fetched.
    pub(crate) fn is_fetched(&self, sequence: u64) -> bool {
        self.feed.head().groups.iter().any(|held| held.sequence == sequence && held.fetched)
    }

    /// Returns a group that is being fetched; its data arrives as log events. `None`: the group still arrives
    /// live, without the requested part.
    pub(crate) fn await_group(
        &mut self,
        sequence: u64,
        key: EncodingKey,
        now: Instant,
    ) -> Option<Rc<LocalGroup>> {
        let known = self.find(sequence).cloned();
        if known.as_ref().is_some_and(|group| !group.is_awaited() && !group.is_over()) {
            return None;
        }
        // A group cut short stays so for its readers; this is another one.
        self.groups.retain(|group| group.sequence() != sequence || group.is_awaited());
        let known = known.filter(|group| group.is_awaited());
        let group = known.unwrap_or_else(|| self.hold(LocalGroup::awaited(sequence), now));
        if !group.has_encoding(key) {
            group.add_encoding(key);
        }
        Some(group)
    }

    /// Updates a group that began in another log of the track with this log's data.
    pub(crate) fn catch_up(&self, group: &LocalGroup) -> bool {
        let mut entries = Vec::new();
        let is_held = self.feed.group_from(group.sequence(), group.wanted_from(), &mut entries);
        entries.iter().for_each(|entry| group.apply(entry));
        is_held
    }

    /// Adopts a partly sent group of a reader that moves here from another log of the track: it continues with
    /// this log's data. If that is not held here, the group is reset.
    pub(crate) fn adopt(&mut self, group: &Rc<LocalGroup>, now: Instant) {
        let is_known = self.groups.iter().chain(&self.brought).any(|held| Rc::ptr_eq(held, group));
        if is_known {
            return;
        }
        match self.lookup(group.sequence(), 0) {
            _ if self.catch_up(group) => {}
            Lookup::Absent(code) => return group.fail(code),
            _ if group.is_awaited() => {}
            _ => return group.fail(StreamCode::EVICTED),
        }
        // Lanes that were still being loaded from the previous log.
        self.load_later(group, group.loading());
        match self.find(group.sequence()) {
            Some(_) => self.brought.push(group.clone()),
            None => drop(self.hold(group.clone(), now)),
        }
    }

    /// Adds a group that was not opened by a log event.
    fn hold(&mut self, group: Rc<LocalGroup>, now: Instant) -> Rc<LocalGroup> {
        if self.latest.is_some_and(|latest| group.sequence() < latest) {
            group.supersede(now);
        }
        self.groups.push(group.clone());
        group
    }

    /// Drops groups without readers, except the latest.
    fn prune(&mut self) {
        let latest = self.latest;
        self.groups.retain(|group| Rc::strong_count(group) > 1 || Some(group.sequence()) == latest);
        self.brought.retain(|group| Rc::strong_count(group) > 1);
    }

    fn apply(&mut self, entry: LogEntry, now: Instant, batch: &mut Batch) {
        match entry {
            LogEntry::Info(info) => {
                self.info = Some(info);
                batch.info = Some(info);
            }
            LogEntry::Group { sequence } => self.open(sequence, now, batch),
            LogEntry::Object { group, .. }
            | LogEntry::Data { group, .. }
            | LogEntry::Finish { group, .. }
            | LogEntry::Reset { group, .. } => {
                if let Some(held) = self.find(group) {
                    held.apply(&entry);
                }
                self.brought
                    .iter()
                    .filter(|held| held.sequence() == group)
                    .for_each(|held| held.apply(&entry));
            }
            LogEntry::Evicted { group } => {
                // An awaited group replaces the evicted one.
                if self.find(group).is_some_and(|held| !held.is_awaited()) {
                    self.drop_group(group, StreamCode::EVICTED);
                }
            }
            LogEntry::Absent { group, code } => {
                if self.find(group).is_some_and(|held| held.is_awaited()) {
                    self.drop_group(group, code);
                }
            }
            LogEntry::Datagram { group, tick, payload } => batch.datagrams.push((group, tick, payload)),
            LogEntry::Dropped { start, end, code } => batch.dropped.push((start, end, code)),
            LogEntry::End(end) => {
                self.end = Some(end);
                batch.end = Some(end);
                let code = end.code.unwrap_or(StreamCode::NOT_FOUND);
                let held = self.groups.iter().chain(&self.brought);
                held.filter(|group| group.is_awaited()).for_each(|group| group.fail(code));
            }
        }
    }

    fn drop_group(&mut self, sequence: u64, code: StreamCode) {
        let held = self.groups.iter().chain(&self.brought);
        held.filter(|held| held.sequence() == sequence).for_each(|held| held.fail(code));
        self.groups.retain(|held| held.sequence() != sequence);
        self.brought.retain(|held| held.sequence() != sequence);
    }

    fn find(&self, sequence: u64) -> Option<&Rc<LocalGroup>> {
        self.groups.iter().rev().find(|group| group.sequence() == sequence)
    }

    fn open(&mut self, sequence: u64, now: Instant, batch: &mut Batch) {
        if let Some(group) = self.find(sequence) {
            for key in self.framings.iter().map(|framing| EncodingKey::whole(*framing)) {
                if !group.has_encoding(key) {
                    group.add_encoding(key);
                }
            }
            batch.opened.push(group.clone());
            return;
        }
        let group = LocalGroup::new(sequence);
        for framing in &self.framings {
            group.add_encoding(EncodingKey::whole(*framing));
        }
        if self.latest.is_some_and(|latest| sequence < latest) {
            group.supersede(now);
        } else {
            self.groups.iter().chain(&self.brought).for_each(|older| older.supersede(now));
            self.latest = Some(sequence);
        }
        self.groups.push(group.clone());
        batch.opened.push(group);
    }

    /// Re-reads the held groups from the index after the journal was trimmed past this feed. Lanes skip data
    /// they have; groups that are gone are dropped.
    fn resync(&mut self, now: Instant, batch: &mut Batch) {
        let head = self.feed.head();
        let mut entries = Vec::new();
        for group in std::mem::take(&mut self.groups) {
            entries.clear();
            if !group.is_awaited() {
                let keys = group.begin_loading();
                self.load_later(&group, keys);
                self.groups.push(group);
            } else if self.feed.group(group.sequence(), &mut entries) {
                entries.iter().for_each(|entry| group.apply(entry));
                self.groups.push(group);
            } else if group.is_awaited() && self.feed.lookup(group.sequence(), 0) == Lookup::Unknown {
                self.groups.push(group);
            } else {
                group.fail(StreamCode::EVICTED);
            }
        }
        for group in std::mem::take(&mut self.brought) {
            if self.catch_up(&group) || group.is_awaited() {
                self.brought.push(group);
            } else {
                group.fail(StreamCode::EVICTED);
            }
        }
        let newer: Vec<u64> = head
            .groups
            .into_iter()
            .filter(|held| !held.fetched && self.latest.is_none_or(|latest| held.sequence > latest))
            .map(|held| held.sequence)
            .collect();
        for sequence in newer {
            self.open(sequence, now, batch);
            if let Some(group) = self.find(sequence).cloned() {
                let keys = group.begin_loading();
                self.load_later(&group, keys);
            }
        }
        if self.info.is_none() && head.info.is_some() {
            self.info = head.info;
            batch.info = head.info;
        }
    }
}
