//! What a relay would do, as facts.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use super::certificate::Certificate;
use crate::{
    certificate::SOON,
    config::{Config, Place, Resolution, Source, Tls, Warning},
    limits::{memory, payload::Limits},
    serve,
    token::Shown,
};

/// Longer than service managers wait by default.
const LONG_DRAIN: Duration = Duration::from_secs(90);
/// Ports below it need a privilege.
const PRIVILEGED: u16 = 1_024;
/// Streams a peer may have by default, towards one direction.
const MANY_STREAMS: u64 = 2_048;

/// What a relay would do.
#[derive(Debug)]
pub(super) struct Report {
    /// The file that was read.
    pub(super) file: Option<PathBuf>,
    /// The settings.
    pub(super) resolution: Resolution,
    /// The certificate it would show.
    pub(super) certificate: Certificate,
    /// Threads it would have.
    pub(super) workers: usize,
    /// What the machine, or our part of it, has.
    pub(super) memory: u64,
    /// What it would hold.
    pub(super) limits: Limits,
    /// A token that somebody asks about.
    pub(super) token: Option<Shown>,
}

impl Report {
    /// Looks at the machine.
    pub(super) fn of(file: Option<PathBuf>, mut resolution: Resolution) -> Self {
        let config = &resolution.config;
        let reading = memory::read();
        let certificate = Certificate::of(&config.tls, SystemTime::now());
        let limits = serve::plan(config).limits(0, 0, &reading);
        let workers = serve::workers(config);
        let more = hazards(config, &certificate);
        resolution.warnings.extend(more.into_iter().map(|text| Warning { place: Place::Nowhere, text }));
        Self { file, resolution, certificate, workers, memory: reading.limit, limits, token: None }
    }

    /// Whether a relay would start, as far as can be told without starting one.
    pub(super) fn starts(&self) -> bool {
        self.refusals().is_empty()
    }

    /// Everything a relay would not start for.
    pub(super) fn refusals(&self) -> Vec<String> {
        let mut all: Vec<String> = self.resolution.refusals.iter().map(ToString::to_string).collect();
        if let Certificate::None(why) = &self.certificate {
            let file = self.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
            all.push(match self.resolution.source("tls.cert") {
                Source::File { at, .. } => format!("{file}:{at}: {why}"),
                Source::Flag(name) | Source::Variable(name) => format!("{name}: {why}"),
                Source::Default => why.clone(),
            });
        }
        all
    }

    /// Whether what was written could be understood, so that explaining it makes sense.
    pub(super) fn is_understood(&self) -> bool {
        self.resolution.refusals.is_empty() || self.resolution.waits_for_tokens()
    }
}

/// What an operator may not have meant.
fn hazards(config: &Config, certificate: &Certificate) -> Vec<String> {
    let mut all = Vec::new();
    let is_exposed = !config.bind.ip().is_loopback();
    let everybody = |scope: &relay_model::Scope| scope.prefixes().iter().any(relay_model::Path::is_root);
    match (everybody(&config.publish), everybody(&config.subscribe)) {
        (true, true) if is_exposed => {
            all.push("whoever reaches this address may publish and subscribe to everything".to_owned());
        }
        (true, _) if is_exposed => all.push("whoever reaches this address may publish anything".to_owned()),
        _ => {}
    }
    if config.takeover == relay_worker::Takeover::Any {
        all.push(
            "`auth.takeover` is \"any\": whoever may publish a path may take it from its publisher"
                .to_owned(),
        );
    }
    if config.tls == Tls::Generated && is_exposed {
        all.push("no certificate is configured: clients must pin the one that is made at start".to_owned());
    }
    if let Certificate::Read { days, .. } = certificate
        && Duration::from_secs(days * 86_400) < SOON
    {
        all.push(format!("the certificate expires in {days} days"));
    }
    if (1..PRIVILEGED).contains(&config.bind.port()) {
        let port = config.bind.port();
        all.push(format!(
            "port {port} needs root or CAP_NET_BIND_SERVICE, unless the system was told otherwise"
        ));
    }
    if config.bind.port() == 0 {
        all.push("port 0 takes a free one, another one at each start".to_owned());
    }
    if config.drain_timeout > LONG_DRAIN {
        let window = config.drain_timeout;
        all.push(format!(
            "`drain_timeout` is {window:?}; systemd kills after 90s unless TimeoutStopSec says more"
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
