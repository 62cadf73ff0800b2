//! What the machine gives a socket of a relay, found out by trying.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use super::{
    BindError, Buffers, Group, Io, Socket, Steering,
    bind::{bind, open, size_buffers},
};

/// How long a datagram over loopback may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between looks for it.
const PAUSE: Duration = Duration::from_millis(1);
/// Members of the group that is steered to.
const MEMBERS: usize = 2;
/// First bytes of connection ids that are tried: each member has to get half of them.
const IDS: [u8; 6] = [0, 1, 2, 127, 128, 255];

/// How much work the kernel takes off a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    /// Most datagrams one send takes; 1 = none (no GSO).
    pub send: usize,
    /// Most datagrams one receive brings; 1 = none (no GRO).
    pub receive: usize,
}

/// Buffers of a socket made as a relay makes its own.
pub fn buffers() -> io::Result<Buffers> {
    size_buffers(&open(local(), false)?)
}

/// Offloads of a socket made as a relay makes its own.
pub fn offload() -> io::Result<Offload> {
    let state = Socket::new(open(local(), false)?.into())?.state;
    Ok(Offload { send: state.max_gso_segments().max(1), receive: state.gro_segments().max(1) })
}

/// Why datagrams do not find their worker.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// There are no sockets to try it on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The trial itself failed.
    #[error("cannot try it: {0}")]
    Io(#[from] io::Error),
    /// One went to another socket, or nowhere.
    #[error("a datagram for worker {0} did not reach it")]
    Astray(usize),
}

/// Sends datagrams to a small group of sockets and looks whether each reaches the one it is for.
pub fn steering() -> Result<(), SteeringError> {
    let mut group = bind(local(), MEMBERS, Steering::ConnectionId)?;
    for id in IDS {
        // A new port each time: a hash of the addresses would send some of them elsewhere.
        let peer = UdpSocket::bind(SocketAddr::new(group.addr.ip(), 0))?;
        let mut packet = [id; 24];
        packet[0] = 0x40;
        peer.send_to(&packet, group.addr)?;
        let owner = usize::from(id) % MEMBERS;
        if !arrives(&mut group, owner) {
            return Err(SteeringError::Astray(owner));
        }
    }
    Ok(())
}

/// Whether `owner` receives something before anybody else does.
fn arrives(group: &mut Group, owner: usize) -> bool {
    let deadline = Instant::now() + PATIENCE;
    let mut out = Vec::new();
    while Instant::now() < deadline {
        for (index, socket) in group.sockets.iter_mut().enumerate() {
            if socket.recv(&mut out).is_ok() && !out.is_empty() {
                return index == owner;
            }
        }
        thread::sleep(PAUSE);
    }
    false
}

/// Any port of loopback, whichever version of IP there is.
fn local() -> SocketAddr {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    if UdpSocket::bind(v4).is_ok() { v4 } else { SocketAddr::from((Ipv6Addr::LOCALHOST, 0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_finds_what_a_relay_would() {
        let group = bind(local(), 1, Steering::Off).unwrap();
        assert_eq!(buffers().unwrap(), group.buffers);
        assert_eq!(offload().unwrap().send, group.sockets[0].max_segments());
        steering().unwrap();
    }

    #[test]
    fn a_datagram_that_goes_astray_is_noticed() {
        // Without a program the kernel spreads by address: sooner or later not as the id says.
        let mut group = bind(local(), MEMBERS, Steering::Off).unwrap();
        let astray = (0..64).any(|_| {
            let peer = UdpSocket::bind(SocketAddr::new(group.addr.ip(), 0)).unwrap();
            peer.send_to(&[0x40, 0], group.addr).unwrap();
            !arrives(&mut group, 0)
        });
        assert!(astray);
    }
}
