//! Sending side of the streams.
//!
//! Each stream has its own queue. The highest priority is sent first; streams of equal priority alternate by
//! packet. The queues are short: the valve bounds unsent media, so that the session decides late what to send.
//! Urgent streams still overtake queued media, and a reset discards unsent data.

use bytes::Bytes;
use relay_model::{
    StreamCode,
    transport::{Dir, WriteError},
};
use smallvec::SmallVec;

use super::{
    StreamMap, blocked::BlockedWrites, credit::SendCredit, schedule::SendSchedule, valve::UnsentValve,
};
use crate::qmux::{
    params::Parameters,
    send::{Parked, SendHalf, StreamPacket},
};

/// Payload pieces of one packet.
pub(in crate::qmux) type Pieces = SmallVec<[Bytes; 16]>;

/// Initial send credit of streams, in bytes.
#[derive(Clone, Copy, Debug)]
struct StreamWindows {
    /// Bidirectional streams opened by the peer.
    bi_peer: u64,
    /// Local bidirectional streams.
    bi_own: u64,
    /// Local unidirectional streams.
    uni_own: u64,
}

/// Sending halves of all streams, with the limits of the connection.
#[derive(Debug)]
pub(in crate::qmux) struct SendStreams {
    halves: StreamMap<SendHalf>,
    schedule: SendSchedule,
    blocked: BlockedWrites,
    valve: UnsentValve,
    credit: SendCredit,
    windows: StreamWindows,
}

impl SendStreams {
    /// Creates the sending side with an initial credit in bytes, of the connection and of each stream.
    pub(super) fn new(credit: u64) -> Self {
        Self {
            halves: StreamMap::default(),
            schedule: SendSchedule::default(),
            blocked: BlockedWrites::default(),
            valve: UnsentValve::default(),
            credit: SendCredit::new(credit),
            windows: StreamWindows { bi_peer: credit, bi_own: credit, uni_own: credit },
        }
    }

    /// Applies the peer's transport parameters, before any stream is opened.
    pub(super) fn set_peer(&mut self, peer: &Parameters) {
        self.windows = StreamWindows {
            bi_peer: peer.stream_data_bi_local,
            bi_own: peer.stream_data_bi_remote,
            uni_own: peer.stream_data_uni,
        };
        self.credit = SendCredit::new(peer.data);
    }

    /// Adds the half of a bidirectional stream opened by the peer.
    pub(super) fn insert_peer(&mut self, id: u64) {
        self.halves.insert(id, SendHalf::new(0, self.windows.bi_peer));
    }

    /// Adds the half of a local stream.
    pub(super) fn insert_own(&mut self, id: u64, dir: Dir, priority: i32) {
        let credit = if dir == Dir::Bi { self.windows.bi_own } else { self.windows.uni_own };
        self.halves.insert(id, SendHalf::new(priority, credit));
    }

    /// Returns whether the half is live.
    pub(super) fn contains(&self, id: u64) -> bool {
        self.halves.contains_key(&id)
    }

    /// Writes what fits of `chunks`, as [`relay_model::transport::Transport::write`] does.
    pub(in crate::qmux) fn write(&mut self, id: u64, chunks: &mut [Bytes]) -> Result<usize, WriteError> {
        let is_exempt = self.valve.is_exempt();
        let half = self.halves.get_mut(&id).filter(|half| !half.is_finished).ok_or(WriteError::Gone)?;
        if let Some(code) = half.stopped {
            return Err(WriteError::Stopped(code));
        }
        let offered: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        if offered == 0 {
            return Ok(0);
        }
        let fit = half.credit().min(self.credit.left()).min(self.valve.room(is_exempt)).min(offered);
        if fit < offered {
            self.valve.starve();
        }
        if fit == 0 {
            self.park(id, is_exempt);
            return Err(WriteError::Blocked);
        }
        // At most `offered`, which is in memory and fits `usize`.
        let taken = fit as usize;
        half.take(chunks, taken, !is_exempt);
        self.credit.take(fit);
        self.valve.add(fit);
        self.schedule(id);
        Ok(taken)
    }

    /// Finishes a stream after the bytes written.
    pub(in crate::qmux) fn finish(&mut self, id: u64) {
        if let Some(half) = self.halves.get_mut(&id) {
            half.is_finished = true;
            if let Some(parked) = half.parked.take() {
                self.blocked.remove(parked);
            }
            self.schedule(id);
        }
    }

    /// Drops a half with its unsent data; returns the bytes sent, its final size.
    pub(super) fn reset(&mut self, id: u64) -> Option<u64> {
        let half = self.halves.get(&id)?;
        let ((media, control), sent) = (half.waiting(), half.sent());
        // Unsent data uses no credit.
        self.credit.give_back(half.unsent);
        self.valve.remove(media, control);
        self.blocked.set_retry(true);
        self.remove(id);
        Some(sent)
    }

    /// Sets the priority of a stream.
    pub(in crate::qmux) fn set_priority(&mut self, id: u64, priority: i32) {
        if let Some(half) = self.halves.get_mut(&id) {
            self.schedule.set_priority(id, half.turn, half.priority, priority);
            half.priority = priority;
        }
    }

