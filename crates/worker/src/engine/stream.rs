//! Connections over stream sockets: hand-over of the socket, reads and writes.

use std::{
    io,
    time::{Duration, Instant},
};

use mio::{Registry, Token};
use relay_meter::Worker as Meter;
use relay_model::transport::{Transport, TransportEvent};
use relay_transport::{
    qmux::{self, QmuxCarrier},
    quic::{ConnPhase, ConnTraffic},
};

use super::guard::guard;
use crate::{
    accept::{Admission, AdmissionCallback, AdmittedSocket, PendingSession, RejectReason},
    admission::Denial,
    stream_socket::StreamSocket,
};

/// Limit on bytes read from one peer in a turn.
const PEER_READ_BYTES: usize = 64 * 1024;
/// Bytes per read call; no further read is made once [`PEER_FRAMES`] frames were parsed.
const READ_BYTES: usize = 16 * 1024;
/// Limit on frames and records of one peer parsed in a turn, except for those of the last read.
const PEER_FRAMES: u64 = 1_024;
/// Limit on bytes read from all of them in a turn, like that of datagrams.
const TURN_READ_BYTES: usize = 512 * 1024;
/// Bytes taken from a connection at a time: few, as their order is final then, but enough to fill TLS records
/// and write calls.
const CHUNK_BYTES: usize = 32 * 1024;
/// Limit on bytes sent to one peer before the others have had their turn: about four QUIC trains.
const PEER_WRITE_BYTES: usize = 256 * 1024;
/// Memory of an idle connection over a stream socket without TLS, bytes: here, in the kernel, and of an
/// incomplete frame. Measured as the growth of a relay per idle connection, rounded up.
const SOCKET_BYTES: u64 = 8 * 1024;
/// Copies of the request target per connection: of the description, of its configuration, of its transport, and of
/// the gate.
const TARGET_COPIES: u64 = 4;
/// Interval of reading the kernel's path statistics.
const PATH_AGE: Duration = Duration::from_secs(1);

/// State shared by the stream sockets of a worker.
pub(super) struct StreamSockets {
    /// Registry for readiness events, and the token of the peer at index 0. `None`: the driver of the worker
    /// reports readiness itself.
    registry: Option<(Registry, usize)>,
    /// Limit on peers over stream sockets.
    max: usize,
    count: usize,
    buffer: Vec<u8>,
    /// Bytes that may still be read in this turn.
    left: usize,
}

impl Default for StreamSockets {
    fn default() -> Self {
        Self { registry: None, max: usize::MAX, count: 0, buffer: Vec::new(), left: TURN_READ_BYTES }
    }
}

impl StreamSockets {
    /// Resets the read limit at the start of a turn.
    pub(super) fn refill(&mut self) {
        self.left = TURN_READ_BYTES;
    }

    /// Registers sockets at `registry`; the token of the peer at index `i` is `first + i`. Limits them to `max`.
    pub(super) fn watch(&mut self, registry: Registry, first: usize, max: usize) {
        self.registry = Some((registry, first));
        self.max = max;
    }

    /// Registry and token for the socket of the peer at `index`.
    pub(super) fn registration(&self, index: u32) -> Option<(&Registry, Token)> {
        let (registry, first) = self.registry.as_ref()?;
        Some((registry, Token(first + index as usize)))
    }

    /// Whether the limit on peers is reached.
    pub(super) fn is_full(&self) -> bool {
        self.count >= self.max
    }

    /// Counts a new peer.
    pub(super) fn add(&mut self) {
        self.count += 1;
    }

    /// Counts a removed peer.
    pub(super) fn forget(&mut self) {
        self.count = self.count.saturating_sub(1);
    }
}

/// State of a connection after it has sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamSent {
    /// Whether there is more to send, and room.
    pub(super) has_more: bool,
    /// Whether its session has an event to handle.
    pub(super) has_event: bool,
    /// Whether its socket may have data that it may read now.
    pub(super) wants_turn: bool,
}

