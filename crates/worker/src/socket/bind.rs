//! Making the group of sockets.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{linux::net::SocketAddrExt, unix::net::UnixListener},
};

use relay_model::limits;
use socket2::{Domain, Protocol, Type};

use super::{Socket, Steering, steer};

/// Wanted kernel buffers of each socket and direction, bytes: some 50 ms of a busy worker.
pub const BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// The interface that packets of this machine to itself come over.
const LOOPBACK_DEVICE: &[u8] = b"lo";

/// Attempts to find a free port when any will do.
const PORT_ATTEMPTS: usize = 16;

/// Why the sockets could not be made. The texts say what is wrong; what to do about it depends on who asks.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has the port.
    #[error("udp {0} is already in use by another process")]
    InUse(SocketAddr),
    /// The address is not one of this machine's.
    #[error("this machine has no address {0}")]
    NoSuchAddress(std::net::IpAddr),
    /// The kernel has no IPv6.
    #[error("cannot listen on udp {0}: this machine has no IPv6")]
    NoIpv6(SocketAddr),
    /// Ports below 1024 are for the privileged.
    #[error("not allowed to listen on udp port {port}", port = .0.port())]
    Forbidden(SocketAddr),
    /// No more files may be open.
    #[error("too many open files: every worker takes some")]
    Files,
    /// More workers than a connection id can name, or none.
    #[error("{0} workers asked for; choose 1 to {max}", max = limits::WORKERS)]
    Workers(usize),
    /// The kernel refused the steering program.
    #[error("the kernel refused to steer packets to workers ({0})")]
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

impl BindError {
    /// What the system's refusal to bind to `addr` means.
    pub fn of(addr: SocketAddr, error: io::Error) -> Self {
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::AddrInUse, _) => Self::InUse(addr),
            (io::ErrorKind::AddrNotAvailable, _) => Self::NoSuchAddress(addr.ip()),
            (io::ErrorKind::PermissionDenied, _) => Self::Forbidden(addr),
            (_, Some(libc::EAFNOSUPPORT)) if addr.is_ipv6() => Self::NoIpv6(addr),
            (_, Some(libc::EMFILE | libc::ENFILE)) => Self::Files,
            _ => Self::Other { addr, error },
        }
    }
}

/// What the kernel gave of the buffers wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// Bytes wanted each way.
    pub wanted: usize,
    /// Receive buffer got, bytes.
    pub recv: usize,
    /// Send buffer got, bytes.
    pub send: usize,
}

impl Buffers {
    /// Whether they are smaller than wanted.
    pub fn are_clamped(&self) -> bool {
        self.recv < self.wanted || self.send < self.wanted
    }
}

/// All sockets of a relay.
#[derive(Debug)]
pub struct Group {
    /// One a worker, in worker order.
    pub sockets: Vec<Socket>,
    /// Where they are bound; the port is known even if any was asked for.
    pub addr: SocketAddr,
    /// The smallest buffers of any of them.
    pub buffers: Buffers,
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
    bind_as(addr, Reach::Address, workers, steering)
}

/// The same for 127.0.0.1 and ::1 together, at `port`; the group has the former as its address.
pub fn bind_loopback(port: u16, workers: usize, steering: Steering) -> Result<Group, BindError> {
    bind_as((Ipv4Addr::LOCALHOST, port).into(), Reach::Loopback, workers, steering)
}

/// What reaches a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Datagrams to its address.
    Address,
    /// Datagrams to any address that come over the loopback interface, which those of other machines do not.
    Loopback,
}

