//! Accepts connections on a listener and serves each in a task of its own, so that a slow handshake does not delay the
//! next connection.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::Router;
use relay_transport::quic::PeerCertificate;
use relay_worker::ConnInfo;
use rustls::{ServerConfig, ServerConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    charge::ConnectionCharge,
    client::ClientInfo,
    connection::HttpConnection,
    limits::{HANDSHAKE_TIME, IDLE_TIME, NO_FILES_PAUSE, PLAIN_BYTES, PROXY_IDLE_TIME},
    link::SessionAcceptor,
    proxies::Proxies,
    proxy,
    readers::HttpReaders,
    slots::{Slot, Slots},
    socket::PlainOrTls,
};

/// First byte of a TLS record with a handshake message (RFC 8446 section 5.1). No HTTP request begins with it.
const HANDSHAKE: u8 = 0x16;
/// Answer to plain HTTP on a port that serves TLS only.
const PLAIN: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\
                       content-length: 52\r\n\r\nthis port speaks HTTPS: write https://, not http://\n";

/// Shortest time between two warnings about failed accepts.
const REPEAT: Duration = Duration::from_secs(60);

/// A listener's service, connection slots and trusted proxies.
pub(crate) struct StreamListener {
    pub(crate) kind: ListenerProtocol,
    pub(crate) slots: Slots,
    pub(crate) proxies: Proxies,
    /// Ledger of the connections' memory; `None`: they are not charged.
    pub(crate) readers: Option<HttpReaders>,
}

/// Protocol served on a listener.
#[derive(Clone)]
pub(crate) enum ListenerProtocol {
    /// HTTP: plain, over TLS, or both, told apart by the first byte.
    Web { site: Router, plain: bool, tls: Option<Arc<ServerConfig>> },
    /// Sessions over plain byte streams.
    Link { acceptor: SessionAcceptor, tls: Option<Arc<ServerConfig>> },
}

impl StreamListener {
    /// Accepts connections until the runtime ends.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let Self { kind, slots, proxies, readers } = self;
        let mut last_logged: Option<Instant> = None;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    // No slot: closed without an answer.
                    let Some(slot) = slots.take(peer.ip()) else { continue };
                    tokio::spawn(handle_connection(
                        stream,
                        peer,
                        slot,
                        kind.clone(),
                        proxies.clone(),
                        readers.clone(),
                    ));
                }
                Err(error) => {
                    // Out of descriptors, or the peer has closed the connection already.
                    if last_logged.is_none_or(|at| at.elapsed() >= REPEAT) {
                        last_logged = Some(Instant::now());
                        tracing::warn!(%error, "cannot accept TCP connections; trying again");
                    }
                    sleep(NO_FILES_PAUSE).await;
                }
            }
        }
    }
}

async fn handle_connection(
    stream: TcpStream,
    peer: SocketAddr,
    mut slot: Slot,
    kind: ListenerProtocol,
    proxies: Proxies,
    readers: Option<HttpReaders>,
) {
    let begun = async {
        let (stream, client) = identify(stream, peer, &mut slot, &kind, &proxies).await?;
        let charge = match &readers {
            Some(readers) => {
                Some(ConnectionCharge::open(readers, client.conn.remote.ip()).ok_or_else(exceeded)?)
            }
            None => None,
        };
        let secured = secure(stream, client, &kind, charge.as_ref());
        let (stream, client) = unless_exceeded(charge.as_ref(), secured).await??;
        io::Result::Ok((stream, client, charge))
    };
    match timeout(HANDSHAKE_TIME, begun).await {
        Ok(Ok((stream, client, charge))) => {
            let served = async {
                match kind {
                    ListenerProtocol::Web { site, .. } => {
                        let idle = if proxies.trusts(peer.ip()) { PROXY_IDLE_TIME } else { IDLE_TIME };
                        let charge = charge.clone();
                        HttpConnection { stream, client, charge, idle }.serve(site).await;
                    }
                    ListenerProtocol::Link { acceptor, .. } => acceptor.admit(stream, client).await,
                }
            };
            if let Err(error) = unless_exceeded(charge.as_ref(), served).await {
                tracing::debug!(%peer, %error, "connection closed");
            }
        }
        Ok(Err(error)) => tracing::debug!(%peer, %error, "connection setup failed"),
        Err(_) => tracing::debug!(%peer, "connection setup timed out"),
    }
    drop(slot);
}

