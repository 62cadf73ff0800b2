//! Peers whose connection is a stream socket: they arrive, get their socket, read and write.

use std::{
    io,
    time::{Duration, Instant},
};

use mio::{Registry, Token};
use relay_meter::Worker as Meter;
use relay_model::{SessionId, limits};
use relay_session::transport::{Event, Transport};
use relay_transport::{
    qmux::{self, Over},
    quic::{Phase, Traffic},
};

use super::{Stage, State, Worker, carrier::Carrier, flush::Transmitted, guard, peer::Peer};
use crate::{
    arrival::{Arrival, Link, Newcomer, Place, Turned, Verdict},
    gate::Denial,
    line::Line,
};

/// Most that one peer's socket is read in a turn.
const PEER_READ_BYTES: usize = 64 * 1024;
/// Read at a time: no more is parsed once [`PEER_FRAMES`] have been.
const READ_BYTES: usize = 16 * 1024;
/// Frames and records of one peer that are parsed in a turn, but for what the last read brought.
const PEER_FRAMES: u64 = 1_024;
/// Most that all of them are, like that of datagrams.
const TURN_READ_BYTES: usize = 512 * 1024;
/// Taken from a connection at a time: little, for what is taken is decided; enough to fill records of TLS
/// and calls.
const CHUNK_BYTES: usize = 32 * 1024;
/// Most that one peer is sent before the others have had their turn: what four trains of QUIC are.
const PEER_WRITE_BYTES: usize = 256 * 1024;
/// Memory of a connection over a stream socket with no stream open, without TLS, bytes: here, in the kernel, and
/// of a frame that is not whole. Measured as the growth of a relay for each idle connection, rounded up.
const SOCKET_BYTES: u64 = 8 * 1024;
/// How often the kernel is asked about a path.
const PATH_AGE: Duration = Duration::from_secs(1);

/// What a worker knows of stream sockets as such.
pub(super) struct Streams {
    /// Where sockets are waited for, and the token of the peer at index 0. `None`: nobody waits, whoever
    /// drives the worker says what is ready.
    registry: Option<(Registry, usize)>,
    /// Most peers of this kind.
    max: usize,
    count: usize,
    buffer: Vec<u8>,
    /// Bytes that may still be read in this turn.
    left: usize,
}

impl Default for Streams {
    fn default() -> Self {
        Self { registry: None, max: usize::MAX, count: 0, buffer: Vec::new(), left: TURN_READ_BYTES }
    }
}

impl Streams {
    /// A turn begins.
    pub(super) fn refill(&mut self) {
        self.left = TURN_READ_BYTES;
    }

    /// A peer of this kind is gone.
    pub(super) fn forget(&mut self) {
        self.count = self.count.saturating_sub(1);
    }
}

/// A connection over a stream socket, before and after it has one.
pub(super) struct Socketed {
    pub(super) newcomer: Newcomer,
    pub(super) conn: qmux::Connection,
    config: qmux::Config,
    /// Until it is heard.
    verdict: Option<Verdict>,
    line: Option<Line>,
    /// When the kernel is asked about the path again.
    path_at: Instant,
    /// The session has not taken all events of what was read.
    pub(super) is_behind: bool,
}

