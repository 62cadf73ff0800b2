//! `Transport` implementation of a connection.

use std::time::Instant;

use bytes::Bytes;
use relay_model::{
    SessionCode, StreamCode, limits as model,
    transport::{
        DatagramError, Dir, PathStats, ReadError, Stream, Transport, TransportClosed, TransportEvent,
        WriteError,
    },
};
use relay_wire::varint;

use super::{CloseCause, Connection, QmuxPhase};
use crate::qmux::QmuxFraming;

impl Transport for Connection {
    fn poll(&mut self) -> Option<TransportEvent> {
        self.poll_life()
    }

    fn open(&mut self, dir: Dir, priority: i32) -> Option<Stream> {
        if self.life != QmuxPhase::Ready {
            return None;
        }
        self.streams.open(dir, priority)
    }

    fn read(&mut self, stream: Stream, max: usize) -> Result<Option<Bytes>, ReadError> {
        self.streams.read(stream, max)
    }

    fn write(&mut self, stream: Stream, chunks: &mut [Bytes]) -> Result<usize, WriteError> {
        self.streams.write(stream, chunks)
    }

    fn finish(&mut self, stream: Stream) {
        self.streams.finish(stream);
    }

    fn reset(&mut self, stream: Stream, code: StreamCode) {
        self.streams.reset(stream, code);
    }

    fn stop(&mut self, stream: Stream, code: StreamCode) {
        self.streams.stop(stream, code);
    }

    fn set_priority(&mut self, stream: Stream, priority: i32) {
        self.streams.set_priority(stream, priority);
    }

    fn send_datagram(&mut self, datagram: Bytes) -> Result<(), DatagramError> {
        match self.max_datagram() {
            0 => Err(DatagramError::Unsupported),
            max if datagram.len() > max => Err(DatagramError::TooLarge),
            _ => {
                self.datagrams.push(datagram, model::DATAGRAM_QUEUE);
                Ok(())
            }
        }
    }

    fn recv_datagram(&mut self) -> Option<Bytes> {
        self.received.pop()
    }

    fn max_datagram(&self) -> usize {
        if self.life != QmuxPhase::Ready || self.framing != QmuxFraming::Qmux01 {
            return 0;
        }
        let frame = self.peer_datagram.min(self.peer_record);
        let payload = frame.saturating_sub(1 + varint::size(frame) as u64);
        usize::try_from(payload).unwrap_or(usize::MAX).min(model::DATAGRAM_QUEUE / 2)
    }

    fn exempt(&mut self, on: bool) {
        self.streams.exempt(on);
    }

    /// Prefers the round-trip time of pings, which reach the peer; the kernel's value ends at the next proxy.
    fn stats(&self) -> PathStats {
        PathStats { rtt: self.clock.rtt().or(self.path.rtt), bitrate: self.path.bitrate }
    }

    fn close(&mut self, now: Instant, code: SessionCode, reason: &str) {
        self.now = now;
        if matches!(self.life, QmuxPhase::Opening(_) | QmuxPhase::Ready) {
            self.streams.forget();
            self.streams.events.clear();
            self.is_ready_due = false;
        }
        self.depart(TransportClosed::ByUs, CloseCause::Application(code, reason));
    }
}
