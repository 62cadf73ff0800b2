//! One QUIC connection as a `Transport`: raw QUIC or WebTransport, selected by ALPN.

mod events;
mod handshake;
mod inflow;
mod input;
mod layer;
mod lifecycle;
mod link;
mod stream_credit;
mod transport;
mod valve;

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use quinn_proto::{ConnectionEvent, Side, StreamEvent, StreamId, VarInt, crypto::rustls::HandshakeData};
use relay_model::{
    SessionCode,
    transport::{Dir, Stream, TransportClosed},
};

use self::{
    events::SessionEvents,
    handshake::HandshakeState,
    input::InputQueue,
    lifecycle::{CloseFrame, Lifecycle},
    link::QuicLink,
};
use super::{
    ConnPhase, ConnTraffic, H3, PeerCertificate, Transmit, code, config::Most, versions::VersionSet,
    webtransport::ConnectEnd,
};

#[cfg(test)]
pub(super) use input::WAITING;
pub(super) use input::{DATAGRAMS, DatagramOutcome};
pub use layer::SessionLayer;

/// Kernel limit of segments per GSO send.
const SEGMENTS: usize = 64;
/// Limit in bytes of one GSO send: the largest UDP payload over IPv4.
const TRAIN_BYTES: usize = 65_507;
/// Memory in bytes of a connection without streams: state machine, TLS, entries in the endpoint's tables.
/// Measured as the growth of resident memory per idle connection, rounded up.
const CONNECTION_BYTES: u64 = 32 * 1024;

/// QUIC connection that carries at most one session.
///
/// As a [`Transport`](relay_model::transport::Transport): a [`Stream`] holds a QUIC stream id. After
/// `Datagram`, receive datagrams until there are none; only then follows another such event. `Readable`,
/// `Writable` and `Stopped` may name a stream that was stopped, reset or never reported; ignore them then
/// (`reset` is harmless).
pub struct QuicConnection {
    pub(super) link: QuicLink,
    pub(super) input: InputQueue<ConnectionEvent>,
    pub(super) handshake: HandshakeState,
    layer: SessionLayer,
    life: Lifecycle,
    events: SessionEvents,
    /// Largest datagram payload in bytes, as of the last settling.
    max_datagram: usize,
}

impl QuicConnection {
    pub(super) fn new(
        quic: quinn_proto::Connection,
        now: Instant,
        is_unvalidated: bool,
        versions: VersionSet,
        most: Most,
    ) -> Self {
        Self {
            events: SessionEvents::new(quic.remote_address()),
            link: QuicLink::new(quic, most),
            input: InputQueue::new(),
            handshake: HandshakeState::new(versions, is_unvalidated),
            layer: SessionLayer::unknown(),
            life: Lifecycle::new(now),
            max_datagram: 0,
        }
    }

    /// Phase of the connection. Changes in [`super::Endpoint::process_connection`] and on `close`.
    pub fn phase(&self) -> ConnPhase {
        match self.life.phase() {
            _ if self.link.quic.is_drained() => ConnPhase::Drained,
            _ if self.link.quic.is_closed() => ConnPhase::Closed,
            phase => phase,
        }
    }

    /// Layer between QUIC and the session: the protocol, and the CONNECT request of WebTransport.
    pub fn layer(&self) -> &SessionLayer {
        &self.layer
    }

    /// Client certificate, verified in this handshake. `None` if the client sent none or none was requested, on
    /// outgoing connections, and before `Ready`.
    pub fn peer_certificate(&self) -> Option<&PeerCertificate> {
        self.handshake.certificate()
    }

    /// Current address of the peer, canonical.
    pub fn remote(&self) -> SocketAddr {
        self.link.quic.remote_address()
    }

