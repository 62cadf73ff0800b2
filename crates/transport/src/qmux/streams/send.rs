//! Sending side of the streams.
//!
//! Each stream has its own queue. The highest priority is sent first; streams of equal priority alternate by
//! packet. The queues are short: the valve bounds unsent media, so that the session decides late what to send.
//! Urgent streams still overtake queued media, and a reset discards unsent data.

use std::{cmp::Reverse, collections::BTreeMap};

use bytes::Bytes;
use relay_model::{
    StreamCode,
    transport::{Dir, PRIORITY_CONTROL, Stream, TransportEvent, WriteError},
};
use smallvec::SmallVec;

use super::{PendingReset, QmuxStreams};
use crate::qmux::{
    limits,
    recv::RecvHalf,
    send::{Parked, SendHalf, StreamPacket},
    stream_limits::index,
};

/// Payload pieces of one packet.
pub(in crate::qmux) type Pieces = SmallVec<[Bytes; 16]>;

impl QmuxStreams {
    pub(in crate::qmux) fn open(&mut self, dir: Dir, priority: i32) -> Option<Stream> {
        let number = self.ours.get_mut(index(dir))?.open()?;
        let id = (number << 2) | ((index(dir) as u64) << 1) | u64::from(!self.is_client);
        let [_, both, one] = self.windows;
        self.sending.insert(id, SendHalf::new(priority, if dir == Dir::Bi { both } else { one }));
        if dir == Dir::Bi {
            let mut half = RecvHalf::new(self.window);
            half.is_armed = true;
            self.receiving.insert(id, half);
        }
        Some(Stream(id))
    }

    pub(in crate::qmux) fn write(
        &mut self,
        Stream(id): Stream,
        chunks: &mut [Bytes],
    ) -> Result<usize, WriteError> {
        let (exempt, credit) = (self.exempt, self.write_limit.saturating_sub(self.written));
        let valve = self.valve(exempt);
        let half = self.sending.get_mut(&id).filter(|half| !half.is_finished).ok_or(WriteError::Gone)?;
        if let Some(code) = half.stopped {
            return Err(WriteError::Stopped(code));
        }
        let offered: u64 = chunks.iter().map(|chunk| chunk.len() as u64).sum();
        if offered == 0 {
            return Ok(0);
        }
        let fit = half.limit.saturating_sub(half.written).min(credit).min(valve).min(offered);
        if fit < offered {
            self.is_starved = true;
        }
        if fit == 0 {
            self.park(id, exempt);
            return Err(WriteError::Blocked);
        }
        // At most `offered`, which is in memory and fits `usize`.
        let taken = fit as usize;
        half.take(chunks, taken, !exempt);
        self.written += fit;
        *(if exempt { &mut self.control } else { &mut self.media }) += fit;
        self.schedule(id);
        Ok(taken)
    }

    pub(in crate::qmux) fn finish(&mut self, Stream(id): Stream) {
        if let Some(half) = self.sending.get_mut(&id) {
            half.is_finished = true;
            if let Some(parked) = half.parked.take() {
                self.leave_queue(parked);
            }
            self.schedule(id);
        }
    }

    pub(in crate::qmux) fn reset(&mut self, Stream(id): Stream, code: StreamCode) {
        let Some(half) = self.sending.get(&id) else { return };
        let (media, control) = half.waiting();
        self.answers.push_back(PendingReset::Reset { id, code, size: half.sent() });
        // Unsent data uses no credit.
        self.written -= half.unsent;
        self.media -= media;
        self.control -= control;
        (self.is_retry, self.is_freed) = (true, true);
        self.drop_sending(id);
    }

    pub(in crate::qmux) fn set_priority(&mut self, Stream(id): Stream, priority: i32) {
        let Some(half) = self.sending.get_mut(&id) else { return };
        let was_ready = half.turn != 0 && self.ready.remove(&(Reverse(half.priority), half.turn, id));
        half.priority = priority;
        if was_ready {
            self.ready.insert((Reverse(priority), half.turn, id));
        }
    }

    pub(in crate::qmux) fn exempt(&mut self, on: bool) {
        self.exempt = on;
    }

