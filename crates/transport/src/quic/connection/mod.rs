//! One connection: raw QUIC or WebTransport, told apart by ALPN, as a `Transport`.

mod inflow;
mod input;
mod transport;

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{
    ConnectionError, ConnectionEvent, EndpointEvent, Side, StreamEvent, StreamId, VarInt,
    crypto::rustls::HandshakeData,
};
use relay_model::{SessionCode, limits};
use relay_session::transport::{Closed, Dir, Event, Stream};
use rustls::pki_types::CertificateDer;

use super::{
    H3, PeerCertificate, Phase, Traffic, Transmit, code,
    config::Most,
    versions::Versions,
    webtransport::{End, Http},
};

pub(super) use input::Datagram;
#[cfg(test)]
pub(super) use input::{DATAGRAMS, WAITING};

/// Segments of one GSO send: what the kernel takes.
const SEGMENTS: usize = 64;
/// Bytes of one GSO send: the largest UDP payload over IPv4.
const TRAIN_BYTES: usize = 65_507;
/// What the valve lets in beyond 5/4 of the congestion window: work for the next flush.
const VALVE_SLACK: u64 = 32 * 1024;
/// Bytes of control beyond the valve: messages wait in bounded space when a peer acknowledges nothing.
const CONTROL_SLACK: u64 = 256 * 1024;
/// Memory of a connection with no stream open: the state machine, TLS, its entries in the endpoint's tables.
/// Measured as the growth of resident memory for each idle connection, rounded up.
const CONNECTION_BYTES: u64 = 32 * 1024;
/// How long a close capsule, or a refusal, may travel before the connection goes.
const FAREWELL: Duration = Duration::from_secs(1);

/// A QUIC connection that carries at most one session.
///
/// As a [`Transport`]: a [`Stream`] is a QUIC stream id; after [`Event::Datagram`] take datagrams
/// until there are none, the next event comes only then; `Readable`, `Writable` and `Stopped` may name
/// a stream that was stopped, reset or never told, and are then to be ignored (`reset` is harmless).
pub struct Connection {
    pub(super) quic: quinn_proto::Connection,
    layer: Layer,
    life: Life,
    /// What `poll` has to tell before anything the library has.
    due: Due,
    /// The last event of all.
    closed: Option<Closed>,
    /// Canonical, as last told.
    remote: SocketAddr,
    /// Time of the last input; `poll` has none of its own.
    now: Instant,
    max_datagram: usize,
    /// A write was short or blocked since the last `Room`.
    starved: bool,
    /// Datagrams of the peer, or answers of the endpoint, that took effect since the last settling.
    fed: usize,
    /// Datagrams that came beyond that, or while the session was behind: they are fed when it is settled.
    waiting: VecDeque<(ConnectionEvent, usize)>,
    /// Bytes of those.
    waiting_bytes: u64,
    /// The session has not taken all events of what was fed.
    is_behind: bool,
    /// The valve is lifted.
    exempt: bool,
    /// Counted by the endpoint as a handshake of an unproved address.
    unvalidated: bool,
    /// Spoken on this end.
    versions: Versions,
    /// Where growth of the streams the peer may open stops.
    most: Most,
    /// An open had no credit, by direction.
    refused: [bool; 2],
    /// What a client showed, verified.
    peer: Option<Box<PeerCertificate>>,
    /// Bytes in its receive buffers.
    inflow: inflow::Inflow,
}

/// What is between QUIC streams and the session.
enum Layer {
    /// ALPN not known yet.
    Unknown,
    /// Nothing; and the ALPN.
    Raw(&'static str),
    /// WebTransport.
    Http(Box<Http>),
}

enum Life {
    /// Handshake or CONNECT not done; closed at the deadline.
    Opening(Instant),
    Ready,
    /// Over for the session; the connection is closed at the deadline with this.
    Leaving(Instant, VarInt, Bytes),
    /// Over.
    Over,
}

#[derive(Default)]
struct Due {
    ready: bool,
    moved: bool,
    room: bool,
    datagram: bool,
    /// Streams may wait to be accepted, by direction.
    accept: [bool; 2],
}

const DIRS: [Dir; 2] = [Dir::Bi, Dir::Uni];

impl Connection {
    pub(super) fn new(
        quic: quinn_proto::Connection,
        now: Instant,
        unvalidated: bool,
        versions: Versions,
        most: Most,
    ) -> Self {
        Self {
            layer: Layer::Unknown,
            life: Life::Opening(now + limits::SETUP_TIMEOUT),
            due: Due::default(),
            closed: None,
            remote: quic.remote_address(),
            now,
            max_datagram: 0,
            starved: false,
            fed: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            is_behind: false,
            exempt: false,
            unvalidated,
            versions,
            most,
            refused: [false; 2],
            peer: None,
            inflow: inflow::Inflow::default(),
            quic,
        }
    }

