//! One group on its way to one subscriber: a position in a shared lane, never a queue.

use std::rc::Rc;

use bytes::{Buf, Bytes};
use relay_meter::Worker as Meter;
use relay_model::{
    StreamCode,
    transport::{Stream, Transport, WriteError},
};
use smallvec::SmallVec;

use crate::{
    encoded_group::{EncodedPiece, EncodingEnd, LocalGroup},
    encoding_key::EncodingKey,
};

/// Handles copied out of a lane at a time.
const HANDLES: usize = 16;
/// Minimum charge of a handle to an allowance: writing it has a fixed cost, however small it is.
const HANDLE_BYTES: usize = 64;

/// Pieces below this size, in bytes, are joined where [`JOINED`] or more follow each other: QUIC finds the next byte
/// to send by walking the handles of a stream, and very many of them slow down the worker.
const SMALL: usize = 128;
/// Number of consecutive small pieces from which on they are joined.
const JOINED: usize = 8;
/// Largest joined handle, bytes.
const JOINED_BYTES: usize = 4 * 1024;

/// A group being sent on its own stream.
#[derive(Debug)]
pub(crate) struct GroupCursor {
    pub(crate) group: Rc<LocalGroup>,
    pub(crate) key: EncodingKey,
    pub(crate) stream: Option<Stream>,
    /// Unsent part of the stream's header.
    header: Bytes,
    piece: usize,
    offset: usize,
    sent: u64,
    /// Whether it waits for `Writable`.
    parked: bool,
    /// Whether its stream is in the index of open streams.
    is_indexed: bool,
}

/// State of a cursor after [`GroupCursor::advance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CursorStep {
    /// All available data has been written; the group continues.
    Idle,
    /// The byte allowance is used up.
    Spent,
    /// Finished or reset: drop the cursor.
    Done,
    /// The group ended before its stream could be opened: drop the cursor and report the group as dropped.
    Missed(StreamCode),
    /// The transport accepted less than offered: wait for `Room`.
    Short,
    /// The stream is blocked: wait for its `Writable`.
    Parked,
    /// No stream credit: wait for `Openable`.
    Unopened,
}

/// Result of one pass over a lane.
struct Gathered {
    /// Bytes gathered, header included.
    bytes: usize,
    /// Index after the last gathered piece.
    piece: usize,
    /// Number of frames that end in the gathered bytes.
    frames: u64,
    /// Whether the end of the lane was reached.
    is_all: bool,
    /// Whether the lane is finished.
    is_finished: bool,
}

impl Gathered {
    /// Adds a handle; returns the rest of `budget`.
    fn take(&mut self, bytes: Bytes, budget: usize, chunks: &mut SmallVec<[Bytes; HANDLES]>) -> usize {
        let left = budget.saturating_sub(bytes.len());
        self.bytes += bytes.len();
        chunks.push(bytes);
        left
    }
}

/// Number of small pieces at the front that together fit a joined handle.
fn small_run(pieces: &[EncodedPiece]) -> usize {
    let mut bytes = 0;
    let fits = |piece: &&EncodedPiece| {
        bytes += piece.bytes.len();
        piece.bytes.len() < SMALL && bytes <= JOINED_BYTES
    };
    pieces.iter().take_while(fits).count()
}

impl GroupCursor {
    pub(crate) fn new(group: Rc<LocalGroup>, key: EncodingKey) -> Self {
        Self {
            group,
            key,
            stream: None,
            header: Bytes::new(),
            piece: 0,
            offset: 0,
            sent: 0,
            parked: false,
            is_indexed: false,
        }
    }

    /// A cursor on an already open stream, without a header.
    pub(crate) fn on(stream: Stream, group: Rc<LocalGroup>, key: EncodingKey) -> Self {
        Self { stream: Some(stream), ..Self::new(group, key) }
    }

    /// Sets the stream opened for it; `header` is sent first.
    pub(crate) fn opened(&mut self, stream: Stream, header: Bytes) {
        self.stream = Some(stream);
        self.header = header;
    }

    /// Enters the stream in an index of those that stay open. Returns it once.
    #[inline]
    pub(crate) fn enter_index(&mut self) -> Option<Stream> {
        match std::mem::replace(&mut self.is_indexed, true) {
            true => None,
            false => self.stream,
        }
    }

    /// Stream that was entered in the index.
    #[inline]
    pub(crate) fn indexed(&self) -> Option<Stream> {
        self.stream.filter(|_| self.is_indexed)
    }

    pub(crate) fn unpark(&mut self) {
        self.parked = false;
    }

    /// Bytes available but not written.
    pub(crate) fn unsent(&self) -> u64 {
        self.group.with_encoding(self.key, |encoding| encoding.bytes().saturating_sub(self.sent)).unwrap_or(0)
    }

    /// Whether [`Self::advance`] could make progress now.
    pub(crate) fn is_runnable(&self) -> bool {
        !self.parked
            && (!self.header.is_empty()
                || self
                    .group
                    .with_encoding(self.key, |encoding| {
                        encoding.end().is_some() || self.piece < encoding.pieces().len()
                    })
                    .unwrap_or(true))
    }

    /// Resets the stream with `code`, if it is open.
    pub(crate) fn reset<T: Transport>(&self, t: &mut T, code: StreamCode) {
        if let Some(stream) = self.stream {
            t.reset(stream, code);
        }
    }

