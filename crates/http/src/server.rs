//! Listeners and the runtime that serves them.

use std::{
    fmt, io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::unix::fs::FileTypeExt,
    path::{Path as File, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use relay_worker::Relay;
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpSocket, UnixListener},
    runtime::{Builder, Runtime},
};

use crate::{
    accept::{ListenerProtocol, StreamListener},
    authority::Hosts,
    limits,
    link::{Allowed, SessionAcceptor},
    origin::Origins,
    page::{BrowserListeners, Page},
    proxies::Proxies,
    site::{Internal, Public, Site},
    slots::Slots,
};

/// Threads of the runtime: the load is low, and a TLS handshake may block one of them.
const THREADS: usize = 2;
/// Connections that wait to be accepted; the kernel may be configured to cap it.
const BACKLOG: u32 = 4_096;
/// Time for tasks in progress when the runtime shuts down.
const END: Duration = Duration::from_millis(100);

/// Returns the fingerprint of the QUIC certificate in hexadecimal, where clients need one.
pub type FingerprintSource = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Listeners and their services. [`Options::new`] serves nothing.
pub struct Options {
    /// Plain HTTP. With `https` at the same address, both are served, told apart by their first byte.
    pub http: Option<SocketAddr>,
    /// With `http` at 127.0.0.1: whether ::1 is served as well, where the machine has it.
    pub loopback_v6: bool,
    /// HTTPS.
    pub https: Option<(SocketAddr, Arc<ServerConfig>)>,
    /// ALPN names of the versions offered on WebSockets, newest first; empty: no WebSockets.
    pub websocket: Vec<&'static str>,
    /// Pages that may open WebSockets and read answers.
    pub origins: Origins,
    /// Host names that public requests may be addressed to.
    pub hosts: Hosts,
    /// The same for the private listener.
    pub internal_hosts: Hosts,
    /// Reverse proxies that are trusted to name their clients.
    pub proxies: Proxies,
    /// Further routes; those of this crate go first.
    pub routes: Vec<Router>,
    /// Private listener, for operators.
    pub internal: Option<(SocketAddr, Router)>,
    /// Page whose routes are in `routes` or `internal`; it receives the addresses of the listeners.
    pub page: Option<Page>,
    /// Sessions over TCP, with TLS or without.
    pub tcp: Option<(SocketAddr, Option<Arc<ServerConfig>>)>,
    /// Sessions over a Unix socket, and the peers allowed on it.
    pub unix: Option<(PathBuf, Allowed)>,
    /// Fingerprint of the QUIC certificate.
    pub fingerprint: FingerprintSource,
    /// Limit of concurrent connections, each of which takes a descriptor; `limits::CONNECTIONS` at most.
    pub connections: usize,
}

impl Options {
    /// Creates options that serve nothing.
    pub fn new(fingerprint: FingerprintSource) -> Self {
        Self {
            http: None,
            loopback_v6: false,
            https: None,
            websocket: Vec::new(),
            origins: Origins::default(),
            hosts: Hosts::any(),
            internal_hosts: Hosts::only(&[]),
            proxies: Proxies::default(),
            routes: Vec::new(),
            internal: None,
            page: None,
            tcp: None,
            unix: None,
            fingerprint,
            connections: limits::CONNECTIONS,
        }
    }
}

/// Reason for which the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {what} {address} ({source})")]
    Bind {
        /// Kind of the listener.
        what: &'static str,
        /// Its address.
        address: SocketAddr,
        /// System error.
        source: io::Error,
    },
    /// A Unix socket cannot be bound.
    #[error("cannot listen on {} ({source})", path.display())]
    Unix {
        /// Its path.
        path: PathBuf,
        /// System error.
        source: io::Error,
    },
    /// The threads of the runtime cannot be started.
    #[error("cannot start the threads of the web server ({0})")]
    Threads(#[source] io::Error),
}

/// Bound addresses of the listeners, with the actual port where any port was asked for.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Plain HTTP.
    pub http: Option<SocketAddr>,
    /// HTTPS.
    pub https: Option<SocketAddr>,
    /// Private listener.
    pub internal: Option<SocketAddr>,
    /// Sessions over TCP.
    pub tcp: Option<SocketAddr>,
    /// Sessions over a Unix socket.
    pub unix: Option<PathBuf>,
}

/// HTTP side of a relay, and its listeners for sessions over byte streams. Ends at once when dropped.
pub struct Server {
    runtime: Option<Runtime>,
    addresses: Addresses,
}

