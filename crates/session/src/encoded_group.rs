//! A group held by one worker: the bytes of its stream, encoded once per shape and shared by every
//! reader on the worker that requests that shape.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Instant,
};

use bytes::Bytes;
use relay_model::StreamCode;
use relay_store::{LogEntry, ObjectHead};
use smallvec::SmallVec;

use crate::{dialect::MediaEncoder, encoding_key::EncodingKey};

/// Frames up to this size, in bytes, are sent as one chunk, header and payload together: the send buffer scans
/// chunk by chunk, and a small copy is cheaper than a second handle.
const JOINED_FRAME: u64 = 1_200;

/// Bytes of small frames that are joined to one piece at most.
const TAIL: usize = 4 * 1024;
/// Capacity for the encoded head of a frame, bytes.
const HEAD: usize = 16;

/// A group held by a worker for its readers; cursors keep it alive.
#[derive(Debug)]
pub struct LocalGroup {
    sequence: u64,
    state: RefCell<LocalGroupState>,
    /// Whether it is not in the log yet, but requested from the publisher.
    awaited: Cell<bool>,
}

#[derive(Debug, Default)]
struct LocalGroupState {
    encodings: SmallVec<[EncodedGroup; 1]>,
    superseded: Option<Instant>,
    /// The last encoded stream header, with its version and alias: clients of one kind
    /// assign the same ids.
    header: Option<((MediaEncoder, u64), Bytes)>,
}

/// The bytes of one group in one shape, after the group header.
#[derive(Debug)]
pub(crate) struct EncodedGroup {
    key: EncodingKey,
    pieces: Vec<EncodedPiece>,
    /// Small frames since the last read, which become one piece: a piece of its own for each would cost more
    /// than the frame, here and in the send queue of every reader.
    tail: Vec<u8>,
    tail_frames: u32,
    bytes: u64,
    next_object: u64,
    /// Declared payload bytes of the last object.
    size: u64,
    /// Payload bytes of the last object that are in `pieces`.
    received: u64,
    tick: i64,
    end: Option<EncodingEnd>,
    /// Whether it is being read from the log page by page; log events are then not applied to it.
    is_loading: bool,
}

/// A run of a lane's bytes that readers send as one handle.
#[derive(Clone, Debug)]
pub(crate) struct EncodedPiece {
    /// Never empty.
    pub(crate) bytes: Bytes,
    /// Number of frames that end in it.
    pub(crate) frames: u32,
}

/// End of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EncodingEnd {
    /// Complete: the stream is finished after the last piece.
    Finished,
    /// Cut short: the stream is reset.
    Reset(StreamCode),
}

impl LocalGroup {
    pub(crate) fn new(sequence: u64) -> Rc<Self> {
        Rc::new(Self { sequence, state: RefCell::default(), awaited: Cell::new(false) })
    }

    /// A group that is being fetched, without any data yet.
    pub(crate) fn awaited(sequence: u64) -> Rc<Self> {
        let group = Self::new(sequence);
        group.awaited.set(true);
        group
    }