    /// Code of the group's end, if it was cut short.
    pub(crate) fn cut_short(&self) -> Option<StreamCode> {
        match self.group.with_encoding(self.key, |encoding| encoding.end()) {
            Some(Some(EncodingEnd::Reset(code))) => Some(code),
            Some(_) => None,
            None => Some(StreamCode::EVICTED),
        }
    }

    /// Writes available data, about `allowance` bytes at most (reduced by the bytes written, or by
    /// [`HANDLE_BYTES`] for each handle if that is more).
    pub(crate) fn advance<T: Transport>(
        &mut self,
        t: &mut T,
        meter: &mut Meter,
        allowance: &mut usize,
    ) -> CursorStep {
        if let Some(code) = self.cut_short() {
            self.reset(t, code);
            return if self.stream.is_some() { CursorStep::Done } else { CursorStep::Missed(code) };
        }
        let Some(stream) = self.stream else { return CursorStep::Unopened };
        if self.parked {
            return CursorStep::Parked;
        }
        loop {
            let mut chunks: SmallVec<[Bytes; HANDLES]> = SmallVec::new();
            let gathered = self.gather(*allowance, &mut chunks);
            let handles = chunks.len() * HANDLE_BYTES;
            if gathered.bytes > 0 {
                match t.write(stream, &mut chunks) {
                    Ok(taken) => {
                        if taken < gathered.bytes {
                            *allowance = allowance.saturating_sub(taken);
                            self.took(taken, meter);
                            return CursorStep::Short;
                        }
                        *allowance = allowance.saturating_sub(taken.max(handles));
                        self.took_all(&gathered, meter);
                    }
                    Err(WriteError::Blocked) => {
                        self.parked = true;
                        return CursorStep::Parked;
                    }
                    Err(WriteError::Stopped(code)) => {
                        t.reset(stream, code);
                        return CursorStep::Done;
                    }
                    Err(WriteError::Gone) => return CursorStep::Done,
                }
            }
            if gathered.is_all {
                if gathered.is_finished {
                    t.finish(stream);
                    return CursorStep::Done;
                }
                return CursorStep::Idle;
            }
            if *allowance == 0 {
                return CursorStep::Spent;
            }
        }
    }

    /// Advances past all gathered data, once it was written.
    fn took_all(&mut self, gathered: &Gathered, meter: &mut Meter) {
        let payload = (gathered.bytes - self.header.len()) as u64;
        self.header = Bytes::new();
        self.sent = self.sent.saturating_add(payload);
        self.piece = gathered.piece;
        self.offset = 0;
        meter.payload_out += payload;
        meter.deliveries += gathered.frames;
    }

    /// Copies the next handles out of the lane.
    fn gather(&self, allowance: usize, chunks: &mut SmallVec<[Bytes; HANDLES]>) -> Gathered {
        let mut gathered = Gathered {
            bytes: self.header.len(),
            piece: self.piece,
            frames: 0,
            is_all: false,
            is_finished: false,
        };
        if !self.header.is_empty() {
            chunks.push(self.header.clone());
        }
        self.group.with_encoding(self.key, |encoding| {
            let mut budget = allowance;
            let mut offset = self.offset;
            let mut pieces = encoding.pieces().get(self.piece..).unwrap_or_default();
            while let Some((piece, after)) = pieces.split_first()
                && chunks.len() < HANDLES
                && budget > 0
            {
                let (run, rest) = pieces.split_at(if offset == 0 && pieces.len() >= JOINED {
                    small_run(pieces)
                } else {
                    0
                });
                if run.len() >= JOINED {
                    let joined: Vec<u8> = run.iter().flat_map(|piece| &piece.bytes).copied().collect();
                    gathered.frames += run.iter().map(|piece| u64::from(piece.frames)).sum::<u64>();
                    gathered.piece += run.len();
                    pieces = rest;
                    budget = gathered.take(joined.into(), budget, chunks);
                    continue;
                }
                let rest = match offset {
                    0 => piece.bytes.clone(),
                    offset => piece.bytes.slice(offset.min(piece.bytes.len())..),
                };
                offset = 0;
                gathered.piece += 1;
                gathered.frames += u64::from(piece.frames);
                pieces = after;
                budget = gathered.take(rest, budget, chunks);
            }
            gathered.is_all = gathered.piece >= encoding.pieces().len();
            gathered.is_finished = encoding.end() == Some(EncodingEnd::Finished);
        });
        gathered
    }

    fn took(&mut self, taken: usize, meter: &mut Meter) {
        let header = taken.min(self.header.len());
        if header > 0 {
            self.header.advance(header);
        }
        let mut left = taken - header;
        self.sent = self.sent.saturating_add(left as u64);
        meter.payload_out += left as u64;
        self.group.with_encoding(self.key, |encoding| {
            while let Some(piece) = encoding.pieces().get(self.piece) {
                let rest = piece.bytes.len().saturating_sub(self.offset);
                if left < rest || left == 0 {
                    self.offset += left;
                    break;
                }
                left -= rest;
                self.offset = 0;
                self.piece += 1;
                meter.deliveries += u64::from(piece.frames);
            }
        });
    }
}

#[cfg(test)]
mod tests;
