//! Carrier of a peer's session: a connection of the worker's QUIC endpoint, or one over a stream socket.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use relay_model::{
    SessionCode, StreamCode,
    transport::{DatagramError, Dir, PathStats, ReadError, Stream, Transport, TransportEvent, WriteError},
};
use relay_transport::{
    qmux,
    quic::{self, ConnKey, ConnPhase, ConnTraffic, Endpoint},
};

use super::stream::Socketed;
use crate::conn_info::ConnInfo;

/// A peer's handle of its connection.
pub(super) enum PeerCarrier {
    /// Key of a connection owned by the endpoint.
    Quic(ConnKey),
    /// Connection over a stream socket, owned by the peer.
    Stream(Box<Socketed>),
}

impl PeerCarrier {
    /// The connection; `None` if the endpoint has dropped it.
    #[inline]
    pub(super) fn conn<'a>(&'a mut self, endpoint: &'a mut Endpoint) -> Option<Conn<'a>> {
        match self {
            Self::Quic(key) => endpoint.conn(*key).map(Conn::Quic),
            Self::Stream(stream) => Some(Conn::Stream(stream)),
        }
    }

    /// Key of the endpoint's connection.
    pub(super) fn key(&self) -> Option<ConnKey> {
        match self {
            Self::Quic(key) => Some(*key),
            Self::Stream(_) => None,
        }
    }

    /// Whether it is the endpoint's connection with `key`.
    pub(super) fn is(&self, key: ConnKey) -> bool {
        matches!(self, Self::Quic(own) if *own == key)
    }

    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }

    pub(super) fn stream(&mut self) -> Option<&mut Socketed> {
        match self {
            Self::Quic(_) => None,
            Self::Stream(stream) => Some(stream),
        }
    }
}

/// Connection of a peer, of either kind.
pub(super) enum Conn<'a> {
    Quic(&'a mut quic::QuicConnection),
    Stream(&'a mut Socketed),
}

impl Conn<'_> {
    pub(super) fn phase(&self) -> ConnPhase {
        match self {
            Self::Quic(conn) => conn.phase(),
            Self::Stream(stream) => stream.phase(),
        }
    }

    pub(super) fn protocol(&self) -> Option<&'static str> {
        match self {
            Self::Quic(conn) => conn.layer().protocol(),
            Self::Stream(stream) => stream.conn.protocol(),
        }
    }

    pub(super) fn target(&self) -> Option<&str> {
        match self {
            Self::Quic(conn) => conn.layer().target(),
            Self::Stream(stream) => stream.conn.target(),
        }
    }

    /// Name of the transport for the gate and the log.
    pub(super) fn transport(&self) -> &'static str {
        match self {
            Self::Quic(conn) if conn.layer().is_webtransport() => "webtransport",
            Self::Quic(_) => "quic",
            Self::Stream(stream) => stream.pending.conn.transport,
        }
    }

    pub(super) fn remote(&self) -> SocketAddr {
        match self {
            Self::Quic(conn) => conn.remote(),
            Self::Stream(stream) => stream.pending.conn.remote,
        }
    }

    /// Local address of the connection. QUIC connections have the port of `listens`, the relay's address.
    fn local(&self, listens: SocketAddr) -> SocketAddr {
        match self {
            Self::Quic(conn) => SocketAddr::new(conn.local_ip().unwrap_or(listens.ip()), listens.port()),
            Self::Stream(stream) => stream.pending.conn.local,
        }
    }

    /// Facts about the connection, for the gate. `listens`: address of the relay.
    pub(super) fn info(&self, listens: SocketAddr) -> ConnInfo {
        match self {
            Self::Stream(stream) => stream.pending.conn.clone(),
            Self::Quic(conn) => ConnInfo {
                version: conn.layer().protocol(),
                server_name: conn.server_name(),
                certificate: conn.peer_certificate().cloned(),
                origin: conn.layer().origin().map(str::to_owned),
                target: conn.layer().target().map(str::to_owned),
                ..ConnInfo::new(self.transport(), self.remote(), self.local(listens))
            },
        }
    }

    /// Memory of the connection, bytes.
    pub(super) fn footprint(&mut self) -> u64 {
        match self {
            Self::Quic(conn) => conn.footprint(),
            Self::Stream(stream) => stream.footprint(),
        }
    }

    pub(super) fn traffic(&self) -> ConnTraffic {
        match self {
            Self::Quic(conn) => conn.traffic(),
            Self::Stream(stream) => stream.traffic(),
        }
    }

    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        match self {
            Self::Quic(conn) => conn.next_deadline(),
            Self::Stream(stream) => stream.next_deadline(),
        }
    }

    /// Stops input until the session has handled all events.
    pub(super) fn hold_input(&mut self) {
        match self {
            Self::Quic(conn) => conn.hold_input(),
            Self::Stream(stream) => stream.is_behind = true,
        }
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.stats().rtt
    }
}

