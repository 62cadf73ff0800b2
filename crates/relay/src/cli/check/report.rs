//! Facts about a relay that would run with the given settings.

use std::{
    net::IpAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use relay_certificate::CertificateLoadError;
use relay_cli::token::TokenReport;
use relay_config::{
    Config, Place as Where, Resolution, Source, Tls, Warning,
    listeners::{self, Listener, ListenerAddress},
};
use relay_host::{
    diagnostics::{self, PRIVILEGED},
    limits::{memory, payload::Limits},
    machine,
};

use super::certificate::{CertificateCheck, authorities};
use crate::serve;

/// Default stop timeout of systemd; a longer drain may be cut short.
const LONG_DRAIN: Duration = Duration::from_secs(90);
/// Default limit of a peer's bidirectional streams.
const MANY_STREAMS: u64 = 2_048;

/// Facts about a relay that would run.
#[derive(Debug)]
pub(super) struct CheckReport {
    /// The file that was read.
    pub(super) file: Option<PathBuf>,
    /// The settings.
    pub(super) resolution: Resolution,
    /// Certificates it would use.
    pub(super) certificates: Vec<CertificateCheck>,
    /// Number of client authorities, if clients are asked for certificates; or why they cannot be used.
    pub(super) authorities: Option<Result<usize, CertificateLoadError>>,
    /// Certificates of HTTPS, if configured separately.
    pub(super) web_certificates: Vec<CertificateCheck>,
    /// Client authorities of HTTPS, as `authorities`.
    web_authorities: Option<Result<usize, CertificateLoadError>>,
    /// Listeners beside UDP.
    pub(super) listeners: Vec<Listener>,
    /// Number of worker threads.
    pub(super) workers: usize,
    /// Memory of the machine or control group, bytes.
    pub(super) memory: u64,
    /// Memory limits it would apply.
    pub(super) limits: Limits,
    /// Unusable token credentials: the configuration key that names them, and the cause.
    credentials: Option<(&'static str, String)>,
    /// The token given with `--token`.
    pub(super) token: Option<TokenReport>,
}

impl CheckReport {
    /// Gathers the facts: reads certificates, keys and the memory of the machine.
    pub(super) fn of(file: Option<PathBuf>, mut resolution: Resolution) -> Self {
        let config = &resolution.config;
        let reading = memory::read();
        let certificates = CertificateCheck::all(&config.tls, SystemTime::now());
        let web = &config.web;
        let web_certificates = CertificateCheck::files(&web.certificates, SystemTime::now());
        let (authorities, web_authorities) = (authorities(&config.client_roots), authorities(&web.roots));
        let listeners = listeners::all(config);
        let credentials =
            relay_access::startup_error(&config.auth).map(|why| (config.auth.credentials.key(), why));
        let limits = serve::plan(config, &reading).limits(0, 0, &reading);
        let workers = machine::workers(config);
        let all = || certificates.iter().chain(&web_certificates);
        let more = hazards(config, all()).into_iter().chain(unlisted_names(config, all()));
        resolution.warnings.extend(more.map(|text| Warning { place: Where::Nowhere, text }));
        Self {
            file,
            resolution,
            certificates,
            authorities,
            web_certificates,
            web_authorities,
            listeners,
            workers,
            memory: reading.limit,
            limits,
            credentials,
            token: None,
        }
    }

    /// Whether a relay would start, as far as that shows without starting one.
    pub(super) fn starts(&self) -> bool {
        self.refusals().is_empty()
    }

    /// All reasons for which a relay would not start.
    pub(super) fn refusals(&self) -> Vec<String> {
        let mut all: Vec<String> = self.resolution.refusals.iter().map(ToString::to_string).collect();
        let missing = |key: &'static str, certificates: &[CertificateCheck]| -> Vec<(&'static str, String)> {
            let missing = certificates.iter().filter_map(|certificate| match certificate {
                CertificateCheck::None(why) => Some((key, why.clone())),
                _ => None,
            });
            missing.collect()
        };
        let unusable = |key: &'static str, found: &Option<Result<usize, CertificateLoadError>>| {
            found.as_ref().and_then(|found| found.as_ref().err()).map(|why| (key, why.to_string()))
        };
        let mut troubles = missing("tls.cert", &self.certificates);
        troubles.extend(unusable("tls.root", &self.authorities));
        troubles.extend(missing("web.https.cert", &self.web_certificates));
        troubles.extend(unusable("web.https.root", &self.web_authorities));
        troubles.extend(self.listeners.iter().filter_map(|listener| match &listener.place {
            ListenerAddress::Unix(path) => {
                Some((listener.key, diagnostics::unix_diagnostic(path)?.to_string()))
            }
            ListenerAddress::Tcp(_) => None,
        }));
        troubles.extend(self.credentials.clone());
        all.extend(troubles.iter().map(|(key, why)| self.at(key, why)));
        all
    }

    /// Prefixes `why` with the place where `key` was set.
    fn at(&self, key: &str, why: &str) -> String {
        let file = self.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        match self.resolution.source(key) {
            Source::File { at, .. } => format!("{file}:{at}: {why}"),
            Source::Flag(name) | Source::Variable(name) => format!("{name}: {why}"),
            Source::Default => why.to_owned(),
        }
    }

    /// Whether the settings could be parsed, so that they can be explained.
    pub(super) fn is_understood(&self) -> bool {
        self.resolution.refusals.is_empty()
    }
}