impl Server {
    /// Starts serving `relay`; the listeners are open on return.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(relay: &Arc<Relay>, options: Options) -> Result<Self, StartError> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(THREADS).thread_name("http").enable_all().build();
        let runtime = runtime.map_err(StartError::Threads)?;
        let addresses = runtime.block_on(open(relay, options))?;
        Ok(Self { runtime: Some(runtime), addresses })
    }

    /// Bound addresses.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(END);
        }
        if let Some(path) = &self.addresses.unix {
            // It may have been removed already.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Opens all listeners, or none.
async fn open(relay: &Arc<Relay>, options: Options) -> Result<Addresses, StartError> {
    let Options { http, https, internal, tcp, unix, page, connections, loopback_v6, .. } = &options;
    let (http, https, internal) = (*http, https.clone(), internal.clone());
    let (tcp, unix, page) = (tcp.clone(), unix.clone(), page.clone());
    let (connections, loopback_v6) = (*connections, *loopback_v6);
    let (arrivals, proxies, internal_hosts) =
        (relay.arrivals(), options.proxies.clone(), options.internal_hosts.clone());
    // Operators can connect when all other slots are taken.
    let of_operators = internal.as_ref().map_or(0, |_| limits::INTERNAL_CONNECTIONS.min(connections / 4));
    let slots = Slots::new(proxies.clone(), connections.min(limits::CONNECTIONS) - of_operators);
    let public = Public::new(relay, options);
    let (has_websocket, page_hub, hub) = (public.has_websocket(), public.readers(), public.readers());
    let public = Arc::new(Site::Public(public));
    let (mut found, mut doors) = (Addresses::default(), Vec::new());
    let door =
        |kind| StreamListener { kind, slots: slots.clone(), proxies: proxies.clone(), hub: hub.clone() };
    let secure = https.as_ref().map(|(_, tls)| tls.clone());
    if let Some(address) = http {
        let tls = secure.clone().filter(|_| https.as_ref().is_some_and(|(at, _)| *at == address));
        let listener = bind("HTTP", address)?;
        found.http = listener.local_addr().ok();
        found.https = found.http.filter(|_| tls.is_some());
        let kind = ListenerProtocol::Web { site: public.clone(), plain: true, tls };
        let port = found.http.unwrap_or(address).port();
        let v6 = loopback_v6.then(|| bind("HTTP", (Ipv6Addr::LOCALHOST, port).into()));
        match v6 {
            Some(Ok(listener)) => doors.push((listener, door(kind.clone()))),
            Some(Err(StartError::Bind { address, source, .. }))
                if source.kind() == io::ErrorKind::AddrInUse =>
            {
                tracing::warn!(
                    "another program listens on TCP {address}: clients that resolve localhost to ::1 reach it and not \
                     this relay; stop it, or use http://127.0.0.1:{port}/"
                );
            }
            Some(Err(error)) => tracing::debug!(%error, "HTTP is served on IPv4 only"),
            None => {}
        }
        doors.push((listener, door(kind)));
    }
    if let Some((address, tls)) = https.filter(|(address, _)| http != Some(*address)) {
        let listener = bind("HTTPS", address)?;
        found.https = listener.local_addr().ok();
        doors.push((
            listener,
            door(ListenerProtocol::Web { site: public.clone(), plain: false, tls: Some(tls) }),
        ));
    }
    if let Some((address, router)) = internal {
        let listener = bind("internal HTTP", address)?;
        found.internal = listener.local_addr().ok();
        if !is_private(address.ip()) {
            tracing::warn!(%address, "`internal.listen` is not a private address: every client that reaches it is trusted");
        }
        let site = Arc::new(Site::Internal(Internal::new(router, internal_hosts)));
        let slots = Slots::new(Proxies::default(), of_operators.max(1));
        let kind = ListenerProtocol::Web { site, plain: true, tls: None };
        // Not charged: its slots are few, and operators can connect when memory is short.
        doors.push((listener, StreamListener { kind, slots, proxies: proxies.clone(), hub: None }));
    }
    if let Some(page) = page {
        let Addresses { http, https, .. } = found;
        page.open(
            BrowserListeners { quic: relay.local_addr(), http, https, websocket: has_websocket },
            page_hub,
        );
    }
    if let Some((address, tls)) = tcp {
        let listener = bind("TCP", address)?;
        found.tcp = listener.local_addr().ok();
        doors.push((
            listener,
            door(ListenerProtocol::Link { entrance: SessionAcceptor::new(arrivals.clone()), tls }),
        ));
    }
    if let Some((path, allowed)) = unix {
        let listener = bind_unix(&path).map_err(|source| StartError::Unix { path: path.clone(), source })?;
        found.unix = Some(path);
        let entrance = SessionAcceptor::new(arrivals);
        tokio::spawn(entrance.serve_unix(listener, allowed, slots.clone()));
    }
    for (listener, door) in doors {
        tokio::spawn(door.serve(listener));
    }
    Ok(found)
}

fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restarted relay must not wait for the connections of its predecessor to time out.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| StartError::Bind { what, address, source })
}

/// Binds a Unix socket. A socket that a relay left behind is replaced; any other file is an error.
fn bind_unix(path: &File) -> io::Result<UnixListener> {
    let is_left = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path).is_err();
    if is_left {
        std::fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

/// Whether the address is loopback, private or link-local.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}
