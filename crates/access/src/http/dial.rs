//! Connections to the one configured server.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use relay_http::Network;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::{RequestError, causes};
use relay_config::may_be_plain;

/// Most addresses of one host name that are tried.
const ADDRESSES: usize = 8;
/// Time after which the next address is tried beside the one before (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);
/// Largest head of an answer, bytes.
const HEAD_BYTES: usize = 64 * 1024;

/// Address and security of the configured server.
pub(super) struct ServerAddress {
    host: Host<String>,
    port: u16,
    /// TLS settings and server name; `None` for plain HTTP.
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Networks that plain HTTP may reach beside loopback.
    plain: Vec<Network>,
}

/// A connection that carries one request at a time.
pub(super) struct HttpConnection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// Bytes received since it was opened, after decryption.
    received: Arc<AtomicU64>,
    /// Time when the last answer ended.
    pub(super) idle_since: Instant,
}

/// A request without an answer.
pub(super) struct RequestFailure {
    pub(super) error: hyper::Error,
    /// Whether part of an answer was received.
    pub(super) is_answered: bool,
}

impl ServerAddress {
    /// The server of `url`; `None` for a URL without a host or with another scheme.
    pub(super) fn of(url: &Url, tls: ClientConfig, plain: &[Network]) -> Option<Self> {
        let host = url.host()?.to_owned();
        let port = url.port_or_known_default()?;
        let tls = match url.scheme() {
            "http" => None,
            "https" => {
                let name = match &host {
                    Host::Domain(name) => ServerName::try_from(name.clone()).ok()?,
                    Host::Ipv4(address) => ServerName::IpAddress(IpAddr::V4(*address).into()),
                    Host::Ipv6(address) => ServerName::IpAddress(IpAddr::V6(*address).into()),
                };
                Some((TlsConnector::from(Arc::new(tls)), name))
            }
            _ => return None,
        };
        Some(Self { host, port, tls, plain: plain.to_vec() })
    }

    /// Opens a connection.
    pub(super) async fn connect(&self) -> Result<HttpConnection, RequestError> {
        let stream =
            race(self.addresses().await?).await.map_err(|error| RequestError::Failed(causes(&error)))?;
        // Requests are one write each.
        let _ = stream.set_nodelay(true);
        match &self.tls {
            None => HttpConnection::open(stream).await,
            Some((tls, name)) => {
                let stream = tls.connect(name.clone(), stream).await;
                HttpConnection::open(stream.map_err(|error| RequestError::Failed(causes(&error)))?).await
            }
        }
    }

    /// Addresses that may be connected to, resolved for each connection since DNS records change.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, RequestError> {
        let found: Vec<SocketAddr> = match &self.host {
            Host::Ipv4(address) => vec![(*address, self.port).into()],
            Host::Ipv6(address) => vec![(*address, self.port).into()],
            Host::Domain(name) => {
                let found = lookup_host((name.as_str(), self.port)).await;
                found.map_err(|error| RequestError::Failed(causes(&error)))?.collect()
            }
        };
        self.allowed(&found)
    }

    /// Filters the resolved addresses by the plain HTTP rule; an error if none is left.
    pub(super) fn allowed(&self, found: &[SocketAddr]) -> Result<Vec<SocketAddr>, RequestError> {
        let may_reach = |at: &SocketAddr| self.tls.is_some() || may_be_plain(at.ip(), &self.plain);
        let allowed: Vec<SocketAddr> = found.iter().copied().filter(may_reach).collect();
        match found.first() {
            None => Err(RequestError::Failed("its host name has no address".to_owned())),
            Some(first) if allowed.is_empty() => Err(RequestError::Failed(format!(
                "plain HTTP to {} is not allowed; use https:// or add its network to `auth.plain`",
                first.ip()
            ))),
            Some(_) => Ok(allowed),
        }
    }
}

/// Connects to the first address that accepts.
async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter().take(ADDRESSES);
    let mut attempts = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(TcpStream::connect(address));
        }
        let done = if waiting.len() == 0 {
            attempts.join_next().await
        } else {
            match timeout(STAGGER, attempts.join_next()).await {
                Ok(done) => done,
                Err(_) => continue,
            }
        };
        match done {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) => last = error,
            Some(Err(_)) => {}
            None => return Err(last),
        }
    }
}

impl HttpConnection {
    async fn open<S>(stream: S) -> Result<Self, RequestError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let received = Arc::<AtomicU64>::default();
        let io = TokioIo::new(Counted { stream, received: received.clone() });
        let opened = http1::Builder::new().max_buf_size(HEAD_BYTES).handshake(io).await;
        let (sender, driver) = opened.map_err(|error| RequestError::Failed(causes(&error)))?;
        // Its errors are returned by the requests, too.
        tokio::spawn(async move { drop(driver.await) });
        Ok(Self { sender, received, idle_since: Instant::now() })
    }

    /// Whether it accepts another request. Waits until the end of the last answer is processed.
    pub(super) async fn is_open(&mut self) -> bool {
        !self.sender.is_closed() && self.sender.ready().await.is_ok()
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, RequestFailure> {
        let before = self.received.load(Ordering::Relaxed);
        self.sender.send_request(request).await.map_err(|error| {
            let is_answered = self.received.load(Ordering::Relaxed) != before;
            RequestFailure { error, is_answered }
        })
    }
}

/// A stream that counts the bytes it receives.
struct Counted<S> {
    stream: S,
    received: Arc<AtomicU64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let read = buf.filled().len().saturating_sub(before);
        this.received.fetch_add(read as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
