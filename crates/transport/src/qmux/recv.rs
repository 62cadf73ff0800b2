//! The receiving half of a stream.

use std::collections::VecDeque;

use bytes::Bytes;
use relay_model::StreamCode;

use super::{limits, violation::Violation};

/// Receiving half of a stream. Dropped when its end was read, or when it was stopped and has ended.
#[derive(Debug, Default)]
pub(super) struct RecvHalf {
    pieces: VecDeque<Bytes>,
    /// Last received bytes, to which later data is appended, so that many small frames take no more memory
    /// than a large one.
    tail: Vec<u8>,
    /// Bytes read.
    read: u64,
    /// Bytes received or skipped by a reset, which count against the credit.
    pub(super) received: u64,
    is_whole: bool,
    reset: Option<StreamCode>,
    pub(super) is_stopped: bool,
    /// A read found nothing, so that new data raises `Readable`.
    pub(super) is_armed: bool,
    /// Bytes returned to the connection's credit.
    released: u64,
    /// Credit announced to the peer, as an absolute offset.
    pub(super) announced: u64,
    /// A credit announcement is queued.
    pub(super) is_due: bool,
}

/// Result of a read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RecvOutcome {
    Bytes(Bytes),
    End,
    Reset(StreamCode),
    Nothing,
}

impl RecvHalf {
    /// Creates a half with an initial credit of `window` bytes.
    pub(super) fn new(window: u64) -> Self {
        Self { announced: window, ..Self::default() }
    }

    /// Checks that `size` more bytes are allowed. `offset` is optional in STREAM frames, and redundant on an
    /// ordered carrier.
    pub(super) fn begin(&self, offset: Option<u64>, size: Option<u64>) -> Result<(), Violation> {
        if offset.is_some_and(|offset| offset != self.received) {
            return Err(Violation::protocol("stream data out of order"));
        }
        if self.received.saturating_add(size.unwrap_or(0)) > self.announced {
            return Err(Violation::flow("stream flow control limit exceeded"));
        }
        Ok(())
    }

    /// Appends received bytes. The caller has checked the credit.
    pub(super) fn push(&mut self, bytes: &[u8], fin: bool) -> Result<(), Violation> {
        if self.is_ended() {
            // A repeated FIN is harmless.
            return if bytes.is_empty() {
                Ok(())
            } else {
                Err(Violation::size("stream data after the final size"))
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

    /// Handles RESET_STREAM (RFC 9000 §19.4). `size` is the final size; older peers always send 0, so that a
    /// value below the received bytes is accepted.
    pub(super) fn reset(&mut self, code: StreamCode, size: u64) -> Result<(), Violation> {
        if self.reset.is_some() {
            return Err(Violation::size("stream reset twice"));
        }
        if size > self.announced {
            return Err(Violation::flow("final size above the stream flow control limit"));
        }
        if self.is_whole {
            // All data was received: the reset has no effect.
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

    pub(super) fn read(&mut self, max: usize) -> RecvOutcome {
        if let Some(code) = self.reset {
            return RecvOutcome::Reset(code);
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
                RecvOutcome::Bytes(taken)
            }
            None if self.is_whole => RecvOutcome::End,
            None => RecvOutcome::Nothing,
        }
    }

    /// Returns whether no more data can arrive.
    pub(super) fn is_ended(&self) -> bool {
        self.is_whole || self.reset.is_some()
    }

    /// Returns the bytes to return to the connection's credit: read, or discarded.
    pub(super) fn release(&mut self) -> u64 {
        let upto = if self.is_stopped || self.reset.is_some() { self.received } else { self.read };
        let more = upto.saturating_sub(self.released);
        self.released = upto;
        more
    }

    /// Returns the new credit if its growth is worth a frame.
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

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 80;

    fn half(bytes: &[u8], fin: bool) -> RecvHalf {
        let mut half = RecvHalf::new(WINDOW);
        half.push(bytes, fin).unwrap();
        half
    }

    #[test]
    fn data_is_read_in_order_up_to_the_end() {
        let mut half = half(b"abc", false);
        half.push(b"def", true).unwrap();
        assert_eq!(half.read(4), RecvOutcome::Bytes(Bytes::from_static(b"abcd")));
        assert_eq!(half.read(4), RecvOutcome::Bytes(Bytes::from_static(b"ef")));
        assert_eq!(half.read(4), RecvOutcome::End);
        assert!(half.push(b"", true).is_ok(), "a repeated FIN");
        assert!(half.push(b"x", false).is_err());
    }

    #[test]
    fn offset_and_credit_are_checked() {
        let half = half(b"abc", false);
        assert!(half.begin(Some(3), Some(WINDOW - 3)).is_ok());
        assert!(half.begin(Some(2), None).is_err());
        assert!(half.begin(None, Some(WINDOW - 2)).is_err());
    }

    #[test]
    fn reset_discards_data_unless_all_has_arrived() {
        let mut reset = half(b"abc", false);
        reset.reset(StreamCode::CANCEL, 5).unwrap();
        assert_eq!((reset.read(9), reset.release()), (RecvOutcome::Reset(StreamCode::CANCEL), 5));
        assert!(reset.reset(StreamCode::CANCEL, 5).is_err(), "twice");
        let mut whole = half(b"abc", true);
        whole.reset(StreamCode::CANCEL, 3).unwrap();
        assert_eq!(whole.read(9), RecvOutcome::Bytes(Bytes::from_static(b"abc")));
        assert!(half(b"abc", false).reset(StreamCode::CANCEL, WINDOW + 1).is_err());
    }

    #[test]
    fn credit_grows_by_an_eighth_of_the_window() {
        let mut half = half(&[0; 10], false);
        half.read(9);
        assert_eq!((half.credit(WINDOW), half.release()), (None, 9));
        half.read(1);
        assert_eq!((half.credit(WINDOW), half.release()), (Some(WINDOW + 10), 1));
        half.stop();
        assert_eq!(half.credit(WINDOW), None);
    }
}