    /// How far it is. Moves in [`super::Endpoint::settle`] and on `close`.
    pub fn phase(&self) -> Phase {
        match self.life {
            _ if self.quic.is_drained() => Phase::Drained,
            _ if self.quic.is_closed() => Phase::Closed,
            Life::Opening(_) => Phase::Opening,
            Life::Ready => Phase::Ready,
            Life::Leaving(..) | Life::Over => Phase::Closed,
        }
    }

    /// What the session speaks: the ALPN on raw QUIC, the subprotocol on WebTransport. `None` before
    /// `Ready`. The name of a [`super::Version`]; on the client's side also [`H3`].
    pub fn protocol(&self) -> Option<&'static str> {
        match &self.layer {
            Layer::Unknown => None,
            Layer::Raw(alpn) => Some(alpn),
            Layer::Http(http) => http.protocol(),
        }
    }

    /// Whether it is WebTransport. Meaningful from `Ready` on.
    pub fn is_webtransport(&self) -> bool {
        matches!(self.layer, Layer::Http(_))
    }

    /// Path and query of the CONNECT request, raw as sent; `None` on raw QUIC.
    pub fn target(&self) -> Option<&str> {
        self.http()?.target()
    }

    /// The `origin` header of the CONNECT request.
    pub fn origin(&self) -> Option<&str> {
        self.http()?.origin()
    }

    /// The certificate the client showed, verified in this handshake; `None` when it showed none, was not asked
    /// for any, on an outgoing connection, and before `Ready`.
    pub fn peer_certificate(&self) -> Option<&PeerCertificate> {
        self.peer.as_deref()
    }

    /// The peer's address now (canonical).
    pub fn remote(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    /// Our own address that the peer reaches, where the socket says so.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.quic.local_ip()
    }

    /// The host the peer asked for in its handshake (SNI).
    pub fn server_name(&self) -> Option<String> {
        let data = self.quic.crypto_session().handshake_data()?;
        data.downcast::<HandshakeData>().ok()?.server_name
    }

    /// Bytes received and sent so far, UDP payload.
    pub fn traffic(&self) -> Traffic {
        let stats = self.quic.stats();
        Traffic { bytes_in: stats.udp_rx.bytes, bytes_out: stats.udp_tx.bytes }
    }

    /// Memory it takes, bytes: its own, and an estimate of received data that was not read. Sent data is
    /// charged where it is made.
    pub fn footprint(&mut self) -> u64 {
        let Self { quic, inflow, .. } = self;
        let is_idle = [quinn_proto::Dir::Bi, quinn_proto::Dir::Uni]
            .into_iter()
            .all(|dir| quic.streams().remote_open_streams(dir) == 0);
        if is_idle {
            inflow.clear();
        }
        CONNECTION_BYTES + self.waiting_bytes + inflow.held(|| quic.stats().frame_rx.stream)
    }

    /// Next packets to send, written to `buf`, which is cleared first: up to `max_segments` datagrams
    /// of one size in one train (at most 64, and at most what one GSO send can take). Pass 1 where GSO
    /// failed. `None`: nothing to send now; the valve is set.
    pub fn poll_transmit(
        &mut self,
        now: Instant,
        max_segments: usize,
        buf: &mut Vec<u8>,
    ) -> Option<Transmit> {
        buf.clear();
        let fit = TRAIN_BYTES / usize::from(self.quic.current_mtu()).max(1);
        let transmit = self.quic.poll_transmit(now, max_segments.min(fit).clamp(1, SEGMENTS), buf);
        if transmit.is_none() {
            self.set_valve();
        }
        transmit.map(Into::into)
    }

