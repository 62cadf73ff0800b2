//! Output, in this order: transport parameters, close, WebSocket control frames, frames without payload, then
//! datagrams and stream data in turn.

use std::time::Instant;

use bytes::Bytes;

use super::{Connection, QmuxPhase};
use crate::qmux::{QmuxFraming, frame, limits, output::UnitWriter, streams::Pieces, websocket::Sent};

/// Size in bytes at which a record of frames without payload is complete, so that urgent frames do not wait
/// behind a large record.
const ANSWER_BYTES: usize = 1_200;

impl Connection {
    /// Appends about `max` bytes of queued output to `out` (at most one record more) and returns their number.
    /// May change [`Connection::has_event`].
    pub fn transmit(&mut self, now: Instant, max: usize, out: &mut Vec<Bytes>) -> usize {
        if self.life == QmuxPhase::Over {
            return 0;
        }
        // Moved out for the writer, which borrows the masks while `self` is borrowed too.
        let mut masks = self.masks.take();
        let mut writer = UnitWriter::new(self.framing, self.over, masks.as_mut(), out);
        let mut scratch = Vec::new();
        let mut pieces = Pieces::new();
        while writer.total() < max && self.put_next(now, &mut writer, &mut scratch, &mut pieces) {}
        let sent = writer.finish();
        self.masks = masks;
        self.traffic.bytes_out += sent as u64;
        sent
    }

    /// Returns whether [`Connection::transmit`] would append anything.
    pub fn has_output(&self) -> bool {
        if self.life == QmuxPhase::Over {
            return false;
        }
        self.hello.is_some()
            || self.farewell.frame.is_some()
            || self.farewell.websocket.is_some()
            || self.websocket_pong.is_some()
            || self.clock.websocket_due
            || matches!(self.life, QmuxPhase::Ready)
                && (self.clock.ping_due
                    || !self.pongs.is_empty()
                    || self.streams.has_answer()
                    || self.streams.has_packet()
                    || !self.datagrams.is_empty())
    }

    /// Writes one unit; `false` if there is nothing to send.
    fn put_next(
        &mut self,
        now: Instant,
        writer: &mut UnitWriter<'_>,
        scratch: &mut Vec<u8>,
        pieces: &mut Pieces,
    ) -> bool {
        if let Some(hello) = self.hello.take() {
            writer.unit(&hello, 0, []);
            return true;
        }
        if let Some(close) = self.farewell.frame.take() {
            writer.unit(&close, 0, []);
            return true;
        }
        if let Some(code) = self.farewell.websocket.take() {
            let body = code.map(u16::to_be_bytes);
            writer.websocket(Sent::Close, body.as_ref().map_or(&[], |body| body), 0, []);
            return true;
        }
        if let Some(body) = self.websocket_pong.take() {
            writer.websocket(Sent::Pong, &body, 0, []);
            return true;
        }
        if std::mem::take(&mut self.clock.websocket_due) {
            self.clock.websocket_sent(now);
            writer.websocket(Sent::Ping, &[], 0, []);
            return true;
        }
        if self.life != QmuxPhase::Ready {
            return false;
        }
        scratch.clear();
        if self.put_answers(now, scratch) {
            writer.unit(scratch, 0, []);
            return true;
        }
        let is_stream_next = self.streams.is_urgent() || (self.is_media_next && self.streams.has_packet());
        if !is_stream_next && let Some(datagram) = self.datagrams.pop() {
            self.is_media_next = true;
            frame::put_datagram(datagram.len(), scratch);
            writer.unit(scratch, datagram.len(), [datagram]);
            return true;
        }
        self.is_media_next = false;
        let largest =
            usize::try_from(self.peer_record).unwrap_or(usize::MAX).saturating_sub(limits::HEAD_BYTES);
        let largest = if self.framing == QmuxFraming::Qmux01 { largest } else { usize::MAX };
        let Some((id, packet)) = self.streams.packet(largest.min(limits::PAYLOAD_BYTES), pieces) else {
            return false;
        };
        frame::put_stream(self.framing, id, packet.offset, packet.size, packet.fin, scratch);
        writer.unit(scratch, packet.size, pieces.drain(..));
        true
    }

    /// Writes frames without payload: up to [`ANSWER_BYTES`] of them with records, otherwise one.
    fn put_answers(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        while out.len() < ANSWER_BYTES && self.put_answer(now, out) {
            if self.framing != QmuxFraming::Qmux01 {
                return true;
            }
        }
        !out.is_empty()
    }

    fn put_answer(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        if let Some(sequence) = self.pongs.pop_front() {
            frame::put_pong(sequence, out);
            return true;
        }
        if self.clock.ping_due {
            frame::put_ping(self.clock.ping_sent(now), out);
            return true;
        }
        self.streams.put_answer(out)
    }
}
