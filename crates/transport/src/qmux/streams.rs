//! All streams of a connection: ids, sending and receiving halves, pending resets and events.

mod blocked;
mod credit;
mod receive;
mod resets;
mod schedule;
mod send;
mod slots;
mod valve;

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use relay_model::{
    StreamCode,
    transport::{Dir, ReadError, Stream, TransportEvent},
};

pub(super) use self::send::Pieces;
use self::{
    receive::{RecvProgress, RecvStreams},
    resets::{PendingReset, ResetQueue},
    send::SendStreams,
    slots::StreamSlots,
};
use super::{
    QmuxFraming, frame, limits, params::Parameters, send::StreamPacket, stream_limits::dir_of,
    violation::Violation,
};

/// Map keyed by stream ids, which the peer chooses: the hasher is seeded.
type StreamMap<T> = HashMap<u64, T, foldhash::fast::RandomState>;

/// Stream state of one connection.
#[derive(Debug)]
pub(super) struct QmuxStreams {
    framing: QmuxFraming,
    pub(super) events: VecDeque<TransportEvent>,
    slots: StreamSlots,
    pub(super) send: SendStreams,
    receive: RecvStreams,
    resets: ResetQueue,
}

impl QmuxStreams {
    /// `most`: limit up to which the peer's stream credit grows, per direction.
    pub(super) fn new(framing: QmuxFraming, is_client: bool, most: Option<u64>) -> Self {
        let is_legacy = framing == QmuxFraming::Legacy;
        Self {
            framing,
            events: VecDeque::new(),
            slots: StreamSlots::new(is_legacy, is_client, most),
            send: SendStreams::new(if is_legacy { u64::MAX } else { 0 }),
            receive: RecvStreams::new(is_legacy),
            resets: ResetQueue::default(),
        }
    }

    /// Applies the peer's transport parameters, before any stream is opened.
    pub(super) fn set_peer(&mut self, peer: &Parameters) {
        self.send.set_peer(peer);
        self.slots.set_peer(peer.streams_bi, peer.streams_uni);
    }

