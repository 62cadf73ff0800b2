//! Making the group of sockets.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
    os::{linux::net::SocketAddrExt, unix::net::UnixListener},
};

use relay_model::limits;
use socket2::{Domain, Protocol, Type};

use super::{Socket, Steering, steer};

/// Wanted kernel buffers of each socket and direction, bytes: some 50 ms of a busy worker.
const BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// Attempts to find a free port when any will do.
const PORT_ATTEMPTS: usize = 16;

/// Why the sockets could not be made. The texts are for people.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has the port.
    #[error(
        "udp {0} is already in use by another process; stop it, or listen on another port \
         (`ss -lunp 'sport = :{port}'` shows who has it)",
        port = .0.port()
    )]
    InUse(SocketAddr),
    /// The address is not one of this machine's.
    #[error("this machine has no address {0}; listen on [::] for all of them, or correct the address")]
    NoSuchAddress(std::net::IpAddr),
    /// Ports below 1024 are for the privileged.
    #[error(
        "not allowed to listen on udp port {port}; use a port from 1024, or give the binary the right: \
         `setcap cap_net_bind_service=+ep`",
        port = .0.port()
    )]
    Forbidden(SocketAddr),
    /// More workers than a connection id can name, or none.
    #[error("{0} workers asked for; choose 1 to {max}", max = limits::WORKERS)]
    Workers(usize),
    /// The kernel refused the steering program.
    #[error("the kernel refused to steer packets to workers ({0}); Linux 4.6 or newer is needed")]
    Steering(#[source] io::Error),
    /// Anything else.
    #[error("cannot listen on udp {addr}: {error}")]
    Other {
        /// Where.
        addr: SocketAddr,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// The kernel gave less buffer than wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferClamp {
    /// Bytes wanted each way.
    pub wanted: usize,
    /// Receive buffer got, bytes.
    pub recv: usize,
    /// Send buffer got, bytes.
    pub send: usize,
}

impl std::fmt::Display for BufferClamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "socket buffers are {} KiB (receive) and {} KiB (send) instead of {} KiB: bursts may be lost; \
             raise them with `sysctl -w net.core.rmem_max={wanted} net.core.wmem_max={wanted}`",
            self.recv / 1024,
            self.send / 1024,
            self.wanted / 1024,
            wanted = self.wanted,
        )
    }
}

/// All sockets of a relay.
#[derive(Debug)]
pub struct Group {
    /// One a worker, in worker order.
    pub sockets: Vec<Socket>,
    /// Where they are bound; the port is known even if any was asked for.
    pub addr: SocketAddr,
    /// Set when the kernel clamped the buffers.
    pub clamp: Option<BufferClamp>,
    /// Keeps a second relay from joining the group.
    pub lock: GroupLock,
}

/// While it lives, [`bind`] in this or another process refuses the same address.
#[derive(Debug)]
pub struct GroupLock {
    _listener: UnixListener,
}

/// Binds one socket a worker to `addr`, in index order, and steers datagrams between them.
/// An unspecified v6 address takes v4 too. Never close one member while others serve.
pub fn bind(addr: SocketAddr, workers: usize, steering: Steering) -> Result<Group, BindError> {
    if workers == 0 || workers > limits::WORKERS {
        return Err(BindError::Workers(workers));
    }
    let (addr, lock) = claim(addr)?;
    let fail = |error| classify(addr, error);
    let mut sockets = Vec::with_capacity(workers);
    let mut clamp = None;
    for index in 0..workers {
        let socket = open(addr, true).map_err(fail)?;
        clamp = clamp.or(size_buffers(&socket).map_err(fail)?);
        if index == 0 && steering == Steering::ConnectionId {
            steer::attach(&socket, workers as u32).map_err(BindError::Steering)?;
        }
        sockets.push(Socket::new(socket.into()).map_err(fail)?);
    }
    Ok(Group { sockets, addr, clamp, lock })
}

/// Makes sure that nobody else has the address, and settles the port if any will do.
fn claim(addr: SocketAddr) -> Result<(SocketAddr, GroupLock), BindError> {
    let mut attempts = if addr.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        match try_claim(addr) {
            Ok(claimed) => return Ok(claimed),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            Err(error) => return Err(classify(addr, error)),
        }
    }
}

/// The kernel lets processes of one user share a reuseport group without a word. A plain socket
/// cannot join one, so binding it shows that the port is free; the lock covers the moment between
/// closing it and binding the group.
fn try_claim(addr: SocketAddr) -> io::Result<(SocketAddr, GroupLock)> {
    let probe: std::net::UdpSocket = open(addr, false)?.into();
    let addr = probe.local_addr()?;
    let name = std::os::unix::net::SocketAddr::from_abstract_name(format!("moq-relay udp {addr}"))?;
    let _listener = UnixListener::bind_addr(&name)?;
    Ok((addr, GroupLock { _listener }))
}

fn open(addr: SocketAddr, shared: bool) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_port(shared)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn size_buffers(socket: &socket2::Socket) -> io::Result<Option<BufferClamp>> {
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    socket.set_send_buffer_size(BUFFER_BYTES)?;
    // The kernel reports twice what it grants, for its own bookkeeping.
    let (recv, send) = (socket.recv_buffer_size()? / 2, socket.send_buffer_size()? / 2);
    let clamped = recv < BUFFER_BYTES || send < BUFFER_BYTES;
    Ok(clamped.then_some(BufferClamp { wanted: BUFFER_BYTES, recv, send }))
}

fn classify(addr: SocketAddr, error: io::Error) -> BindError {
    match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse(addr),
        io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress(addr.ip()),
        io::ErrorKind::PermissionDenied => BindError::Forbidden(addr),
        _ => BindError::Other { addr, error },
    }
}
