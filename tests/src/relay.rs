//! A relay in this process, and its clients.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, LazyLock},
};

use relay_auth::Policy;
use relay_client::{Client, ClientConfig};
use relay_http::Server;
use relay_meter::Worker as Meter;
use relay_model::{Hop, Scope};
use relay_store::Store;
use relay_transport::quic::certificate;
use relay_wire::lite::Version;
use relay_worker::{Relay, RelayCounts};
pub use relay_worker::{RelayOptions, Steering, TurnStage};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::task::JoinSet;

use crate::wait_until;

/// Concurrent handshakes when many clients connect.
const DIALS: usize = 16;

static IDENTITY: LazyLock<rcgen::CertifiedKey<rcgen::KeyPair>> = LazyLock::new(|| {
    rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate")
});

/// A relay on a port of its own on loopback, over IPv4 and IPv6, open to everybody.
#[derive(Debug)]
pub struct TestRelay {
    relay: Arc<Relay>,
}

/// Address family of a relay's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// 127.0.0.1
    V4,
    /// ::1
    V6,
}

impl TestRelay {
    /// Starts a relay with `workers` workers and the defaults of a deployed relay.
    pub fn start(workers: usize) -> Self {
        Self::with(workers, |_| {})
    }

    /// The same, with options changed by `change`.
    pub fn with(workers: usize, change: impl FnOnce(&mut RelayOptions)) -> Self {
        let key = PrivatePkcs8KeyDer::from(IDENTITY.signing_key.serialize_der());
        let resolver = certificate(vec![IDENTITY.cert.der().clone()], key.into()).expect("a resolver");
        let policy = Arc::new(Policy::public(Scope::everything(), Scope::everything()));
        let bind = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let mut options = RelayOptions::new(bind, resolver, [7; 32], policy);
        options.workers = workers;
        options.hop = Hop(0x7e57);
        change(&mut options);
        Self { relay: Arc::new(Relay::start(options).expect("a relay")) }
    }

    /// Shuts the relay down, as a signal does.
    pub fn stop(&self, code: relay_model::SessionCode, reason: &str) {
        self.relay.shutdown(code, reason);
    }

    /// Drains the relay, as a signal does; returns when it has ended.
    pub fn drain(&self, window: std::time::Duration, code: relay_model::SessionCode, reason: &str) {
        self.relay.drain(window, code, reason);
    }

    /// URL for moq on QUIC.
    pub fn raw(&self) -> String {
        self.raw_at(Host::V4)
    }

    /// URL for WebTransport.
    pub fn web(&self) -> String {
        self.web_at(Host::V4)
    }

    /// Both URLs.
    pub fn schemes(&self) -> [String; 2] {
        [self.raw(), self.web()]
    }

    /// URL for moq on QUIC over one address family.
    pub fn raw_at(&self, host: Host) -> String {
        format!("moqt://{}/", self.authority(host))
    }

    /// URL for WebTransport over one address family.
    pub fn web_at(&self, host: Host) -> String {
        format!("https://{}/", self.authority(host))
    }

    /// Serves WebSockets at the returned URL for as long as the server lives. Not callable within a runtime: the server
    /// has its own.
    pub fn websocket(&self) -> (Server, String) {
        let mut options = relay_http::Options::new(Arc::new(|| None));
        options.http = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        options.websocket = Version::ALL.iter().map(|version| version.alpn()).collect();
        let server = Server::start(&self.relay, options).expect("a web server");
        let address = server.addresses().http.expect("an address");
        (server, format!("ws://{address}/"))
    }

    /// Port of the relay.
    pub fn port(&self) -> u16 {
        self.relay.local_addr().port()
    }

    fn authority(&self, host: Host) -> String {
        let port = self.port();
        match host {
            Host::V4 => format!("127.0.0.1:{port}"),
            Host::V6 => format!("[::1]:{port}"),
        }
    }

