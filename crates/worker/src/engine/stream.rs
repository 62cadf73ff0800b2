//! Peers over stream sockets: arrival, hand-over of the socket, reads and writes.

use std::{
    io,
    time::{Duration, Instant},
};

use mio::{Registry, Token};
use relay_meter::Worker as Meter;
use relay_model::{
    SessionId, limits,
    transport::{Transport, TransportEvent},
};
use relay_transport::{
    qmux::{self, QmuxCarrier},
    quic::{ConnPhase, ConnTraffic},
};

use super::{
    PeerState, TurnStage, Worker, carrier::PeerCarrier, flush::Transmitted, guard, peer::WorkerPeer,
};
use crate::{
    accept::{Admission, AdmissionCallback, AdmittedSocket, PendingAccept, PendingSession, RejectReason},
    gate::Denial,
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
/// Copies of the request target per connection: of the newcomer, of its configuration, of its transport, and of
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

    /// Counts a removed peer.
    pub(super) fn forget(&mut self) {
        self.count = self.count.saturating_sub(1);
    }
}

/// Connection over a stream socket, before and after the hand-over of the socket.
pub(super) struct Socketed {
    pub(super) pending: PendingSession,
    pub(super) conn: qmux::QmuxConnection,
    config: qmux::QmuxConfig,
    /// `None` once it was called.
    verdict: Option<AdmissionCallback>,
    line: Option<StreamSocket>,
    /// Time of the next read of the path statistics.
    path_at: Instant,
    /// Whether the session has unhandled events of the data read so far.
    pub(super) is_behind: bool,
}

