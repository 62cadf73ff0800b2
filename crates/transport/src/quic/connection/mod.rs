//! One QUIC connection as a `Transport`: raw QUIC or WebTransport, selected by ALPN.

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
use relay_model::{
    SessionCode, limits,
    transport::{Dir, Stream, TransportClosed, TransportEvent},
};
use rustls::pki_types::CertificateDer;

use super::{
    ConnPhase, ConnTraffic, H3, PeerCertificate, Transmit, code,
    config::Most,
    versions::VersionSet,
    webtransport::{ConnectEnd, H3Layer},
};

pub(super) use input::DatagramOutcome;
#[cfg(test)]
pub(super) use input::{DATAGRAMS, WAITING};

/// Kernel limit of segments per GSO send.
const SEGMENTS: usize = 64;
/// Limit in bytes of one GSO send: the largest UDP payload over IPv4.
const TRAIN_BYTES: usize = 65_507;
/// Bytes that the valve admits above 5/4 of the congestion window, for the next flush.
const VALVE_SLACK: u64 = 32 * 1024;
/// Bytes of control data admitted above the valve, bounded for peers that acknowledge nothing.
const CONTROL_SLACK: u64 = 256 * 1024;
/// Memory in bytes of a connection without streams: state machine, TLS, entries in the endpoint's tables.
/// Measured as the growth of resident memory per idle connection, rounded up.
const CONNECTION_BYTES: u64 = 32 * 1024;
/// Time for a close capsule or a refusal to arrive before the connection is closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// QUIC connection that carries at most one session.
///
/// As a [`Transport`]: a [`Stream`] holds a QUIC stream id. After [`Event::Datagram`], receive datagrams until
/// there are none; only then follows another such event. `Readable`, `Writable` and `Stopped` may name a stream
/// that was stopped, reset or never reported; ignore them then (`reset` is harmless).
pub struct QuicConnection {
    pub(super) quic: quinn_proto::Connection,
    layer: SessionLayer,
    life: QuicPhase,
    /// Events that `poll` returns before those of the library.
    due: Due,
    /// Final event.
    closed: Option<TransportClosed>,
    /// Canonical remote address, as last reported.
    remote: SocketAddr,
    /// Time of the last input, for `poll`, which has no time argument.
    now: Instant,
    max_datagram: usize,
    /// Whether a write was short or blocked since the last `Room`.
    starved: bool,
    /// Number of datagrams and endpoint events processed since the last settling.
    fed: usize,
    /// Queued datagrams with their sizes, processed by later settlings.
    waiting: VecDeque<(ConnectionEvent, usize)>,
    /// Bytes of the queued datagrams.
    waiting_bytes: u64,
    /// Whether the session has not polled all events.
    is_behind: bool,
    /// Whether writes are exempt from the valve.
    exempt: bool,
    /// Whether the endpoint counts the connection as a handshake with an unvalidated address.
    unvalidated: bool,
    /// Enabled protocol versions.
    versions: VersionSet,
    /// Limits up to which the peer's stream credit grows.
    most: Most,
    /// Whether an open had no credit, by direction.
    refused: [bool; 2],
    /// Verified client certificate.
    peer: Option<Box<PeerCertificate>>,
    /// Estimate of the receive buffers.
    inflow: inflow::Inflow,
}