    /// When [`super::Endpoint::handle_timeout`] is due. Changes with every call that takes `&mut self`.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        let quic = self.quic.poll_timeout();
        match self.life {
            _ if self.quic.is_closed() => quic,
            Life::Opening(at) | Life::Leaving(at, ..) => Some(quic.map_or(at, |quic| quic.min(at))),
            Life::Ready | Life::Over => quic,
        }
    }

    pub(super) fn poll_endpoint_event(&mut self) -> Option<EndpointEvent> {
        self.quic.poll_endpoint_events()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.quic.handle_timeout(now);
        match &self.life {
            Life::Opening(at) if now >= *at => {
                self.drop_it(code::session_to_wire(SessionCode::TIMEOUT), "setup timeout")
            }
            Life::Leaving(at, code, reason) if now >= *at => {
                self.quic.close(now, *code, reason.clone());
                self.life = Life::Over;
            }
            _ => {}
        }
    }

    /// Lets input take effect: what concerns the handshake, HTTP/3 and the valve.
    pub(super) fn advance(&mut self, now: Instant) {
        self.now = now;
        match self.life {
            Life::Opening(_) => self.open_up(),
            Life::Ready => {}
            Life::Leaving(..) | Life::Over => self.wind_down(),
        }
        if matches!(self.layer, Layer::Http(_)) && !self.quic.is_closed() {
            self.with_http(|http, quic| http.flush(quic));
        }
        self.max_datagram = self.datagram_size();
        self.due.moved |= self.quic.remote_address() != self.remote;
        if std::mem::take(&mut self.fed) > 0 {
            self.due.room |= std::mem::take(&mut self.starved);
        }
        self.set_valve();
    }

    /// Whether it is still counted as an unvalidated handshake.
    pub(super) fn is_unvalidated(&self) -> bool {
        self.unvalidated
    }

    /// Whether it stopped being an unvalidated handshake since last asked.
    pub(super) fn validate(&mut self) -> bool {
        let proved = self.unvalidated && !self.quic.is_handshaking();
        self.unvalidated &= !proved;
        proved
    }

    fn http(&self) -> Option<&Http> {
        match &self.layer {
            Layer::Http(http) => Some(http),
            Layer::Unknown | Layer::Raw(_) => None,
        }
    }

    /// HTTP/3's own writes are few and pass the valve.
    fn with_http<R>(&mut self, act: impl FnOnce(&mut Http, &mut quinn_proto::Connection) -> R) -> Option<R> {
        let Layer::Http(http) = &mut self.layer else { return None };
        self.quic.set_send_window(u64::MAX);
        let result = act(http, &mut self.quic);
        self.set_valve();
        Some(result)
    }

    /// Little more than the congestion window may be unsent or unacknowledged, so that a decision
    /// about what to send is on the wire within a round trip. Never below the window: it would not grow.
    fn set_valve(&mut self) {
        let window = self.quic.congestion_state().window();
        let valve = (window / 4).saturating_add(window).saturating_add(VALVE_SLACK);
        let slack = if self.exempt { CONTROL_SLACK } else { 0 };
        self.quic.set_send_window(valve.saturating_add(slack));
    }

    /// Before `Ready`: consumes the library's events.
    fn open_up(&mut self) {
        while matches!(self.life, Life::Opening(_))
            && let Some(event) = self.quic.poll()
        {
            match event {
                quinn_proto::Event::Connected => self.connected(),
                quinn_proto::Event::Stream(event) => self.stream_while_opening(event),
                quinn_proto::Event::DatagramReceived => self.due.datagram = true,
                quinn_proto::Event::ConnectionLost { reason } => self.lost(reason),
                quinn_proto::Event::HandshakeDataReady | quinn_proto::Event::DatagramsUnblocked => {}
            }
            self.check_http();
        }
    }

    /// The handshake is done: the ALPN says what this is.
    fn connected(&mut self) {
        if !self.note_peer() {
            return self.drop_it(code::session_to_wire(SessionCode::UNAUTHORIZED), "unreadable certificate");
        }
        let data = self.quic.crypto_session().handshake_data();
        let alpn = data.and_then(|data| data.downcast::<HandshakeData>().ok()).and_then(|data| data.protocol);
        let is_h3 = |alpn: &Vec<u8>| alpn == H3.as_bytes();
        let spoken = |alpn: Vec<u8>| if is_h3(&alpn) { Some(H3) } else { self.versions.named(&alpn) };
        match alpn.and_then(spoken) {
            None => self.drop_it(code::session_to_wire(SessionCode::VERSION), "no common version"),
            Some(H3) if self.quic.side() == Side::Server => {
                self.layer = Layer::Http(Box::new(Http::new(self.versions)));
                self.with_http(|http, quic| http.flush(quic));
            }
            Some(alpn) => {
                self.layer = Layer::Raw(alpn);
                self.become_ready();
            }
        }
    }

    /// Keeps what the client showed. False: it showed something, and nobody can say what.
    fn note_peer(&mut self) -> bool {
        let identity = match self.quic.side() {
            Side::Server => self.quic.crypto_session().peer_identity(),
            Side::Client => None,
        };
        let Some(identity) = identity else { return true };
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok();
        self.peer = chain.and_then(|chain| PeerCertificate::of_chain(&chain)).map(Box::new);
        self.peer.is_some()
    }

    fn become_ready(&mut self) {
        self.life = Life::Ready;
        self.due.ready = true;
    }

    fn stream_while_opening(&mut self, event: StreamEvent) {
        self.inflow.stream_data();
        match event {
            StreamEvent::Opened { dir } => {
                self.note_opened(dir);
                // None can be the session's: there is no session yet.
                while let Some(id) = self.quic.streams().accept(dir) {
                    self.with_http(|http, quic| http.accepted(quic, id));
                    if self.http().is_some_and(|http| http.protocol().is_some()) {
                        // The rest is told in order after what is held.
                        self.due.accept[index(dir)] = true;
                        return;
                    }
                }
            }
            StreamEvent::Readable { id } => {
                self.with_http(|http, quic| http.readable(quic, id));
            }
            StreamEvent::Stopped { id, .. } => {
                self.with_http(|http, quic| http.stopped(quic, id));
            }
            StreamEvent::Writable { .. } | StreamEvent::Finished { .. } | StreamEvent::Available { .. } => {}
        }
    }

    /// Acts on what HTTP/3 has found out.
    fn check_http(&mut self) {
        let Layer::Http(http) = &mut self.layer else { return };
        let no_error = VarInt::from_u32(code::h3::NO_ERROR);
        match http.take_end() {
            Some(End::ByPeer(code, reason)) => self.end(Closed::ByPeer(code, reason), no_error, b""),
            Some(End::Lost(why)) => self.end(Closed::Lost(why.to_owned()), no_error, b""),
            Some(End::Violation(code, why)) => {
                self.end(Closed::Lost(why.to_owned()), VarInt::from_u32(code), why.as_bytes());
            }
            None if !matches!(self.life, Life::Opening(_)) => {}
            None if http.protocol().is_some() => self.become_ready(),
            None if http.is_refused() => {
                self.life = Life::Leaving(self.now + FAREWELL, no_error, Bytes::new());
            }
            None => {}
        }
    }

    /// The session is over and the connection goes at once.
    fn end(&mut self, closed: Closed, code: VarInt, reason: &'static [u8]) {
        self.closed.get_or_insert(closed);
        self.quic.close(self.now, code, Bytes::from_static(reason));
        self.life = Life::Over;
    }

    /// Gives up on our own account.
    fn drop_it(&mut self, code: VarInt, reason: &'static str) {
        self.end(Closed::Lost(reason.to_owned()), code, reason.as_bytes());
    }

    fn lost(&mut self, reason: ConnectionError) {
        let closed = match reason {
            ConnectionError::ApplicationClosed(close) => Closed::ByPeer(
                code::session_from_wire(close.error_code),
                String::from_utf8_lossy(&close.reason).into_owned(),
            ),
            ConnectionError::LocallyClosed => Closed::ByUs,
            other => Closed::Lost(other.to_string()),
        };
        self.closed.get_or_insert(closed);
        self.life = Life::Over;
    }

    /// After the session's end: waits for the farewell to arrive.
    fn wind_down(&mut self) {
        while let Some(event) = self.quic.poll() {
            let done = match event {
                quinn_proto::Event::Stream(
                    StreamEvent::Finished { id } | StreamEvent::Stopped { id, .. },
                ) => self.http().is_some_and(|http| http.is_session(id)),
                _ => false,
            };
            if done && let Life::Leaving(_, code, reason) = &self.life {
                self.quic.close(self.now, *code, reason.clone());
                self.life = Life::Over;
            }
        }
    }

    /// Streams were opened: whether more should be allowed.
    fn note_opened(&mut self, dir: quinn_proto::Dir) {
        let most = self.most.towards(dir);
        let allowed = self.quic.max_concurrent_streams(dir);
        let open = self.quic.streams().remote_open_streams(dir);
        if open.saturating_mul(2) >= allowed && allowed < most {
            // Ahead of need: four times what is open, so that few round trips pass until there are enough. By
            // then no peer has been blocked yet, so that its STREAMS_BLOCKED has nothing to add.
            // The library does not announce a last step of less than an eighth.
            let ahead = open.saturating_mul(4);
            let grown = if ahead >= most - most / 4 { most } else { ahead.max(allowed) };
            self.quic.set_max_concurrent_streams(dir, VarInt::from_u64(grown).unwrap_or(VarInt::MAX));
        }
    }

    /// What is to be told before the library's events.
    fn poll_due(&mut self) -> Option<Event> {
        if std::mem::take(&mut self.due.ready) {
            return Some(Event::Ready);
        }
        if std::mem::take(&mut self.due.moved) {
            self.remote = self.quic.remote_address();
            return Some(Event::Moved(self.remote));
        }
        if let Some(id) = self.with_http(|http, quic| http.release(quic)).flatten() {
            return Some(Event::Opened(Stream(id.into()), to_dir(id.dir())));
        }
        if let Some(event) = self.poll_accept() {
            return Some(event);
        }
        if std::mem::take(&mut self.due.datagram) {
            return Some(Event::Datagram);
        }
        std::mem::take(&mut self.due.room).then_some(Event::Room)
    }

    fn poll_accept(&mut self) -> Option<Event> {
        for dir in DIRS {
            while let Some(due) = self.due.accept.get_mut(index(from_dir(dir)))
                && *due
            {
                match self.quic.streams().accept(from_dir(dir)) {
                    None => *due = false,
                    Some(id) => {
                        let ours = self.with_http(|http, quic| http.accepted(quic, id)).unwrap_or(true);
                        if ours {
                            return Some(Event::Opened(Stream(id.into()), dir));
                        }
                    }
                }
            }
        }
        None
    }

    /// What a library event means to the session; `None`: nothing.
    fn translate(&mut self, event: quinn_proto::Event) -> Option<Event> {
        match event {
            quinn_proto::Event::Stream(event) => self.translate_stream(event),
            quinn_proto::Event::DatagramReceived => Some(Event::Datagram),
            quinn_proto::Event::ConnectionLost { reason } => {
                self.lost(reason);
                None
            }
            quinn_proto::Event::Connected
            | quinn_proto::Event::HandshakeDataReady
            | quinn_proto::Event::DatagramsUnblocked => None,
        }
    }

    fn translate_stream(&mut self, event: StreamEvent) -> Option<Event> {
        match event {
            StreamEvent::Opened { dir } => {
                self.inflow.stream_data();
                self.note_opened(dir);
                self.due.accept[index(dir)] = true;
                self.poll_accept()
            }
            StreamEvent::Readable { id } => {
                self.inflow.stream_data();
                match self.with_http(|http, quic| http.readable(quic, id)).flatten() {
                    None => Some(Event::Readable(Stream(id.into()))),
                    Some(true) => Some(Event::Opened(Stream(id.into()), to_dir(id.dir()))),
                    Some(false) => None,
                }
            }
            StreamEvent::Writable { id } => {
                let blocked = self.with_http(|http, quic| {
                    if http.owes(id) {
                        http.flush(quic);
                    }
                    http.owes(id) || http.is_session(id)
                });
                (blocked != Some(true)).then_some(Event::Writable(Stream(id.into())))
            }
            StreamEvent::Stopped { id, error_code } => {
                let ours = self.with_http(|http, quic| http.stopped(quic, id)) == Some(true);
                (!ours).then(|| Event::Stopped(Stream(id.into()), code::stream_from_wire(error_code)))
            }
            StreamEvent::Available { dir } => {
                let refused = self.refused.get_mut(index(dir)).is_some_and(std::mem::take);
                refused.then_some(Event::Openable(to_dir(dir)))
            }
            StreamEvent::Finished { .. } => None,
        }
    }

    fn datagram_size(&mut self) -> usize {
        let size = self.quic.datagrams().max_size().unwrap_or(0);
        match &self.layer {
            Layer::Http(http) if !http.datagrams() => 0,
            Layer::Http(http) => size.saturating_sub(http.datagram_overhead()),
            Layer::Unknown | Layer::Raw(_) => size,
        }
    }

    /// The QUIC id of a stream on which we may write.
    fn sendable(&self, stream: Stream) -> Option<StreamId> {
        let id = stream_id(stream)?;
        (id.dir() == quinn_proto::Dir::Bi || id.initiator() == self.quic.side()).then_some(id)
    }

    /// The QUIC id of a stream from which we may read.
    fn receivable(&self, stream: Stream) -> Option<StreamId> {
        let id = stream_id(stream)?;
        (id.dir() == quinn_proto::Dir::Bi || id.initiator() != self.quic.side()).then_some(id)
    }
}

fn stream_id(stream: Stream) -> Option<StreamId> {
    VarInt::from_u64(stream.0).ok().map(StreamId::from)
}

fn to_dir(dir: quinn_proto::Dir) -> Dir {
    match dir {
        quinn_proto::Dir::Bi => Dir::Bi,
        quinn_proto::Dir::Uni => Dir::Uni,
    }
}

fn from_dir(dir: Dir) -> quinn_proto::Dir {
    match dir {
        Dir::Bi => quinn_proto::Dir::Bi,
        Dir::Uni => quinn_proto::Dir::Uni,
    }
}

fn index(dir: quinn_proto::Dir) -> usize {
    dir as usize
}
