//! Reachability of the relay's UDP port: a QUIC handshake with the process that holds it or, if the port is free, a
//! datagram to this process.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    time::{Duration, Instant},
};

use relay_certificate::Fingerprint;
use relay_client::{Client, ClientConfig, Error};
use rustls::pki_types::CertificateDer;

use super::{
    probe::own_address,
    reading::{HandshakeError, HandshakeResult, Port, PortState},
};
use crate::diagnostics::{Diagnostic, bind_error, holder};

/// Deadline of a handshake with this machine.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// Deadline of a datagram within this machine.
const DATAGRAM: Duration = Duration::from_secs(1);
/// Payload of the test datagram.
const HELLO: &[u8] = b"moq-relay doctor";
/// Documentation addresses (RFC 5737, RFC 3849), which take the default route. Nothing is sent to them.
const ELSEWHERE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// State of the UDP port at `bind`.
pub(super) fn port(bind: SocketAddr) -> Port {
    let standing = match UdpSocket::bind(bind) {
        Ok(socket) => free(&socket, bind),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder = holder::of(bind);
            PortState::Taken { holder, answers: ways(bind).into_iter().map(ask).collect() }
        }
        Err(error) => PortState::Refused(bind_error(Path::new("/"), bind, error)),
    };
    Port { bind, standing }
}

/// Addresses at which this machine reaches `bind`: loopback first, then its own address as seen by others.
fn ways(bind: SocketAddr) -> Vec<SocketAddr> {
    if !bind.ip().is_unspecified() {
        return vec![bind];
    }
    let both = bind.is_ipv6();
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let own = ELSEWHERE.into_iter().filter_map(own_address).map(|addr| addr.ip());
    let mut ips: Vec<IpAddr> = loopback
        .into_iter()
        .filter(|ip| UdpSocket::bind((*ip, 0)).is_ok())
        .chain(own)
        .filter(|ip| both || ip.is_ipv4())
        .collect();
    ips.dedup();
    ips.into_iter().map(|ip| SocketAddr::new(ip, bind.port())).collect()
}

/// Makes a handshake with the listener at `at`. Rejection of the session still counts as an answer.
fn ask(at: SocketAddr) -> HandshakeResult {
    let began = Instant::now();
    match handshake(at) {
        Ok(shown) => HandshakeResult { at, took: Ok(began.elapsed()), shown },
        Err(why) => HandshakeResult { at, took: Err(why), shown: None },
    }
}

/// Connects, and returns the fingerprint of the server's certificate if it was received.
fn handshake(at: SocketAddr) -> Result<Option<Fingerprint>, HandshakeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| HandshakeError(format!("cannot try it: {error}")))?;
    let config = ClientConfig { connect_timeout: HANDSHAKE, ..ClientConfig::default() };
    runtime.block_on(async {
        match Client::connect(&format!("moqt://{at}/"), config).await {
            Ok(client) => {
                let chain = client.quic().and_then(|quic| quic.peer_identity());
                let chain = chain.and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
                client.close(relay_client::SessionCode::NONE, "doctor").await;
                client.drained().await;
                Ok(chain.and_then(|chain| chain.first().map(|leaf| Fingerprint::of(leaf))))
            }
            // Any close by the peer is an answer.
            Err(Error::Closed(relay_client::Closed::Peer { .. })) => Ok(None),
            Err(error) => Err(HandshakeError(error.to_string())),
        }
    })
}

/// Tests a free port, bound to `socket`, with a datagram.
fn free(socket: &UdpSocket, bind: SocketAddr) -> PortState {
    // The last address is the one that others would use.
    let Some(to) = ways(bind).pop() else {
        let trouble =
            Diagnostic::new("this machine has no address at all", "look at its network (`ip address`)");
        return PortState::Refused(trouble);
    };
    let to = match socket.local_addr() {
        Ok(own) => SocketAddr::new(to.ip(), own.port()),
        Err(_) => to,
    };
    PortState::Free { via: to.ip(), arrived: arrives(socket, to).unwrap_or(false) }
}

fn arrives(socket: &UdpSocket, to: SocketAddr) -> io::Result<bool> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let sender = UdpSocket::bind((any, 0))?;
    sender.send_to(HELLO, to)?;
    let deadline = Instant::now() + DATAGRAM;
    let mut buffer = [0; 64];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        let (len, from) = socket.recv_from(&mut buffer)?;
        if buffer.get(..len) == Some(HELLO) && from.port() == sender.local_addr()?.port() {
            return Ok(true);
        }
    }
}
