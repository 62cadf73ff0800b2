//! One connection as a `Transport`.

use std::time::Instant;

use bytes::Bytes;
use relay_model::{SessionCode, StreamCode};
use relay_session::transport::{
    DatagramError, Dir, Event, ReadError, Stats, Stream, Transport, WriteError,
};

use super::{Config, Phase, Traffic};

/// A connection that carries one session.
pub struct Connection {
    config: Config,
}

impl Connection {
    /// A connection whose carrier is open. What it has to say first is queued at once.
    pub fn new(config: Config, now: Instant) -> Self {
        let _ = now;
        Self { config }
    }

    /// Bytes of the carrier, after TLS.
    pub fn receive(&mut self, now: Instant, bytes: &[u8]) {
        let _ = (now, bytes);
    }

    /// No more will come: the peer ended its side, or the socket failed, in words.
    pub fn end_of_input(&mut self, why: &str) {
        let _ = why;
    }

    /// Appends what is to be sent next, about `max` bytes of what is queued; returns how many.
    pub fn transmit(&mut self, now: Instant, max: usize, out: &mut Vec<Bytes>) -> usize {
        let _ = (now, max, out);
        0
    }

    /// Whether [`Connection::transmit`] would give something.
    pub fn has_output(&self) -> bool {
        false
    }

    /// Whether the socket should be read.
    pub fn wants_input(&self) -> bool {
        true
    }

    /// Whether `poll` has something to tell.
    pub fn has_event(&self) -> bool {
        false
    }

    /// When [`Connection::handle_timeout`] is due. Changes with every call that takes `&mut self`.
    pub fn timeout(&self) -> Option<Instant> {
        None
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
    }

    /// What the kernel knows of the path now.
    pub fn set_path(&mut self, stats: Stats) {
        let _ = stats;
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        Phase::Opening
    }

    /// What the session speaks. `None` at `Ready`: nothing was agreed on, the older versions' exchange of
    /// SETUP finds out.
    pub fn protocol(&self) -> Option<&'static str> {
        self.config.protocol
    }

    /// Path and query of the URL, raw; `None` where SETUP carries them.
    pub fn target(&self) -> Option<&str> {
        self.config.target.as_deref()
    }

    /// Bytes of the carrier received and sent so far, after TLS.
    pub fn traffic(&self) -> Traffic {
        Traffic::default()
    }
}

impl Transport for Connection {
    fn poll(&mut self) -> Option<Event> {
        None
    }
    fn open(&mut self, dir: Dir, priority: i32) -> Option<Stream> {
        let _ = (dir, priority);
        None
    }
    fn read(&mut self, stream: Stream, max: usize) -> Result<Option<Bytes>, ReadError> {
        let _ = (stream, max);
        Err(ReadError::Gone)
    }
    fn write(&mut self, stream: Stream, chunks: &mut [Bytes]) -> Result<usize, WriteError> {
        let _ = (stream, chunks);
        Err(WriteError::Gone)
    }
    fn finish(&mut self, stream: Stream) {
        let _ = stream;
    }
    fn reset(&mut self, stream: Stream, code: StreamCode) {
        let _ = (stream, code);
    }
    fn stop(&mut self, stream: Stream, code: StreamCode) {
        let _ = (stream, code);
    }
    fn set_priority(&mut self, stream: Stream, priority: i32) {
        let _ = (stream, priority);
    }
    fn send_datagram(&mut self, datagram: Bytes) -> Result<(), DatagramError> {
        let _ = datagram;
        Err(DatagramError::Unsupported)
    }
    fn recv_datagram(&mut self) -> Option<Bytes> {
        None
    }
    fn max_datagram(&self) -> usize {
        0
    }
    fn exempt(&mut self, on: bool) {
        let _ = on;
    }
    fn stats(&self) -> Stats {
        Stats { rtt: self.config.rtt, bitrate: None }
    }
    fn close(&mut self, now: Instant, code: SessionCode, reason: &str) {
        let _ = (now, code, reason);
    }
}
