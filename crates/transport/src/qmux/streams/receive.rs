//! Receiving side of the streams.

use std::collections::VecDeque;

use bytes::Bytes;
use relay_model::{StreamCode, limits as model, transport::ReadError};

use super::{StreamMap, credit::RecvCredit};
use crate::qmux::{
    recv::{RecvHalf, RecvOutcome},
    violation::Violation,
};

/// Effect of received data or of a reset on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecvProgress {
    /// None for the session.
    Nothing,
    /// The session may read again.
    Readable,
    /// The half is gone: it was stopped and has ended.
    Ended,
}

/// Receiving halves of all streams, with the credit of the connection.
#[derive(Debug)]
pub(super) struct RecvStreams {
    halves: StreamMap<RecvHalf>,
    credit: RecvCredit,
    /// Receive window of one stream, in bytes.
    window: u64,
    /// Streams with a queued credit announcement.
    due: VecDeque<u64>,
}

impl RecvStreams {
    /// Creates the receiving side; without credit in the legacy framing.
    pub(super) fn new(is_legacy: bool) -> Self {
        let (window, announced) =
            if is_legacy { (u64::MAX, u64::MAX) } else { (model::STREAM_WINDOW, model::CONNECTION_WINDOW) };
        Self {
            halves: StreamMap::default(),
            credit: RecvCredit::new(announced),
            window,
            due: VecDeque::new(),
        }
    }

    /// Adds the half of a stream. `is_armed`: its first data raises `Readable`.
    pub(super) fn insert(&mut self, id: u64, is_armed: bool) {
        let mut half = RecvHalf::new(self.window);
        half.is_armed = is_armed;
        self.halves.insert(id, half);
    }

    /// Returns whether the half is live.
    pub(super) fn contains(&self, id: u64) -> bool {
        self.halves.contains_key(&id)
    }

    /// Checks the head of a STREAM frame against the limits.
    pub(super) fn check(&self, id: u64, offset: Option<u64>, size: Option<u64>) -> Result<(), Violation> {
        self.credit.check(size.unwrap_or(0))?;
        self.halves.get(&id).map_or(Ok(()), |half| half.begin(offset, size))
    }

    /// Handles stream data whose head was accepted.
    pub(super) fn push(&mut self, id: u64, bytes: &[u8], fin: bool) -> Result<RecvProgress, Violation> {
        self.credit.receive(bytes.len() as u64);
        let Some(half) = self.halves.get_mut(&id) else {
            // The half was read to its end and dropped.
            self.credit.release(bytes.len() as u64);
            return Ok(RecvProgress::Nothing);
        };
        half.push(bytes, fin)?;
        Ok(if fin || !bytes.is_empty() { self.progress(id) } else { RecvProgress::Nothing })
    }

    /// Handles RESET_STREAM (RFC 9000 §19.4).
    pub(super) fn on_reset(
        &mut self,
        id: u64,
        code: StreamCode,
        size: Option<u64>,
    ) -> Result<RecvProgress, Violation> {
        let Some(half) = self.halves.get_mut(&id) else { return Ok(RecvProgress::Nothing) };
        let before = half.received;
        half.reset(code, size.unwrap_or(before))?;
        self.credit.skip(half.received.saturating_sub(before))?;
        Ok(self.progress(id))
    }

    /// Reads up to `max` bytes. The half is dropped with its end or its reset.
    pub(super) fn read(&mut self, id: u64, max: usize) -> Result<Option<Bytes>, ReadError> {
        let window = self.window;
        let half = self.halves.get_mut(&id).filter(|half| !half.is_stopped).ok_or(ReadError::Gone)?;
        let found = half.read(max);
        half.is_armed = found == RecvOutcome::Nothing;
        self.credit.release(half.release());
        if !half.is_due && half.credit(window).is_some() {
            half.is_due = true;
            self.due.push_back(id);
        }
        match found {
            RecvOutcome::Nothing => Err(ReadError::Blocked),
            RecvOutcome::Bytes(bytes) => Ok(Some(bytes)),
            RecvOutcome::End => {
                self.halves.remove(&id);
                Ok(None)
            }
            RecvOutcome::Reset(code) => {
                self.halves.remove(&id);
                Err(ReadError::Reset(code))
            }
        }
    }

    /// Discards a stream. Returns whether its end has arrived, which drops the half; `None` for unknown and stopped
    /// streams.
    pub(super) fn stop(&mut self, id: u64) -> Option<bool> {
        let half = self.halves.get_mut(&id).filter(|half| !half.is_stopped)?;
        half.stop();
        self.credit.release(half.release());
        let is_ended = half.is_ended();
        if is_ended {
            self.halves.remove(&id);
        }
        Some(is_ended)
    }