    /// Connects a client over raw QUIC.
    pub async fn connect(&self) -> Client {
        self.connect_to(&self.raw(), ClientConfig::default()).await
    }

    /// Connects a client with this configuration.
    pub async fn connect_to(&self, url: &str, config: ClientConfig) -> Client {
        Client::connect(url, config).await.unwrap_or_else(|error| panic!("connect to {url}: {error}"))
    }

    /// Connects `count` clients, alternating raw QUIC and WebTransport.
    pub async fn clients(&self, count: usize) -> Vec<Client> {
        let urls = self.schemes().into_iter().cycle().take(count).collect();
        connect_all(urls, ClientConfig::default()).await
    }

    /// Waits until `path` is announced to new watches.
    pub async fn announced(&self, path: &str) {
        let client = self.connect().await;
        let mut watch = client.announced("").await.expect("a watch");
        crate::within(path, 10, watch.wait(path, true)).await.expect("an announcement");
    }

    /// Counters and sizes; counters of workers are at most a quarter of a second old.
    pub fn counts(&self) -> RelayCounts {
        self.relay.counts()
    }

    /// The relay itself, for servers that read its state.
    pub fn shared(&self) -> Arc<Relay> {
        self.relay.clone()
    }

    /// Logs and announce board.
    pub fn store(&self) -> &Arc<Store> {
        self.relay.store()
    }

    /// Sum of the counters of all workers.
    pub fn meter(&self) -> Meter {
        self.counts().total()
    }

    /// Waits until the counters meet `condition`.
    pub async fn wait_meter(&self, what: &str, condition: impl Fn(&Meter) -> bool) {
        wait_until(what, 15, || condition(&self.meter())).await;
    }

    /// Waits until `readers` subscriptions are served from logs.
    pub async fn wait_readers(&self, readers: usize) {
        wait_until("readers", 15, || self.counts().core.readers == readers).await;
    }

    /// Number of workers that have had a session.
    pub fn busy_workers(&self) -> usize {
        self.counts().workers.iter().filter(|worker| worker.sessions_opened > 0).count()
    }

    /// Waits until no state of clients is left, once all of them have closed. Panics after the linger time.
    pub async fn wait_empty(&self) {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(15);
        loop {
            let left = self.left();
            if left.is_empty() {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "left behind: {left:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// State that is held, by name, without zeros.
    pub fn left(&self) -> Vec<(&'static str, u64)> {
        let counts = self.counts();
        let (core, store, total) = (counts.core, counts.store, counts.total());
        let held = [
            ("core sessions", core.sessions as u64),
            ("core paths", core.paths as u64),
            ("core routes", core.routes as u64),
            ("core logs", core.logs as u64),
            ("core readers", core.readers as u64),
            ("core timers", core.timers as u64),
            ("store logs", store.logs as u64),
            ("store feeds", store.feeds as u64),
            ("store bytes", store.bytes),
            ("announced paths", store.board_paths as u64),
            ("announce watches", store.watches as u64),
            ("sessions", total.sessions),
            ("connections", total.connections_now),
        ];
        held.into_iter().filter(|(_, count)| *count > 0).collect()
    }
}

/// Connects a client to each URL, in order, a few at a time.
pub async fn connect_all(urls: Vec<String>, config: ClientConfig) -> Vec<Client> {
    let mut clients = Vec::with_capacity(urls.len());
    for batch in urls.chunks(DIALS) {
        let mut dials = JoinSet::new();
        for (at, url) in batch.iter().cloned().enumerate() {
            // Each client is a publisher of its own.
            let config = ClientConfig { hop: ClientConfig::default().hop, ..config.clone() };
            dials.spawn(async move { (at, Client::connect(&url, config).await) });
        }
        let mut made = dials.join_all().await;
        made.sort_by_key(|(at, _)| *at);
        clients.extend(made.into_iter().map(|(_, client)| client.expect("a client")));
    }
    clients
}
