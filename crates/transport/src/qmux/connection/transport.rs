//! `Transport` implementation of a connection.

use std::time::Instant;

use bytes::Bytes;
use relay_model::{
    SessionCode, StreamCode,
    transport::{
        DatagramError, Dir, PathStats, ReadError, Stream, Transport, TransportClosed, TransportEvent,
        WriteError,
    },
};

use super::{CloseCause, QmuxConnection};
use crate::qmux::QmuxFraming;

impl Transport for QmuxConnection {
    fn poll(&mut self) -> Option<TransportEvent> {
        if self.life.is_opening() {
            return None;
        }
        if self.life.take_ready() {
            return Some(TransportEvent::Ready);
        }
        if let Some(event) = self.streams.poll() {
            return Some(event);
        }
        let closed = self.life.take_closed()?;
        self.streams.forget();
        self.datagrams.clear_received();
        Some(TransportEvent::Closed(closed))
    }

    fn open(&mut self, dir: Dir, priority: i32) -> Option<Stream> {
        if !self.life.is_ready() {
            return None;
        }
        self.streams.open(dir, priority)
    }

    fn read(&mut self, stream: Stream, max: usize) -> Result<Option<Bytes>, ReadError> {
        self.streams.read(stream, max)
    }

    fn write(&mut self, Stream(id): Stream, chunks: &mut [Bytes]) -> Result<usize, WriteError> {
        self.streams.send.write(id, chunks)
    }

    fn finish(&mut self, Stream(id): Stream) {
        self.streams.send.finish(id);
    }

    fn reset(&mut self, stream: Stream, code: StreamCode) {
        self.streams.reset(stream, code);
    }

    fn stop(&mut self, stream: Stream, code: StreamCode) {
        self.streams.stop(stream, code);
    }

    fn set_priority(&mut self, Stream(id): Stream, priority: i32) {
        self.streams.send.set_priority(id, priority);
    }

    fn send_datagram(&mut self, datagram: Bytes) -> Result<(), DatagramError> {
        let max = self.max_datagram();
        self.datagrams.send(datagram, max)
    }

    fn recv_datagram(&mut self) -> Option<Bytes> {
        self.datagrams.take_received()
    }

    fn max_datagram(&self) -> usize {
        if !self.life.is_ready() || self.framing != QmuxFraming::Qmux01 {
            return 0;
        }
        self.datagrams.largest()
    }

    fn exempt(&mut self, on: bool) {
        self.streams.send.exempt(on);
    }

    /// Prefers the round-trip time of pings, which reach the peer; the kernel's value ends at the next proxy.
    fn stats(&self) -> PathStats {
        PathStats { rtt: self.timers.rtt().or(self.path.rtt), bitrate: self.path.bitrate }
    }

    fn close(&mut self, now: Instant, code: SessionCode, reason: &str) {
        self.life.set_now(now);
        if self.life.is_open() {
            self.streams.forget();
            self.streams.events.clear();
            self.life.take_ready();
        }
        self.depart(TransportClosed::ByUs, &CloseCause::Application(code, reason));
    }
}
