//! Appending to a log: staged over a turn, visible with one commit.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use relay_model::{Epoch, StreamCode, TrackInfo};

use crate::{
    bell::{Marks, Rings},
    entry::{End, Entry, ObjectHead},
    figures::Brought,
    group::{Group, Malformed},
    log::Log,
    state::State,
};

/// Why a commit had no effect, or ended the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A later writer holds the log, or it is retired. Nothing of this commit is visible.
    #[error("the log has a later writer")]
    Fenced,
    /// The track contradicted itself: the log has ended with
    /// [`StreamCode::MALFORMED_TRACK`]; what was staged before the contradiction is visible.
    #[error("the track contradicts itself")]
    Malformed,
}

/// The one who may append to a log, until a later epoch takes over.
///
/// Methods stage; nothing is visible before [`Writer::commit`]. Groups that the log does not hold
/// (evicted, or never opened) and strands that are over take nothing more, silently. Dropping the
/// writer discards what is staged and suspends the log: open strands wait for a later writer.
#[derive(Debug)]
pub struct Writer {
    log: Arc<Log>,
    epoch: Epoch,
    staged: Vec<Staged>,
    /// What is staged, in numbers.
    brought: Brought,
    /// What a commit unlinked; kept for its capacity.
    trash: Vec<Group>,
    marks: Marks,
}

#[derive(Debug)]
enum Staged {
    Info(TrackInfo),
    Open { group: u64, strand: u64, object: u64 },
    Fetched { group: u64 },
    Failed { group: u64, code: StreamCode, absent: bool },
    Object { group: u64, strand: u64, head: ObjectHead, payload: Bytes },
    Data { group: u64, strand: u64, payload: Bytes },
    Finish { group: u64, strand: u64 },
    Reset { group: u64, strand: u64, code: StreamCode },
    Pass(Entry),
    End(End),
}

impl Writer {
    pub(crate) fn new(log: Arc<Log>, epoch: Epoch) -> Self {
        Self {
            log,
            epoch,
            staged: Vec::new(),
            brought: Brought::default(),
            trash: Vec::new(),
            marks: Marks::new(),
        }
    }

    /// The log it writes to.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Its generation.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The track's properties. Only the first ones count.
    pub fn info(&mut self, info: TrackInfo) {
        self.staged.push(Staged::Info(info));
    }

    /// Opens a group and its strand 0, or continues them.
    pub fn open_group(&mut self, sequence: u64) {
        self.open_strand(sequence, 0);
    }

    /// As [`Writer::open_group`], of a stream that begins with object `object` of the group (moq-lite-06
    /// says so in GROUP). Where that is past the next one wanted, the strand is reset with
    /// [`StreamCode::OLD`]; where nothing of the group is held, its head is missing: it cannot be
    /// replayed from its beginning, and those who follow get it from that object on.
    pub fn open_group_at(&mut self, sequence: u64, object: u64) {
        self.staged.push(Staged::Open { group: sequence, strand: 0, object });
    }

    /// The answer to a FETCH of a group begins; its objects, end or reset follow with strand
    /// [`crate::FETCHED`], from object 0 on (what is held is skipped). The journal has those entries, as
    /// of strand 0, but not the group's opening; it is not the latest group and supersedes none, and its
    /// age counts from now. A group that is whole or comes live stays as it is, and the answer is
    /// skipped; one that was cut short or has lost its head is evicted first. Once a live stream of the
    /// group begins ([`Writer::open_group`]), the rest of the answer is skipped.
    pub fn fetched_group(&mut self, sequence: u64) {
        self.staged.push(Staged::Fetched { group: sequence });
    }

    /// The publisher says that it has no such group, which is remembered until the group comes (of the
    /// last 1,024 ranges of such groups). `code` is for those who wait.
    pub fn absent(&mut self, group: u64, code: StreamCode) {
        self.staged.push(Staged::Failed { group, code, absent: true });
    }

    /// A FETCH of a group came to nothing for another reason: those who wait are told, and the next one
    /// may ask again.
    pub fn fetch_failed(&mut self, group: u64, code: StreamCode) {
        self.staged.push(Staged::Failed { group, code, absent: false });
    }

    /// Opens one strand of a group that need not have a strand 0, or continues it. At most 64 a group.
    pub fn open_strand(&mut self, group: u64, strand: u64) {
        self.staged.push(Staged::Open { group, strand, object: 0 });
    }