/// Layer between QUIC streams and the session.
enum SessionLayer {
    /// The ALPN is not known yet.
    Unknown,
    /// Raw QUIC, with the ALPN.
    Raw(&'static str),
    /// WebTransport.
    Http(Box<H3Layer>),
}

enum QuicPhase {
    /// Handshake or CONNECT in progress; closed at the deadline.
    Opening(Instant),
    Ready,
    /// Closed for the session; the connection is closed at the deadline with this code and reason.
    Leaving(Instant, VarInt, Bytes),
    /// Closed.
    Over,
}

#[derive(Default)]
struct Due {
    ready: bool,
    moved: bool,
    room: bool,
    datagram: bool,
    /// Whether streams may be pending in `accept`, by direction.
    accept: [bool; 2],
}

const DIRS: [Dir; 2] = [Dir::Bi, Dir::Uni];

impl QuicConnection {
    pub(super) fn new(
        quic: quinn_proto::Connection,
        now: Instant,
        unvalidated: bool,
        versions: VersionSet,
        most: Most,
    ) -> Self {
        Self {
            layer: SessionLayer::Unknown,
            life: QuicPhase::Opening(now + limits::SETUP_TIMEOUT),
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

    /// Phase of the connection. Changes in [`super::Endpoint::settle`] and on `close`.
    pub fn phase(&self) -> ConnPhase {
        match self.life {
            _ if self.quic.is_drained() => ConnPhase::Drained,
            _ if self.quic.is_closed() => ConnPhase::Closed,
            QuicPhase::Opening(_) => ConnPhase::Opening,
            QuicPhase::Ready => ConnPhase::Ready,
            QuicPhase::Leaving(..) | QuicPhase::Over => ConnPhase::Closed,
        }
    }

    /// Application protocol: the ALPN on raw QUIC, the subprotocol on WebTransport; the name of a
    /// [`super::Version`], for clients also [`H3`]. `None` before `Ready`.
    pub fn protocol(&self) -> Option<&'static str> {
        match &self.layer {
            SessionLayer::Unknown => None,
            SessionLayer::Raw(alpn) => Some(alpn),
            SessionLayer::Http(http) => http.protocol(),
        }
    }

    /// Returns whether the connection carries WebTransport. Valid from `Ready` on.
    pub fn is_webtransport(&self) -> bool {
        matches!(self.layer, SessionLayer::Http(_))
    }

    /// Raw path and query of the CONNECT request; `None` on raw QUIC.
    pub fn target(&self) -> Option<&str> {
        self.http()?.target()
    }

    /// `origin` header of the CONNECT request.
    pub fn origin(&self) -> Option<&str> {
        self.http()?.origin()
    }

    /// Client certificate, verified in this handshake. `None` if the client sent none or none was requested, on
    /// outgoing connections, and before `Ready`.
    pub fn peer_certificate(&self) -> Option<&PeerCertificate> {
        self.peer.as_deref()
    }

    /// Current address of the peer, canonical.
    pub fn remote(&self) -> SocketAddr {
        self.quic.remote_address()
    }

    /// Local address that the peer reaches, if the socket reports it.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.quic.local_ip()
    }

    /// Host name requested by the peer in the handshake (SNI, RFC 6066 §3).
    pub fn server_name(&self) -> Option<String> {
        let data = self.quic.crypto_session().handshake_data()?;
        data.downcast::<HandshakeData>().ok()?.server_name
    }

    /// Bytes of UDP payload received and sent so far.
    pub fn traffic(&self) -> ConnTraffic {
        let stats = self.quic.stats();
        ConnTraffic { bytes_in: stats.udp_rx.bytes, bytes_out: stats.udp_tx.bytes }
    }

    /// Memory of the connection in bytes: its state, and an estimate of received data that was not read. Sent data
    /// is charged by its producer.
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

    /// Writes the next packets to `buf`, which is cleared first: up to `max_segments` datagrams of one size (at
    /// most 64, and at most one GSO send). Pass 1 after GSO failed. `None`: nothing to send now; the valve is set.
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

    /// Time at which [`super::Endpoint::handle_timeout`] is due. May change with every call that takes
    /// `&mut self`.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        let quic = self.quic.poll_timeout();
        match self.life {
            _ if self.quic.is_closed() => quic,
            QuicPhase::Opening(at) | QuicPhase::Leaving(at, ..) => Some(quic.map_or(at, |quic| quic.min(at))),
            QuicPhase::Ready | QuicPhase::Over => quic,
        }
    }

    pub(super) fn poll_endpoint_event(&mut self) -> Option<EndpointEvent> {
        self.quic.poll_endpoint_events()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.quic.handle_timeout(now);
        match &self.life {
            QuicPhase::Opening(at) if now >= *at => {
                self.drop_it(code::session_to_wire(SessionCode::TIMEOUT), "setup timeout")
            }
            QuicPhase::Leaving(at, code, reason) if now >= *at => {
                self.quic.close(now, *code, reason.clone());
                self.life = QuicPhase::Over;
            }
            _ => {}
        }
    }

    /// Processes the effects of input on the handshake, HTTP/3 and the valve.
    pub(super) fn advance(&mut self, now: Instant) {
        self.now = now;
        match self.life {
            QuicPhase::Opening(_) => self.open_up(),
            QuicPhase::Ready => {}
            QuicPhase::Leaving(..) | QuicPhase::Over => self.wind_down(),
        }
        if matches!(self.layer, SessionLayer::Http(_)) && !self.quic.is_closed() {
            self.with_http(|http, quic| http.flush(quic));
        }
        self.max_datagram = self.datagram_size();
        self.due.moved |= self.quic.remote_address() != self.remote;
        if std::mem::take(&mut self.fed) > 0 {
            self.due.room |= std::mem::take(&mut self.starved);
        }
        self.set_valve();
    }

    /// Returns whether the endpoint still counts the connection as an unvalidated handshake.
    pub(super) fn is_unvalidated(&self) -> bool {
        self.unvalidated
    }

    /// Returns whether the handshake has completed since the last call, for a connection counted as unvalidated.
    pub(super) fn validate(&mut self) -> bool {
        let proved = self.unvalidated && !self.quic.is_handshaking();
        self.unvalidated &= !proved;
        proved
    }