/// Connection over a stream socket, before and after the hand-over of the socket.
pub(super) struct Socketed {
    pub(super) pending: PendingSession,
    pub(super) conn: qmux::QmuxConnection,
    config: qmux::QmuxConfig,
    /// `None` once it was called.
    verdict: Option<AdmissionCallback>,
    /// Time by which an admitted connection must have its socket and be ready.
    pub(super) socket_by: Option<Instant>,
    line: Option<StreamSocket>,
    /// Time of the next read of the path statistics.
    path_at: Instant,
    /// Whether the session has unhandled events of the data read so far.
    pub(super) is_behind: bool,
}

impl Socketed {
    /// Creates the connection, without a socket. `protocols`: versions offered where none is negotiated yet.
    pub(super) fn new(pending: PendingSession, protocols: &'static [&'static str], now: Instant) -> Self {
        let config = qmux::QmuxConfig {
            protocol: pending.conn.version,
            protocols: if pending.over == QmuxCarrier::Bytes { protocols } else { &[] },
            target: pending.conn.target.clone(),
            rtt: pending.conn.rtt,
            ..qmux::QmuxConfig::new(pending.framing, pending.over)
        };
        let conn = qmux::QmuxConnection::new(config.clone(), now);
        Self {
            pending,
            conn,
            config,
            verdict: None,
            socket_by: None,
            line: None,
            path_at: now,
            is_behind: false,
        }
    }

    /// Sets the callback for the outcome of its admission.
    pub(super) fn set_verdict(&mut self, verdict: AdmissionCallback) {
        self.verdict = Some(verdict);
    }

    /// Marks the socket as readable or writable. False: there is none yet.
    pub(super) fn set_ready(&mut self, readable: bool, writable: bool) -> bool {
        let Some(line) = &mut self.line else { return false };
        line.is_readable |= readable;
        line.is_writable |= writable;
        true
    }

    /// Phase of the connection: never ready without a socket, and drained once closed without one.
    pub(super) fn phase(&self) -> ConnPhase {
        match (self.conn.phase(), &self.line) {
            (ConnPhase::Opening | ConnPhase::Ready, None) => ConnPhase::Opening,
            (ConnPhase::Closed, None) => ConnPhase::Drained,
            (ConnPhase::Closed, Some(line)) if line.is_broken || line.has_ended => ConnPhase::Drained,
            (phase, _) => phase,
        }
    }

    /// Memory of the connection, bytes.
    pub(super) fn footprint(&self) -> u64 {
        let of_line = self.line.as_ref().map_or(0, StreamSocket::footprint);
        let target = self.pending.conn.target.as_ref().map_or(0, String::len) as u64;
        SOCKET_BYTES + self.conn.footprint() + of_line + TARGET_COPIES * target
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.line.as_ref().and_then(|_| self.conn.timeout())
    }

    pub(super) fn traffic(&self) -> ConnTraffic {
        self.line.as_ref().map(StreamSocket::traffic).unwrap_or_default()
    }

    /// Attaches the socket. Timeouts of the connection start now, not at its arrival. Returns the number of
    /// bytes already received.
    pub(super) fn link(
        &mut self,
        link: AdmittedSocket,
        registry: Option<(&Registry, Token)>,
        now: Instant,
    ) -> io::Result<usize> {
        let (mut line, received) = StreamSocket::new(link)?;
        if let Some((registry, token)) = registry {
            line.register(registry, token)?;
        }
        let path = line.path();
        self.config.rtt = path.rtt.or(self.config.rtt);
        self.conn = qmux::QmuxConnection::new(self.config.clone(), now);
        self.conn.set_path(path);
        self.path_at = now + PATH_AGE;
        self.line = Some(line);
        if !received.is_empty() {
            self.conn.receive(now, &received);
        }
        Ok(received.len())
    }

    /// Handles due timers and reads the socket.
    pub(super) fn process_input(
        &mut self,
        now: Instant,
        streams: &mut StreamSockets,
        meter: &mut Meter,
    ) -> ConnPhase {
        if self.next_deadline().is_some_and(|at| now >= at) {
            self.conn.handle_timeout(now);
        }
        if let Some(line) = &mut self.line
            && !self.is_behind
        {
            let before = line.traffic().bytes_in;
            receive(line, &mut self.conn, now, streams);
            let came = line.traffic().bytes_in - before;
            meter.bytes_in += came;
            meter.stream_bytes_in += came;
            if now >= self.path_at {
                self.path_at = now + PATH_AGE;
                self.conn.set_path(line.path());
            }
        }
        self.phase()
    }

    /// Next event for the session; `None` once it has handled all.
    pub(super) fn poll(&mut self) -> Option<TransportEvent> {
        let event = self.conn.poll();
        self.is_behind &= event.is_some();
        event
    }

    /// Whether its socket may have data that it may read now.
    fn wants_turn(&self) -> bool {
        !self.is_behind
            && self
                .line
                .as_ref()
                .is_some_and(|line| line.is_readable && !line.has_ended && self.conn.wants_input())
    }

    /// Sends as far as the socket has room and the share lasts.
    pub(super) fn send(&mut self, now: Instant, meter: &mut Meter) -> StreamSent {
        let has_more = self.line.as_mut().is_some_and(|line| {
            let before = line.traffic().bytes_out;
            let was_writable = line.is_writable;
            let has_more = transmit(line, &mut self.conn, now);
            let went = line.traffic().bytes_out - before;
            meter.bytes_out += went;
            meter.stream_bytes_out += went;
            meter.streams_full += u64::from(was_writable && !line.is_writable);
            has_more
        });
        // A session that is behind continues in its next share.
        let has_event = self.conn.has_event() && !self.is_behind;
        StreamSent { has_more, has_event, wants_turn: self.wants_turn() }
    }

    /// Rejects the connection, unless its verdict was given already.
    pub(super) fn reject(&mut self, is_ending: bool, denial: Option<Denial>) {
        self.call_verdict(Err(match denial {
            Some(denial) => RejectReason::Denied(denial),
            None if is_ending => RejectReason::Leaving,
            None => RejectReason::Denied(Denial::Unavailable),
        }));
    }

    /// Calls the verdict, once.
    pub(super) fn call_verdict(&mut self, what: Result<Admission, RejectReason>) {
        if let Some(verdict) = self.verdict.take() {
            call_verdict(verdict, what);
        }
    }
}