    /// Sets whether writes are exempt from the limit of unsent media.
    pub(in crate::qmux) fn exempt(&mut self, on: bool) {
        self.valve.exempt(on);
    }

    /// Returns whether a stream has output.
    pub(in crate::qmux) fn has_packet(&self) -> bool {
        !self.schedule.is_empty()
    }

    /// Returns whether the next packet is control.
    pub(in crate::qmux) fn is_urgent(&self) -> bool {
        self.schedule.is_urgent()
    }

    /// Takes the next packet of at most `max` bytes; its payload is appended to `pieces`. The half is dropped with
    /// its last packet.
    pub(super) fn packet(&mut self, max: usize, pieces: &mut Pieces) -> Option<(u64, StreamPacket)> {
        let id = self.schedule.pop()?;
        let half = self.halves.get_mut(&id)?;
        half.turn = 0;
        let packet = half.packet(max, |piece| pieces.push(piece));
        self.valve.remove(packet.media, (packet.size as u64).saturating_sub(packet.media));
        self.blocked.set_retry(true);
        if packet.fin {
            self.remove(id);
        } else {
            self.schedule(id);
        }
        Some((id, packet))
    }

    /// Handles STOP_SENDING (RFC 9000 §19.5); returns whether it is the first for a live half.
    pub(super) fn on_stop(&mut self, id: u64, code: StreamCode) -> bool {
        let Some(half) = self.halves.get_mut(&id).filter(|half| half.stopped.is_none()) else { return false };
        half.stopped = Some(code);
        if let Some(parked) = half.parked.take() {
            self.blocked.remove(parked);
        }
        true
    }

    /// Handles MAX_DATA (RFC 9000 §19.9).
    pub(in crate::qmux) fn on_max_data(&mut self, max: u64) {
        self.credit.raise(max);
        self.valve.free();
        self.blocked.set_retry(true);
    }

    /// Handles MAX_STREAM_DATA (RFC 9000 §19.10).
    pub(super) fn on_max_stream_data(&mut self, id: u64, max: u64) {
        let Some(half) = self.halves.get_mut(&id) else { return };
        half.limit = half.limit.max(max);
        self.valve.free();
        self.blocked.set_retry(true);
        // A stream that waits for credit of its own now waits for the connection.
        if let Some(Parked { exempt, place: None }) = half.parked {
            self.park(id, exempt);
        }
    }

    /// Returns the next parked stream while the connection has room: one at a time, so that a little room does
    /// not wake all of them.
    pub(super) fn next_writable(&mut self) -> Option<u64> {
        if !self.blocked.is_retry() {
            return None;
        }
        let next = self.unpark();
        self.blocked.set_retry(next.is_some());
        next
    }

    /// Returns whether `Room` is due; once per refused write.
    pub(super) fn take_room(&mut self) -> bool {
        self.valve.take_room()
    }

    /// Returns whether a stream may have become writable, or `Room` is due.
    pub(super) fn has_event(&self) -> bool {
        (self.blocked.is_retry() && self.blocked.len() != (0, 0)) || self.valve.has_room()
    }

    /// Drops all halves and their output.
    pub(super) fn clear(&mut self) {
        self.halves.clear();
        self.schedule.clear();
        self.blocked.clear();
        self.valve.clear();
    }

    /// Number of live halves.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.halves.len()
    }

    /// Numbers of streams that wait for room in the connection: exempt from the valve, and not.
    #[cfg(test)]
    pub(super) fn parked(&self) -> (usize, usize) {
        self.blocked.len()
    }

    /// Parks a stream whose write was refused. It waits for credit of its own, or else in the queue for room in
    /// the connection.
    fn park(&mut self, id: u64, exempt: bool) {
        let Some(half) = self.halves.get_mut(&id) else { return };
        let has_credit = half.credit() > 0;
        if half.parked.is_some_and(|was| was.exempt == exempt && was.place.is_some() == has_credit) {
            return;
        }
        let place = has_credit.then(|| self.blocked.add(id, exempt));
        if let Some(before) = half.parked.replace(Parked { exempt, place }) {
            self.blocked.remove(before);
        }
    }

    fn unpark(&mut self) -> Option<u64> {
        if self.credit.left() == 0 {
            return None;
        }
        let id = [true, false]
            .into_iter()
            .filter(|exempt| self.valve.room(*exempt) > 0)
            .find_map(|exempt| self.blocked.pop(exempt))?;
        if let Some(half) = self.halves.get_mut(&id) {
            half.parked = None;
        }
        Some(id)
    }

    /// Schedules a stream with output behind those of equal priority, unless it is scheduled.
    fn schedule(&mut self, id: u64) {
        if let Some(half) = self.halves.get_mut(&id)
            && half.turn == 0
            && half.has_output()
        {
            half.turn = self.schedule.add(id, half.priority);
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(half) = self.halves.remove(&id) {
            self.schedule.remove(id, half.priority, half.turn);
            if let Some(parked) = half.parked {
                self.blocked.remove(parked);
            }
        }
    }
}

#[cfg(test)]
mod tests;
