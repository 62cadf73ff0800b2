//! Output, in this order: transport parameters, close, WebSocket control frames, frames without payload, then
//! datagrams and stream data in turn.

use std::time::Instant;

use bytes::Bytes;

use super::QmuxConnection;
use crate::qmux::{QmuxFraming, frame, limits, output::UnitWriter, streams::Pieces, websocket::Sent};

/// Size in bytes at which a record of frames without payload is complete, so that urgent frames do not wait
/// behind a large record.
const CONTROL_BYTES: usize = 1_200;

impl QmuxConnection {
    /// Appends about `max` bytes of queued output to `out` (at most one record more) and returns their number.
    /// May change [`QmuxConnection::has_event`].
    pub fn transmit(&mut self, now: Instant, max: usize, out: &mut Vec<Bytes>) -> usize {
        if self.life.is_over() {
            return 0;
        }
        // Moved out for the writer, which borrows the masks while `self` is borrowed too.
        let mut masks = self.masks.take();
        let mut writer = UnitWriter::new(self.framing, self.carrier, masks.as_mut(), out);
        let mut scratch = Vec::new();
        let mut pieces = Pieces::new();
        while writer.total() < max && self.put_next(now, &mut writer, &mut scratch, &mut pieces) {}
        let sent = writer.finish();
        self.masks = masks;
        self.traffic.bytes_out = self.traffic.bytes_out.saturating_add(sent as u64);
        sent
    }

    /// Returns whether [`QmuxConnection::transmit`] would append anything.
    pub fn has_output(&self) -> bool {
        if self.life.is_over() {
            return false;
        }
        self.output.has_unit()
            || self.timers.websocket_due
            || self.life.is_ready()
                && (self.timers.ping_due
                    || self.output.has_pongs()
                    || self.streams.has_control()
                    || self.streams.send.has_packet()
                    || self.datagrams.has_output())
    }

    /// Writes one unit; `false` if there is nothing to send.
    fn put_next(
        &mut self,
        now: Instant,
        writer: &mut UnitWriter<'_>,
        scratch: &mut Vec<u8>,
        pieces: &mut Pieces,
    ) -> bool {
        if self.output.put_unit(writer) {
            return true;
        }
        if std::mem::take(&mut self.timers.websocket_due) {
            self.timers.websocket_sent(now);
            writer.websocket(Sent::Ping, &[], 0, []);
            return true;
        }
        if !self.life.is_ready() {
            return false;
        }
        scratch.clear();
        if self.put_control(now, scratch) {
            writer.unit(scratch, 0, []);
            return true;
        }
        let send = &self.streams.send;
        if let Some(datagram) = self.datagrams.next(send.is_urgent(), send.has_packet()) {
            frame::put_datagram(datagram.len(), scratch);
            writer.unit(scratch, datagram.len(), [datagram]);
            return true;
        }
        let record = usize::try_from(self.datagrams.peer_record()).unwrap_or(usize::MAX);
        let largest = record.saturating_sub(limits::HEAD_BYTES);
        let largest = if self.framing == QmuxFraming::Qmux01 { largest } else { usize::MAX };
        let Some((id, packet)) = self.streams.packet(largest.min(limits::PAYLOAD_BYTES), pieces) else {
            return false;
        };
        frame::put_stream(self.framing, id, packet.offset, packet.size, packet.fin, scratch);
        writer.unit(scratch, packet.size, pieces.drain(..));
        true
    }

    /// Writes frames without payload: up to [`CONTROL_BYTES`] of them with records, otherwise one.
    fn put_control(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        while out.len() < CONTROL_BYTES {
            if let Some(sequence) = self.output.take_pong() {
                frame::put_pong(sequence, out);
            } else if self.timers.ping_due {
                frame::put_ping(self.timers.ping_sent(now), out);
            } else if !self.streams.put_control(out) {
                break;
            }
            if self.framing != QmuxFraming::Qmux01 {
                break;
            }
        }
        !out.is_empty()
    }
}
