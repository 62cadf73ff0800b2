//! One group stream from a publisher: bytes in, objects appended to the log piece by piece.

use std::sync::Arc;

use bytes::Bytes;
use relay_meter::Worker as Meter;
use relay_model::{LogId, StreamCode};
use relay_store::{Budget, ObjectHead, ObjectStatus, Writer};
use relay_wire::{
    DecodeError,
    lite::{self, FrameHead, GroupEvent, GroupReader},
};

/// A partial frame is appended at this many bytes, at its end, or after the hold time.
pub(crate) const PIECE: usize = 8 * 1024;
/// Largest piece, bytes, so that one allocation never pins more.
const CHUNK: usize = 64 * 1024;
/// First allocation for a frame whose payload arrives in parts. Bytes.
const FIRST: usize = 2 * 1024;

/// A group being received.
#[derive(Debug)]
pub(crate) struct Ingest {
    reader: GroupReader,
    /// Log and group it is appended to, once the group header has been read.
    pub(crate) target: Option<AppendTarget>,
    next_object: u64,
    /// Timestamp for frames of versions without timestamps: their arrival time.
    stamp: i64,
    /// Whether the group has been opened in the log.
    begun: bool,
    frame: Option<PartialFrame>,
    staged: Vec<u8>,
    /// Bytes read from the stream but not parsed when the work budget was spent.
    pub(crate) unparsed: Bytes,
    /// Whether a partial frame waits for the hold time.
    pub(crate) held: bool,
}

/// Log, group and strand a stream is appended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AppendTarget {
    pub(crate) log: LogId,
    pub(crate) sequence: u64,
    /// 0, or [`relay_store::FETCHED`].
    pub(crate) strand: u64,
}

#[derive(Clone, Copy, Debug)]
struct PartialFrame {
    id: u64,
    head: FrameHead,
    received: u64,
    /// Whether its header has been appended.
    begun: bool,
}

impl Ingest {
    /// A group stream, after its type.
    pub(crate) fn new(version: lite::Version) -> Self {
        Self::with(GroupReader::new(version), None)
    }

    /// The response to a FETCH: frames only.
    pub(crate) fn fetched(version: lite::Version, target: AppendTarget) -> Self {
        Self::with(GroupReader::frames(version), Some(target))
    }

    fn with(reader: GroupReader, target: Option<AppendTarget>) -> Self {
        Self {
            reader,
            target,
            next_object: 0,
            stamp: 0,
            begun: false,
            frame: None,
            staged: Vec::new(),
            unparsed: Bytes::new(),
            held: false,
        }
    }

    /// Next event in `input`; `None` when it is consumed.
    pub(crate) fn next(&mut self, input: &mut Bytes) -> Result<Option<GroupEvent>, DecodeError> {
        self.reader.next(input)
    }

    /// Whether the group has been opened in the log.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    pub(crate) fn set_begun(&mut self) {
        self.begun = true;
    }

    /// Sets the target and the first frame, once the group header was read.
    pub(crate) fn begin(&mut self, target: AppendTarget, first_frame: u64) {
        self.target = Some(target);
        self.begun = true;
        self.next_object = first_frame;
    }

    /// Sets the time in ms for frames without a timestamp.
    pub(crate) fn set_clock(&mut self, ms: i64) {
        self.stamp = ms;
    }

    /// Starts a frame.
    pub(crate) fn frame(
        &mut self,
        head: FrameHead,
        writer: &mut Writer,
        budget: &Arc<Budget>,
        meter: &mut Meter,
    ) {
        meter.frames_in += 1;
        self.frame = Some(PartialFrame { id: self.next_object, head, received: 0, begun: false });
        self.next_object = self.next_object.saturating_add(1);
        if head.size == 0 {
            self.flush(writer, budget);
        }
    }

    /// Adds payload of the current frame.
    pub(crate) fn payload(
        &mut self,
        bytes: &Bytes,
        writer: &mut Writer,
        budget: &Arc<Budget>,
        meter: &mut Meter,
    ) {
        let Some(frame) = &mut self.frame else { return };
        meter.payload_in += bytes.len() as u64;
        frame.received = frame.received.saturating_add(bytes.len() as u64);
        let complete = frame.received >= frame.head.size;
        if self.staged.capacity() - self.staged.len() < bytes.len() {
            let rest = usize::try_from(frame.head.size.saturating_sub(frame.received)).unwrap_or(usize::MAX);
            let ahead = if complete { 0 } else { rest.min(self.staged.len().max(FIRST)).min(CHUNK) };
            self.staged.reserve_exact(bytes.len() + ahead);
        }
        self.staged.extend_from_slice(bytes);
        if complete || self.staged.len() >= CHUNK {
            self.flush(writer, budget);
        }
    }

    /// Bytes received but not appended.
    pub(crate) fn staged(&self) -> usize {
        self.staged.len()
    }

    /// Appends the staged bytes to the log.
    pub(crate) fn flush(&mut self, writer: &mut Writer, budget: &Arc<Budget>) {
        self.held = false;
        let (Some(target), Some(frame)) = (self.target, &mut self.frame) else { return };
        let mut staged = std::mem::take(&mut self.staged);
        if staged.capacity() - staged.len() > staged.len() / 4 {
            staged.shrink_to_fit();
        }
        let piece = if staged.is_empty() { Bytes::new() } else { budget.chunk(staged) };
        if !frame.begun {
            frame.begun = true;
            let head = ObjectHead {
                id: frame.id,
                tick: Some(frame.head.tick.unwrap_or(self.stamp)),
                size: frame.head.size,
                status: ObjectStatus::Normal,
                properties: Bytes::new(),
            };
            writer.object(target.sequence, target.strand, head, piece);
        } else if !piece.is_empty() {
            writer.data(target.sequence, target.strand, piece);
        }
        if frame.received >= frame.head.size {
            self.frame = None;
        }
    }

    /// Finishes the group when the publisher finished the stream.
    pub(crate) fn finish(&mut self, writer: &mut Writer, budget: &Arc<Budget>) {
        let Some(target) = self.target else { return };
        if self.reader.at_boundary() {
            writer.finish(target.sequence, target.strand);
        } else {
            self.flush(writer, budget);
            writer.reset(target.sequence, target.strand, StreamCode::WRONG_SIZE);
        }
    }

    /// Resets the group after its stream was cut short.
    pub(crate) fn reset(&mut self, writer: &mut Writer, budget: &Arc<Budget>, code: StreamCode) {
        let Some(target) = self.target else { return };
        self.flush(writer, budget);
        writer.reset(target.sequence, target.strand, code);
    }
}
