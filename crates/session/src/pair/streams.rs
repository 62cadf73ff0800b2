//! The two halves of a stream, each at its own end.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes};
use relay_model::StreamCode;

/// A sending half, dropped once it was reset or fully acknowledged.
#[derive(Debug)]
pub(super) struct PairSendHalf {
    pub(super) priority: i32,
    /// Position among the streams of one priority, which take turns.
    pub(super) turn: u64,
    queue: VecDeque<Bytes>,
    unsent: u64,
    pub(super) written: u64,
    pub(super) acked: u64,
    /// The peer's credit: the limit of `written`.
    pub(super) limit: u64,
    fin: Fin,
    pub(super) stopped: Option<StreamCode>,
    /// Set when a write was refused: whether the valve was lifted at that time.
    pub(super) blocked: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fin {
    No,
    Queued,
    Sent,
    Acked,
}

impl PairSendHalf {
    pub(super) fn new(priority: i32, limit: u64) -> Self {
        Self {
            priority,
            turn: 0,
            queue: VecDeque::new(),
            unsent: 0,
            written: 0,
            acked: 0,
            limit,
            fin: Fin::No,
            stopped: None,
            blocked: None,
        }
    }

    /// Takes `fit` bytes off the front of `chunks`; the caller has checked that they exist.
    pub(super) fn take(&mut self, chunks: &mut [Bytes], fit: usize) {
        let mut left = fit;
        for chunk in chunks {
            let piece = chunk.split_to(chunk.len().min(left));
            left -= piece.len();
            if !piece.is_empty() {
                self.queue.push_back(piece);
            }
            if left == 0 {
                break;
            }
        }
        self.written += fit as u64;
        self.unsent += fit as u64;
    }

    pub(super) fn finish(&mut self) {
        if self.fin == Fin::No {
            self.fin = Fin::Queued;
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.fin != Fin::No
    }

    pub(super) fn has_output(&self) -> bool {
        self.unsent > 0 || self.fin == Fin::Queued
    }

    /// Returns the next packet: (offset, payload, is the last). Only call with pending output.
    pub(super) fn packet(&mut self, max: usize) -> (u64, Bytes, bool) {
        let offset = self.written - self.unsent;
        let mut payload = Vec::with_capacity(max.min(usize::try_from(self.unsent).unwrap_or(max)));
        while let Some(chunk) = self.queue.front_mut() {
            let piece = chunk.len().min(max - payload.len());
            payload.extend_from_slice(&chunk[..piece]);
            chunk.advance(piece);
            if !chunk.is_empty() {
                break;
            }
            self.queue.pop_front();
        }
        self.unsent -= payload.len() as u64;
        let last = self.unsent == 0 && self.fin == Fin::Queued;
        if last {
            self.fin = Fin::Sent;
        }
        (offset, payload.into(), last)
    }

    /// Counts acknowledged bytes. Returns whether the half is done.
    pub(super) fn on_ack(&mut self, bytes: u64, last: bool) -> bool {
        self.acked += bytes;
        if last {
            self.fin = Fin::Acked;
        }
        self.fin == Fin::Acked && self.acked == self.written
    }
}

/// A receiving half, dropped once its end was read or nothing more can arrive.
#[derive(Debug, Default)]
pub(super) struct PairRecvHalf {
    /// Pieces by offset; they never overlap, since nothing is sent twice.
    pieces: BTreeMap<u64, Bytes>,
    next: u64,
    /// Highest offset that arrived.
    highest: u64,
    size: Option<u64>,
    pub(super) reset: Option<StreamCode>,
    pub(super) stopped: bool,
    /// Whether `Readable` is owed: a read was blocked, or this end opened the stream and never read.
    pub(super) armed: bool,
    /// Bytes returned to the connection's credit for this stream.
    released: u64,
    /// Credit announced to the peer.
    pub(super) announced: u64,
}

/// Result of a read.
pub(super) enum PairRead {
    Bytes(Bytes),
    End,
    Reset(StreamCode),
    Nothing,
}

impl PairRecvHalf {
    pub(super) fn new(window: u64) -> Self {
        Self { announced: window, ..Self::default() }
    }

    /// Stores received data. Returns whether a read would return something.
    pub(super) fn on_data(&mut self, offset: u64, payload: Bytes, last: bool) -> bool {
        let end = offset + payload.len() as u64;
        self.highest = self.highest.max(end);
        if last {
            self.size = Some(end);
        }
        if !self.stopped && self.reset.is_none() && !payload.is_empty() {
            self.pieces.insert(offset, payload);
        }
        self.pieces.contains_key(&self.next) || self.size == Some(self.next)
    }

    pub(super) fn on_reset(&mut self, code: StreamCode, size: u64) {
        self.pieces.clear();
        self.highest = size;
        self.size = Some(size);
        self.reset = Some(code);
    }

    pub(super) fn read(&mut self, max: usize) -> PairRead {
        if let Some(code) = self.reset {
            return PairRead::Reset(code);
        }
        if let Some(mut piece) = self.pieces.remove(&self.next) {
            let taken = piece.split_to(piece.len().min(max));
            self.next += taken.len() as u64;
            if !piece.is_empty() {
                self.pieces.insert(self.next, piece);
            }
            return PairRead::Bytes(taken);
        }
        if self.size == Some(self.next) { PairRead::End } else { PairRead::Nothing }
    }

    pub(super) fn stop(&mut self) {
        self.pieces.clear();
        self.stopped = true;
    }

    /// Whether the final size of the stream is known, so that it need not be stopped.
    pub(super) fn size_known(&self) -> bool {
        self.size.is_some()
    }

    /// Credit limit for the peer; `None` when more would be useless.
    pub(super) fn limit(&self, window: u64) -> Option<u64> {
        (self.size.is_none() && !self.stopped).then(|| self.next.saturating_add(window))
    }

    /// Bytes to return to the connection's credit now: those read, or never to be read.
    pub(super) fn release(&mut self) -> u64 {
        let upto = if self.stopped || self.reset.is_some() { self.highest } else { self.next };
        let more = upto - self.released;
        self.released = upto;
        more
    }
}
