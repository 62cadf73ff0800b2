//! Listeners over TCP and Unix sockets, as configured.

use std::{sync::Arc, time::SystemTime};

use anyhow::{Context, Result};
use relay_http::{
    FingerprintSource, Options, Proxies, Server, StartError, internal,
    page::{self, Page},
    status::{self, Status},
    tls,
};
use relay_certificate::{CertificateEvent, CertificateStore, Watcher};
use relay_config::{Config, Tls};
use relay_host::{
    diagnostics::{self, Diagnostic},
    limits::{memory::Gauge, rlimit},
    machine,
    signals::StopReasons,
};
use relay_worker::{Clients, Relay, RunError, Version};
use rustls::server::ResolvesServerCert;
use tracing::{info, warn};

use crate::inspect;

/// ALPN of HTTPS.
const HTTP: &str = "http/1.1";

/// Server of the listeners, and the watcher of its certificates.
pub(crate) struct WebServer {
    pub(crate) server: Server,
    _certificates: Option<Watcher>,
}

impl WebServer {
    /// Starts the listeners of `config`; `None` if there are none. A drain request over HTTP goes to `stop`.
    ///
    /// # Errors
    /// An address is in use, or a certificate cannot be used.
    pub(crate) fn start(
        relay: &Arc<Relay>,
        config: &Config,
        certificates: &CertificateStore,
        memory: &Arc<Gauge>,
        stop: &StopReasons<RunError>,
    ) -> Result<Option<Self>> {
        let web = &config.web;
        let fingerprint = certificates.fingerprint_of_now();
        let fingerprint: FingerprintSource = Arc::new(move || fingerprint().map(|it| it.to_string()));
        let mut options = Options::new(fingerprint.clone());
        // The address of the relay has the port that the kernel chose.
        let at = |address| if address == config.bind { relay.local_addr() } else { address };
        options.http = web.http.map(at);
        options.loopback_v6 = relay.has_loopback_v6() && config.is_web_implied();
        let mut watcher = None;
        let mut ends: Vec<Box<dyn Fn() -> SystemTime + Send + Sync>> =
            vec![Box::new(certificates.first_end())];
        if let Some(address) = web.https.map(at) {
            let (resolver, clients) = if web.certificates.is_empty() && web.roots.is_empty() {
                (certificates.resolver(), None)
            } else {
                let own = own_certificates(config)?;
                ends.push(Box::new(own.first_end()));
                let resolver =
                    if web.certificates.is_empty() { certificates.resolver() } else { own.resolver() };
                let shown: HttpsCertificates = (resolver, own.clients());
                watcher = Some(
                    Watcher::start(own, stop.hangups()).context("cannot watch the certificates of HTTPS")?,
                );
                shown
            };
            let server = tls::server(resolver, clients, &[HTTP]).context("TLS for HTTPS")?;
            options.https = Some((address, server));
        }
        if web.websocket {
            let mut versions = config.quic.versions.clone();
            versions.sort_unstable_by(|one, other| other.cmp(one));
            options.websocket = versions.into_iter().map(Version::alpn).collect();
            options.websocket.dedup();
        }
        let page = page_of(config, certificates, fingerprint.clone());
        let name = config.bind.to_string();
        let figures = Arc::new(move || inspect::figures(&ends));
        let about = inspect::about(&name, fingerprint, memory.clone(), figures, stop.asker("POST /drain"));
        let status = Status::new(relay.clone(), about);
        if web.page {
            options.routes.push(page.public());
            // Only a development relay exposes its status publicly.
            if !config.from_file {
                options.routes.push(status::router(status.clone()));
            }
        }
        if let Some(address) = web.internal {
            options.internal = Some((address, internal::router(status).merge(page.private())));
        }
        options.page = Some(page);
        options.origins = config.origins();
        options.hosts = config.hosts();
        options.internal_hosts = config.internal_hosts();
        options.proxies = Proxies::new(config.proxies());
        options.connections = rlimit::sockets(machine::workers(config)).http;
        options.tcp = match web.tcp {
            Some(address) if web.tcp_tls => {
                let server = tls::server(certificates.resolver(), certificates.clients(), &[]);
                Some((address, Some(server.context("TLS for `server.tcp.bind`")?)))
            }
            Some(address) => Some((address, None)),
            None => None,
        };
        options.unix = web.unix.clone().map(|path| (path, web.unix_allow.clone()));
        let has_any = options.http.is_some()
            || options.https.is_some()
            || options.internal.is_some()
            || options.tcp.is_some()
            || options.unix.is_some();
        if !has_any {
            return Ok(None);
        }
        match Server::start(relay, options) {
            Ok(server) => {
                info_of(&server);
                Ok(Some(Self { server, _certificates: watcher }))
            }
            Err(error @ StartError::Bind { .. }) if config.is_web_implied() => {
                let Diagnostic { problem: what, remedy: todo } = diagnostics::listener(&error);
                warn!("{what}: HTTP and WebSocket are not served, QUIC is; {todo}");
                Ok(None)
            }
            Err(error) => Err(diagnostics::listener(&error).into()),
        }
    }
}

/// Web page, with what browsers need to know about the certificate of QUIC.
fn page_of(config: &Config, certificates: &CertificateStore, fingerprint: FingerprintSource) -> Page {
    let is_generated = matches!(config.tls, Tls::Generated(_));
    let names = certificates.names_of_now();
    Page::new(page::About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        url: config.web.url.clone(),
        // Browsers pin a generated certificate instead of verifying it; no other certificate is suitable for pinning.
        names: Arc::new(move || if is_generated { Vec::new() } else { names() }),
        fingerprint: Arc::new(move || fingerprint().filter(|_| is_generated)),
    })
}

type HttpsCertificates = (Arc<dyn ResolvesServerCert>, Option<Arc<Clients>>);

/// Certificates and client authorities of HTTPS, if separate from those of QUIC.
fn own_certificates(config: &Config) -> Result<CertificateStore> {
    let web = &config.web;
    let now = SystemTime::now();
    let tls =
        if web.certificates.is_empty() { config.tls.clone() } else { Tls::Files(web.certificates.clone()) };
    let store = CertificateStore::open(&tls, &web.roots, now).context("`web.https`")?;
    if !web.certificates.is_empty() {
        store.opening(now).iter().for_each(CertificateEvent::log);
    }
    Ok(store)
}

fn info_of(server: &Server) {
    let at = server.addresses();
    for (what, address) in
        [("http", at.http), ("https", at.https), ("internal", at.internal), ("tcp", at.tcp)]
    {
        if let Some(address) = address {
            info!(%address, "listening for {what}");
        }
    }
    if let Some(path) = &at.unix {
        info!(path = %path.display(), "listening on a Unix socket");
    }
}