/// Runs `work`, and drops it when the connection exceeds its share of memory.
async fn unless_exceeded<T>(
    charge: Option<&ConnectionCharge>,
    work: impl Future<Output = T>,
) -> io::Result<T> {
    let Some(charge) = charge else { return Ok(work.await) };
    tokio::select! {
        done = work => Ok(done),
        () = charge.exceeded() => Err(exceeded()),
    }
}

fn exceeded() -> io::Error {
    io::Error::other(relay_worker::ledger::REASON)
}

/// Identifies the client of a connection, from a PROXY header if there is one.
async fn identify(
    mut stream: TcpStream,
    peer: SocketAddr,
    slot: &mut Slot,
    kind: &ListenerProtocol,
    proxies: &Proxies,
) -> io::Result<(TcpStream, ClientInfo)> {
    let transport = match kind {
        ListenerProtocol::Web { .. } => "http",
        ListenerProtocol::Link { .. } => "tcp",
    };
    let mut client = ClientInfo {
        conn: ConnInfo::new(transport, canonical(peer), canonical(stream.local_addr()?)),
        is_proxy: proxies.trusts(peer.ip()),
        is_tls: false,
    };
    stream.set_nodelay(true)?;
    let takes_header = match kind {
        ListenerProtocol::Web { .. } => proxies.takes_proxy_header(peer.ip()),
        // Without HTTP there is no other header that could name a client.
        ListenerProtocol::Link { .. } => client.is_proxy,
    };
    if takes_header && let Some(behind) = proxy::header(&mut stream).await? {
        client.conn.remote = canonical(behind);
        client.is_proxy = proxies.trusts(behind.ip());
        if !slot.belongs_to(behind.ip()) {
            return Err(io::Error::other("too many connections from one address"));
        }
    }
    Ok((stream, client))
}

/// Completes the TLS handshake, where the connection uses TLS.
async fn secure(
    stream: TcpStream,
    mut client: ClientInfo,
    kind: &ListenerProtocol,
    charge: Option<&ConnectionCharge>,
) -> io::Result<(PlainOrTls, ClientInfo)> {
    let tls = match kind {
        ListenerProtocol::Web { plain: true, tls: Some(tls), .. } => {
            let first = first_byte(&stream).await?;
            Some(tls).filter(|_| first == HANDSHAKE)
        }
        ListenerProtocol::Web { plain: false, tls: Some(tls), .. } => {
            // HTTP methods are capital letters.
            if first_byte(&stream).await?.is_ascii_uppercase() {
                refuse_plain(stream).await?;
                return Err(io::Error::other("plain HTTP on an HTTPS port"));
            }
            Some(tls)
        }
        ListenerProtocol::Web { tls, .. } | ListenerProtocol::Link { tls, .. } => tls.as_ref(),
    };
    let Some(tls) = tls else { return Ok((PlainOrTls::Plain(stream), client)) };
    if let Some(charge) = charge {
        charge.begin_tls();
    }
    let stream: TlsStream<TcpStream> = TlsAcceptor::from(tls.clone()).accept(stream).await?;
    let session: &ServerConnection = stream.get_ref().1;
    client.is_tls = true;
    client.conn.server_name = session.server_name().map(str::to_owned);
    client.conn.certificate = session.peer_certificates().and_then(PeerCertificate::of_chain);
    Ok((PlainOrTls::Tls(Box::new(stream)), client))
}

/// Peeks at the next byte without consuming it.
async fn first_byte(stream: &TcpStream) -> io::Result<u8> {
    let mut first = [0];
    // A peek of zero bytes is the end of the stream.
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0]),
    }
}

/// Answers a plain request and reads until the client closes: closing with unread bytes resets the connection, and the
/// client loses the answer.
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

/// Maps an IPv4-mapped IPv6 address to IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
