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

use super::{CloseFrame, QuicConnection, from_dir};
use crate::quic::{code, rate};

impl Transport for QuicConnection {
    fn poll(&mut self) -> Option<TransportEvent> {
        if self.life.is_opening() {
            return None;
        }
        loop {
            self.check_h3();
            if let Some(closed) = self.life.take_closed() {
                self.events.clear();
                return Some(TransportEvent::Closed(closed));
            }
            if !self.life.is_ready() {
                // No session polls events any more, but input must still be processed.
                self.input.set_behind(false);
                return None;
            }
            if let Some(event) = self.events.next(&mut self.link, &mut self.layer) {
                return Some(event);
            }
            let Some(event) = self.link.quic.poll() else {
                // The events above may have ended the session.
                self.check_h3();
                if self.life.has_closed() {
                    continue;
                }
                self.input.set_behind(false);
                return None;
            };
            let event = match event {
                quinn_proto::Event::Stream(event) => {
                    self.events.on_stream(event, &mut self.link, &mut self.layer)
                }
                quinn_proto::Event::DatagramReceived => Some(TransportEvent::Datagram),
                quinn_proto::Event::ConnectionLost { reason } => {
                    self.life.lost(reason);
                    None
                }
                quinn_proto::Event::Connected
                | quinn_proto::Event::HandshakeDataReady
                | quinn_proto::Event::DatagramsUnblocked => None,
            };
            if event.is_some() {
                return event;
            }
        }
    }

    fn open(&mut self, dir: Dir, priority: i32) -> Option<Stream> {
        if !self.life.is_ready() {
            return None;
        }
        let id = self.link.open(from_dir(dir), priority)?;
        self.layer.with_h3(&mut self.link, |h3, quic| h3.opened(quic, id));
        Some(Stream(id.into()))
    }

    fn read(&mut self, stream: Stream, max: usize) -> Result<Option<Bytes>, ReadError> {
        self.link.read(stream, max)
    }

    fn write(&mut self, stream: Stream, chunks: &mut [Bytes]) -> Result<usize, WriteError> {
        let id = self.link.sendable(stream).ok_or(WriteError::Gone)?;
        let offered: usize = chunks.iter().map(Bytes::len).sum();
        if offered == 0 {
            return Ok(0);
        }
        if self.layer.is_blocked(&mut self.link, id) {
            return Err(self.link.refuse_write(offered));
        }
        self.link.write(id, chunks, offered)
    }

    fn finish(&mut self, stream: Stream) {
        let Some(id) = self.link.sendable(stream) else { return };
        if self.layer.finish_owed(id) {
            return;
        }
        // Fails if the stream was stopped (reported by an event) or has ended.
        let _ = self.link.quic.send_stream(id).finish();
    }

    fn reset(&mut self, stream: Stream, code: StreamCode) {
        let Some(id) = self.link.sendable(stream) else { return };
        self.layer.forget_owed(id);
        // Fails if the stream has ended.
        let _ = self.link.quic.send_stream(id).reset(code::stream_to_wire(code));
    }

    fn stop(&mut self, stream: Stream, code: StreamCode) {
        self.link.stop(stream, code);
    }

    fn set_priority(&mut self, stream: Stream, priority: i32) {
        self.link.set_priority(stream, priority);
    }

    fn send_datagram(&mut self, datagram: Bytes) -> Result<(), DatagramError> {
        let max = self.payload_size();
        if max == 0 {
            return Err(DatagramError::Unsupported);
        }
        if datagram.len() > max {
            return Err(DatagramError::TooLarge);
        }
        let datagram = self.layer.wrap(datagram).ok_or(DatagramError::Unsupported)?;
        self.link.send_datagram(datagram)
    }

    fn recv_datagram(&mut self) -> Option<Bytes> {
        loop {
            let datagram = self.link.recv_datagram()?;
            if let Some(payload) = self.layer.unwrap(datagram) {
                return Some(payload);
            }
        }
    }

    fn max_datagram(&self) -> usize {
        self.max_datagram
    }

    fn exempt(&mut self, on: bool) {
        self.link.exempt(on);
    }

    fn stats(&self) -> PathStats {
        PathStats { rtt: Some(self.link.quic.rtt()), bitrate: rate::bitrate(&self.link.quic) }
    }

    fn close(&mut self, now: Instant, code: SessionCode, reason: &str) {
        self.life.set_now(now);
        if !(self.life.is_opening() || self.life.is_ready()) || self.link.quic.is_closed() {
            return;
        }
        let close = CloseFrame::of_session(code, reason);
        if self.layer.close(&mut self.link, code, reason) {
            self.life.note_closed(TransportClosed::ByUs);
            self.life.leave(close);
        } else {
            self.link.close(now, close);
            self.life.end(TransportClosed::ByUs);
        }
    }
}
