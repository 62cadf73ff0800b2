//! Control-plane state of one log: its readers and its upstream.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    time::Instant,
};

use relay_model::{Epoch, Hop, Hops, Prefs, Route, SessionId, SubId, Want, limits};
use smallvec::SmallVec;

use crate::{
    publisher::TrackKey,
    union::{Bag, Union},
};

/// Source of a log's groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogUpstream {
    /// This session was ordered to open it and has not reported its end.
    Open(SessionId),
    /// No writer (yet, or any more); its publisher may come back until the deadline.
    Suspended,
    /// Ended. Its readers may read on; it gets no new ones.
    Over,
}

impl LogUpstream {
    /// Writer of an open log.
    pub(crate) fn writer(self) -> Option<SessionId> {
        match self {
            Self::Open(writer) => Some(writer),
            Self::Suspended | Self::Over => None,
        }
    }
}

/// A created log that is not retired.
#[derive(Debug)]
pub(crate) struct CoreLog {
    pub(crate) key: TrackKey,
    /// The session it was created for.
    pub(crate) asker: SessionId,
    pub(crate) upstream: LogUpstream,
    /// Chain of its current or last route; before the first, of the stale route it waits for.
    pub(crate) hops: Hops,
    /// Epoch of the newest writer; 0 before the first.
    pub(crate) epoch: Epoch,
    /// End of the linger of an unread open log, or of a suspended one.
    pub(crate) deadline: Option<Instant>,
    /// Time when its readers move to another log of the track, if that log still has the same writer.
    pub(crate) merge_at: Option<Instant>,
    /// Demand of the last upstream request.
    pub(crate) asked: TrackDemand,
    /// Sessions asked for it recently, and when; each may have answered with another publisher's track.
    asked_of: SmallVec<[(SessionId, Instant); 1]>,
    /// Ordered, so that the readers of one session form a range.
    readers: BTreeMap<ReaderKey, ReaderState>,
    union: Union,
    /// Hops of readers: groups must not be received through them.
    excluded: Bag<Hop>,
    /// Old groups waited for, and their readers. The writer of an open log has an order for each.
    pulls: BTreeMap<u64, BTreeSet<ReaderKey>>,
}

/// Globally unique key of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReaderKey {
    pub(crate) session: SessionId,
    pub(crate) sub: SubId,
}

/// Request for the groups or the properties of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrackDemand {
    pub(crate) prefs: Prefs,
    pub(crate) want: Want,
}

/// State of one reader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReaderState {
    pub(crate) demand: TrackDemand,
    /// Hop id of the reader's session, which its route must not contain.
    pub(crate) exclude: Option<Hop>,
    /// Old group it waits for.
    pub(crate) pull: Option<u64>,
}

/// Effect of a reader's new wait for a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PullWait {
    /// Group it waited for before, if no reader waits for that any more.
    pub(crate) abandoned: Option<u64>,
    /// Whether it is the first reader to wait for the new group.
    pub(crate) first: bool,
}

impl CoreLog {
    pub(crate) fn new(key: TrackKey, hops: Hops, asker: SessionId) -> Self {
        Self {
            key,
            asker,
            upstream: LogUpstream::Suspended,
            hops,
            epoch: Epoch(0),
            deadline: None,
            merge_at: None,
            asked: TrackDemand::info(),
            asked_of: SmallVec::new(),
            readers: BTreeMap::new(),
            union: Union::default(),
            excluded: Bag::default(),
            pulls: BTreeMap::new(),
        }
    }

    /// Records that `session` is asked for the log at `now`.
    pub(crate) fn ask_of(&mut self, session: SessionId, now: Instant) {
        self.asked_of.retain(|(before, at)| *before != session && is_fresh(*at, now));
        self.asked_of.push((session, now));
    }

    /// Sessions asked so recently that the answer may have crossed a change of publisher.
    pub(crate) fn asked_lately(&self, now: Instant) -> impl Iterator<Item = SessionId> {
        self.asked_of.iter().filter(move |(_, at)| is_fresh(*at, now)).map(|(session, _)| *session)
    }

    /// Adds a new reader.
    pub(crate) fn add(&mut self, reader: ReaderKey, demand: TrackDemand, exclude: Option<Hop>) {
        self.readers.insert(reader, ReaderState { demand, exclude, pull: None });
        self.union.add(demand.prefs, demand.want);
        exclude.into_iter().for_each(|hop| self.excluded.add(hop));
    }

    /// Removes a reader. Returns its pulled group, if no other reader waits for that.
    pub(crate) fn remove(&mut self, reader: ReaderKey) -> Option<u64> {
        let state = self.readers.remove(&reader)?;
        self.union.remove(state.demand.prefs, state.demand.want);
        state.exclude.into_iter().for_each(|hop| self.excluded.remove(hop));
        state.pull.filter(|group| self.stop_waiting(reader, *group))
    }

