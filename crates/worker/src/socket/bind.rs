//! Binding of the socket group of a relay.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{linux::net::SocketAddrExt, unix::net::UnixListener},
};

use relay_model::limits;
use socket2::{Domain, Protocol, Type};

use super::{Steering, WorkerSocket, steer};

/// Requested kernel buffer of each socket and direction, bytes: some 50 ms of a busy worker.
pub const BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// Interface of packets from this machine to itself.
const LOOPBACK_DEVICE: &[u8] = b"lo";

/// Attempts to find a free port, if any port will do.
const PORT_ATTEMPTS: usize = 16;

/// Reason why the sockets cannot be bound. The texts name the cause; the remedy depends on the caller.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has the port.
    #[error("udp {0} is already in use by another process")]
    InUse(SocketAddr),
    /// The address does not belong to this machine.
    #[error("this machine has no address {0}")]
    NoSuchAddress(std::net::IpAddr),
    /// The kernel has no IPv6.
    #[error("cannot listen on udp {0}: this machine has no IPv6")]
    NoIpv6(SocketAddr),
    /// Ports below 1024 need a privilege.
    #[error("not allowed to listen on udp port {port}", port = .0.port())]
    Forbidden(SocketAddr),
    /// The limit on open files is reached.
    #[error("too many open files: every worker takes some")]
    Files,
    /// More workers than a connection id can address, or none.
    #[error("{0} workers asked for; choose 1 to {max}", max = limits::WORKERS)]
    Workers(usize),
    /// The kernel refused the steering program.
    #[error("the kernel refused to steer packets to workers ({0})")]
    Steering(#[source] io::Error),
    /// Any other error.
    #[error("cannot listen on udp {addr}: {error}")]
    Other {
        /// Address to bind.
        addr: SocketAddr,
        /// Cause.
        #[source]
        error: io::Error,
    },
}

impl BindError {
    /// Classifies the system's error of binding `addr`.
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

/// Kernel buffer sizes, requested and granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// Requested bytes in each direction.
    pub wanted: usize,
    /// Granted receive buffer, bytes.
    pub recv: usize,
    /// Granted send buffer, bytes.
    pub send: usize,
}

/// All sockets of a relay.
#[derive(Debug)]
pub struct SocketGroup {
    /// One per worker, in worker order.
    pub sockets: Vec<WorkerSocket>,
    /// Bound address, with the actual port.
    pub addr: SocketAddr,
    /// Smallest buffers of all sockets.
    pub buffers: Buffers,
    /// Keeps a second relay from joining the group.
    pub lock: GroupLock,
}

/// While it exists, [`bind`] in this or another process refuses the same address.
#[derive(Debug)]
pub struct GroupLock {
    _listener: UnixListener,
}

/// Binds one socket per worker to `addr`, in index order, and steers datagrams between them. An unspecified
/// IPv6 address includes IPv4. Never close one member while others serve.
pub fn bind(addr: SocketAddr, workers: usize, steering: Steering) -> Result<SocketGroup, BindError> {
    bind_as(addr, BindScope::Address, workers, steering)
}

/// Binds a group to 127.0.0.1 and ::1 together, at `port`; its address is the former.
pub fn bind_loopback(port: u16, workers: usize, steering: Steering) -> Result<SocketGroup, BindError> {
    bind_as((Ipv4Addr::LOCALHOST, port).into(), BindScope::Loopback, workers, steering)
}

/// Datagrams that a socket receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BindScope {
    /// Datagrams to its address.
    Address,
    /// Datagrams to any address that arrive over the loopback interface, which excludes other machines.
    Loopback,
}

fn bind_as(
    addr: SocketAddr,
    reach: BindScope,
    workers: usize,
    steering: Steering,
) -> Result<SocketGroup, BindError> {
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
        sockets.push(WorkerSocket::new(socket.into()).map_err(fail)?);
    }
    Ok(SocketGroup { sockets, addr, buffers, lock })
}

/// Ensures that no other process has the address, and picks a free port if any will do.
fn claim(addr: SocketAddr, reach: BindScope) -> Result<(SocketAddr, GroupLock), BindError> {
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

/// Binds a plain socket, which cannot join a reuseport group, to show that the port is free: the kernel lets
/// processes of one user share such a group silently. The lock covers the moment between closing this socket
/// and binding the group.
fn try_claim(addr: SocketAddr, reach: BindScope) -> io::Result<(SocketAddr, GroupLock)> {
    let probe: std::net::UdpSocket = open_as(addr, reach, false)?.into();
    let addr = SocketAddr::new(addr.ip(), probe.local_addr()?.port());
    let name = std::os::unix::net::SocketAddr::from_abstract_name(format!("moq-relay udp {addr}"))?;
    let _listener = UnixListener::bind_addr(&name)?;
    Ok((addr, GroupLock { _listener }))
}

pub(super) fn open(addr: SocketAddr, shared: bool) -> io::Result<socket2::Socket> {
    open_as(addr, BindScope::Address, shared)
}

fn open_as(addr: SocketAddr, reach: BindScope, shared: bool) -> io::Result<socket2::Socket> {
    let addr = match reach {
        BindScope::Address => addr,
        BindScope::Loopback => (Ipv6Addr::UNSPECIFIED, addr.port()).into(),
    };
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if reach == BindScope::Loopback {
        // Set before binding the address, from which on packets arrive.
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
    // The kernel reports twice the granted size, for its own bookkeeping.
    let (recv, send) = (socket.recv_buffer_size()? / 2, socket.send_buffer_size()? / 2);
    Ok(Buffers { wanted: BUFFER_BYTES, recv, send })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_have_a_text() {
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
