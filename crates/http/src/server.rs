//! Listeners and the runtime that serves them.

mod open;

use std::{fmt, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::Router;
use relay_worker::Relay;
use rustls::ServerConfig;
use tokio::runtime::{Builder, Runtime};

use crate::{
    authority::Hosts, limits, link::Allowed, origin::Origins, page::Page, proxies::Proxies,
    tls::FingerprintSource,
};

/// Threads of the runtime: the load is low, and a TLS handshake may block one of them.
const THREADS: usize = 2;
/// Time for tasks in progress when the runtime shuts down.
const END: Duration = Duration::from_millis(100);

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
        let addresses = runtime.block_on(open::open(relay, options))?;
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
