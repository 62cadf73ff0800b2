//! One log as the control plane sees it: who reads it, and where it comes from.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    time::Instant,
};

use relay_model::{Epoch, Hop, Hops, Path, Prefs, Route, SessionId, SubId, TrackName, Want, limits};
use smallvec::SmallVec;

use crate::{
    route::Publisher,
    union::{Bag, Union},
};

/// Where a log's groups come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// This session was told to open it and has not said that it ended.
    Open(SessionId),
    /// Its session went away, or it never had one; its publisher may come back until the deadline.
    Suspended,
    /// It ended. Who reads it may read on; nobody new comes.
    Over,
}

/// A created log that is not retired.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) path: Path,
    pub(crate) publisher: Publisher,
    pub(crate) track: TrackName,
    /// The session it was created for.
    pub(crate) asker: SessionId,
    pub(crate) upstream: Upstream,
    /// Chain of the route it is, or was last, read through; before the first, of the ghost it waits for.
    pub(crate) hops: Hops,
    /// Of the newest writer; 0 before the first.
    pub(crate) epoch: Epoch,
    /// When the linger ends: of an open log nobody reads, or of a suspended one.
    pub(crate) deadline: Option<Instant>,
    /// When its readers go over to another log of the track, if that still comes from the same writer.
    pub(crate) merge_at: Option<Instant>,
    /// What the upstream was last asked for.
    pub(crate) asked: (Prefs, Want),
    /// Who was asked for it lately, and when: each may have answered with another publisher's track.
    asked_of: SmallVec<[(SessionId, Instant); 1]>,
    /// Ordered, so that a session's own are found at once.
    readers: BTreeMap<Reader, Reading>,
    union: Union,
    /// Hops that a reader does not want its groups through.
    excluded: Bag<Hop>,
    /// Old groups that are waited for, and by whom. The writer of an open log has the order for each.
    pulls: BTreeMap<u64, BTreeSet<Reader>>,
}

/// A subscription, globally.
pub(crate) type Reader = (SessionId, SubId);

/// What one reader wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) prefs: Prefs,
    pub(crate) want: Want,
    /// Its session's own hop.
    pub(crate) exclude: Option<Hop>,
    /// The old group it waits for.
    pub(crate) pull: Option<u64>,
}

/// What a reader's wait for a group calls for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wait {
    /// The group it waited for before, if nobody waits for that any more.
    pub(crate) abandoned: Option<u64>,
    /// Whether nobody waited for the new one yet.
    pub(crate) first: bool,
}