impl Socketed {
    fn new(newcomer: Newcomer, protocols: &'static [&'static str], now: Instant) -> Self {
        let config = qmux::Config {
            protocol: newcomer.protocol,
            protocols: if newcomer.over == Over::Bytes { protocols } else { &[] },
            target: newcomer.target.clone(),
            rtt: newcomer.rtt,
            ..qmux::Config::new(newcomer.framing, newcomer.over)
        };
        let conn = qmux::Connection::new(config.clone(), now);
        Self { newcomer, conn, config, verdict: None, line: None, path_at: now, is_behind: false }
    }

    /// Without a socket it is never ready, and has nobody to say goodbye to.
    pub(super) fn phase(&self) -> Phase {
        match (self.conn.phase(), &self.line) {
            (Phase::Opening | Phase::Ready, None) => Phase::Opening,
            (Phase::Closed, None) => Phase::Drained,
            (Phase::Closed, Some(line)) if line.is_broken || line.has_ended => Phase::Drained,
            (phase, _) => phase,
        }
    }

    /// Memory it takes, bytes.
    pub(super) fn footprint(&self) -> u64 {
        let of_line = self.line.as_ref().map_or(0, Line::footprint);
        SOCKET_BYTES + self.conn.footprint() + of_line
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.line.as_ref().and_then(|_| self.conn.timeout())
    }

    pub(super) fn traffic(&self) -> Traffic {
        self.line.as_ref().map(Line::traffic).unwrap_or_default()
    }

    /// The socket has come: the connection begins now, not when it was announced.
    fn link(&mut self, link: Link, registry: Option<(&Registry, Token)>, now: Instant) -> io::Result<usize> {
        let (mut line, received) = Line::new(link)?;
        if let Some((registry, token)) = registry {
            line.register(registry, token)?;
        }
        let path = line.path();
        self.config.rtt = path.rtt.or(self.config.rtt);
        self.conn = qmux::Connection::new(self.config.clone(), now);
        self.conn.set_path(path);
        self.path_at = now + PATH_AGE;
        self.line = Some(line);
        if !received.is_empty() {
            self.conn.receive(now, &received);
        }
        Ok(received.len())
    }

    /// What came and what is due takes effect.
    pub(super) fn settle(&mut self, now: Instant, streams: &mut Streams, meter: &mut Meter) -> Phase {
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

    /// The next event for the session; without one it has taken all.
    pub(super) fn poll(&mut self) -> Option<Event> {
        let event = self.conn.poll();
        self.is_behind &= event.is_some();
        event
    }

    /// Whether its socket may have something that it may take.
    fn wants_turn(&self) -> bool {
        !self.is_behind
            && self
                .line
                .as_ref()
                .is_some_and(|line| line.is_readable && !line.has_ended && self.conn.wants_input())
    }

    /// Sends what there is, as far as the socket and its share go. True: there is more, and room.
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

    /// Says once what became of it.
    fn tell(&mut self, what: Result<Place, Turned>) {
        if let Some(verdict) = self.verdict.take() {
            tell(verdict, what);
        }
    }
}

fn tell(verdict: Verdict, what: Result<Place, Turned>) {
    if guard(|| verdict(what)).is_none() {
        tracing::error!("a panic while a newcomer heard what became of it");
    }
}