    /// Whether no data of it has arrived so far.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.get()
    }

    /// Sequence number in its track.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Time a later group opened, if one has.
    pub(crate) fn superseded(&self) -> Option<Instant> {
        self.state.borrow().superseded
    }

    pub(crate) fn supersede(&self, now: Instant) {
        self.state.borrow_mut().superseded.get_or_insert(now);
    }

    /// Header of its stream for the alias of a subscription: shared by readers of one version with the same id
    /// that receive the whole group.
    pub(crate) fn header(&self, encoder: MediaEncoder, alias: u64, make: impl FnOnce() -> Bytes) -> Bytes {
        let mut state = self.state.borrow_mut();
        match &state.header {
            Some((of, header)) if *of == (encoder, alias) => header.clone(),
            _ => state.header.insert(((encoder, alias), make())).1.clone(),
        }
    }

    pub(crate) fn has_encoding(&self, shape: EncodingKey) -> bool {
        self.state.borrow().encodings.iter().any(|encoding| encoding.key == shape)
    }

    /// Whether a lane has ended.
    pub(crate) fn has_ended(&self, shape: EncodingKey) -> bool {
        self.with_encoding(shape, |encoding| encoding.end().is_some()).unwrap_or(true)
    }

    /// Whether all lanes have ended.
    pub(crate) fn is_over(&self) -> bool {
        self.state.borrow().encodings.iter().all(|encoding| encoding.end().is_some())
    }

    /// Adds an empty lane, to be filled by [`Self::apply_page`] from a replay.
    pub(crate) fn add_encoding(&self, shape: EncodingKey) {
        self.state.borrow_mut().encodings.push(EncodedGroup::new(shape));
    }

    /// Applies an entry to every lane. What a lane already has is skipped.
    pub(crate) fn apply(&self, entry: &LogEntry) {
        let begins = !matches!(entry, LogEntry::Object { head, .. } if head.id > 0);
        if self.is_awaited() && (!begins || matches!(entry, LogEntry::Data { .. })) {
            // Data of an earlier stream that was cut short: a fetch begins at the first object.
            return;
        }
        self.awaited.set(false);
        for encoding in self.state.borrow_mut().encodings.iter_mut().filter(|encoding| !encoding.is_loading) {
            encoding.apply(entry);
        }
    }

    /// Applies a page of a replay to one lane; `is_loading`: more pages follow.
    pub(crate) fn apply_page(&self, shape: EncodingKey, entries: &[LogEntry], is_loading: bool) {
        if let Some(encoding) =
            self.state.borrow_mut().encodings.iter_mut().find(|encoding| encoding.key == shape)
        {
            entries.iter().for_each(|entry| encoding.apply(entry));
            encoding.is_loading = is_loading;
        }
    }

    /// Marks open lanes as to be read from the log, from their position on. Returns the shapes of those not
    /// marked before.
    pub(crate) fn begin_loading(&self) -> SmallVec<[EncodingKey; 1]> {
        let mut state = self.state.borrow_mut();
        let open =
            state.encodings.iter_mut().filter(|encoding| encoding.end.is_none() && !encoding.is_loading);
        open.map(|encoding| {
            encoding.is_loading = true;
            encoding.key
        })
        .collect()
    }

    /// Shapes of the lanes that are being read from a log.
    pub(crate) fn loading(&self) -> SmallVec<[EncodingKey; 1]> {
        let state = self.state.borrow();
        state.encodings.iter().filter(|encoding| encoding.is_loading).map(|encoding| encoding.key).collect()
    }

    /// Object from which a lane being read from a log continues; `None`: it is not being read, or has ended.
    pub(crate) fn loads_from(&self, shape: EncodingKey) -> Option<u64> {
        self.with_encoding(shape, |encoding| {
            (encoding.is_loading && encoding.end.is_none()).then(|| encoding.next_wanted())
        })?
    }

    /// First object that some open lane still needs.
    pub(crate) fn wanted_from(&self) -> u64 {
        let state = self.state.borrow();
        let open = state.encodings.iter().filter(|encoding| encoding.end.is_none());
        open.map(EncodedGroup::next_wanted).min().unwrap_or(0)
    }

    /// Resets one lane.
    pub(crate) fn fail_encoding(&self, shape: EncodingKey, code: StreamCode) {
        if let Some(encoding) =
            self.state.borrow_mut().encodings.iter_mut().find(|encoding| encoding.key == shape)
        {
            encoding.fail(code);
        }
    }

    /// Resets all lanes: their bytes are released at once, and their readers are reset.
    pub(crate) fn fail(&self, code: StreamCode) {
        self.awaited.set(false);
        for encoding in &mut self.state.borrow_mut().encodings {
            encoding.fail(code);
        }
    }

    /// Runs `read` on the lane of a shape.
    pub(crate) fn with_encoding<R>(
        &self,
        shape: EncodingKey,
        read: impl FnOnce(&EncodedGroup) -> R,
    ) -> Option<R> {
        let mut state = self.state.borrow_mut();
        let encoding = state.encodings.iter_mut().find(|encoding| encoding.key == shape)?;
        encoding.seal();
        Some(read(encoding))
    }
}

impl EncodedGroup {
    fn new(shape: EncodingKey) -> Self {
        Self {
            key: shape,
            pieces: Vec::new(),
            tail: Vec::new(),
            tail_frames: 0,
            bytes: 0,
            next_object: shape.first,
            size: 0,
            received: 0,
            tick: 0,
            end: None,
            is_loading: false,
        }
    }