    /// Returns whether a stream has output.
    pub(in crate::qmux) fn has_packet(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Returns whether the next packet is control.
    pub(in crate::qmux) fn is_urgent(&self) -> bool {
        self.ready.first().is_some_and(|(Reverse(priority), ..)| *priority >= PRIORITY_CONTROL)
    }

    /// Takes the next packet of at most `max` bytes; its payload is appended to `pieces`.
    pub(in crate::qmux) fn packet(&mut self, max: usize, pieces: &mut Pieces) -> Option<(u64, StreamPacket)> {
        let (.., id) = self.ready.pop_first()?;
        let half = self.sending.get_mut(&id)?;
        half.turn = 0;
        let packet = half.packet(max, |piece| pieces.push(piece));
        self.media -= packet.media;
        self.control -= packet.size as u64 - packet.media;
        (self.is_retry, self.is_freed) = (true, true);
        if packet.fin {
            self.drop_sending(id);
        } else {
            self.schedule(id);
        }
        Some((id, packet))
    }

    /// Returns whether `Room` is due: at least half of the media valve is free, to avoid tiny writes.
    pub(super) fn has_room(&self) -> bool {
        self.is_starved && self.is_freed && self.media <= limits::UNSENT_MEDIA / 2
    }

    /// Parks a stream whose write was refused. It waits for credit of its own, or else in the queue for room in
    /// the connection.
    fn park(&mut self, id: u64, exempt: bool) {
        let Some(half) = self.sending.get_mut(&id) else { return };
        let has_credit = half.limit > half.written;
        if half.parked.is_some_and(|was| was.exempt == exempt && was.place.is_some() == has_credit) {
            return;
        }
        let place = has_credit.then(|| {
            self.turns += 1;
            self.turns
        });
        let before = half.parked.replace(Parked { exempt, place });
        if let Some(place) = place {
            self.waiting(exempt).insert(place, id);
        }
        if let Some(before) = before {
            self.leave_queue(before);
        }
    }

    /// Queues a stream that waits for credit of its own and now has some.
    pub(super) fn granted(&mut self, id: u64) {
        if let Some(Parked { exempt, place: None }) = self.sending.get(&id).and_then(|half| half.parked) {
            self.park(id, exempt);
        }
    }

    /// Removes a stream from the queue for room in the connection.
    pub(super) fn leave_queue(&mut self, parked: Parked) {
        if let Some(place) = parked.place {
            self.waiting(parked.exempt).remove(&place);
        }
    }

    fn waiting(&mut self, exempt: bool) -> &mut BTreeMap<u64, u64> {
        if exempt { &mut self.waiting_control } else { &mut self.waiting_media }
    }

    /// Returns `Writable` for the next parked stream while the connection has room: one at a time, so that a
    /// little room does not wake all of them.
    pub(super) fn unpark(&mut self) -> Option<TransportEvent> {
        if self.written >= self.write_limit {
            return None;
        }
        for exempt in [true, false] {
            if self.valve(exempt) > 0
                && let Some((_, id)) = self.waiting(exempt).pop_first()
            {
                if let Some(half) = self.sending.get_mut(&id) {
                    half.parked = None;
                }
                return Some(TransportEvent::Writable(Stream(id)));
            }
        }
        None
    }

    fn valve(&self, exempt: bool) -> u64 {
        if exempt {
            limits::UNSENT_CONTROL.saturating_sub(self.control)
        } else {
            limits::UNSENT_MEDIA.saturating_sub(self.media)
        }
    }

    /// Schedules a stream with output behind those of equal priority, unless it is scheduled.
    fn schedule(&mut self, id: u64) {
        let Some(half) = self.sending.get_mut(&id) else { return };
        if half.turn == 0 && half.has_output() {
            self.turns += 1;
            half.turn = self.turns;
            self.ready.insert((Reverse(half.priority), half.turn, id));
        }
    }

    fn drop_sending(&mut self, id: u64) {
        if let Some(half) = self.sending.remove(&id) {
            self.ready.remove(&(Reverse(half.priority), half.turn, id));
            if let Some(parked) = half.parked {
                self.leave_queue(parked);
            }
            self.retire(id);
        }
    }
}
