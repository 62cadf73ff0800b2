//! `Transport` implementation of a connection.

use std::time::Instant;

use bytes::Bytes;
use quinn_proto::SendDatagramError;
use relay_model::{
    SessionCode, StreamCode,
    transport::{
        DatagramError, Dir, PathStats, ReadError, Stream, Transport, TransportClosed, TransportEvent,
        WriteError,
    },
};

use super::{Due, FAREWELL, QuicConnection, QuicPhase, SessionLayer, from_dir, index};
use crate::quic::{code, rate};

impl Transport for QuicConnection {
    fn poll(&mut self) -> Option<TransportEvent> {
        if matches!(self.life, QuicPhase::Opening(_)) {
            return None;
        }
        loop {
            self.check_http();
            if let Some(closed) = self.closed.take() {
                self.due = Due::default();
                return Some(TransportEvent::Closed(closed));
            }
            if !matches!(self.life, QuicPhase::Ready) {
                // No session polls events any more, but input must still be processed.
                self.is_behind = false;
                return None;
            }
            if let Some(event) = self.poll_due() {
                return Some(event);
            }
            let Some(event) = self.quic.poll() else {
                // The events above may have ended the session.
                self.check_http();
                if self.closed.is_some() {
                    continue;
                }
                self.is_behind = false;
                return None;
            };
            if let Some(event) = self.translate(event) {
                return Some(event);
            }
        }
    }

    fn open(&mut self, dir: Dir, priority: i32) -> Option<Stream> {
        if !matches!(self.life, QuicPhase::Ready) {
            return None;
        }
        let dir = from_dir(dir);
        let Some(id) = self.quic.streams().open(dir) else {
            if let Some(refused) = self.refused.get_mut(index(dir)) {
                *refused = true;
            }
            return None;
        };
        // Cannot fail: the stream was just opened.
        let _ = self.quic.send_stream(id).set_priority(priority);
        self.with_http(|http, quic| http.opened(quic, id));
        Some(Stream(id.into()))
    }

    fn read(&mut self, stream: Stream, max: usize) -> Result<Option<Bytes>, ReadError> {
        let id = self.receivable(stream).ok_or(ReadError::Gone)?;
        let mut recv = self.quic.recv_stream(id);
        let mut chunks = recv.read(true).map_err(|_| ReadError::Gone)?;
        match chunks.next(max) {
            Ok(chunk) => {
                self.inflow.read(chunk.as_ref().map_or(0, |chunk| chunk.bytes.len()));
                Ok(chunk.map(|chunk| chunk.bytes))
            }
            Err(quinn_proto::ReadError::Blocked) => Err(ReadError::Blocked),
            Err(quinn_proto::ReadError::Reset(code)) => Err(ReadError::Reset(code::stream_from_wire(code))),
        }
    }

    fn write(&mut self, stream: Stream, chunks: &mut [Bytes]) -> Result<usize, WriteError> {
        let id = self.sendable(stream).ok_or(WriteError::Gone)?;
        let offered: usize = chunks.iter().map(Bytes::len).sum();
        if offered == 0 {
            return Ok(0);
        }
        if self.http().is_some_and(|http| http.owes(id)) {
            self.with_http(|http, quic| http.flush(quic));
            if self.http().is_some_and(|http| http.owes(id)) {
                self.starved = true;
                return Err(WriteError::Blocked);
            }
        }
        match self.quic.send_stream(id).write_chunks(chunks) {
            Ok(written) => {
                self.starved |= written.bytes < offered;
                Ok(written.bytes)
            }
            Err(quinn_proto::WriteError::Blocked) => {
                self.starved = true;
                Err(WriteError::Blocked)
            }
            Err(quinn_proto::WriteError::Stopped(code)) => {
                Err(WriteError::Stopped(code::stream_from_wire(code)))
            }
            Err(quinn_proto::WriteError::ClosedStream) => Err(WriteError::Gone),
        }
    }

    fn finish(&mut self, stream: Stream) {
        let Some(id) = self.sendable(stream) else { return };
        if let SessionLayer::Http(http) = &mut self.layer
            && http.finish_owed(id)
        {
            return;
        }
        // Fails if the stream was stopped (reported by an event) or has ended.
        let _ = self.quic.send_stream(id).finish();
    }

    fn reset(&mut self, stream: Stream, code: StreamCode) {
        let Some(id) = self.sendable(stream) else { return };
        if let SessionLayer::Http(http) = &mut self.layer {
            http.forget_owed(id);
        }
        // Fails if the stream has ended.
        let _ = self.quic.send_stream(id).reset(code::stream_to_wire(code));
    }

    fn stop(&mut self, stream: Stream, code: StreamCode) {
        let Some(id) = self.receivable(stream) else { return };
        // Fails if the stream has ended.
        let _ = self.quic.recv_stream(id).stop(code::stream_to_wire(code));
    }

    fn set_priority(&mut self, stream: Stream, priority: i32) {
        if let Some(id) = self.sendable(stream) {
            // Fails if the stream has ended.
            let _ = self.quic.send_stream(id).set_priority(priority);
        }
    }

    fn send_datagram(&mut self, datagram: Bytes) -> Result<(), DatagramError> {
        let max = self.datagram_size();
        if max == 0 {
            return Err(DatagramError::Unsupported);
        }
        if datagram.len() > max {
            return Err(DatagramError::TooLarge);
        }
        let datagram = match &self.layer {
            SessionLayer::Http(http) => http.wrap(&datagram).ok_or(DatagramError::Unsupported)?,
            SessionLayer::Unknown | SessionLayer::Raw(_) => datagram,
        };
        match self.quic.datagrams().send(datagram, true) {
            Ok(()) => Ok(()),
            Err(SendDatagramError::TooLarge | SendDatagramError::Blocked(_)) => Err(DatagramError::TooLarge),
            Err(SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled) => {
                Err(DatagramError::Unsupported)
            }
        }
    }

    fn recv_datagram(&mut self) -> Option<Bytes> {
        loop {
            let datagram = self.quic.datagrams().recv()?;
            self.inflow.read(datagram.len());
            match &self.layer {
                SessionLayer::Unknown | SessionLayer::Raw(_) => return Some(datagram),
                SessionLayer::Http(http) => {
                    if let Some(payload) = http.unwrap(datagram) {
                        return Some(payload);
                    }
                }
            }
        }
    }

    fn max_datagram(&self) -> usize {
        self.max_datagram
    }

    fn exempt(&mut self, on: bool) {
        self.exempt = on;
        self.set_valve();
    }

    fn stats(&self) -> PathStats {
        PathStats { rtt: Some(self.quic.rtt()), bitrate: rate::bitrate(&self.quic) }
    }

    fn close(&mut self, now: Instant, code: SessionCode, reason: &str) {
        self.now = now;
        if !matches!(self.life, QuicPhase::Opening(_) | QuicPhase::Ready) || self.quic.is_closed() {
            return;
        }
        self.closed.get_or_insert(TransportClosed::ByUs);
        let wire = code::session_to_wire(code);
        let text = Bytes::copy_from_slice(reason.as_bytes());
        if self.protocol().is_some() && self.is_webtransport() {
            self.with_http(|http, quic| http.close(quic, code, reason));
            self.life = QuicPhase::Leaving(now + FAREWELL, wire, text);
        } else {
            self.quic.close(now, wire, text);
            self.life = QuicPhase::Over;
        }
    }
}