    /// Local address that the peer reaches, if the socket reports it.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.link.quic.local_ip()
    }

    /// Host name requested by the peer in the handshake (SNI, RFC 6066 §3).
    pub fn server_name(&self) -> Option<String> {
        let data = self.link.quic.crypto_session().handshake_data()?;
        data.downcast::<HandshakeData>().ok()?.server_name
    }

    /// Bytes of UDP payload received and sent so far.
    pub fn traffic(&self) -> ConnTraffic {
        let stats = self.link.quic.stats();
        ConnTraffic { bytes_in: stats.udp_rx.bytes, bytes_out: stats.udp_tx.bytes }
    }

    /// Memory of the connection in bytes: its state, and an estimate of received data that was not read. Sent data
    /// is charged by its producer.
    pub fn footprint(&mut self) -> u64 {
        CONNECTION_BYTES.saturating_add(self.input.bytes()).saturating_add(self.link.unread())
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
        let quic = &mut self.link.quic;
        let fit = TRAIN_BYTES / usize::from(quic.current_mtu()).max(1);
        let transmit = quic.poll_transmit(now, max_segments.min(fit).clamp(1, SEGMENTS), buf);
        if transmit.is_none() {
            self.link.set_valve();
        }
        transmit.map(Into::into)
    }

    /// Time at which [`super::Endpoint::handle_timeout`] is due. May change with every call that takes
    /// `&mut self`.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        let quic = self.link.quic.poll_timeout();
        match self.life.deadline() {
            Some(at) if !self.link.quic.is_closed() => Some(quic.map_or(at, |quic| quic.min(at))),
            _ => quic,
        }
    }

    /// Returns whether the next settling would process queued datagrams, so that it is due without new input.
    pub fn has_input(&self) -> bool {
        self.input.is_due()
    }

    /// Queues input until the session has polled all events.
    pub fn hold_input(&mut self) {
        self.input.set_behind(self.life.is_ready());
    }

    /// Processes an event of the endpoint, which holds `bytes` of a datagram.
    #[inline]
    pub(super) fn feed(&mut self, event: ConnectionEvent, bytes: usize) {
        self.input.count();
        self.link.feed(event, bytes);
    }

    /// Processes a datagram of `bytes` at once if the share of this settling allows, or else queues or drops it.
    /// `may_wait`: the endpoint allows another queued datagram.
    #[inline]
    pub(super) fn receive(
        &mut self,
        event: ConnectionEvent,
        bytes: usize,
        may_wait: bool,
    ) -> DatagramOutcome {
        if self.input.has_share() {
            self.feed(event, bytes);
            return DatagramOutcome::Fed;
        }
        self.input.push(event, bytes, may_wait)
    }

    /// Processes queued datagrams, unless the session still has events of earlier ones to poll. Returns their
    /// number.
    #[inline]
    pub(super) fn feed_waiting(&mut self) -> usize {
        let mut count = 0;
        while count < DATAGRAMS
            && let Some((event, bytes)) = self.input.pop()
        {
            self.feed(event, bytes);
            count = count.saturating_add(1);
        }
        count
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.life.set_now(now);
        self.link.quic.handle_timeout(now);
        if let Some(close) = self.life.take_due() {
            self.link.close(now, close);
        }
    }

    /// Processes the effects of input on the handshake, HTTP/3 and the valve. Returns whether the handshake of a
    /// connection counted as unvalidated has completed.
    pub(super) fn advance(&mut self, now: Instant) -> bool {
        self.life.set_now(now);
        match self.life.phase() {
            ConnPhase::Opening => self.open_up(),
            ConnPhase::Ready => {}
            ConnPhase::Closed | ConnPhase::Drained => self.wind_down(),
        }
        if !self.link.quic.is_closed() {
            self.layer.with_h3(&mut self.link, |h3, quic| h3.flush(quic));
        }
        self.max_datagram = self.payload_size();
        self.events.set_remote(self.link.quic.remote_address());
        if self.input.settle() {
            self.events.room(self.link.take_starved());
        }
        self.link.set_valve();
        self.handshake.validate(self.link.quic.is_handshaking())
    }

    /// Processes the library's events before `Ready`.
    fn open_up(&mut self) {
        while self.life.is_opening()
            && let Some(event) = self.link.quic.poll()
        {
            match event {
                quinn_proto::Event::Connected => self.connected(),
                quinn_proto::Event::Stream(event) => {
                    self.events.on_opening(event, &mut self.link, &mut self.layer);
                }
                quinn_proto::Event::DatagramReceived => self.events.datagram(),
                quinn_proto::Event::ConnectionLost { reason } => self.life.lost(reason),
                quinn_proto::Event::HandshakeDataReady | quinn_proto::Event::DatagramsUnblocked => {}
            }
            self.check_h3();
        }
    }

    /// Selects the layer by ALPN after the handshake.
    fn connected(&mut self) {
        let crypto = self.link.quic.crypto_session();
        let is_server = self.link.quic.side() == Side::Server;
        if is_server && !self.handshake.note_identity(crypto.peer_identity()) {
            return self.end(local_end(SessionCode::UNAUTHORIZED, "unreadable certificate"));
        }
        let data = crypto.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        match data.and_then(|data| data.protocol).and_then(|alpn| self.handshake.protocol(&alpn)) {
            None => self.end(local_end(SessionCode::VERSION, "no common version")),
            Some(H3) if is_server => {
                self.layer.set_h3(self.handshake.versions());
                self.layer.with_h3(&mut self.link, |h3, quic| h3.flush(quic));
            }
            Some(alpn) => {
                self.layer.set_raw(alpn);
                self.become_ready();
            }
        }
    }

    fn become_ready(&mut self) {
        self.life.ready();
        self.events.ready();
    }

    /// Handles state changes of the HTTP/3 layer.
    #[inline]
    fn check_h3(&mut self) {
        if let Some(end) = self.layer.take_end() {
            return self.end(h3_end(end));
        }
        if self.life.is_opening()
            && let Some(h3) = self.layer.h3()
        {
            if h3.protocol().is_some() {
                self.become_ready();
            } else if h3.is_refused() {
                self.life.leave(CloseFrame::of_h3(code::h3::NO_ERROR, ""));
            }
        }
    }

    /// Ends the session and closes the connection at once.
    fn end(&mut self, (closed, close): (TransportClosed, CloseFrame)) {
        self.life.end(closed);
        self.link.close(self.life.now(), close);
    }

    /// Waits for the close capsule or the refusal to arrive after the end of the session.
    fn wind_down(&mut self) {
        while let Some(event) = self.link.quic.poll() {
            if let quinn_proto::Event::Stream(StreamEvent::Finished { id } | StreamEvent::Stopped { id, .. }) =
                event
                && self.layer.h3().is_some_and(|h3| h3.is_session(id))
                && let Some(close) = self.life.take_leave()
            {
                self.link.close(self.life.now(), close);
            }
        }
    }

    /// Returns the largest payload in bytes of a datagram that can be sent now.
    fn payload_size(&mut self) -> usize {
        let size = self.link.quic.datagrams().max_size().unwrap_or(0);
        self.layer.payload_size(size)
    }
}

/// Returns the reason of a local end, and the close of the connection.
fn local_end(code: SessionCode, reason: &str) -> (TransportClosed, CloseFrame) {
    (TransportClosed::Lost(reason.to_owned()), CloseFrame::of_session(code, reason))
}

/// Returns the reason of the end of a WebTransport session, and the close of its connection.
fn h3_end(end: ConnectEnd) -> (TransportClosed, CloseFrame) {
    match end {
        ConnectEnd::ByPeer(code, reason) => {
            (TransportClosed::ByPeer(code, reason), CloseFrame::of_h3(code::h3::NO_ERROR, ""))
        }
        ConnectEnd::Lost(why) => {
            (TransportClosed::Lost(why.to_owned()), CloseFrame::of_h3(code::h3::NO_ERROR, ""))
        }
        ConnectEnd::Violation(code, why) => {
            (TransportClosed::Lost(why.to_owned()), CloseFrame::of_h3(code, why))
        }
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
