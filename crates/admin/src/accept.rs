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
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    client::Client,
    limits::{HANDSHAKE_TIME, IDLE_TIME, NO_FILES_PAUSE, PLAIN_BYTES, PROXY_IDLE_TIME},
    link::Entrance,
    proxies::Proxies,
    proxy,
    site::Site,
    slots::{Slot, Slots},
    socket::Stream,
};

/// How a handshake of TLS begins; no request of HTTP does.
const HANDSHAKE: u8 = 0x16;
/// Answer to a plain request where only TLS is spoken.
const PLAIN: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\
                       content-length: 52\r\n\r\nthis port speaks HTTPS: write https://, not http://\n";

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
        (Ok(Ok((stream, client))), Kind::Web { site, .. }) => {
            let idle = if proxies.trusts(peer.ip()) { PROXY_IDLE_TIME } else { IDLE_TIME };
            site.converse(stream, client, idle).await;
        }
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
    let takes_header = match kind {
        Kind::Web { .. } => proxies.takes_proxy_header(peer.ip()),
        // Without HTTP there is no other place to name a client.
        Kind::Link { .. } => client.is_proxy,
    };
    if takes_header && let Some(behind) = proxy::header(&mut stream).await? {
        client.remote = canonical(behind);
        client.is_proxy = proxies.trusts(behind.ip());
        if !slot.belongs_to(behind.ip()) {
            return Err(io::Error::other("too many connections from one address"));
        }
    }
    let tls = match kind {
        Kind::Web { plain: true, tls: Some(tls), .. } => {
            let first = first_byte(&stream).await?;
            Some(tls).filter(|_| first == HANDSHAKE)
        }
        Kind::Web { plain: false, tls: Some(tls), .. } => {
            // Methods of HTTP are words of capital letters.
            if first_byte(&stream).await?.is_ascii_uppercase() {
                refuse_plain(stream).await?;
                return Err(io::Error::other("plain HTTP where HTTPS is spoken"));
            }
            Some(tls)
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

/// The next byte, which stays there.
async fn first_byte(stream: &TcpStream) -> io::Result<u8> {
    let mut first = [0];
    // A peek at nothing is the end.
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0]),
    }
}

/// Answers a plain request and reads on until the client closes: a close with bytes unread is a reset, which
/// takes the answer with it.
async fn refuse_plain(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(PLAIN).await?;
    stream.shutdown().await?;
    let (mut piece, mut read) = ([0; 4_096], 0);
    while read < PLAIN_BYTES {
        match stream.read(&mut piece).await? {
            0 => break,
            count => read += count,
        }
    }
    Ok(())
}

/// IPv4 inside of IPv6 is IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