    /// Pieces available at the last [`Self::seal`], in order.
    pub(crate) fn pieces(&self) -> &[EncodedPiece] {
        &self.pieces
    }

    /// Sum of the pieces' lengths, bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn end(&self) -> Option<EncodingEnd> {
        self.end
    }

    /// First object that is not complete.
    fn next_wanted(&self) -> u64 {
        let is_partial = self.next_object > self.key.first && self.received < self.size;
        self.next_object - u64::from(is_partial)
    }

    fn apply(&mut self, entry: &LogEntry) {
        if self.end.is_some() {
            return;
        }
        match entry {
            LogEntry::Object { head, payload, .. } => self.object(head, payload),
            LogEntry::Data { object, offset, payload, .. }
                if *object >= self.key.first && object.checked_add(1) == Some(self.next_object) =>
            {
                self.payload(*offset, payload);
            }
            LogEntry::Finish { .. } => self.end = Some(EncodingEnd::Finished),
            LogEntry::Reset { code, .. } => self.end = Some(EncodingEnd::Reset(*code)),
            _ => {}
        }
    }

    fn object(&mut self, head: &ObjectHead, payload: &Bytes) {
        if head.id < self.next_object {
            if head.id >= self.key.first && head.id.checked_add(1) == Some(self.next_object) {
                self.payload(0, payload);
            }
            return;
        }
        if head.id > self.next_object {
            // A stream cannot signal that its head is missing.
            self.end = Some(EncodingEnd::Reset(StreamCode::OLD));
            return;
        }
        if head.id > self.key.last {
            self.end = Some(EncodingEnd::Finished);
            return;
        }
        self.next_object = self.next_object.saturating_add(1);
        self.size = head.size;
        self.received = 0;
        let joined = head.size <= JOINED_FRAME && payload.len() as u64 == head.size;
        if joined {
            if self.tail.len() + payload.len() > TAIL {
                self.seal();
            }
            let mut tail = std::mem::take(&mut self.tail);
            tail.reserve(HEAD + payload.len());
            let before = tail.len();
            self.tick = self.key.framing.head(self.tick, head, &mut tail);
            tail.extend_from_slice(payload);
            self.bytes = self.bytes.saturating_add((tail.len() - before) as u64);
            self.tail = tail;
            self.tail_frames += 1;
            self.received = head.size;
        } else {
            let mut out = Vec::with_capacity(HEAD);
            self.tick = self.key.framing.head(self.tick, head, &mut out);
            self.push(out.into(), 0);
            self.push_payload(payload.clone());
        }
        self.end_at_last();
    }

    /// Cuts the lane short and drops its data.
    fn fail(&mut self, code: StreamCode) {
        (self.pieces, self.tail) = (Vec::new(), Vec::new());
        self.end = Some(EncodingEnd::Reset(code));
    }

    /// Makes a piece of the small frames since the last one.
    #[inline]
    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let bytes = std::mem::take(&mut self.tail).into();
            self.pieces.push(EncodedPiece { bytes, frames: std::mem::take(&mut self.tail_frames) });
        }
    }

    /// Payload of the last object from byte `offset` on; held bytes are skipped. Another log of
    /// the track may have different piece boundaries.
    fn payload(&mut self, offset: u64, payload: &Bytes) {
        let known = usize::try_from(self.received.saturating_sub(offset)).unwrap_or(usize::MAX);
        if offset > self.received {
            self.end = Some(EncodingEnd::Reset(StreamCode::INTERNAL));
        } else if known < payload.len() {
            self.push_payload(payload.slice(known..));
            self.end_at_last();
        }
    }

    /// Finishes the lane once the last requested object is complete.
    fn end_at_last(&mut self) {
        if self.received == self.size && self.next_object.checked_sub(1) == Some(self.key.last) {
            self.end = Some(EncodingEnd::Finished);
        }
    }

    fn push_payload(&mut self, payload: Bytes) {
        self.received = self.received.saturating_add(payload.len() as u64);
        self.push(payload, u32::from(self.received == self.size));
    }

    fn push(&mut self, bytes: Bytes, frames: u32) {
        if !bytes.is_empty() {
            self.seal();
            self.bytes = self.bytes.saturating_add(bytes.len() as u64);
            self.pieces.push(EncodedPiece { bytes, frames });
        }
    }
}

#[cfg(test)]
mod tests;
