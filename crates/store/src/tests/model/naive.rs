//! Reference model of a log without index, journal or sharing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use relay_model::StreamCode;

use super::{MAX_AGE_MS, size};
use crate::{CommitError, Lookup, Resume};

/// Writer's stream of a group to which a step belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum From {
    Live,
    Fetch,
}

/// Last object begun by a writer's stream, and the number of its bytes sent.
pub(super) type Streams = HashMap<(From, u64), (u64, u64)>;

/// A step staged by a writer.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Open(u64),
    /// The next object after the staged and held ones, or one `ahead` of it; complete, or as a first piece of
    /// `pieces`.
    Next {
        group: u64,
        ahead: u64,
        pieces: u64,
    },
    /// An object that may be held already.
    Again {
        group: u64,
        object: u64,
    },
    /// More payload of the object staged last.
    Data {
        group: u64,
        len: u64,
    },
    Finish(u64),
    Reset(u64),
    Datagram(u64),
    Info(u64),
    /// The publisher has no such group.
    Absent(u64),
    /// A fetch failed otherwise.
    Failed(u64),
    /// Concrete form of `Next` and `Again`.
    Object {
        group: u64,
        object: u64,
        size: u64,
        len: u64,
    },
    /// Concrete form of `Data`.
    Piece {
        group: u64,
        object: u64,
        offset: u64,
        len: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Suspended,
    Finished,
    Reset(StreamCode),
}

#[derive(Debug)]
pub(super) struct Group {
    sequence: u64,
    pub(super) state: State,
    /// Object id and received bytes.
    pub(super) objects: Vec<(u64, u64)>,
    /// Object id and offset of the writer's stream.
    incoming: Option<(u64, u64)>,
    pub(super) head_missing: bool,
    superseded_at: Option<Instant>,
    fetched: bool,
}

#[derive(Debug, Default)]
pub(super) struct Naive {
    pub(super) latest: Option<u64>,
    pub(super) groups: BTreeMap<u64, Group>,
    pub(super) ended: bool,
    absent: BTreeSet<u64>,
    max_age_ms: Option<u64>,
    barred_below: u64,
    seated: Option<u64>,
}

impl Naive {
    /// Fills in ids and offsets as a session would know them: from its streams, or else from the log's resume
    /// point.
    pub(super) fn concrete(&self, streams: &mut Streams, from: From, step: Step) -> Option<Step> {
        let step = match step {
            Step::Next { group, ahead, pieces } => {
                let resumed = || self.groups.get(&group).filter(|_| from == From::Live).map(Group::wanted);
                let next = streams.get(&(from, group)).map(|(object, _)| object + 1);
                let object = next.or_else(resumed).unwrap_or(0) + ahead / 4;
                let size = size(group, object);
                let len = if pieces == 0 { size } else { size / (pieces + 1) };
                Step::Object { group, object, size, len }
            }
            Step::Again { group, object } => {
                Step::Object { group, object, size: size(group, object), len: size(group, object) / 2 }
            }
            Step::Data { group, len } => {
                let (object, offset) = *streams.get(&(from, group))?;
                let left = size(group, object).saturating_sub(offset);
                let len = if len == 4 { len.max(left) } else { len.min(left) };
                (len > 0).then_some(Step::Piece { group, object, offset, len })?
            }
            other => other,
        };
        match step {
            Step::Open(group) if from == From::Fetch => drop(streams.remove(&(from, group))),
            Step::Object { group, object, len, .. } => drop(streams.insert((from, group), (object, len))),
            Step::Piece { group, object, offset, len } => {
                streams.insert((from, group), (object, offset + len));
            }
            _ => {}
        }
        Some(step)
    }

    pub(super) fn claim(&mut self, epoch: u64) -> bool {
        if self.ended || epoch < self.barred_below {
            return false;
        }
        self.barred_below = epoch;
        self.seated = Some(epoch);
        self.suspend();
        true
    }

    pub(super) fn leave(&mut self, epoch: u64) {
        if self.seated == Some(epoch) {
            self.seated = None;
            self.suspend();
        }
    }