/// Calls a verdict; a panic in it has no effect.
pub(super) fn call_verdict(verdict: AdmissionCallback, what: Result<Admission, RejectReason>) {
    if guard(|| verdict(what)).is_err() {
        tracing::error!("verdict callback of a new connection panicked");
    }
}

/// Reads while the connection wants input, the socket has data, and the share lasts.
fn receive(
    line: &mut StreamSocket,
    conn: &mut qmux::QmuxConnection,
    now: Instant,
    streams: &mut StreamSockets,
) {
    let StreamSockets { buffer, left, .. } = streams;
    let mut share = PEER_READ_BYTES.min(*left);
    buffer.resize(READ_BYTES, 0);
    let frames = conn.frames() + PEER_FRAMES;
    while share > 0 && conn.frames() < frames && line.is_readable && !line.has_ended && conn.wants_input() {
        let Some(room) = buffer.get_mut(..share.min(READ_BYTES)) else { return };
        match line.read(room) {
            Ok(0) => conn.end_of_input("the peer ended its side of the connection"),
            Ok(count) => {
                share -= count;
                *left = left.saturating_sub(count);
                if let Some(came) = buffer.get(..count) {
                    conn.receive(now, came);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => conn.end_of_input(&error.to_string()),
        }
    }
}

/// Writes to the socket. True: there is more to send, and room.
fn transmit(line: &mut StreamSocket, conn: &mut qmux::QmuxConnection, now: Instant) -> bool {
    let mut sent = 0;
    loop {
        if !line.flush() {
            if line.is_broken {
                conn.end_of_input("write to the peer's socket failed");
            }
            return false;
        }
        if sent >= PEER_WRITE_BYTES {
            return conn.has_output();
        }
        let count = conn.transmit(now, CHUNK_BYTES, &mut line.unsent);
        if count == 0 {
            break;
        }
        sent += count;
    }
    if matches!(conn.phase(), ConnPhase::Closed | ConnPhase::Drained) {
        line.shut();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_counts_peers_that_are_not_removed() {
        let mut streams = StreamSockets { max: 2, ..StreamSockets::default() };
        streams.add();
        assert!(!streams.is_full());
        streams.add();
        assert!(streams.is_full());
        streams.forget();
        assert!(!streams.is_full());
        assert!(streams.registration(0).is_none(), "its driver reports readiness");
    }
}