/// Reads while it is wanted, there is something, and its share lasts.
fn receive(line: &mut Line, conn: &mut qmux::Connection, now: Instant, streams: &mut Streams) {
    let Streams { buffer, left, .. } = streams;
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

/// True: there is more, and room.
fn transmit(line: &mut Line, conn: &mut qmux::Connection, now: Instant) -> bool {
    let mut sent = 0;
    loop {
        if !line.flush() {
            if line.is_broken {
                conn.end_of_input("the peer's socket takes nothing any more");
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
    if matches!(conn.phase(), Phase::Closed | Phase::Drained) {
        line.shut();
    }
    false
}

impl Worker {
    /// Stream sockets are waited for at `registry`; the token of the peer at index `i` is `first + i`.
    /// At most `max` of them: no more files may be open.
    pub fn watch_streams(&mut self, registry: Registry, first: usize, max: usize) {
        self.streams.registry = Some((registry, first));
        self.streams.max = max;
    }

    /// The stream socket of the peer at `index` may have something, or room.
    pub fn stream_ready(&mut self, index: usize, readable: bool, writable: bool) {
        let Ok(index) = u32::try_from(index) else { return };
        let Some(stream) = self.peers.get_mut(index).and_then(|peer| peer.carrier.stream()) else { return };
        let Some(line) = &mut stream.line else { return };
        line.is_readable |= readable;
        line.is_writable |= writable;
        self.touch(index);
    }

    /// Somebody comes over a stream socket: it gets a place, and what is known of it goes to the gate.
    pub(super) fn arrive_over_stream(&mut self, arrival: Arrival, now: Instant) {
        let Arrival { newcomer, verdict } = arrival;
        self.count_arrival(newcomer.transport);
        let turned = if self.ending.is_some() {
            self.meter.refused_draining += 1;
            Some(Turned::Leaving)
        } else if self.is_out_of_memory() {
            self.meter.refused_memory += 1;
            Some(Turned::Full)
        } else if self.streams.count >= self.streams.max {
            self.meter.refused_full += 1;
            Some(Turned::Full)
        } else {
            None
        };
        if let Some(turned) = turned {
            return tell(verdict, Err(turned));
        }
        let admit_by = now + limits::SETUP_TIMEOUT;
        let target = newcomer.target.clone();
        let stream = Box::new(Socketed::new(newcomer, self.shared.quic.protocols(), now));
        let (ledger, remote) = (self.shared.ledger.clone(), stream.newcomer.remote.ip());
        let make = |id| Peer::new(id, Carrier::Stream(stream), admit_by, ledger.open(id, remote));
        let index = self.peers.insert(make);
        let Some(index) = index else {
            self.meter.refused_full += 1;
            return tell(verdict, Err(Turned::Full));
        };
        self.streams.count += 1;
        if let Some(stream) = self.peers.get_mut(index).and_then(|peer| peer.carrier.stream()) {
            stream.verdict = Some(verdict);
        }
        self.mark_dirty(index);
        match target {
            Some(target) => {
                if let Some(peer) = self.peers.get_mut(index) {
                    peer.state = State::Waiting;
                }
                self.ask_gate(index, now, target, None);
            }
            // SETUP will say what it wants.
            None => self.give_place(index),
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

    /// Its socket may come.
    pub(super) fn give_place(&mut self, index: u32) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let place = Place::new(peer.id, self.mailbox.clone());
        if let Some(stream) = peer.carrier.stream() {
            stream.tell(Ok(place));
        }
    }

    /// It is not let in, if that was not said yet.
    pub(super) fn turn_away(&mut self, index: u32, denial: Option<Denial>) {
        let is_ending = self.ending.is_some();
        if let Some(peer) = self.peers.get_mut(index) {
            turn_away(&mut peer.carrier, is_ending, denial);
        }
    }

    /// A session's socket has come.
    pub(super) fn link(&mut self, session: SessionId, link: Link, now: Instant) {
        let Some(index) = self.peers.index_of(session) else { return };
        let Self { peers, streams, meter, shared, .. } = self;
        let Some(peer) = peers.get_mut(index) else { return };
        if peer.parting.is_some() || peer.state == State::Over {
            return;
        }
        let until = now + limits::SETUP_TIMEOUT;
        if matches!(peer.state, State::Placed(_)) {
            peer.state = State::Placed(until);
        }
        let Some(stream) = peer.carrier.stream() else { return };
        let linked = guard(|| {
            shared.fault(Stage::Feed, session);
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
                tracing::debug!(target: super::SESSIONS, %session, %error, "its socket cannot be used");
                self.unlinked(session, now);
            }
            None => self.bury(index, Stage::Feed),
        }
    }

    /// A session gets no socket: it is over before it began.
    pub(super) fn unlinked(&mut self, session: SessionId, now: Instant) {
        let Some(index) = self.peers.index_of(session) else { return };
        self.close(index, now, relay_model::SessionCode::NONE, "no socket");
    }

    /// The share of a peer with a stream socket of the last part of a turn.
    pub(super) fn send_stream(&mut self, index: u32, now: Instant) -> Transmitted {
        let Self { peers, shared, meter, .. } = self;
        let Some(peer) = peers.get_mut(index) else { return Transmitted::Gone };
        let id = peer.id;
        let Some(stream) = peer.carrier.stream() else { return Transmitted::All };
        let sent = guard(|| {
            shared.fault(Stage::Flush, id);
            let has_more = stream.send(now, meter);
            // A session that is behind has its next share when the others have had theirs.
            (has_more, stream.conn.has_event() && !stream.is_behind, stream.wants_turn())
        });
        let Some((has_more, has_event, wants_turn)) = sent else {
            self.bury(index, Stage::Flush);
            return Transmitted::Gone;
        };
        if wants_turn {
            self.touch(index);
        }
        // What was sent has made room.
        if has_event
            && !self.with_session(index, Stage::Input, now, |session, conn, cx| session.input(conn, cx))
        {
            return Transmitted::Gone;
        }
        if has_more { Transmitted::Some } else { Transmitted::All }
    }
}

/// It is not let in, if that was not said yet.
pub(super) fn turn_away(carrier: &mut Carrier, is_ending: bool, denial: Option<Denial>) {
    if let Some(stream) = carrier.stream() {
        stream.tell(Err(match denial {
            Some(denial) => Turned::Denied(denial),
            None if is_ending => Turned::Leaving,
            None => Turned::Denied(Denial::Unavailable),
        }));
    }
}