    /// Bytes received and neither read nor discarded.
    pub(super) fn unread(&self) -> u64 {
        self.credit.unread()
    }

    /// Returns whether credit may be due.
    pub(super) fn has_credit(&self) -> bool {
        !self.due.is_empty() || self.credit.due().is_some()
    }

    /// Takes the connection's new limit (MAX_DATA), if due.
    pub(super) fn take_data_credit(&mut self) -> Option<u64> {
        self.credit.take_due()
    }

    /// Takes the next stream's id and new limit (MAX_STREAM_DATA), if one is due.
    pub(super) fn take_stream_credit(&mut self) -> Option<(u64, u64)> {
        while let Some(id) = self.due.pop_front() {
            let Some(half) = self.halves.get_mut(&id) else { continue };
            half.is_due = false;
            if let Some(credit) = half.credit(self.window) {
                half.announced = credit;
                return Some((id, credit));
            }
        }
        None
    }

    /// Drops the queued credit announcements.
    pub(super) fn clear_credit(&mut self) {
        self.due.clear();
    }

    /// Drops all halves.
    pub(super) fn clear(&mut self) {
        self.halves.clear();
    }

    /// Number of live halves.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.halves.len()
    }

    /// Handles new data, FIN or reset; drops a stopped half that has ended.
    fn progress(&mut self, id: u64) -> RecvProgress {
        let Some(half) = self.halves.get_mut(&id) else { return RecvProgress::Nothing };
        self.credit.release(half.release());
        if half.is_stopped {
            if half.is_ended() {
                self.halves.remove(&id);
                return RecvProgress::Ended;
            }
        } else if std::mem::take(&mut half.is_armed) {
            return RecvProgress::Readable;
        }
        RecvProgress::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams() -> RecvStreams {
        let mut streams = RecvStreams::new(false);
        streams.insert(2, false);
        streams
    }

    #[test]
    fn readable_follows_a_read_that_found_nothing() {
        let mut streams = streams();
        assert_eq!(streams.push(2, b"ab", false).unwrap(), RecvProgress::Nothing);
        assert_eq!(streams.read(2, 10), Ok(Some(Bytes::from_static(b"ab"))));
        assert_eq!(streams.read(2, 10), Err(ReadError::Blocked));
        assert_eq!(streams.push(2, b"c", true).unwrap(), RecvProgress::Readable);
        assert_eq!(streams.read(2, 10), Ok(Some(Bytes::from_static(b"c"))));
        assert_eq!((streams.read(2, 10), streams.contains(2)), (Ok(None), false));
    }

    #[test]
    fn stopped_stream_is_dropped_at_its_end() {
        let mut streams = streams();
        streams.push(2, b"ab", false).unwrap();
        assert_eq!((streams.stop(2), streams.stop(2)), (Some(false), None));
        assert_eq!((streams.unread(), streams.read(2, 1)), (0, Err(ReadError::Gone)));
        assert_eq!(streams.push(2, b"c", true).unwrap(), RecvProgress::Ended);
        assert_eq!((streams.len(), streams.unread()), (0, 0));
    }

    #[test]
    fn data_of_a_dropped_stream_is_discarded() {
        let mut streams = streams();
        assert_eq!(streams.push(6, b"abc", false).unwrap(), RecvProgress::Nothing);
        assert_eq!(streams.unread(), 0);
    }

    #[test]
    fn reset_counts_the_bytes_it_skips() {
        let mut streams = streams();
        streams.read(2, 1).unwrap_err();
        assert_eq!(streams.on_reset(2, StreamCode::CANCEL, Some(9)).unwrap(), RecvProgress::Readable);
        assert_eq!(streams.unread(), 0);
        assert_eq!(streams.read(2, 1), Err(ReadError::Reset(StreamCode::CANCEL)));
    }

    #[test]
    fn stream_credit_is_announced_after_reads() {
        let mut streams = streams();
        let piece = vec![0; (model::STREAM_WINDOW / 2) as usize];
        assert!(streams.check(2, Some(0), Some(model::STREAM_WINDOW + 1)).is_err());
        streams.push(2, &piece, false).unwrap();
        while streams.read(2, usize::MAX).is_ok() {}
        assert!(streams.has_credit());
        assert_eq!(streams.take_stream_credit(), Some((2, model::STREAM_WINDOW + piece.len() as u64)));
        assert_eq!(streams.take_stream_credit(), None);
    }
}
