//! Control-plane state of one log: its readers and its upstream.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    time::Instant,
};

use relay_model::{Epoch, Hop, Hops, Path, Prefs, Route, SessionId, SubId, TrackName, Want, limits};
use smallvec::SmallVec;

use crate::{
    route::PublisherId,
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

/// A created log that is not retired.
#[derive(Debug)]
pub(crate) struct CoreLog {
    pub(crate) path: Path,
    pub(crate) publisher: PublisherId,
    pub(crate) track: TrackName,
    /// The session it was created for.
    pub(crate) asker: SessionId,
    pub(crate) upstream: LogUpstream,
    /// Chain of its current or last route; before the first, of the ghost it waits for.
    pub(crate) hops: Hops,
    /// Epoch of the newest writer; 0 before the first.
    pub(crate) epoch: Epoch,
    /// End of the linger of an unread open log, or of a suspended one.
    pub(crate) deadline: Option<Instant>,
    /// Time when its readers move to another log of the track, if that log still has the same writer.
    pub(crate) merge_at: Option<Instant>,
    /// Preferences of the last upstream request.
    pub(crate) asked: (Prefs, Want),
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
pub(crate) type ReaderKey = (SessionId, SubId);

/// State of one reader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReaderState {
    pub(crate) prefs: Prefs,
    pub(crate) want: Want,
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
    pub(crate) fn new(
        path: Path,
        publisher: PublisherId,
        track: TrackName,
        hops: Hops,
        asker: SessionId,
    ) -> Self {
        Self {
            path,
            publisher,
            track,
            asker,
            upstream: LogUpstream::Suspended,
            hops,
            epoch: Epoch(0),
            deadline: None,
            merge_at: None,
            asked: (Prefs::default(), Want::Info),
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
    pub(crate) fn add(&mut self, reader: ReaderKey, prefs: Prefs, want: Want, exclude: Option<Hop>) {
        self.readers.insert(reader, ReaderState { prefs, want, exclude, pull: None });
        self.union.add(prefs, want);
        exclude.into_iter().for_each(|hop| self.excluded.add(hop));
    }

    /// Removes a reader. Returns its pulled group, if no other reader waits for that.
    pub(crate) fn remove(&mut self, reader: ReaderKey) -> Option<u64> {
        let reading = self.readers.remove(&reader)?;
        self.union.remove(reading.prefs, reading.want);
        reading.exclude.into_iter().for_each(|hop| self.excluded.remove(hop));
        reading.pull.filter(|group| self.stop_waiting(reader, *group))
    }

    pub(crate) fn update(&mut self, reader: ReaderKey, prefs: Prefs) {
        if let Some(reading) = self.readers.get_mut(&reader) {
            self.union.remove(reading.prefs, reading.want);
            reading.prefs = prefs;
            self.union.add(prefs, reading.want);
        }
    }

    pub(crate) fn set_exclude(&mut self, reader: ReaderKey, exclude: Option<Hop>) {
        if let Some(reading) = self.readers.get_mut(&reader) {
            reading.exclude.into_iter().for_each(|hop| self.excluded.remove(hop));
            reading.exclude = exclude;
            exclude.into_iter().for_each(|hop| self.excluded.add(hop));
        }
    }

    /// Records that `reader` waits for `group`, in place of an earlier one. `None` if it already does, or is
    /// not a reader of this log.
    pub(crate) fn wait(&mut self, reader: ReaderKey, group: u64) -> Option<PullWait> {
        let reading = self.readers.get_mut(&reader).filter(|reading| reading.pull != Some(group))?;
        let before = reading.pull.replace(group);
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
            if let Some(reading) = self.readers.get_mut(&reader) {
                reading.pull = None;
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
        self.pulls.get(&group)?.first().map(|(session, _)| *session)
    }

    pub(crate) fn readers(&self) -> impl ExactSizeIterator<Item = (&ReaderKey, &ReaderState)> {
        self.readers.iter()
    }

    pub(crate) fn is_unread(&self) -> bool {
        self.readers.is_empty()
    }

    /// Whether `route` serves no reader its own content (split horizon).
    pub(crate) fn serves_through(&self, route: &Route) -> bool {
        let of_writer = (route.session, SubId(0))..=(route.session, SubId(u64::MAX));
        self.readers.range(of_writer).next().is_none()
            && !route.hops.iter().any(|hop| self.excluded.contains(*hop))
    }

    /// Preferences that a new upstream subscription must request.
    pub(crate) fn wanted(&self) -> (Prefs, Want) {
        self.union.live().map_or((Prefs::default(), Want::Info), |prefs| (prefs, Want::Live))
    }

    /// Preferences that the open upstream subscription must request. It is not reduced to properties when
    /// only property readers are left, as those stay for moments only.
    pub(crate) fn wanted_of_open(&self) -> (Prefs, Want) {
        match self.wanted() {
            (_, Want::Info) => self.asked,
            wanted => wanted,
        }
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
        for (reader, reading) in &self.readers {
            union.add(reading.prefs, reading.want);
            reading.exclude.into_iter().for_each(|hop| excluded.add(hop));
            if let Some(group) = reading.pull {
                pulls.entry(group).or_default().insert(*reader);
            }
        }
        assert_eq!(union.live(), self.union.live());
        assert_eq!(excluded, self.excluded);
        assert_eq!(pulls, self.pulls, "pulls and waiting readers disagree");
    }
}

/// Whether an answer to a request sent at `at` may have crossed a change of publisher received only `now`.
fn is_fresh(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < limits::OWNER_CHANGE_WINDOW
}