fn bind_as(addr: SocketAddr, reach: Reach, workers: usize, steering: Steering) -> Result<Group, BindError> {
    if workers == 0 || workers > limits::WORKERS {
        return Err(BindError::Workers(workers));
    }
    let (addr, lock) = claim(addr, reach)?;
    let fail = |error| BindError::of(addr, error);
    let mut sockets = Vec::with_capacity(workers);
    let mut buffers = Buffers { wanted: BUFFER_BYTES, recv: usize::MAX, send: usize::MAX };
    for index in 0..workers {
        let socket = open_as(addr, reach, true).map_err(fail)?;
        let Buffers { recv, send, .. } = size_buffers(&socket).map_err(fail)?;
        buffers = Buffers { recv: buffers.recv.min(recv), send: buffers.send.min(send), ..buffers };
        if index == 0 && steering == Steering::ConnectionId {
            steer::attach(&socket, workers as u32).map_err(BindError::Steering)?;
        }
        sockets.push(Socket::new(socket.into()).map_err(fail)?);
    }
    Ok(Group { sockets, addr, buffers, lock })
}

/// Makes sure that nobody else has the address, and settles the port if any will do.
fn claim(addr: SocketAddr, reach: Reach) -> Result<(SocketAddr, GroupLock), BindError> {
    let mut attempts = if addr.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        match try_claim(addr, reach) {
            Ok(claimed) => return Ok(claimed),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {}
            Err(error) => return Err(BindError::of(addr, error)),
        }
    }
}

/// The kernel lets processes of one user share a reuseport group without a word. A plain socket
/// cannot join one, so binding it shows that the port is free; the lock covers the moment between
/// closing it and binding the group.
fn try_claim(addr: SocketAddr, reach: Reach) -> io::Result<(SocketAddr, GroupLock)> {
    let probe: std::net::UdpSocket = open_as(addr, reach, false)?.into();
    let addr = SocketAddr::new(addr.ip(), probe.local_addr()?.port());
    let name = std::os::unix::net::SocketAddr::from_abstract_name(format!("moq-relay udp {addr}"))?;
    let _listener = UnixListener::bind_addr(&name)?;
    Ok((addr, GroupLock { _listener }))
}

pub(super) fn open(addr: SocketAddr, shared: bool) -> io::Result<socket2::Socket> {
    open_as(addr, Reach::Address, shared)
}

fn open_as(addr: SocketAddr, reach: Reach, shared: bool) -> io::Result<socket2::Socket> {
    let addr = match reach {
        Reach::Address => addr,
        Reach::Loopback => (Ipv6Addr::UNSPECIFIED, addr.port()).into(),
    };
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if reach == Reach::Loopback {
        // Before the address: from then on packets come.
        socket.bind_device(Some(LOOPBACK_DEVICE))?;
    }
    if addr.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_port(shared)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

pub(super) fn size_buffers(socket: &socket2::Socket) -> io::Result<Buffers> {
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    socket.set_send_buffer_size(BUFFER_BYTES)?;
    // The kernel reports twice what it grants, for its own bookkeeping.
    let (recv, send) = (socket.recv_buffer_size()? / 2, socket.send_buffer_size()? / 2);
    Ok(Buffers { wanted: BUFFER_BYTES, recv, send })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_has_a_name() {
        let named = |addr: &str, errno| {
            let error = BindError::of(addr.parse().unwrap(), io::Error::from_raw_os_error(errno));
            error.to_string()
        };
        for (addr, errno, expected) in [
            ("[::]:4443", libc::EADDRINUSE, "udp [::]:4443 is already in use by another process"),
            ("192.0.2.1:4443", libc::EADDRNOTAVAIL, "this machine has no address 192.0.2.1"),
            ("[::]:443", libc::EACCES, "not allowed to listen on udp port 443"),
            ("[::]:4443", libc::EAFNOSUPPORT, "cannot listen on udp [::]:4443: this machine has no IPv6"),
            ("[::]:4443", libc::EMFILE, "too many open files: every worker takes some"),
        ] {
            assert_eq!(named(addr, errno), expected);
        }
        let other = named("127.0.0.1:1", libc::EAFNOSUPPORT);
        assert!(other.starts_with("cannot listen on udp 127.0.0.1:1: Address family not supp"), "{other}");
    }
}
