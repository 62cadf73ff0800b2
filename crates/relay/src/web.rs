//! Listeners over TCP and Unix sockets, as configured.

use std::{sync::Arc, time::SystemTime};

use anyhow::{Context, Result};
use relay_certificate::{CertificateEvent, CertificateStore, Watcher};
use relay_config::{Config, Tls};
use relay_host::{
    diagnostics::{self, Diagnostic},
    limits::{memory::Gauge, rlimit},
    machine,
    signals::StopReasons,
};
use relay_http::{
    FingerprintSource, Options, Proxies, Server, StartError, internal,
    page::{self, Page},
    status::{self, Status},
    tls,
};
use relay_worker::{Relay, RunError, Version};
use rustls::ServerConfig;
use tracing::{info, warn};

use crate::inspect::{self, ValidityEnd};

/// ALPN of HTTPS.
const HTTP: &str = "http/1.1";

/// Server of the listeners, and the watcher of its certificates.
pub(crate) struct WebServer {
    pub(crate) server: Server,
    _certificates: Option<Watcher>,
}

/// Parts of a running relay that its listeners show and act on.
pub(crate) struct WebParts<'a> {
    pub(crate) relay: &'a Arc<Relay>,
    pub(crate) config: &'a Config,
    /// Certificates of QUIC.
    pub(crate) certificates: &'a CertificateStore,
    pub(crate) memory: &'a Arc<Gauge>,
    /// Receives the drain request of HTTP.
    pub(crate) stop: &'a StopReasons<RunError>,
}

impl WebServer {
    /// Starts the configured listeners; `None` if there are none.
    ///
    /// # Errors
    /// An address is in use, or a certificate cannot be used.
    pub(crate) fn start(parts: &WebParts<'_>) -> Result<Option<Self>> {
        let WebParts { relay, config, certificates, .. } = *parts;
        let web = &config.web;
        let fingerprint = certificates.fingerprint_of_now();
        let fingerprint: FingerprintSource = Arc::new(move || fingerprint().map(|it| it.to_string()));
        let mut options = Options::new(fingerprint.clone());
        // The address of the relay has the port that the kernel chose.
        let at = |address| if address == config.bind { relay.local_addr() } else { address };
        options.http = web.http.map(at);
        options.loopback_v6 = relay.has_loopback_v6() && config.is_web_implied();
        let mut ends: Vec<ValidityEnd> = vec![Box::new(certificates.first_end())];
        let mut watcher = None;
        if let Some(address) = web.https.map(at) {
            let https = HttpsTls::new(parts)?;
            options.https = Some((address, https.server));
            ends.extend(https.own_end);
            watcher = https.watcher;
        }
        if web.websocket {
            options.websocket = websocket_versions(config);
        }
        parts.serve_status(&mut options, fingerprint, ends);
        options.origins = config.origins();
        options.hosts = config.hosts();
        options.internal_hosts = config.internal_hosts();
        options.proxies = Proxies::new(config.proxies());
        options.connections = rlimit::sockets(machine::workers(config)).http;
        if let Some(address) = web.tcp {
            options.tcp = Some((address, parts.tcp_tls()?));
        }
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
                let Diagnostic { problem, remedy } = diagnostics::listener(&error);
                warn!("{problem}: HTTP and WebSocket are not served, QUIC is; {remedy}");
                Ok(None)
            }
            Err(error) => Err(diagnostics::listener(&error).into()),
        }
    }
}

impl WebParts<'_> {
    /// Adds the page, and the status where it may be seen.
    fn serve_status(&self, options: &mut Options, fingerprint: FingerprintSource, ends: Vec<ValidityEnd>) {
        let config = self.config;
        let page = page_of(config, self.certificates, fingerprint.clone());
        let name = config.bind.to_string();
        let figures = Arc::new(move || inspect::figures(&ends));
        let drain = self.stop.asker("POST /drain");
        let about = inspect::about(&name, fingerprint, self.memory.clone(), figures, drain);
        let status = Status::new(self.relay.clone(), about);
        if config.web.page {
            options.routes.push(page.public());
            // Only a development relay exposes its status publicly.
            if !config.from_file {
                options.routes.push(status::router(status.clone()));
            }
        }
        if let Some(address) = config.web.internal {
            options.internal = Some((address, internal::router(status).merge(page.private())));
        }
        options.page = Some(page);
    }

    /// TLS of sessions over TCP, if configured.
    fn tcp_tls(&self) -> Result<Option<Arc<ServerConfig>>> {
        if !self.config.web.tcp_tls {
            return Ok(None);
        }
        let server = tls::server(self.certificates.resolver(), self.certificates.clients(), &[]);
        server.map(Some).context("TLS for `server.tcp.bind`")
    }
}

/// TLS of HTTPS, with the certificates of QUIC or with its own.
struct HttpsTls {
    server: Arc<ServerConfig>,
    /// Earliest expiry of its own certificates.
    own_end: Option<ValidityEnd>,
    /// Watcher of its own certificates.
    watcher: Option<Watcher>,
}

impl HttpsTls {
    fn new(parts: &WebParts<'_>) -> Result<Self> {
        let web = &parts.config.web;
        let server = |resolver, clients| tls::server(resolver, clients, &[HTTP]).context("TLS for HTTPS");
        if web.certificates.is_empty() && web.roots.is_empty() {
            let server = server(parts.certificates.resolver(), None)?;
            return Ok(Self { server, own_end: None, watcher: None });
        }
        let own = own_certificates(parts.config)?;
        let resolver =
            if web.certificates.is_empty() { parts.certificates.resolver() } else { own.resolver() };
        let server = server(resolver, own.clients())?;
        let own_end: ValidityEnd = Box::new(own.first_end());
        let watcher = Watcher::start(own, parts.stop.hangups());
        let watcher = watcher.context("cannot watch the certificates of HTTPS")?;
        Ok(Self { server, own_end: Some(own_end), watcher: Some(watcher) })
    }
}

/// ALPN names of the versions offered over WebSocket, newest first.
fn websocket_versions(config: &Config) -> Vec<&'static str> {
    let mut versions = config.quic.versions.clone();
    versions.sort_unstable_by(|one, other| other.cmp(one));
    let mut names: Vec<&str> = versions.into_iter().map(Version::alpn).collect();
    names.dedup();
    names
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