    pub(super) fn fence(&mut self, epoch: u64) {
        self.barred_below = epoch;
        self.seated = None;
        self.suspend();
    }

    pub(super) fn end(&mut self, code: StreamCode) {
        if !self.ended {
            self.ended = true;
            self.groups.values_mut().for_each(|group| group.reset(code));
        }
    }

    pub(super) fn commit(
        &mut self,
        epoch: u64,
        steps: impl Iterator<Item = (From, Step)>,
        now: Instant,
    ) -> Result<(), CommitError> {
        let steps: Vec<_> = steps.collect();
        if self.seated != Some(epoch) {
            return Err(CommitError::Fenced);
        }
        for (from, step) in steps {
            self.apply(from, step, now);
        }
        let max_age = Duration::from_millis(self.max_age_ms.unwrap_or(MAX_AGE_MS).min(MAX_AGE_MS));
        for group in self.groups.values_mut().filter(|group| group.fetched && group.state == State::Open) {
            group.superseded_at = group.superseded_at.map(|at| if now - at > max_age { now } else { at });
        }
        self.groups.retain(|_, group| group.superseded_at.is_none_or(|at| now - at <= max_age));
        Ok(())
    }

    fn suspend(&mut self) {
        for group in self.groups.values_mut().filter(|_| !self.ended) {
            group.incoming = None;
            if group.state == State::Open {
                group.state = State::Suspended;
            }
        }
    }

    fn apply(&mut self, from: From, step: Step, now: Instant) {
        if self.ended {
            return;
        }
        match step {
            Step::Info(ms) => {
                self.max_age_ms.get_or_insert(ms);
            }
            Step::Open(sequence) if from == From::Fetch => self.fetch(sequence, now),
            Step::Open(sequence) => self.open(sequence, now),
            Step::Object { group, object, len, .. } => {
                self.held(from, group, |held| held.object(object, len))
            }
            Step::Piece { group, len, .. } => self.held(from, group, |held| held.piece(len)),
            Step::Finish(group) => self.held(from, group, Group::finish),
            Step::Reset(group) => self.held(from, group, |held| held.reset(StreamCode(70))),
            Step::Absent(group) => drop(self.absent.insert(group)),
            _ => {}
        }
    }

    fn held(&mut self, from: From, sequence: u64, change: impl FnOnce(&mut Group)) {
        if let Some(group) = self.groups.get_mut(&sequence)
            && group.fetched == (from == From::Fetch)
            && !(group.fetched && group.state == State::Suspended)
        {
            change(group);
        }
    }

    /// Whether the held part is damaged for good, so that new data replaces it.
    fn is_damaged(&self, sequence: u64) -> bool {
        self.groups.get(&sequence).is_some_and(|group| {
            (group.fetched || group.is_over())
                && (group.head_missing || matches!(group.state, State::Reset(_)))
        })
    }

    fn fetch(&mut self, sequence: u64, now: Instant) {
        self.absent.remove(&sequence);
        let is_abandoned = |group: &Group| group.fetched && group.state == State::Suspended;
        if self.is_damaged(sequence) || self.groups.get(&sequence).is_some_and(is_abandoned) {
            self.groups.remove(&sequence);
        }
        let fresh = Group { fetched: true, superseded_at: Some(now), ..Group::new(sequence) };
        let group = self.groups.entry(sequence).or_insert(fresh);
        if group.fetched {
            group.incoming = None;
        }
    }

    fn open(&mut self, sequence: u64, now: Instant) {
        self.absent.remove(&sequence);
        if self.groups.get(&sequence).is_some_and(|group| group.fetched) && self.is_damaged(sequence) {
            self.groups.remove(&sequence);
        }
        if let Some(group) = self.groups.get_mut(&sequence).filter(|group| group.fetched) {
            group.fetched = false;
            group.incoming = None;
            group.state = if group.state == State::Suspended { State::Open } else { group.state };
            group.superseded_at = self.latest.is_some_and(|latest| sequence < latest).then_some(now);
        }
        if self.latest.is_none_or(|latest| sequence > latest) {
            for group in self.groups.values_mut().filter(|group| group.sequence != sequence) {
                group.superseded_at.get_or_insert(now);
                if group.state == State::Suspended {
                    group.reset(StreamCode::OLD);
                }
            }
            self.latest = Some(sequence);
        }
        let superseded_at = (self.latest != Some(sequence)).then_some(now);
        let group = self.groups.entry(sequence).or_insert(Group { superseded_at, ..Group::new(sequence) });
        group.resume();
    }