    fn http(&self) -> Option<&H3Layer> {
        match &self.layer {
            SessionLayer::Http(http) => Some(http),
            SessionLayer::Unknown | SessionLayer::Raw(_) => None,
        }
    }

    /// Runs `act` on the HTTP/3 layer, whose few writes are exempt from the valve.
    fn with_http<R>(
        &mut self,
        act: impl FnOnce(&mut H3Layer, &mut quinn_proto::Connection) -> R,
    ) -> Option<R> {
        let SessionLayer::Http(http) = &mut self.layer else { return None };
        self.quic.set_send_window(u64::MAX);
        let result = act(http, &mut self.quic);
        self.set_valve();
        Some(result)
    }

    /// Limits unsent and unacknowledged bytes to little more than the congestion window, so that the choice of
    /// what to send takes effect within a round trip. Never below the window, which would stop its growth.
    fn set_valve(&mut self) {
        let window = self.quic.congestion_state().window();
        let valve = (window / 4).saturating_add(window).saturating_add(VALVE_SLACK);
        let slack = if self.exempt { CONTROL_SLACK } else { 0 };
        self.quic.set_send_window(valve.saturating_add(slack));
    }

    /// Processes the library's events before `Ready`.
    fn open_up(&mut self) {
        while matches!(self.life, QuicPhase::Opening(_))
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

    /// Selects the layer by ALPN after the handshake.
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
                self.layer = SessionLayer::Http(Box::new(H3Layer::new(self.versions)));
                self.with_http(|http, quic| http.flush(quic));
            }
            Some(alpn) => {
                self.layer = SessionLayer::Raw(alpn);
                self.become_ready();
            }
        }
    }

    /// Stores the client certificate; `false` if it cannot be parsed.
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
        self.life = QuicPhase::Ready;
        self.due.ready = true;
    }

    fn stream_while_opening(&mut self, event: StreamEvent) {
        self.inflow.stream_data();
        match event {
            StreamEvent::Opened { dir } => {
                self.note_opened(dir);
                // There is no session yet to which the stream could belong.
                while let Some(id) = self.quic.streams().accept(dir) {
                    self.with_http(|http, quic| http.accepted(quic, id));
                    if self.http().is_some_and(|http| http.protocol().is_some()) {
                        // The remaining streams are reported in order after the held ones.
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

    /// Handles state changes of the HTTP/3 layer.
    fn check_http(&mut self) {
        let SessionLayer::Http(http) = &mut self.layer else { return };
        let no_error = VarInt::from_u32(code::h3::NO_ERROR);
        match http.take_end() {
            Some(ConnectEnd::ByPeer(code, reason)) => {
                self.end(TransportClosed::ByPeer(code, reason), no_error, b"")
            }
            Some(ConnectEnd::Lost(why)) => self.end(TransportClosed::Lost(why.to_owned()), no_error, b""),
            Some(ConnectEnd::Violation(code, why)) => {
                self.end(TransportClosed::Lost(why.to_owned()), VarInt::from_u32(code), why.as_bytes());
            }
            None if !matches!(self.life, QuicPhase::Opening(_)) => {}
            None if http.protocol().is_some() => self.become_ready(),
            None if http.is_refused() => {
                self.life = QuicPhase::Leaving(self.now + FAREWELL, no_error, Bytes::new());
            }
            None => {}
        }
    }

    /// Ends the session and closes the connection at once.
    fn end(&mut self, closed: TransportClosed, code: VarInt, reason: &'static [u8]) {
        self.closed.get_or_insert(closed);
        self.quic.close(self.now, code, Bytes::from_static(reason));
        self.life = QuicPhase::Over;
    }

    /// Closes the connection for a local reason.
    fn drop_it(&mut self, code: VarInt, reason: &'static str) {
        self.end(TransportClosed::Lost(reason.to_owned()), code, reason.as_bytes());
    }

    fn lost(&mut self, reason: ConnectionError) {
        let closed = match reason {
            ConnectionError::ApplicationClosed(close) => TransportClosed::ByPeer(
                code::session_from_wire(close.error_code),
                String::from_utf8_lossy(&close.reason).into_owned(),
            ),
            ConnectionError::LocallyClosed => TransportClosed::ByUs,
            other => TransportClosed::Lost(other.to_string()),
        };
        self.closed.get_or_insert(closed);
        self.life = QuicPhase::Over;
    }

    /// Waits for the close capsule or the refusal to arrive after the end of the session.
    fn wind_down(&mut self) {
        while let Some(event) = self.quic.poll() {
            let done = match event {
                quinn_proto::Event::Stream(
                    StreamEvent::Finished { id } | StreamEvent::Stopped { id, .. },
                ) => self.http().is_some_and(|http| http.is_session(id)),
                _ => false,
            };
            if done && let QuicPhase::Leaving(_, code, reason) = &self.life {
                self.quic.close(self.now, *code, reason.clone());
                self.life = QuicPhase::Over;
            }
        }
    }

    /// Raises the peer's stream limit after new streams (RFC 9000 §4.6).
    fn note_opened(&mut self, dir: quinn_proto::Dir) {
        let most = self.most.towards(dir);
        let allowed = self.quic.max_concurrent_streams(dir);
        let open = self.quic.streams().remote_open_streams(dir);
        if open.saturating_mul(2) >= allowed && allowed < most {
            // Grow ahead of need, to four times the open streams, so that few round trips are spent on credit and
            // peers are not blocked. The library does not announce a last step of less than an eighth.
            let ahead = open.saturating_mul(4);
            let grown = if ahead >= most - most / 4 { most } else { ahead.max(allowed) };
            self.quic.set_max_concurrent_streams(dir, VarInt::from_u64(grown).unwrap_or(VarInt::MAX));
        }
    }

    /// Returns the next event that precedes those of the library.
    fn poll_due(&mut self) -> Option<TransportEvent> {
        if std::mem::take(&mut self.due.ready) {
            return Some(TransportEvent::Ready);
        }
        if std::mem::take(&mut self.due.moved) {
            self.remote = self.quic.remote_address();
            return Some(TransportEvent::Moved(self.remote));
        }
        if let Some(id) = self.with_http(|http, quic| http.release(quic)).flatten() {
            return Some(TransportEvent::Opened(Stream(id.into()), to_dir(id.dir())));
        }
        if let Some(event) = self.poll_accept() {
            return Some(event);
        }
        if std::mem::take(&mut self.due.datagram) {
            return Some(TransportEvent::Datagram);
        }
        std::mem::take(&mut self.due.room).then_some(TransportEvent::Room)
    }

    fn poll_accept(&mut self) -> Option<TransportEvent> {
        for dir in DIRS {
            while let Some(due) = self.due.accept.get_mut(index(from_dir(dir)))
                && *due
            {
                match self.quic.streams().accept(from_dir(dir)) {
                    None => *due = false,
                    Some(id) => {
                        let ours = self.with_http(|http, quic| http.accepted(quic, id)).unwrap_or(true);
                        if ours {
                            return Some(TransportEvent::Opened(Stream(id.into()), dir));
                        }
                    }
                }
            }
        }
        None
    }

    /// Translates a library event for the session; `None` if it has no meaning there.
    fn translate(&mut self, event: quinn_proto::Event) -> Option<TransportEvent> {
        match event {
            quinn_proto::Event::Stream(event) => self.translate_stream(event),
            quinn_proto::Event::DatagramReceived => Some(TransportEvent::Datagram),
            quinn_proto::Event::ConnectionLost { reason } => {
                self.lost(reason);
                None
            }
            quinn_proto::Event::Connected
            | quinn_proto::Event::HandshakeDataReady
            | quinn_proto::Event::DatagramsUnblocked => None,
        }
    }

    fn translate_stream(&mut self, event: StreamEvent) -> Option<TransportEvent> {
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
                    None => Some(TransportEvent::Readable(Stream(id.into()))),
                    Some(true) => Some(TransportEvent::Opened(Stream(id.into()), to_dir(id.dir()))),
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
                (blocked != Some(true)).then_some(TransportEvent::Writable(Stream(id.into())))
            }
            StreamEvent::Stopped { id, error_code } => {
                let ours = self.with_http(|http, quic| http.stopped(quic, id)) == Some(true);
                (!ours)
                    .then(|| TransportEvent::Stopped(Stream(id.into()), code::stream_from_wire(error_code)))
            }
            StreamEvent::Available { dir } => {
                let refused = self.refused.get_mut(index(dir)).is_some_and(std::mem::take);
                refused.then_some(TransportEvent::Openable(to_dir(dir)))
            }
            StreamEvent::Finished { .. } => None,
        }
    }

    fn datagram_size(&mut self) -> usize {
        let size = self.quic.datagrams().max_size().unwrap_or(0);
        match &self.layer {
            SessionLayer::Http(http) if !http.datagrams() => 0,
            SessionLayer::Http(http) => size.saturating_sub(http.datagram_overhead()),
            SessionLayer::Unknown | SessionLayer::Raw(_) => size,
        }
    }

    /// Returns the QUIC id of a stream that this end may write.
    fn sendable(&self, stream: Stream) -> Option<StreamId> {
        let id = stream_id(stream)?;
        (id.dir() == quinn_proto::Dir::Bi || id.initiator() == self.quic.side()).then_some(id)
    }

    /// Returns the QUIC id of a stream that this end may read.
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