impl Socketed {
    fn new(newcomer: PendingSession, protocols: &'static [&'static str], now: Instant) -> Self {
        let config = qmux::QmuxConfig {
            protocol: newcomer.conn.version,
            protocols: if newcomer.over == QmuxCarrier::Bytes { protocols } else { &[] },
            target: newcomer.conn.target.clone(),
            rtt: newcomer.conn.rtt,
            ..qmux::QmuxConfig::new(newcomer.framing, newcomer.over)
        };
        let conn = qmux::QmuxConnection::new(config.clone(), now);
        Self { pending: newcomer, conn, config, verdict: None, line: None, path_at: now, is_behind: false }
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
    fn link(
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

    /// Sends as far as the socket has room and the share lasts. True: there is more to send, and room.
    fn send(&mut self, now: Instant, meter: &mut Meter) -> bool {
        let Some(line) = &mut self.line else { return false };
        let before = line.traffic().bytes_out;
        let was_writable = line.is_writable;
        let has_more = transmit(line, &mut self.conn, now);
        let went = line.traffic().bytes_out - before;
        meter.bytes_out += went;
        meter.stream_bytes_out += went;
        meter.streams_full += u64::from(was_writable && !line.is_writable);
        has_more
    }

    /// Calls the verdict, once.
    fn call_verdict(&mut self, what: Result<Admission, RejectReason>) {
        if let Some(verdict) = self.verdict.take() {
            tell(verdict, what);
        }
    }
}

fn tell(verdict: AdmissionCallback, what: Result<Admission, RejectReason>) {
    if guard(|| verdict(what)).is_none() {
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

impl Worker {
    /// Registers stream sockets at `registry`; the token of the peer at index `i` is `first + i`. Limits them
    /// to `max`, for the limit on open files.
    pub fn watch_streams(&mut self, registry: Registry, first: usize, max: usize) {
        self.streams.registry = Some((registry, first));
        self.streams.max = max;
    }

    /// Marks the stream socket of the peer at `index` as readable or writable.
    pub fn stream_ready(&mut self, index: usize, readable: bool, writable: bool) {
        let Ok(index) = u32::try_from(index) else { return };
        let Some(stream) = self.peers.get_mut(index).and_then(|peer| peer.carrier.stream()) else { return };
        let Some(line) = &mut stream.line else { return };
        line.is_readable |= readable;
        line.is_writable |= writable;
        self.touch(index);
    }

    /// Adds a peer for a connection over a stream socket, and asks the gate.
    pub(super) fn arrive_over_stream(&mut self, arrival: PendingAccept, now: Instant) {
        let PendingAccept { pending: newcomer, verdict } = arrival;
        self.count_arrival(newcomer.conn.transport);
        let turned = if self.ending.is_some() {
            self.meter.refused_draining += 1;
            Some(RejectReason::Leaving)
        } else if self.is_out_of_memory() {
            self.meter.refused_memory += 1;
            Some(RejectReason::Full)
        } else if self.streams.count >= self.streams.max {
            self.meter.refused_full += 1;
            Some(RejectReason::Full)
        } else {
            None
        };
        if let Some(turned) = turned {
            return tell(verdict, Err(turned));
        }
        let admit_by = now + limits::SETUP_TIMEOUT;
        let target = newcomer.conn.target.clone();
        let stream = Box::new(Socketed::new(newcomer, self.shared.quic.protocols(), now));
        let (ledger, remote) = (self.shared.ledger.clone(), stream.pending.conn.remote.ip());
        let make =
            |id| WorkerPeer::new(id, PeerCarrier::Stream(stream), admit_by, ledger.open_pending(id, remote));
        let index = self.peers.insert(make);
        let Some(index) = index else {
            self.meter.refused_full += 1;
            return tell(verdict, Err(RejectReason::Full));
        };
        self.streams.count += 1;
        if let Some(stream) = self.peers.get_mut(index).and_then(|peer| peer.carrier.stream()) {
            stream.verdict = Some(verdict);
        }
        self.mark_dirty(index);
        if target.is_some()
            && let Some(peer) = self.peers.get_mut(index)
        {
            peer.state = PeerState::Waiting;
        }
        self.charge(index, now);
        if self.peers.get_mut(index).is_none_or(|peer| peer.parting.is_some()) {
            return;
        }
        match target {
            Some(target) => self.ask_gate(index, now, target, None),
            // SETUP will carry the target.
            None => self.give_admission(index),
        }
    }

    fn count_arrival(&mut self, transport: &str) {
        self.meter.connections += 1;
        match transport {
            "websocket" => self.meter.connections_websocket += 1,
            "unix" => self.meter.connections_unix += 1,
            _ => self.meter.connections_tcp += 1,
        }
    }

    /// Gives the accepting thread a place to hand the socket over to.
    pub(super) fn give_admission(&mut self, index: u32) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let place = Admission::new(peer.id, self.mailbox.clone());
        if let Some(stream) = peer.carrier.stream() {
            stream.call_verdict(Ok(place));
        }
    }

    /// Rejects the connection, unless its verdict was given already.
    pub(super) fn reject_arrival(&mut self, index: u32, denial: Option<Denial>) {
        let is_ending = self.ending.is_some();
        if let Some(peer) = self.peers.get_mut(index) {
            turn_away(&mut peer.carrier, is_ending, denial);
        }
    }

    /// Attaches the socket of a session.
    pub(super) fn link(&mut self, session: SessionId, link: AdmittedSocket, now: Instant) {
        let Some(index) = self.peers.index_of(session) else { return };
        let Self { peers, streams, meter, shared, .. } = self;
        let Some(peer) = peers.get_mut(index) else { return };
        if peer.parting.is_some() || peer.state == PeerState::Over {
            return;
        }
        let until = now + limits::SETUP_TIMEOUT;
        if matches!(peer.state, PeerState::Placed(_)) {
            peer.state = PeerState::Placed(until);
        }
        let Some(stream) = peer.carrier.stream() else { return };
        let linked = guard(|| {
            shared.fault(TurnStage::Feed, session);
            let registry = streams.registry.as_ref();
            let registry = registry.map(|(registry, first)| (registry, Token(first + index as usize)));
            stream.link(link, registry, now)
        });
        match linked {
            Some(Ok(count)) => {
                meter.bytes_in += count as u64;
                meter.stream_bytes_in += count as u64;
                self.touch(index);
            }
            Some(Err(error)) => {
                tracing::debug!(target: super::SESSIONS, %session, %error, "cannot use the socket");
                self.unlinked(session, now);
            }
            None => self.drop_panicked(index, TurnStage::Feed),
        }
    }

    /// Closes a session that gets no socket.
    pub(super) fn unlinked(&mut self, session: SessionId, now: Instant) {
        let Some(index) = self.peers.index_of(session) else { return };
        self.close(index, now, relay_model::SessionCode::NONE, "no socket");
    }

    /// Flushes a peer with a stream socket.
    pub(super) fn send_stream(&mut self, index: u32, now: Instant) -> Transmitted {
        let Self { peers, shared, meter, .. } = self;
        let Some(peer) = peers.get_mut(index) else { return Transmitted::Gone };
        let id = peer.id;
        let Some(stream) = peer.carrier.stream() else { return Transmitted::All };
        let sent = guard(|| {
            shared.fault(TurnStage::Flush, id);
            let has_more = stream.send(now, meter);
            // A session that is behind continues in its next share.
            (has_more, stream.conn.has_event() && !stream.is_behind, stream.wants_turn())
        });
        let Some((has_more, has_event, wants_turn)) = sent else {
            self.drop_panicked(index, TurnStage::Flush);
            return Transmitted::Gone;
        };
        if wants_turn {
            self.touch(index);
        }
        // Sending has made room.
        if has_event
            && !self.with_session(index, TurnStage::Input, now, |session, conn, cx| session.input(conn, cx))
        {
            return Transmitted::Gone;
        }
        if has_more { Transmitted::Some } else { Transmitted::All }
    }
}

/// Rejects the connection, unless its verdict was given already.
pub(super) fn turn_away(carrier: &mut PeerCarrier, is_ending: bool, denial: Option<Denial>) {
    if let Some(stream) = carrier.stream() {
        stream.call_verdict(Err(match denial {
            Some(denial) => RejectReason::Denied(denial),
            None if is_ending => RejectReason::Leaving,
            None => RejectReason::Denied(Denial::Unavailable),
        }));
    }
}