/// Warning that `web.hosts` (perhaps meant for the private listener only) leaves out the relay's public host names.
fn unlisted_names<'a>(
    config: &Config,
    certificates: impl Iterator<Item = &'a CertificateCheck>,
) -> Option<String> {
    let web = &config.web;
    let is_shared = web.internal.is_some() && (web.http.is_some() || web.https.is_some());
    if !is_shared || web.hosts.is_empty() {
        return None;
    }
    let read = certificates.filter_map(|certificate| match certificate {
        CertificateCheck::Read { names, .. } => Some(names.iter().map(String::as_str)),
        _ => None,
    });
    let url = web.url.as_deref().and_then(|url| url::Url::parse(url).ok());
    let host = url.as_ref().and_then(url::Url::host_str);
    let is_name = |name: &&str| name.parse::<IpAddr>().is_err() && *name != "localhost";
    let names: Vec<&str> = read.flatten().chain(host).filter(is_name).collect();
    let is_listed = |name: &&str| web.hosts.iter().any(|listed| share_a_name(listed, name));
    let first = names.first().filter(|_| !names.iter().any(is_listed))?;
    Some(format!(
        "`web.hosts` holds for the public listeners too, and lists no public host name: requests for {first} get 403; \
         list it as well"
    ))
}

/// Whether some host name matches both patterns; a leading `*.` stands for one label.
fn share_a_name(one: &str, other: &str) -> bool {
    let fits = |pattern: &str, name: &str| {
        let below = pattern.strip_prefix("*.").zip(name.split_once('.'));
        below.is_some_and(|(suffix, (_, rest))| suffix.eq_ignore_ascii_case(rest))
    };
    one.eq_ignore_ascii_case(other) || fits(one, other) || fits(other, one)
}

/// Warnings about settings that an operator may not have intended.
fn hazards<'a>(config: &Config, certificates: impl Iterator<Item = &'a CertificateCheck>) -> Vec<String> {
    let mut all = Vec::new();
    let is_exposed = !config.bind.ip().is_loopback();
    let everybody = |scope: &relay_model::Scope| scope.covers(&relay_model::Scope::everything());
    match (everybody(&config.publish), everybody(&config.subscribe)) {
        (true, true) if is_exposed => {
            all.push("anybody who reaches this address may publish and subscribe to everything".to_owned());
        }
        (true, _) if is_exposed => {
            all.push("anybody who reaches this address may publish anything".to_owned())
        }
        _ => {}
    }
    if config.takeover == relay_worker::Takeover::Any {
        all.push(
            "`auth.takeover` is \"any\": any client that may publish a path may take it over".to_owned(),
        );
    }
    if config.auth.tls.disable_verify {
        all.push(
            "`auth.tls.disable_verify` is on: anybody on the network path can pose as the auth server or key server"
                .to_owned(),
        );
    }
    if matches!(config.tls, Tls::Generated(_)) && is_exposed {
        all.push("no certificate is configured: clients must pin the one generated at start".to_owned());
    }
    all.extend(certificates.filter_map(|certificate| match certificate {
        CertificateCheck::Read { ending: Some(ending), .. } => Some(ending.to_string()),
        _ => None,
    }));
    if (1..PRIVILEGED).contains(&config.bind.port()) {
        let port = config.bind.port();
        all.push(format!(
            "port {port} needs root or CAP_NET_BIND_SERVICE, unless `net.ipv4.ip_unprivileged_port_start` is lower"
        ));
    }
    if config.bind.port() == 0 {
        all.push("port 0 takes a free one, another one at each start".to_owned());
    }
    if config.drain_timeout > LONG_DRAIN {
        let window = config.drain_timeout;
        all.push(format!(
            "`drain_timeout` is {window:?}; systemd kills after 90s unless TimeoutStopSec is longer"
        ));
    }
    if let Some(most) = config.quic.max_streams.filter(|most| *most > MANY_STREAMS) {
        let kib = most * 109 / 1_000;
        all.push(format!(
            "`quic.max_streams` is {most}: one hostile peer can make the relay hold {kib} KiB for it"
        ));
    }
    all
}