    pub(crate) fn update(&mut self, reader: ReaderKey, prefs: Prefs) {
        if let Some(state) = self.readers.get_mut(&reader) {
            self.union.remove(state.demand.prefs, state.demand.want);
            state.demand.prefs = prefs;
            self.union.add(prefs, state.demand.want);
        }
    }

    pub(crate) fn set_exclude(&mut self, reader: ReaderKey, exclude: Option<Hop>) {
        if let Some(state) = self.readers.get_mut(&reader) {
            state.exclude.into_iter().for_each(|hop| self.excluded.remove(hop));
            state.exclude = exclude;
            exclude.into_iter().for_each(|hop| self.excluded.add(hop));
        }
    }

    /// Records that `reader` waits for `group`, in place of an earlier one. `None` if it already does, or is
    /// not a reader of this log.
    pub(crate) fn wait(&mut self, reader: ReaderKey, group: u64) -> Option<PullWait> {
        let state = self.readers.get_mut(&reader).filter(|state| state.pull != Some(group))?;
        let before = state.pull.replace(group);
        let abandoned = before.filter(|group| self.stop_waiting(reader, *group));
        let waiting = self.pulls.entry(group);
        let first = matches!(waiting, btree_map::Entry::Vacant(_));
        waiting.or_default().insert(reader);
        Some(PullWait { abandoned, first })
    }

    /// Ends the wait for `group` for all readers. Returns whether there were any.
    pub(crate) fn pulled(&mut self, group: u64) -> bool {
        let Some(waiting) = self.pulls.remove(&group) else { return false };
        for reader in waiting {
            if let Some(state) = self.readers.get_mut(&reader) {
                state.pull = None;
            }
        }
        true
    }

    /// Ends all waits.
    pub(crate) fn stop_pulls(&mut self) {
        for group in self.pulls().collect::<Vec<_>>() {
            self.pulled(group);
        }
    }

    /// Groups that at least one reader waits for.
    pub(crate) fn pulls(&self) -> impl ExactSizeIterator<Item = u64> {
        self.pulls.keys().copied()
    }

    /// One of the sessions that wait for `group`.
    pub(crate) fn waits_for(&self, group: u64) -> Option<SessionId> {
        self.pulls.get(&group)?.first().map(|reader| reader.session)
    }

    pub(crate) fn readers(&self) -> impl ExactSizeIterator<Item = (&ReaderKey, &ReaderState)> {
        self.readers.iter()
    }

    pub(crate) fn is_unread(&self) -> bool {
        self.readers.is_empty()
    }

    /// Whether `route` serves no reader its own content (split horizon).
    pub(crate) fn serves_through(&self, route: &Route) -> bool {
        let of_writer = ReaderKey::first_of(route.session)..=ReaderKey::last_of(route.session);
        self.readers.range(of_writer).next().is_none()
            && !route.hops.iter().any(|hop| self.excluded.contains(*hop))
    }

    /// Demand that a new upstream subscription must carry.
    pub(crate) fn wanted(&self) -> TrackDemand {
        self.union.live().map_or(TrackDemand::info(), |prefs| TrackDemand { prefs, want: Want::Live })
    }

    /// Demand that the open upstream subscription must carry. It is not reduced to properties when
    /// only property readers are left, as those stay for moments only.
    pub(crate) fn wanted_of_open(&self) -> TrackDemand {
        Some(self.wanted()).filter(|wanted| wanted.want == Want::Live).unwrap_or(self.asked)
    }

    /// Removes one wait. Returns whether it was the last one for the group.
    fn stop_waiting(&mut self, reader: ReaderKey, group: u64) -> bool {
        let Some(waiting) = self.pulls.get_mut(&group) else { return false };
        waiting.remove(&reader);
        let last = waiting.is_empty();
        if last {
            self.pulls.remove(&group);
        }
        last
    }

    /// Asserts that the aggregates match the readers.
    pub(crate) fn check(&self) {
        let (mut union, mut excluded) = (Union::default(), Bag::default());
        let mut pulls: BTreeMap<u64, BTreeSet<ReaderKey>> = BTreeMap::new();
        for (reader, state) in &self.readers {
            union.add(state.demand.prefs, state.demand.want);
            state.exclude.into_iter().for_each(|hop| excluded.add(hop));
            if let Some(group) = state.pull {
                pulls.entry(group).or_default().insert(*reader);
            }
        }
        assert_eq!(union.live(), self.union.live());
        assert_eq!(excluded, self.excluded);
        assert_eq!(pulls, self.pulls, "pulls and waiting readers disagree");
    }
}

impl ReaderKey {
    fn first_of(session: SessionId) -> Self {
        Self { session, sub: SubId(0) }
    }

    fn last_of(session: SessionId) -> Self {
        Self { session, sub: SubId(u64::MAX) }
    }
}

impl TrackDemand {
    /// Properties only.
    pub(crate) fn info() -> Self {
        Self { prefs: Prefs::default(), want: Want::Info }
    }
}

/// Whether an answer to a request sent at `at` may have crossed a change of publisher received only `now`.
fn is_fresh(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < limits::OWNER_CHANGE_WINDOW
}
