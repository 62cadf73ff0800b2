//! Socket capabilities of this machine, determined by trying.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use super::{
    BindError, Buffers, Io, SocketGroup, Steering, WorkerSocket,
    bind::{bind, open, size_buffers},
};

/// Timeout of a datagram over loopback.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two checks for it.
const PAUSE: Duration = Duration::from_millis(1);
/// Sockets in the group under test.
const MEMBERS: usize = 2;
/// First bytes of the connection ids tried: each member must get half of them.
const IDS: [u8; 6] = [0, 1, 2, 127, 128, 255];

/// Offloads of the kernel for a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    /// Limit on datagrams per send; 1 without GSO.
    pub send: usize,
    /// Limit on datagrams per receive; 1 without GRO.
    pub receive: usize,
}

/// Buffers of a socket opened like those of a relay.
pub fn buffers() -> io::Result<Buffers> {
    size_buffers(&open(local(), false)?)
}

/// Offloads of a socket opened like those of a relay.
pub fn offload() -> io::Result<Offload> {
    let state = WorkerSocket::new(open(local(), false)?.into())?.state;
    Ok(Offload { send: state.max_gso_segments().max(1), receive: state.gro_segments().max(1) })
}

/// Reason why packet steering does not work.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// The sockets for the test cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The test itself failed.
    #[error("cannot test packet steering: {0}")]
    Io(#[from] io::Error),
    /// A datagram arrived at another socket, or not at all.
    #[error("a datagram for worker {0} did not reach it")]
    Astray(usize),
}

/// Sends datagrams to a small group of sockets and checks that each reaches the right one.
pub fn steering() -> Result<(), SteeringError> {
    let mut group = bind(local(), MEMBERS, Steering::ConnectionId)?;
    for id in IDS {
        // A new port each time, so that a hash of the addresses would send some of them elsewhere.
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

/// Whether `owner` is the first to receive something.
fn arrives(group: &mut SocketGroup, owner: usize) -> bool {
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

/// Any port of loopback, IPv4 if available.
fn local() -> SocketAddr {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    if UdpSocket::bind(v4).is_ok() { v4 } else { SocketAddr::from((Ipv6Addr::LOCALHOST, 0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probe_reports_the_values_of_a_relay() {
        let group = bind(local(), 1, Steering::Off).unwrap();
        assert_eq!(buffers().unwrap(), group.buffers);
        assert_eq!(offload().unwrap().send, group.sockets[0].max_segments());
        steering().unwrap();
    }

    #[test]
    fn datagram_at_the_wrong_socket_is_detected() {
        // Without a program the kernel spreads by address, which sooner or later differs from the id.
        let mut group = bind(local(), MEMBERS, Steering::Off).unwrap();
        let astray = (0..64).any(|_| {
            let peer = UdpSocket::bind(SocketAddr::new(group.addr.ip(), 0)).unwrap();
            peer.send_to(&[0x40, 0], group.addr).unwrap();
            !arrives(&mut group, 0)
        });
        assert!(astray);
    }
}
