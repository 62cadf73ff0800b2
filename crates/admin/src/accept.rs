//! From a listener to whoever serves the connection. What takes time is done apart: nobody who is slow holds
//! up who comes next.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use relay_transport::quic::PeerCertificate;
use rustls::{ServerConfig, ServerConnection};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    client::{Client, Proxies},
    limits::{HANDSHAKE_TIME, NO_FILES_PAUSE},
    link::Entrance,
    proxy,
    site::Site,
    slots::{Slot, Slots},
    socket::Stream,
};

/// How a handshake of TLS begins; no request of HTTP does.
const HANDSHAKE: u8 = 0x16;

/// At most this often the log says that connections cannot be accepted.
const REPEAT: Duration = Duration::from_secs(60);

/// What stands behind a listener.
pub(crate) struct Door {
    pub(crate) kind: Kind,
    pub(crate) slots: Slots,
    pub(crate) proxies: Proxies,
}

/// What is served.
#[derive(Clone)]
pub(crate) enum Kind {
    /// HTTP: as it is, over TLS, or whichever comes.
    Web { site: Arc<Site>, plain: bool, tls: Option<Arc<ServerConfig>> },
    /// Sessions.
    Link { entrance: Entrance, tls: Option<Arc<ServerConfig>> },
}

impl Door {
    /// Accepts as long as the runtime runs.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let Self { kind, slots, proxies } = self;
        let mut said: Option<Instant> = None;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    // No place: closed unheard.
                    let Some(slot) = slots.take(peer.ip()) else { continue };
                    tokio::spawn(welcome(stream, peer, slot, kind.clone(), proxies.clone()));
                }
                Err(error) => {
                    // Out of files, or the peer was gone already.
                    if said.is_none_or(|at| at.elapsed() >= REPEAT) {
                        said = Some(Instant::now());
                        tracing::warn!(%error, "cannot accept TCP connections; trying again");
                    }
                    sleep(NO_FILES_PAUSE).await;
                }
            }
        }
    }
}

async fn welcome(stream: TcpStream, peer: SocketAddr, mut slot: Slot, kind: Kind, proxies: Proxies) {
    let begun = timeout(HANDSHAKE_TIME, begin(stream, peer, &mut slot, &kind, &proxies)).await;
    match (begun, kind) {
        (Ok(Ok((stream, client))), Kind::Web { site, .. }) => site.converse(stream, client).await,
        (Ok(Ok((stream, client))), Kind::Link { entrance, .. }) => entrance.admit(stream, client).await,
        (Ok(Err(error)), _) => tracing::debug!(%peer, %error, "a connection did not begin"),
        (Err(_), _) => tracing::debug!(%peer, "a connection did not begin in time"),
    }
    drop(slot);
}

/// Whatever comes before what is spoken.
async fn begin(
    mut stream: TcpStream,
    peer: SocketAddr,
    slot: &mut Slot,
    kind: &Kind,
    proxies: &Proxies,
) -> io::Result<(Stream, Client)> {
    let mut client = Client {
        remote: canonical(peer),
        is_proxy: proxies.trusts(peer.ip()),
        local: canonical(stream.local_addr()?),
        is_tls: false,
        server_name: None,
        certificate: None,
        rtt: None,
    };
    stream.set_nodelay(true)?;
    if client.is_proxy
        && let Some(behind) = proxy::header(&mut stream).await?
    {
        client.remote = canonical(behind);
        client.is_proxy = proxies.trusts(behind.ip());
        if !slot.belongs_to(behind.ip()) {
            return Err(io::Error::other("too many connections from one address"));
        }
    }
    let tls = match kind {
        Kind::Web { plain: true, tls: Some(tls), .. } => {
            let mut first = [0];
            // A peek at nothing is the end.
            if stream.peek(&mut first).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Some(tls).filter(|_| first == [HANDSHAKE])
        }
        Kind::Web { tls, .. } | Kind::Link { tls, .. } => tls.as_ref(),
    };
    let Some(tls) = tls else { return Ok((Stream::Plain(stream), client)) };
    let stream: TlsStream<TcpStream> = TlsAcceptor::from(tls.clone()).accept(stream).await?;
    let session: &ServerConnection = stream.get_ref().1;
    client.is_tls = true;
    client.server_name = session.server_name().map(str::to_owned);
    client.certificate = session.peer_certificates().and_then(PeerCertificate::of_chain);
    Ok((Stream::Tls(Box::new(stream)), client))
}

/// IPv4 inside of IPv6 is IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
