//! Writer of a log: appends are staged over a turn and made visible with one commit.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use relay_model::{Epoch, StreamCode, TrackInfo};

use crate::{
    entry::{LogEnd, LogEntry, ObjectHead},
    group::{CachedGroup, Malformed},
    log::Log,
    ready_list::{Marks, WakeSet},
    state::LogState,
    stats::WriteTotals,
};

/// Error of a commit that had no effect, or ended the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A later writer holds the log, or the log is retired. Nothing of this commit is visible.
    #[error("log claimed by a later writer")]
    Fenced,
    /// The track is inconsistent: the log has ended with [`StreamCode::MALFORMED_TRACK`]; data staged before
    /// the error is visible.
    #[error("malformed track")]
    Malformed,
}

/// The only writer of a log, until a later epoch takes over.
///
/// Methods stage; nothing is visible before [`Writer::commit`]. Data for groups that the log does not hold
/// (evicted, or never opened) and for strands that are over is silently dropped. Dropping the writer discards
/// staged data and suspends the log: open strands wait for a later writer.
#[derive(Debug)]
pub struct Writer {
    log: Arc<Log>,
    epoch: Epoch,
    staged: Vec<Staged>,
    /// Totals of the staged data.
    brought: WriteTotals,
    /// Groups unlinked by a commit; kept for the allocation.
    evicted: Vec<CachedGroup>,
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
    Pass(LogEntry),
    End(LogEnd),
}

impl Log {
    /// Claims the log for the writer of `epoch`, which fences older writers and may continue their open
    /// strands. `None`: the epoch is fenced or already has a writer, or the log has ended.
    pub fn writer(self: &Arc<Self>, epoch: Epoch) -> Option<Writer> {
        let mut state = self.lock();
        if state.end.is_some() || !state.lease.claim(epoch) {
            return None;
        }
        state.suspend();
        drop(state);
        Some(Writer {
            log: Arc::clone(self),
            epoch,
            staged: Vec::new(),
            brought: WriteTotals::default(),
            evicted: Vec::new(),
            marks: Marks::new(),
        })
    }
}

impl Writer {
    /// The log written to.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Epoch of the writer.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Stages the track's properties. Only the first ones take effect.
    pub fn info(&mut self, info: TrackInfo) {
        self.staged.push(Staged::Info(info));
    }

    /// Opens a group and its strand 0, or continues them.
    pub fn open_group(&mut self, sequence: u64) {
        self.open_strand(sequence, 0);
    }

    /// Opens a group like [`Writer::open_group`], for a stream that begins with object `object` of the group
    /// (as given in GROUP by moq-lite-06). If that is past the next one wanted, the strand is reset with
    /// [`StreamCode::OLD`]; if nothing of the group is held, its head is missing: the group cannot be replayed
    /// from its beginning, and readers get it from that object on.
    pub fn open_group_at(&mut self, sequence: u64, object: u64) {
        self.staged.push(Staged::Open { group: sequence, strand: 0, object });
    }

    /// Opens the response to a FETCH of a group; its objects, end or reset follow with strand
    /// [`crate::FETCHED`], from object 0 on (held ones are skipped). The journal gets those entries, as of
    /// strand 0, but not the group's opening; the group is not the latest and supersedes none, and its age
    /// counts from now. A group that is whole or arrives live is kept, and the response is skipped; one that
    /// was cut short or has lost its head is evicted first. Once a live stream of the group begins
    /// ([`Writer::open_group`]), the rest of the response is skipped.
    pub fn fetched_group(&mut self, sequence: u64) {
        self.staged.push(Staged::Fetched { group: sequence });
    }

    /// Records the publisher's answer that it has no such group, until the group arrives (the last 1,024 ranges
    /// of such groups are kept). `code` goes to waiting readers.
    pub fn absent(&mut self, group: u64, code: StreamCode) {
        self.staged.push(Staged::Failed { group, code, absent: true });
    }

    /// Records that a FETCH of a group failed for another reason: waiting readers get `code`, and the group may
    /// be requested again.
    pub fn fetch_failed(&mut self, group: u64, code: StreamCode) {
        self.staged.push(Staged::Failed { group, code, absent: false });
    }