    /// The strand's next object with the first of its payload (nothing, some or all of it). In a
    /// strand taken over from an earlier writer, what is held already is skipped.
    pub fn object(&mut self, group: u64, strand: u64, head: ObjectHead, first_piece: Bytes) {
        self.brought.frames += 1;
        self.brought.bytes += first_piece.len() as u64;
        self.staged.push(Staged::Object { group, strand, head, payload: first_piece });
    }

    /// More payload of the strand's last object.
    pub fn data(&mut self, group: u64, strand: u64, piece: Bytes) {
        if !piece.is_empty() {
            self.brought.bytes += piece.len() as u64;
            self.staged.push(Staged::Data { group, strand, payload: piece });
        }
    }

    /// The strand ended cleanly. If its last object is short of its declared size, this is a reset
    /// with [`StreamCode::WRONG_SIZE`].
    pub fn finish(&mut self, group: u64, strand: u64) {
        self.staged.push(Staged::Finish { group, strand });
    }

    /// The strand was interrupted.
    pub fn reset(&mut self, group: u64, strand: u64, code: StreamCode) {
        self.staged.push(Staged::Reset { group, strand, code });
    }

    /// An object of its own, for whoever follows now.
    pub fn datagram(&mut self, group: u64, tick: i64, payload: Bytes) {
        self.brought.frames += 1;
        self.brought.bytes += payload.len() as u64;
        self.staged.push(Staged::Pass(Entry::Datagram { group, tick, payload }));
    }

    /// Groups `start..=end_inclusive` will not be delivered; `code` as the publisher said it.
    pub fn dropped(&mut self, start: u64, end_inclusive: u64, code: u64) {
        self.staged.push(Staged::Pass(Entry::Dropped { start, end: end_inclusive, code }));
    }

    /// The last entry. Strands still open are reset with its code (a clean end: with
    /// [`StreamCode::CANCEL`]), so finish them first. Later appends are ignored.
    pub fn end(&mut self, end: End) {
        self.staged.push(Staged::End(end));
    }

    /// Whether anything is staged.
    pub fn is_dirty(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Makes what is staged visible, evicts, and collects whom to wake. One lock of the log. Either
    /// way nothing is staged afterwards.
    pub fn commit(&mut self, now: Instant, rings: &mut Rings) -> Result<(), WriteError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        let shared = &self.log.shared;
        shared.clock.advance(now);
        let brought = std::mem::take(&mut self.brought);
        let mut state = self.log.lock();
        if !state.seat.holds(self.epoch) {
            drop(state);
            self.staged.clear();
            return Err(WriteError::Fenced);
        }
        state.brought.add(brought);
        let before = state.journal.tail();
        let applied =
            self.staged.drain(..).try_for_each(|staged| staged.apply(&mut state, now, &mut self.trash));
        if applied.is_err() {
            state.end(End { final_group: None, code: Some(StreamCode::MALFORMED_TRACK) });
        }
        let excess = state.settle(now, shared.max_age, &shared.budget, &mut self.trash);
        state.announce(before, &self.log.flags, &mut self.marks, rings);
        drop(state);
        shared.bury(&mut self.trash);
        shared.post(&self.log.flags, &mut self.marks);
        if excess {
            self.log.sweep(rings);
        }
        applied.map_err(|Malformed| WriteError::Malformed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.log.lock();
        if state.seat.leave(self.epoch) {
            state.suspend();
        }
    }
}

impl Staged {
    fn apply(self, state: &mut State, now: Instant, trash: &mut Vec<Group>) -> Result<(), Malformed> {
        match self {
            Self::Info(info) => state.set_info(info),
            Self::Open { group, strand, object } => return state.open(group, strand, object, now, trash),
            Self::Fetched { group } => state.open_fetched(group, now, trash),
            Self::Failed { group, code, absent } => state.fetch_failed(group, code, absent),
            Self::Object { group, strand, head, payload } => {
                return state.change(group, |held| held.object(group, strand, head, payload));
            }
            Self::Data { group, strand, payload } => {
                return state.change(group, |held| Ok(held.data(group, strand, payload)));
            }
            Self::Finish { group, strand } => {
                return state.change(group, |held| held.finish(group, strand));
            }
            Self::Reset { group, strand, code } => {
                return state.change(group, |held| held.reset(group, strand, code));
            }
            Self::Pass(entry) => state.pass(entry),
            Self::End(end) => state.end(end),
        }
        Ok(())
    }
}
