//! The rules once more, with no index, no journal and no sharing.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use relay_model::StreamCode;

use super::{MAX_AGE_MS, size};
use crate::WriteError;

/// What a writer stages.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Open(u64),
    /// The next object after those staged and held, or one `ahead` of it; complete, or as a first
    /// piece of `pieces`.
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
    /// More of the object staged last.
    Data {
        group: u64,
        len: u64,
    },
    Finish(u64),
    Reset(u64),
    Datagram(u64),
    Info(u64),
    /// What `Next` and `Again` came to.
    Object {
        group: u64,
        object: u64,
        size: u64,
        len: u64,
    },
    /// What `Data` came to.
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
}

#[derive(Debug, Default)]
pub(super) struct Naive {
    pub(super) latest: Option<u64>,
    pub(super) groups: BTreeMap<u64, Group>,
    pub(super) ended: bool,
    max_age_ms: Option<u64>,
    barred_below: u64,
    seated: Option<u64>,
}

impl Naive {
    /// Fills in ids and offsets, from what is staged and held, as a session would know them.
    pub(super) fn concrete(&self, staged: &[Step], step: Step) -> Option<Step> {
        let last = |wanted: u64| {
            let staged = staged.iter().rev().find_map(|step| match step {
                Step::Object { group, object, len, .. } if *group == wanted => Some((*object, *len)),
                Step::Piece { group, object, offset, len } if *group == wanted => {
                    Some((*object, offset + len))
                }
                _ => None,
            });
            staged.or_else(|| self.groups.get(&wanted)?.incoming)
        };
        Some(match step {
            Step::Next { group, ahead, pieces } => {
                let held = || self.groups.get(&group)?.objects.last().map(|(object, _)| *object);
                let object =
                    last(group).map(|(object, _)| object).or_else(held).map_or(0, |object| object + 1);
                let object = object + ahead / 4;
                let size = size(group, object);
                Step::Object {
                    group,
                    object,
                    size,
                    len: if pieces == 0 { size } else { size / (pieces + 1) },
                }
            }
            Step::Again { group, object } => {
                Step::Object { group, object, size: size(group, object), len: size(group, object) / 2 }
            }
            Step::Data { group, len } => {
                let (object, offset) = last(group)?;
                let left = size(group, object).saturating_sub(offset);
                let len = if len == 4 { len.max(left) } else { len.min(left) };
                (len > 0).then_some(Step::Piece { group, object, offset, len })?
            }
            other => other,
        })
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
        steps: impl Iterator<Item = Step>,
        now: Instant,
    ) -> Result<(), WriteError> {
        let steps: Vec<Step> = steps.collect();
        if self.seated != Some(epoch) {
            return Err(WriteError::Fenced);
        }
        for step in steps {
            self.apply(step, now);
        }
        let max_age = Duration::from_millis(self.max_age_ms.unwrap_or(MAX_AGE_MS).min(MAX_AGE_MS));
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

    fn apply(&mut self, step: Step, now: Instant) {
        if self.ended {
            return;
        }
        match step {
            Step::Info(ms) => {
                self.max_age_ms.get_or_insert(ms);
            }
            Step::Open(sequence) => self.open(sequence, now),
            Step::Object { group, object, len, .. } => self.held(group, |held| held.object(object, len)),
            Step::Piece { group, len, .. } => self.held(group, |held| held.piece(len)),
            Step::Finish(group) => self.held(group, Group::finish),
            Step::Reset(group) => self.held(group, |held| held.reset(StreamCode(70))),
            _ => {}
        }
    }

    fn held(&mut self, sequence: u64, change: impl FnOnce(&mut Group)) {
        if let Some(group) = self.groups.get_mut(&sequence) {
            change(group);
        }
    }

    fn open(&mut self, sequence: u64, now: Instant) {
        if self.latest.is_none_or(|latest| sequence > latest) {
            for (_, group) in self.groups.iter_mut() {
                group.superseded_at.get_or_insert(now);
                if group.state == State::Suspended {
                    group.reset(StreamCode::OLD);
                }
            }
            self.latest = Some(sequence);
        }
        let superseded_at = (self.latest != Some(sequence)).then_some(now);
        let group = self.groups.entry(sequence).or_insert(Group {
            sequence,
            state: State::Open,
            objects: Vec::new(),
            incoming: None,
            head_missing: false,
            superseded_at,
        });
        group.resume();
    }
}

impl Group {
    fn resume(&mut self) {
        if self.state == State::Suspended {
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