impl Log {
    pub(crate) fn new(
        path: Path,
        publisher: Publisher,
        track: TrackName,
        hops: Hops,
        asker: SessionId,
    ) -> Self {
        Self {
            path,
            publisher,
            track,
            asker,
            upstream: Upstream::Suspended,
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

    /// `session` is asked for it now.
    pub(crate) fn ask_of(&mut self, session: SessionId, now: Instant) {
        self.asked_of.retain(|(before, at)| *before != session && is_fresh(*at, now));
        self.asked_of.push((session, now));
    }

    /// Who was asked so lately that the answer may have crossed a change of publisher.
    pub(crate) fn asked_lately(&self, now: Instant) -> impl Iterator<Item = SessionId> {
        self.asked_of.iter().filter(move |(_, at)| is_fresh(*at, now)).map(|(session, _)| *session)
    }

    /// The reader is new.
    pub(crate) fn add(&mut self, reader: Reader, prefs: Prefs, want: Want, exclude: Option<Hop>) {
        self.readers.insert(reader, Reading { prefs, want, exclude, pull: None });
        self.union.add(prefs, want);
        exclude.into_iter().for_each(|hop| self.excluded.add(hop));
    }

    /// Returns the group that nobody waits for any more.
    pub(crate) fn remove(&mut self, reader: Reader) -> Option<u64> {
        let reading = self.readers.remove(&reader)?;
        self.union.remove(reading.prefs, reading.want);
        reading.exclude.into_iter().for_each(|hop| self.excluded.remove(hop));
        reading.pull.filter(|group| self.stop_waiting(reader, *group))
    }

    pub(crate) fn update(&mut self, reader: Reader, prefs: Prefs) {
        if let Some(reading) = self.readers.get_mut(&reader) {
            self.union.remove(reading.prefs, reading.want);
            reading.prefs = prefs;
            self.union.add(prefs, reading.want);
        }
    }

    pub(crate) fn set_exclude(&mut self, reader: Reader, exclude: Option<Hop>) {
        if let Some(reading) = self.readers.get_mut(&reader) {
            reading.exclude.into_iter().for_each(|hop| self.excluded.remove(hop));
            reading.exclude = exclude;
            exclude.into_iter().for_each(|hop| self.excluded.add(hop));
        }
    }

    /// Notes that `reader` waits for `group`, and no longer for another. `None`: it does already, or
    /// does not read.
    pub(crate) fn wait(&mut self, reader: Reader, group: u64) -> Option<Wait> {
        let reading = self.readers.get_mut(&reader).filter(|reading| reading.pull != Some(group))?;
        let before = reading.pull.replace(group);
        let abandoned = before.filter(|group| self.stop_waiting(reader, *group));
        let waiting = self.pulls.entry(group);
        let first = matches!(waiting, btree_map::Entry::Vacant(_));
        waiting.or_default().insert(reader);
        Some(Wait { abandoned, first })
    }

    /// The wait for `group` is over for everybody. Returns whether anybody waited.
    pub(crate) fn pulled(&mut self, group: u64) -> bool {
        let Some(waiting) = self.pulls.remove(&group) else { return false };
        for reader in waiting {
            if let Some(reading) = self.readers.get_mut(&reader) {
                reading.pull = None;
            }
        }
        true
    }

    /// Nobody waits for anything any more.
    pub(crate) fn stop_pulls(&mut self) {
        for group in self.pulls().collect::<Vec<_>>() {
            self.pulled(group);
        }
    }

    /// The groups that are waited for.
    pub(crate) fn pulls(&self) -> impl ExactSizeIterator<Item = u64> {
        self.pulls.keys().copied()
    }

    /// One of the sessions that wait for `group`.
    pub(crate) fn waits_for(&self, group: u64) -> Option<SessionId> {
        self.pulls.get(&group)?.first().map(|(session, _)| *session)
    }

    pub(crate) fn readers(&self) -> impl ExactSizeIterator<Item = (&Reader, &Reading)> {
        self.readers.iter()
    }

    pub(crate) fn is_unread(&self) -> bool {
        self.readers.is_empty()
    }

    /// Whether `route` leads no reader back to itself.
    pub(crate) fn serves_through(&self, route: &Route) -> bool {
        let of_writer = (route.session, SubId(0))..=(route.session, SubId(u64::MAX));
        self.readers.range(of_writer).next().is_none()
            && !route.hops.iter().any(|hop| self.excluded.contains(*hop))
    }

    /// What a new upstream subscription must ask for.
    pub(crate) fn wanted(&self) -> (Prefs, Want) {
        self.union.live().map_or((Prefs::default(), Want::Info), |prefs| (prefs, Want::Live))
    }

    /// What the open upstream subscription must ask for. Groups that flow are not stopped for a
    /// reader of properties: it is a matter of moments.
    pub(crate) fn wanted_of_open(&self) -> (Prefs, Want) {
        match self.wanted() {
            (_, Want::Info) => self.asked,
            wanted => wanted,
        }
    }

    /// Returns whether it was the last who waited.
    fn stop_waiting(&mut self, reader: Reader, group: u64) -> bool {
        let Some(waiting) = self.pulls.get_mut(&group) else { return false };
        waiting.remove(&reader);
        let last = waiting.is_empty();
        if last {
            self.pulls.remove(&group);
        }
        last
    }

    /// Asserts that the summaries are those of the readers.
    pub(crate) fn check(&self) {
        let (mut union, mut excluded) = (Union::default(), Bag::default());
        let mut pulls: BTreeMap<u64, BTreeSet<Reader>> = BTreeMap::new();
        for (reader, reading) in &self.readers {
            union.add(reading.prefs, reading.want);
            reading.exclude.into_iter().for_each(|hop| excluded.add(hop));
            if let Some(group) = reading.pull {
                pulls.entry(group).or_default().insert(*reader);
            }
        }
        assert_eq!(union.live(), self.union.live());
        assert_eq!(excluded, self.excluded);
        assert_eq!(pulls, self.pulls, "a pull nobody waits for, or a wait without a pull");
    }
}

/// Whether what was asked at `at` may have crossed a change of publisher that is heard of only `now`.
fn is_fresh(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < limits::DOUBT
}