    /// Returns the next event.
    pub(super) fn poll(&mut self) -> Option<TransportEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if let Some(id) = self.send.next_writable() {
            return Some(TransportEvent::Writable(Stream(id)));
        }
        self.send.take_room().then_some(TransportEvent::Room)
    }

    /// Returns whether [`Self::poll`] may return an event.
    pub(super) fn has_event(&self) -> bool {
        !self.events.is_empty() || self.send.has_event()
    }

    /// Returns whether more input may be read: the queue of resets and stops is bounded, and without credit so
    /// is the unread data.
    pub(super) fn wants_input(&self) -> bool {
        let is_full = self.framing == QmuxFraming::Legacy && self.receive.unread() >= limits::LEGACY_UNREAD;
        !self.resets.is_full() && !is_full
    }

    /// Bytes received and neither read nor discarded.
    pub(super) fn unread(&self) -> u64 {
        self.receive.unread()
    }

    /// Drops all sending state and output.
    pub(super) fn drop_output(&mut self) {
        self.resets.clear();
        self.send.clear();
        self.receive.clear_credit();
    }

    /// Drops all sending and receiving state.
    pub(super) fn forget(&mut self) {
        self.drop_output();
        self.receive.clear();
    }

    /// Opens a stream; `None` at the peer's limit.
    pub(super) fn open(&mut self, dir: Dir, priority: i32) -> Option<Stream> {
        let id = self.slots.open(dir)?;
        self.send.insert_own(id, dir, priority);
        if dir == Dir::Bi {
            self.receive.insert(id, true);
        }
        Some(Stream(id))
    }

    /// Reads up to `max` bytes.
    pub(super) fn read(&mut self, Stream(id): Stream, max: usize) -> Result<Option<Bytes>, ReadError> {
        let result = self.receive.read(id, max);
        if matches!(result, Ok(None) | Err(ReadError::Reset(_))) {
            self.retire(id);
        }
        result
    }

    /// Discards a stream and asks the peer to stop sending.
    pub(super) fn stop(&mut self, Stream(id): Stream, code: StreamCode) {
        match self.receive.stop(id) {
            Some(true) => self.retire(id),
            Some(false) => self.resets.push(PendingReset::Stop { id, code }),
            None => {}
        }
    }

    /// Resets the sending half of a stream.
    pub(super) fn reset(&mut self, Stream(id): Stream, code: StreamCode) {
        if let Some(size) = self.send.reset(id) {
            self.resets.push(PendingReset::Reset { id, code, size });
            self.retire(id);
        }
    }

    /// Takes the next packet of at most `max` bytes; its payload is appended to `pieces`.
    pub(super) fn packet(&mut self, max: usize, pieces: &mut Pieces) -> Option<(u64, StreamPacket)> {
        let (id, packet) = self.send.packet(max, pieces)?;
        if packet.fin {
            self.retire(id);
        }
        Some((id, packet))
    }

    /// Checks the head of a STREAM frame against the limits.
    pub(super) fn begin(&mut self, id: u64, offset: Option<u64>, size: Option<u64>) -> Result<(), Violation> {
        let is_new = self.slots.receivable(id)?;
        self.note_new(id, is_new);
        self.receive.check(id, offset, size)
    }

    /// Handles stream data whose head was accepted.
    pub(super) fn push(&mut self, id: u64, bytes: &[u8], fin: bool) -> Result<(), Violation> {
        let progress = self.receive.push(id, bytes, fin)?;
        self.note_progress(id, progress);
        Ok(())
    }

    /// Handles RESET_STREAM (RFC 9000 §19.4).
    pub(super) fn on_reset(&mut self, id: u64, code: u64, size: Option<u64>) -> Result<(), Violation> {
        let is_new = self.slots.receivable(id)?;
        self.note_new(id, is_new);
        let progress = self.receive.on_reset(id, to_code(code), size)?;
        self.note_progress(id, progress);
        Ok(())
    }

    /// Handles STOP_SENDING (RFC 9000 §19.5).
    pub(super) fn on_stop(&mut self, id: u64, code: u64) -> Result<(), Violation> {
        let is_new = self.slots.sendable(id)?;
        self.note_new(id, is_new);
        if self.send.on_stop(id, to_code(code)) {
            self.events.push_back(TransportEvent::Stopped(Stream(id), to_code(code)));
        }
        Ok(())
    }

    /// Handles MAX_STREAM_DATA (RFC 9000 §19.10).
    pub(super) fn on_max_stream_data(&mut self, id: u64, max: u64) -> Result<(), Violation> {
        let is_new = self.slots.sendable(id)?;
        self.note_new(id, is_new);
        self.send.on_max_stream_data(id, max);
        Ok(())
    }

    /// Handles MAX_STREAMS (RFC 9000 §19.11).
    pub(super) fn on_max_streams(&mut self, dir: Dir, max: u64) {
        if self.slots.allow(dir, max) {
            self.events.push_back(TransportEvent::Openable(dir));
        }
    }

    /// Handles STREAMS_BLOCKED (RFC 9000 §19.14).
    pub(super) fn on_streams_blocked(&mut self, dir: Dir, limit: u64) {
        self.slots.blocked(dir, limit);
    }

    /// Returns whether [`Self::put_control`] has a frame.
    pub(super) fn has_control(&self) -> bool {
        !self.resets.is_empty() || self.receive.has_credit() || self.slots.has_credit()
    }

    /// Appends one credit, reset or stop frame; `false` if there is none.
    pub(super) fn put_control(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some(credit) = self.receive.take_data_credit() {
            frame::put_max_data(credit, out);
        } else if let Some((dir, max)) = self.slots.take_credit() {
            frame::put_max_streams(dir, max, out);
        } else if let Some((id, credit)) = self.receive.take_stream_credit() {
            frame::put_max_stream_data(id, credit, out);
        } else {
            return self.resets.put(self.framing, out);
        }
        true
    }

    /// Numbers of sending and of receiving halves.
    #[cfg(test)]
    pub(super) fn live(&self) -> (usize, usize) {
        (self.send.len(), self.receive.len())
    }

    /// Adds the halves of a new stream of the peer.
    fn note_new(&mut self, id: u64, is_new: bool) {
        if !is_new {
            return;
        }
        let dir = dir_of(id);
        self.receive.insert(id, false);
        if dir == Dir::Bi {
            self.send.insert_peer(id);
        }
        self.events.push_back(TransportEvent::Opened(Stream(id), dir));
    }

    fn note_progress(&mut self, id: u64, progress: RecvProgress) {
        match progress {
            RecvProgress::Nothing => {}
            RecvProgress::Readable => self.events.push_back(TransportEvent::Readable(Stream(id))),
            RecvProgress::Ended => self.retire(id),
        }
    }

    /// Frees the stream's slot once both halves are gone.
    fn retire(&mut self, id: u64) {
        if self.send.contains(id) || self.receive.contains(id) {
            return;
        }
        if let Some(dir) = self.slots.retire(id) {
            self.events.push_back(TransportEvent::Openable(dir));
        }
    }
}

/// Converts an error code, which qmux carries unmapped; values above 32 bits become `u32::MAX`.
fn to_code(code: u64) -> StreamCode {
    StreamCode(u32::try_from(code).unwrap_or(u32::MAX))
}
