//! Receiving side of the streams.

use bytes::Bytes;
use relay_model::{
    StreamCode,
    transport::{Dir, ReadError, Stream, TransportEvent},
};

use super::{PendingReset, QmuxStreams};
use crate::qmux::{recv::RecvOutcome, stream_limits::dir_of, violation::Violation};

impl QmuxStreams {
    /// Checks the head of a STREAM frame against the limits.
    pub(in crate::qmux) fn begin(
        &mut self,
        id: u64,
        offset: Option<u64>,
        size: Option<u64>,
    ) -> Result<(), Violation> {
        self.check_receivable(id)?;
        if self.received.saturating_add(size.unwrap_or(0)) > self.announced {
            return Err(Violation::flow("connection flow control limit exceeded"));
        }
        self.receiving.get(&id).map_or(Ok(()), |half| half.begin(offset, size))
    }

    /// Handles stream data whose head was accepted.
    pub(in crate::qmux) fn push(&mut self, id: u64, bytes: &[u8], fin: bool) -> Result<(), Violation> {
        self.received = self.received.saturating_add(bytes.len() as u64);
        let Some(half) = self.receiving.get_mut(&id) else {
            // The half was read to its end and dropped.
            self.released = self.released.saturating_add(bytes.len() as u64);
            return Ok(());
        };
        half.push(bytes, fin)?;
        if fin || !bytes.is_empty() {
            self.came(id);
        }
        Ok(())
    }

    /// Handles RESET_STREAM (RFC 9000 §19.4).
    pub(in crate::qmux) fn on_reset(
        &mut self,
        id: u64,
        code: u64,
        size: Option<u64>,
    ) -> Result<(), Violation> {
        self.check_receivable(id)?;
        let Some(half) = self.receiving.get_mut(&id) else { return Ok(()) };
        let before = half.received;
        half.reset(to_code(code), size.unwrap_or(before))?;
        self.received = self.received.saturating_add(half.received - before);
        if self.received > self.announced {
            return Err(Violation::flow("final size above the connection flow control limit"));
        }
        self.came(id);
        Ok(())
    }

    /// Handles STOP_SENDING (RFC 9000 §19.5).
    pub(in crate::qmux) fn on_stop(&mut self, id: u64, code: u64) -> Result<(), Violation> {
        self.check_sendable(id)?;
        if let Some(half) = self.sending.get_mut(&id)
            && half.stopped.is_none()
        {
            half.stopped = Some(to_code(code));
            if let Some(parked) = half.parked.take() {
                self.leave_queue(parked);
            }
            self.events.push_back(TransportEvent::Stopped(Stream(id), to_code(code)));
        }
        Ok(())
    }

    pub(in crate::qmux) fn on_max_data(&mut self, max: u64) {
        self.write_limit = self.write_limit.max(max);
        (self.is_retry, self.is_freed) = (true, true);
    }

    pub(in crate::qmux) fn on_max_stream_data(&mut self, id: u64, max: u64) -> Result<(), Violation> {
        self.check_sendable(id)?;
        if let Some(half) = self.sending.get_mut(&id) {
            half.limit = half.limit.max(max);
            (self.is_retry, self.is_freed) = (true, true);
            self.granted(id);
        }
        Ok(())
    }

    pub(in crate::qmux) fn on_max_streams(&mut self, dir: Dir, max: u64) {
        if self.ours.get_mut(super::index(dir)).is_some_and(|ours| ours.allow(max)) {
            self.events.push_back(TransportEvent::Openable(dir));
        }
    }

    /// Handles STREAMS_BLOCKED (RFC 9000 §19.14).
    pub(in crate::qmux) fn on_streams_blocked(&mut self, dir: Dir, limit: u64) {
        if let Some(theirs) = self.theirs.get_mut(super::index(dir)) {
            theirs.blocked(limit);
        }
    }

    pub(in crate::qmux) fn read(
        &mut self,
        Stream(id): Stream,
        max: usize,
    ) -> Result<Option<Bytes>, ReadError> {
        let window = self.window;
        let half = self.receiving.get_mut(&id).filter(|half| !half.is_stopped).ok_or(ReadError::Gone)?;
        let found = half.read(max);
        half.is_armed = found == RecvOutcome::Nothing;
        self.released += half.release();
        if !half.is_due && half.credit(window).is_some() {
            half.is_due = true;
            self.due.push_back(id);
        }
        match found {
            RecvOutcome::Nothing => Err(ReadError::Blocked),
            RecvOutcome::Bytes(bytes) => Ok(Some(bytes)),
            RecvOutcome::End => {
                self.drop_receiving(id);
                Ok(None)
            }
            RecvOutcome::Reset(code) => {
                self.drop_receiving(id);
                Err(ReadError::Reset(code))
            }
        }
    }

    pub(in crate::qmux) fn stop(&mut self, Stream(id): Stream, code: StreamCode) {
        let Some(half) = self.receiving.get_mut(&id).filter(|half| !half.is_stopped) else { return };
        half.stop();
        self.released += half.release();
        if half.is_ended() {
            self.drop_receiving(id);
        } else {
            self.answers.push_back(PendingReset::Stop { id, code });
        }
    }

    /// Raises `Readable` after new data, FIN or reset, and drops a stopped half that has ended.
    fn came(&mut self, id: u64) {
        let Some(half) = self.receiving.get_mut(&id) else { return };
        self.released += half.release();
        if half.is_stopped {
            if half.is_ended() {
                self.drop_receiving(id);
            }
        } else if std::mem::take(&mut half.is_armed) {
            self.events.push_back(TransportEvent::Readable(Stream(id)));
        }
    }

    fn drop_receiving(&mut self, id: u64) {
        self.receiving.remove(&id);
        self.retire(id);
    }

    fn check_receivable(&mut self, id: u64) -> Result<(), Violation> {
        if dir_of(id) == Dir::Uni && self.is_ours(id) {
            return Err(Violation::state("data on a send-only stream"));
        }
        self.meet(id)
    }

    fn check_sendable(&mut self, id: u64) -> Result<(), Violation> {
        if dir_of(id) == Dir::Uni && !self.is_ours(id) {
            return Err(Violation::state("credit or stop for a receive-only stream"));
        }
        self.meet(id)
    }
}

/// Converts an error code, which qmux carries unmapped; values above 32 bits become `u32::MAX`.
fn to_code(code: u64) -> StreamCode {
    StreamCode(u32::try_from(code).unwrap_or(u32::MAX))
}