    pub(super) fn lookup(&self, sequence: u64, object: u64) -> Lookup {
        let held = self.groups.get(&sequence);
        if held.is_some_and(|group| group.serves(object)) {
            return Lookup::Held;
        }
        match held.map(|group| group.state) {
            _ if self.absent.contains(&sequence) => Lookup::Absent(StreamCode::NOT_FOUND),
            _ if !self.ended => Lookup::Unknown,
            Some(State::Reset(code)) => Lookup::Absent(code),
            None if self.latest.is_none_or(|latest| sequence > latest) => {
                Lookup::Absent(StreamCode::NOT_FOUND)
            }
            _ => Lookup::Absent(StreamCode::EVICTED),
        }
    }

    pub(super) fn resume(&self) -> Option<Resume> {
        let group = self.groups.get(&self.latest?)?;
        Some(Resume { group: group.sequence, object: group.wanted(), finished: group.is_over() })
    }
}

impl Group {
    fn new(sequence: u64) -> Self {
        Self {
            sequence,
            state: State::Open,
            objects: Vec::new(),
            incoming: None,
            head_missing: false,
            superseded_at: None,
            fetched: false,
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.state, State::Finished | State::Reset(_))
    }

    /// First object that is not held completely.
    fn wanted(&self) -> u64 {
        let last = self.objects.last();
        last.map_or(0, |(id, _)| if self.last_is_whole() { id + 1 } else { *id })
    }

    fn serves(&self, object: u64) -> bool {
        let first = self.objects.first().map_or(0, |(id, _)| *id);
        match self.state {
            State::Reset(_) => false,
            State::Suspended => !self.fetched && object >= first,
            State::Open | State::Finished => object >= first,
        }
    }

    fn resume(&mut self) {
        if self.state == State::Suspended && !self.fetched {
            self.state = State::Open;
        }
    }

    fn reset(&mut self, code: StreamCode) {
        if matches!(self.state, State::Open | State::Suspended) {
            self.state = State::Reset(code);
        }
    }

    fn object(&mut self, object: u64, len: u64) {
        self.resume();
        if self.state != State::Open {
            return;
        }
        if self.incoming.is_some_and(|(id, offset)| offset < size(self.sequence, id)) {
            return self.reset(StreamCode::WRONG_SIZE);
        }
        let last = self.objects.last().copied();
        if last.is_none_or(|(id, _)| object > id) {
            let follows = self.incoming.is_some() || last.is_none_or(|(id, _)| object == id + 1);
            if !self.last_is_whole() || !follows {
                self.head_missing = true;
                return self.reset(StreamCode::OLD);
            }
            self.head_missing |= last.is_none() && object > 0;
            self.objects.push((object, 0));
        }
        self.incoming = Some((object, 0));
        self.piece(len);
    }

    fn piece(&mut self, len: u64) {
        let Some((id, offset)) = self.incoming.as_mut().filter(|_| self.state == State::Open) else { return };
        if *offset + len > size(self.sequence, *id) {
            return self.reset(StreamCode::WRONG_SIZE);
        }
        *offset += len;
        if let Some((last, received)) = self.objects.last_mut()
            && last == id
        {
            *received = (*received).max(*offset);
        }
    }

    fn finish(&mut self) {
        self.resume();
        let last = self.objects.last().map(|(id, _)| *id);
        let at_last = self.incoming.is_none_or(|at| Some(at) == last.map(|id| (id, size(self.sequence, id))));
        if !self.last_is_whole() || !at_last {
            self.reset(StreamCode::WRONG_SIZE);
        } else if self.state == State::Open {
            self.state = State::Finished;
        }
    }

    fn last_is_whole(&self) -> bool {
        self.objects.last().is_none_or(|(id, received)| *received == size(self.sequence, *id))
    }
}
