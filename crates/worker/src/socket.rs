//! UDP sockets of a relay: one per worker, all on one port, and their packets.
//!
//! [`bind`] makes the group; [`WorkerSocket`] is one member and implements [`Io`], the engine's only view of it.

mod bind;
mod option;
pub mod probe;
mod recv;
mod send;
mod steer;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6},
    time::Instant,
};

use bytes::BytesMut;
use relay_transport::quic::Ecn;

pub(crate) use option::tcp_path;

pub use bind::{BUFFER_BYTES, BindError, Buffers, GroupLock, SocketGroup, bind, bind_loopback};
pub use steer::Steering;

/// Limit on packets per send call.
pub const SEND_BATCH: usize = 64;

/// One or more datagrams from one peer, as the kernel coalesced them.
#[derive(Debug)]
pub struct UdpReceived {
    /// Source address; may be a v4-mapped one.
    pub remote: SocketAddr,
    /// Destination address, if known.
    pub local_ip: Option<IpAddr>,
    /// ECN mark.
    pub ecn: Option<Ecn>,
    /// Bytes of each datagram except the last, which may be shorter.
    pub stride: usize,
    /// All datagrams, back to back.
    pub data: BytesMut,
}

/// One or more datagrams for one peer.
#[derive(Clone, Debug)]
pub struct UdpPacket {
    /// Destination address.
    pub destination: SocketAddr,
    /// Local address to send from; `None` lets the kernel choose.
    pub src_ip: Option<IpAddr>,
    /// ECN mark.
    pub ecn: Option<Ecn>,
    /// Bytes of each datagram except the last; `None` for a single datagram.
    pub segment: Option<u16>,
    /// All datagrams, back to back.
    pub bytes: Vec<u8>,
}

impl UdpPacket {
    /// Number of datagrams.
    pub fn datagrams(&self) -> usize {
        match self.segment {
            Some(size) if size > 0 => self.bytes.len().div_ceil(usize::from(size)),
            _ => 1,
        }
    }
}

/// Interface of the engine to its socket. No method blocks.
pub trait Io {
    /// Appends one batch of received datagrams to `out`; returns whether there may be more. `WouldBlock`:
    /// there were none.
    fn recv(&mut self, out: &mut Vec<UdpReceived>) -> io::Result<bool>;
    /// Sends packets from the front; returns how many were sent (at least one), or the error of the first.
    fn send(&mut self, packets: &[UdpPacket]) -> io::Result<usize>;
    /// Limit on datagrams in one [`UdpPacket`]; 1 without segmentation offload.
    fn max_segments(&self) -> usize;
    /// Current time, for the time limits within a turn.
    fn now(&self) -> Instant;
}

/// One socket of a [`SocketGroup`].
#[derive(Debug)]
pub struct WorkerSocket {
    io: mio::net::UdpSocket,
    state: quinn_udp::UdpSocketState,
    receiver: recv::Receiver,
    is_v6: bool,
}

impl WorkerSocket {
    fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let is_v6 = socket.local_addr()?.is_ipv6();
        // Turns on GRO, ECN and destination addresses, forbids fragmentation.
        let state = quinn_udp::UdpSocketState::new((&socket).into())?;
        option::disable_timestamps(&socket)?;
        Ok(Self { io: mio::net::UdpSocket::from_std(socket), state, receiver: recv::Receiver::new(), is_v6 })
    }

    /// Bound address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// Whether the kernel never fragments what is sent, so that the path MTU may be probed.
    pub fn never_fragments(&self) -> bool {
        !self.state.may_fragment()
    }

    /// Event source for readiness.
    pub fn source(&mut self) -> &mut mio::net::UdpSocket {
        &mut self.io
    }
}

impl Io for WorkerSocket {
    fn recv(&mut self, out: &mut Vec<UdpReceived>) -> io::Result<bool> {
        self.receiver.recv(&self.state, &self.io, out)
    }

    fn send(&mut self, packets: &[UdpPacket]) -> io::Result<usize> {
        send::sendmmsg(&self.io, self.is_v6, packets)
    }

    fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// Returns `addr` as an IPv4 address if it is a v4-mapped one.
pub(crate) fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddrV4::new(v4, v6.port()).into(),
            None => addr,
        },
        SocketAddr::V4(_) => addr,
    }
}

/// Returns `addr` as an address for an IPv6 socket.
fn mapped(addr: SocketAddr) -> SocketAddrV6 {
    match addr {
        SocketAddr::V4(v4) => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0),
        SocketAddr::V6(v6) => v6,
    }
}