/// Dispatches to the actual kind of connection.
macro_rules! either {
    ($self:ident, $conn:ident => $call:expr) => {
        match $self {
            Conn::Quic($conn) => $call,
            Conn::Stream(stream) => {
                let $conn: &qmux::QmuxConnection = &stream.conn;
                $call
            }
        }
    };
    (mut $self:ident, $conn:ident => $call:expr) => {
        match $self {
            Conn::Quic($conn) => $call,
            Conn::Stream(stream) => {
                let $conn: &mut qmux::QmuxConnection = &mut stream.conn;
                $call
            }
        }
    };
}

impl Transport for Conn<'_> {
    #[inline]
    fn poll(&mut self) -> Option<TransportEvent> {
        match self {
            Self::Quic(conn) => conn.poll(),
            Self::Stream(stream) => stream.poll(),
        }
    }

    #[inline]
    fn open(&mut self, dir: Dir, priority: i32) -> Option<Stream> {
        either!(mut self, conn => conn.open(dir, priority))
    }

    #[inline]
    fn read(&mut self, stream: Stream, max: usize) -> Result<Option<Bytes>, ReadError> {
        either!(mut self, conn => conn.read(stream, max))
    }

    #[inline]
    fn write(&mut self, stream: Stream, chunks: &mut [Bytes]) -> Result<usize, WriteError> {
        either!(mut self, conn => conn.write(stream, chunks))
    }

    #[inline]
    fn finish(&mut self, stream: Stream) {
        either!(mut self, conn => conn.finish(stream));
    }

    #[inline]
    fn reset(&mut self, stream: Stream, code: StreamCode) {
        either!(mut self, conn => conn.reset(stream, code));
    }

    #[inline]
    fn stop(&mut self, stream: Stream, code: StreamCode) {
        either!(mut self, conn => conn.stop(stream, code));
    }

    #[inline]
    fn set_priority(&mut self, stream: Stream, priority: i32) {
        either!(mut self, conn => conn.set_priority(stream, priority));
    }

    #[inline]
    fn send_datagram(&mut self, datagram: Bytes) -> Result<(), DatagramError> {
        either!(mut self, conn => conn.send_datagram(datagram))
    }

    #[inline]
    fn recv_datagram(&mut self) -> Option<Bytes> {
        either!(mut self, conn => conn.recv_datagram())
    }

    #[inline]
    fn max_datagram(&self) -> usize {
        either!(self, conn => conn.max_datagram())
    }

    #[inline]
    fn exempt(&mut self, on: bool) {
        either!(mut self, conn => conn.exempt(on));
    }

    #[inline]
    fn stats(&self) -> PathStats {
        either!(self, conn => conn.stats())
    }

    fn close(&mut self, now: Instant, code: SessionCode, reason: &str) {
        either!(mut self, conn => conn.close(now, code, reason));
    }
}
