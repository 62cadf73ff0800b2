//! Whether the relay's own port can be reached: a QUIC handshake with who listens there, or, where nobody
//! does, a datagram to ourselves.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    time::{Duration, Instant},
};

use relay_client::{Client, ClientConfig, Error};
use rustls::pki_types::CertificateDer;

use super::{
    probe::own_address,
    reading::{Answer, Port, Standing},
};
use crate::{
    certificate::Fingerprint,
    trouble::{Trouble, bind_error, holder},
};

/// How long a handshake with this machine may take.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// How long a datagram within this machine may take.
const DATAGRAM: Duration = Duration::from_secs(1);
/// What is sent to ourselves.
const HELLO: &[u8] = b"moq-relay doctor";
/// Addresses for documentation: they go wherever everything else goes. Nothing is sent to them.
const ELSEWHERE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// What is at `bind` now.
pub(super) fn port(bind: SocketAddr) -> Port {
    let standing = match UdpSocket::bind(bind) {
        Ok(socket) => free(&socket, bind),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder = holder::of(bind);
            Standing::Taken { holder, answers: ways(bind).into_iter().map(ask).collect() }
        }
        Err(error) => Standing::Refused(bind_error(Path::new("/"), bind, error)),
    };
    Port { bind, standing }
}

/// The ways to `bind` from this machine: loopback first, then its own address as others see it.
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

/// A handshake with who listens at `at`. That it lets us in is not asked.
fn ask(at: SocketAddr) -> Answer {
    let began = Instant::now();
    match handshake(at) {
        Ok(shown) => Answer { at, took: Ok(began.elapsed()), shown },
        Err(why) => Answer { at, took: Err(why), shown: None },
    }
}

/// The certificate that was shown, if the handshake got as far as to look at it.
fn handshake(at: SocketAddr) -> Result<Option<Fingerprint>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot try it: {error}"))?;
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
            // It spoke to us, whatever it said.
            Err(Error::Closed(relay_client::Closed::Peer { .. })) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    })
}

/// Nobody is there: we are, for a moment.
fn free(socket: &UdpSocket, bind: SocketAddr) -> Standing {
    // The last way is the one others would take.
    let Some(to) = ways(bind).pop() else {
        let trouble =
            Trouble::new("this machine has no address at all", "look at its network (`ip address`)");
        return Standing::Refused(trouble);
    };
    let to = match socket.local_addr() {
        Ok(own) => SocketAddr::new(to.ip(), own.port()),
        Err(_) => to,
    };
    Standing::Free { via: to.ip(), arrived: arrives(socket, to).unwrap_or(false) }
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