    /// Opens or continues one strand of a group, which need not have a strand 0. At most 64 strands per group.
    pub fn open_strand(&mut self, group: u64, strand: u64) {
        self.staged.push(Staged::Open { group, strand, object: 0 });
    }

    /// Stages the strand's next object with the first bytes of its payload (none, some or all). In a strand
    /// taken over from an earlier writer, data already held is skipped.
    pub fn object(&mut self, group: u64, strand: u64, head: ObjectHead, first_piece: Bytes) {
        self.brought.frames += 1;
        self.brought.bytes += first_piece.len() as u64;
        self.staged.push(Staged::Object { group, strand, head, payload: first_piece });
    }

    /// Stages more payload of the strand's last object.
    pub fn data(&mut self, group: u64, strand: u64, piece: Bytes) {
        if !piece.is_empty() {
            self.brought.bytes += piece.len() as u64;
            self.staged.push(Staged::Data { group, strand, payload: piece });
        }
    }

    /// Finishes the strand. If its last object is short of its declared size, this is a reset with
    /// [`StreamCode::WRONG_SIZE`].
    pub fn finish(&mut self, group: u64, strand: u64) {
        self.staged.push(Staged::Finish { group, strand });
    }

    /// Resets the strand.
    pub fn reset(&mut self, group: u64, strand: u64, code: StreamCode) {
        self.staged.push(Staged::Reset { group, strand, code });
    }

    /// Stages an object outside any stream, for current readers only.
    pub fn datagram(&mut self, group: u64, tick: i64, payload: Bytes) {
        self.brought.frames += 1;
        self.brought.bytes += payload.len() as u64;
        self.staged.push(Staged::Pass(LogEntry::Datagram { group, tick, payload }));
    }

    /// Records that groups `start..=end_inclusive` will not be delivered; `code` as received from the
    /// publisher.
    pub fn dropped(&mut self, start: u64, end_inclusive: u64, code: u64) {
        self.staged.push(Staged::Pass(LogEntry::Dropped { start, end: end_inclusive, code }));
    }

    /// Stages the end of the log. Strands still open are reset with its code (for a clean end with
    /// [`StreamCode::CANCEL`]), so finish them first. Later appends are ignored.
    pub fn end(&mut self, end: LogEnd) {
        self.staged.push(Staged::End(end));
    }

    /// Whether anything is staged.
    pub fn is_dirty(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Makes staged data visible, evicts, and adds the workers to wake to `wakes`. Takes the log's lock once.
    /// In either case nothing is staged afterwards.
    pub fn commit(&mut self, now: Instant, wakes: &mut WakeSet) -> Result<(), CommitError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        let shared = &self.log.shared;
        shared.clock.advance(now);
        let brought = std::mem::take(&mut self.brought);
        let mut state = self.log.lock();
        if !state.lease.holds(self.epoch) {
            drop(state);
            self.staged.clear();
            return Err(CommitError::Fenced);
        }
        state.brought.add(brought);
        let before = state.journal.tail();
        let applied =
            self.staged.drain(..).try_for_each(|staged| staged.apply(&mut state, now, &mut self.evicted));
        if applied.is_err() {
            state.end(LogEnd { final_group: None, code: Some(StreamCode::MALFORMED_TRACK) });
        }
        let excess = state.evict_excess(now, shared.max_age, &shared.budget, &mut self.evicted);
        state.announce(before, &self.log.flags, &mut self.marks, wakes);
        drop(state);
        shared.release_evicted(&mut self.evicted);
        shared.post(&self.log.flags, &mut self.marks);
        if excess {
            self.log.sweep(wakes);
        }
        applied.map_err(|Malformed| CommitError::Malformed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.log.lock();
        if state.lease.leave(self.epoch) {
            state.suspend();
        }
    }
}

impl Staged {
    fn apply(
        self,
        state: &mut LogState,
        now: Instant,
        evicted: &mut Vec<CachedGroup>,
    ) -> Result<(), Malformed> {
        match self {
            Self::Info(info) => state.set_info(info),
            Self::Open { group, strand, object } => return state.open(group, strand, object, now, evicted),
            Self::Fetched { group } => state.open_fetched(group, now, evicted),
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
