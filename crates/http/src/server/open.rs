//! Opening of the listeners: all of them, or none.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::unix::fs::FileTypeExt,
    path::{Path as File, PathBuf},
    sync::Arc,
};

use axum::Router;
use relay_worker::Relay;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::{Addresses, Options, StartError};
use crate::{
    accept::{ListenerProtocol, StreamListener},
    limits::{CONNECTIONS, INTERNAL_CONNECTIONS},
    link::{Allowed, SessionAcceptor},
    page::BrowserListeners,
    proxies::Proxies,
    readers::HttpReaders,
    site::{self, PublicSite, PublicState},
    slots::Slots,
    websocket::WebSocketEndpoint,
};

/// Connections that wait to be accepted; the kernel may be configured to cap it.
const BACKLOG: u32 = 4_096;

/// Opens the listeners of `options`, and serves them once all are open.
pub(super) async fn open(relay: &Arc<Relay>, options: Options) -> Result<Addresses, StartError> {
    let Options { http, https, loopback_v6, internal, internal_hosts, page, tcp, unix, .. } = options;
    let Options { websocket, origins, hosts, proxies, routes, fingerprint, connections, .. } = options;
    // Operators can connect when all other slots are taken.
    let of_operators = internal.as_ref().map_or(0, |_| INTERNAL_CONNECTIONS.min(connections / 4));
    let slots = Slots::new(proxies.clone(), connections.min(CONNECTIONS) - of_operators);
    let readers = relay.virtual_worker().map(HttpReaders::start);
    let has_websocket = !websocket.is_empty();
    let websocket = has_websocket.then(|| WebSocketEndpoint::new(&websocket, relay.arrivals()));
    let state = PublicState { relay: relay.clone(), readers: readers.clone(), fingerprint };
    let site = PublicSite { state, websocket, origins, hosts, proxies: proxies.clone(), routes };
    let mut opening =
        Opening { addresses: Addresses::default(), listeners: Vec::new(), slots, proxies, readers };
    opening.web(&site.router(), http, https, loopback_v6)?;
    if let Some((address, router)) = internal {
        opening.internal(address, site::private(router, internal_hosts), of_operators.max(1))?;
    }
    if let Some(page) = page {
        let Addresses { http, https, .. } = opening.addresses;
        let listeners = BrowserListeners { quic: relay.local_addr(), http, https, websocket: has_websocket };
        page.open(listeners, opening.readers.clone());
    }
    let acceptor = SessionAcceptor::new(relay.arrivals());
    if let Some((address, tls)) = tcp {
        opening.tcp(address, tls, acceptor.clone())?;
    }
    if let Some((path, allowed)) = unix {
        opening.unix(path, allowed, acceptor)?;
    }
    Ok(opening.serve())
}

/// Listeners that are open already.
struct Opening {
    addresses: Addresses,
    listeners: Vec<(TcpListener, StreamListener)>,
    slots: Slots,
    proxies: Proxies,
    readers: Option<HttpReaders>,
}

impl Opening {
    /// Opens HTTP and HTTPS, which share a listener where their addresses are the same.
    fn web(
        &mut self,
        site: &Router,
        http: Option<SocketAddr>,
        https: Option<(SocketAddr, Arc<ServerConfig>)>,
        loopback_v6: bool,
    ) -> Result<(), StartError> {
        let is_shared = http.is_some() && http == https.as_ref().map(|(address, _)| *address);
        if let Some(address) = http {
            let tls = https.as_ref().filter(|_| is_shared).map(|(_, tls)| tls.clone());
            let listener = bind("HTTP", address)?;
            self.addresses.http = listener.local_addr().ok();
            self.addresses.https = self.addresses.http.filter(|_| tls.is_some());
            let kind = ListenerProtocol::Web { site: site.clone(), plain: true, tls };
            if loopback_v6 {
                self.web_on_loopback_v6(self.addresses.http.unwrap_or(address).port(), kind.clone());
            }
            self.add(listener, kind);
        }
        if let Some((address, tls)) = https.filter(|_| !is_shared) {
            let listener = bind("HTTPS", address)?;
            self.addresses.https = listener.local_addr().ok();
            self.add(listener, ListenerProtocol::Web { site: site.clone(), plain: false, tls: Some(tls) });
        }
        Ok(())
    }

    /// Opens ::1 beside 127.0.0.1, if it can be.
    fn web_on_loopback_v6(&mut self, port: u16, kind: ListenerProtocol) {
        match bind("HTTP", (Ipv6Addr::LOCALHOST, port).into()) {
            Ok(listener) => self.add(listener, kind),
            Err(StartError::Bind { address, source, .. }) if source.kind() == io::ErrorKind::AddrInUse => {
                tracing::warn!(
                    "another program listens on TCP {address}: clients that resolve localhost to ::1 reach it and not \
                     this relay; stop it, or use http://127.0.0.1:{port}/"
                );
            }
            Err(error) => tracing::debug!(%error, "HTTP is served on IPv4 only"),
        }
    }

    /// Opens the private listener, with `slots` connections of its own.
    fn internal(&mut self, address: SocketAddr, site: Router, slots: usize) -> Result<(), StartError> {
        let listener = bind("internal HTTP", address)?;
        self.addresses.internal = listener.local_addr().ok();
        if !is_private(address.ip()) {
            tracing::warn!(%address, "`internal.listen` is not a private address: every client that reaches it is trusted");
        }
        let kind = ListenerProtocol::Web { site, plain: true, tls: None };
        let slots = Slots::new(Proxies::default(), slots);
        // Not charged: its slots are few, and operators can connect when memory is short.
        let stream = StreamListener { kind, slots, proxies: self.proxies.clone(), readers: None };
        self.listeners.push((listener, stream));
        Ok(())
    }

    /// Opens the listener for sessions over TCP, or over TLS.
    fn tcp(
        &mut self,
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        acceptor: SessionAcceptor,
    ) -> Result<(), StartError> {
        let listener = bind("TCP", address)?;
        self.addresses.tcp = listener.local_addr().ok();
        self.add(listener, ListenerProtocol::Link { acceptor, tls });
        Ok(())
    }

    /// Opens the Unix socket, and serves it.
    fn unix(&mut self, path: PathBuf, allowed: Allowed, acceptor: SessionAcceptor) -> Result<(), StartError> {
        let listener = bind_unix(&path).map_err(|source| StartError::Unix { path: path.clone(), source })?;
        self.addresses.unix = Some(path);
        tokio::spawn(acceptor.serve_unix(listener, allowed, self.slots.clone()));
        Ok(())
    }

    fn add(&mut self, listener: TcpListener, kind: ListenerProtocol) {
        let (slots, proxies, readers) = (self.slots.clone(), self.proxies.clone(), self.readers.clone());
        self.listeners.push((listener, StreamListener { kind, slots, proxies, readers }));
    }

    fn serve(self) -> Addresses {
        for (listener, stream) in self.listeners {
            tokio::spawn(stream.serve(listener));
        }
        self.addresses
    }
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
