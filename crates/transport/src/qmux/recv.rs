//! The receiving half of a stream.

use std::collections::VecDeque;

use bytes::Bytes;
use relay_model::StreamCode;

use super::{limits, violation::Violation};

/// Dropped when its end was read, or when it was stopped and nothing more can come.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    pieces: VecDeque<Bytes>,
    /// What came last, to which more may be added: so that many small frames cost no more room than a
    /// large one.
    tail: Vec<u8>,
    /// Bytes read.
    read: u64,
    /// Bytes received, or skipped by a reset: what counts against credit.
    pub(super) received: u64,
    is_whole: bool,
    reset: Option<StreamCode>,
    pub(super) is_stopped: bool,
    /// `Readable` is owed: a read found nothing.
    pub(super) is_armed: bool,
    /// What the connection's credit got back for this stream.
    released: u64,
    /// Credit announced to the peer, a position.
    pub(super) announced: u64,
    /// More credit is about to be announced.
    pub(super) is_due: bool,
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Bytes(Bytes),
    End,
    Reset(StreamCode),
    Nothing,
}

impl Receiving {
    /// `window`: bytes the peer may send before anything is read.
    pub(super) fn new(window: u64) -> Self {
        Self { announced: window, ..Self::default() }
    }

    /// Whether `size` more bytes may come. `offset` is told by newer peers only: a carrier loses nothing.
    pub(super) fn begin(&self, offset: Option<u64>, size: Option<u64>) -> Result<(), Violation> {
        if offset.is_some_and(|offset| offset != self.received) {
            return Err(Violation::protocol("stream data out of order"));
        }
        if self.received.saturating_add(size.unwrap_or(0)) > self.announced {
            return Err(Violation::flow("stream data past the credit of the stream"));
        }
        Ok(())
    }

    /// What came next. The caller checked the credit.
    pub(super) fn push(&mut self, bytes: &[u8], fin: bool) -> Result<(), Violation> {
        if self.is_ended() {
            // An end told again says nothing new.
            return if bytes.is_empty() {
                Ok(())
            } else {
                Err(Violation::size("stream data after the end of the stream"))
            };
        }
        self.received += bytes.len() as u64;
        self.is_whole |= fin;
        if self.is_stopped || bytes.is_empty() {
            return Ok(());
        }
        if !self.tail.is_empty() && self.tail.len() + bytes.len() > limits::PIECE_BYTES {
            self.pieces.push_back(std::mem::take(&mut self.tail).into());
        }
        if self.tail.is_empty() {
            self.tail.reserve_exact(bytes.len());
        }
        self.tail.extend_from_slice(bytes);
        Ok(())
    }

    /// `size`: where the stream ends by the peer's word. Older peers always say 0, and it may only name
    /// more than came.
    pub(super) fn reset(&mut self, code: StreamCode, size: u64) -> Result<(), Violation> {
        if self.reset.is_some() {
            return Err(Violation::size("stream reset twice"));
        }
        if size > self.announced {
            return Err(Violation::flow("final size past the credit of the stream"));
        }
        if self.is_whole {
            // All of it is here: what the reset would spare us has come.
            return if size > self.received { Err(Violation::size("final size changed")) } else { Ok(()) };
        }
        self.received = self.received.max(size);
        self.reset = Some(code);
        self.discard();
        Ok(())
    }

    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
        self.discard();
    }

    pub(super) fn read(&mut self, max: usize) -> Found {
        if let Some(code) = self.reset {
            return Found::Reset(code);
        }
        if self.pieces.is_empty() && !self.tail.is_empty() {
            self.pieces.push_back(std::mem::take(&mut self.tail).into());
        }
        match self.pieces.pop_front() {
            Some(mut piece) => {
                let taken = piece.split_to(piece.len().min(max));
                self.read += taken.len() as u64;
                if !piece.is_empty() {
                    self.pieces.push_front(piece);
                }
                Found::Bytes(taken)
            }
            None if self.is_whole => Found::End,
            None => Found::Nothing,
        }
    }

    /// Whether nothing more can come.
    pub(super) fn is_ended(&self) -> bool {
        self.is_whole || self.reset.is_some()
    }

    /// Bytes the connection's credit gets back now: read, or never to be.
    pub(super) fn release(&mut self) -> u64 {
        let upto = if self.is_stopped || self.reset.is_some() { self.received } else { self.read };
        let more = upto.saturating_sub(self.released);
        self.released = upto;
        more
    }

    /// The credit the peer should have, once that is worth a frame.
    pub(super) fn credit(&self, window: u64) -> Option<u64> {
        let credit = self.read.saturating_add(window);
        let is_worth = credit.saturating_sub(self.announced) >= window / limits::CREDIT_SHARE;
        (is_worth && !self.is_ended() && !self.is_stopped).then_some(credit)
    }

    fn discard(&mut self) {
        self.pieces = VecDeque::new();
        self.tail = Vec::new();
    }
}
