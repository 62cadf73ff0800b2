//! Data of a publisher on its way to a log: objects are appended piece by piece.
//!
//! A dialect drives it, in this order: [`Ingest::open`], then for each object [`Ingest::object`] and
//! [`Ingest::piece`]s, then [`Ingest::finish`] or [`Ingest::reset`].

use std::sync::Arc;

use bytes::Bytes;
use relay_meter::Worker as Meter;
use relay_model::{LogId, StreamCode};
use relay_store::{Budget, ObjectHead, Writer};

/// A partial frame is appended at this many bytes, at its end, or after the hold time.
pub(crate) const PIECE: usize = 8 * 1024;
/// Largest piece, bytes, so that one allocation never pins more.
const CHUNK: usize = 64 * 1024;
/// First allocation for a frame whose payload arrives in parts. Bytes.
const FIRST: usize = 2 * 1024;

/// Header of a group stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupOpen {
    /// Subscription to which it belongs, as numbered by the relay.
    pub(crate) alias: u64,
    pub(crate) group: u64,
    pub(crate) subgroup: u64,
    /// Id of the first object.
    pub(crate) first: u64,
}

/// Log, group and strand to which a stream is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AppendTarget {
    pub(crate) log: LogId,
    pub(crate) sequence: u64,
    /// The subgroup, or [`relay_store::FETCHED`].
    pub(crate) strand: u64,
}

/// A group being received.
#[derive(Debug)]
pub(crate) struct Ingest {
    /// Known once the group header has been read.
    target: Option<AppendTarget>,
    /// Whether the group has been opened in the log.
    has_begun: bool,
    object: Option<PartialFrame>,
    staged: Vec<u8>,
}

#[derive(Debug)]
struct PartialFrame {
    size: u64,
    received: u64,
    /// Taken when it is appended.
    head: Option<ObjectHead>,
}

impl Ingest {
    /// A stream whose header has not been read.
    pub(crate) fn new() -> Self {
        Self { target: None, has_begun: false, object: None, staged: Vec::new() }
    }

    /// A stream without a header: the response to a FETCH.
    pub(crate) fn fetched(target: AppendTarget) -> Self {
        Self { target: Some(target), ..Self::new() }
    }

    /// Log, group and strand, once known.
    pub(crate) fn target(&self) -> Option<AppendTarget> {
        self.target
    }

    /// Whether the group has been opened in the log.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Sets the target: the group has been opened in the log.
    pub(crate) fn open(&mut self, target: AppendTarget) {
        self.target = Some(target);
        self.has_begun = true;
    }

    /// Starts an object.
    pub(crate) fn object(
        &mut self,
        head: ObjectHead,
        writer: &mut Writer,
        budget: &Arc<Budget>,
        meter: &mut Meter,
    ) {
        meter.frames_in += 1;
        let size = head.size;
        self.object = Some(PartialFrame { size, received: 0, head: Some(head) });
        if size == 0 {
            self.flush(writer, budget);
        }
    }

    /// Adds payload of the current object.
    pub(crate) fn piece(
        &mut self,
        bytes: &Bytes,
        writer: &mut Writer,
        budget: &Arc<Budget>,
        meter: &mut Meter,
    ) {
        let Some(object) = &mut self.object else { return };
        meter.payload_in += bytes.len() as u64;
        object.received = object.received.saturating_add(bytes.len() as u64);
        let complete = object.received >= object.size;
        if self.staged.capacity() - self.staged.len() < bytes.len() {
            let rest = usize::try_from(object.size.saturating_sub(object.received)).unwrap_or(usize::MAX);
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
        let (Some(target), Some(object)) = (self.target, &mut self.object) else { return };
        let mut staged = std::mem::take(&mut self.staged);
        if staged.capacity() - staged.len() > staged.len() / 4 {
            staged.shrink_to_fit();
        }
        let piece = if staged.is_empty() { Bytes::new() } else { budget.chunk(staged) };
        if let Some(head) = object.head.take() {
            writer.object(target.sequence, target.strand, head, piece);
        } else if !piece.is_empty() {
            writer.data(target.sequence, target.strand, piece);
        }
        if object.received >= object.size {
            self.object = None;
        }
    }

    /// Finishes the group: all of it was received.
    pub(crate) fn finish(&mut self, writer: &mut Writer) {
        if let Some(target) = self.target {
            writer.finish(target.sequence, target.strand);
        }
    }

    /// Resets the group: its stream was cut short.
    pub(crate) fn reset(&mut self, writer: &mut Writer, budget: &Arc<Budget>, code: StreamCode) {
        if let Some(target) = self.target {
            self.flush(writer, budget);
            writer.reset(target.sequence, target.strand, code);
        }
    }
}
