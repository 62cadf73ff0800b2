//! From arguments to a running relay, and to its end.

use std::{
    io::{self, Write},
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, anyhow};
use relay_auth::Policy;
use relay_model::{Hop, Scope, SessionCode, limits};
use relay_worker::{Options, Relay, RunError};
use rustls::{server::ResolvesServerCert, sign::SingleCertAndKey};
use tracing::{debug, info, warn};

use crate::{
    banner::Banner,
    certificate::{Identity, Renewing},
    cli::RunArgs,
    config::{Config, Tls},
    limits::{
        memory,
        payload::{Plan, Watch},
        rlimit,
    },
    signals::{Reason, Stop},
};

/// How often memory is looked at.
const TICK: Duration = Duration::from_millis(500);
/// How often a line of counters goes to the debug log, and the certificate is looked at.
const SHOW: Duration = Duration::from_secs(10);
/// A certificate this close to its end is worth a warning at start.
pub(crate) const SOON: Duration = Duration::from_secs(14 * 24 * 3_600);
/// Ids of relays stay below this: JavaScript peers keep them as floating-point numbers.
const HOP_BITS: u32 = 53;

/// Runs a relay until a signal ends it.
///
/// # Errors
/// What kept it from starting or from going on, in words for the person who started it.
pub fn run(args: &RunArgs) -> Result<()> {
    let stop = Stop::listen().context("cannot listen for signals")?;
    let config = configuration(args)?;
    raise_file_limit();
    let certificate = Certificate::prepare(&config.tls)?;
    let relay = start(&config, &certificate)?;
    stop.on("fate", {
        let relay = relay.clone();
        move || Reason::Ended(relay.join())
    })?;
    announce(&config, &certificate, &relay);
    let mut memory = Watch::new(plan(&config));
    loop {
        match wait(&stop, &certificate, &relay, &mut memory) {
            Reason::Signal(signal) => drain(signal, config.drain_timeout, relay.clone())?,
            Reason::Ended(end) => return Ok(end?),
        }
    }
}

/// Starts leaving. The relay has ended once it is done; what recurs goes on meanwhile.
fn drain(signal: &str, window: Duration, relay: Arc<Relay>) -> Result<()> {
    info!(signal, seconds = window.as_secs_f64(), sessions = relay.counts().total().sessions, "draining");
    let leave = move || relay.drain(window, SessionCode::GOAWAY_TIMEOUT, "goaway timeout");
    thread::Builder::new().name("drain".to_owned()).spawn(leave).context("cannot start draining")?;
    Ok(())
}

/// What the cache may take, as configured.
pub(crate) fn plan(config: &Config) -> Plan {
    Plan::new(&config.cache, memory::read().limit)
}

/// The file, where there is one, under the environment and the flags.
fn configuration(args: &RunArgs) -> Result<Config> {
    let resolution = Config::resolve(args.config_file().map(PathBuf::as_path), &args.outside())?;
    for warning in &resolution.warnings {
        warn!("{}{}", warning.place, warning.text);
    }
    Ok(resolution.into_config()?)
}

fn raise_file_limit() {
    let limit = rlimit::raise().unwrap_or_else(|error| {
        warn!(%error, "cannot raise the limit on open files");
        rlimit::current()
    });
    if let Some(limit) = limit.filter(|limit| *limit < rlimit::COMFORTABLE) {
        warn!(limit, "few files may be open; raise the hard limit (ulimit -Hn) for a busy relay");
    }
}

/// What the relay shows, and what follows from it.
struct Certificate {
    identity: Identity,
    resolver: Arc<dyn ResolvesServerCert>,
    /// The same resolver, when the certificate is ours to renew.
    renewing: Option<Arc<Renewing>>,
}

impl Certificate {
    fn prepare(tls: &Tls) -> Result<Self> {
        let now = SystemTime::now();
        let Tls::Files { cert, key } = tls else {
            let identity = Identity::generate(now)?;
            let renewing = Arc::new(Renewing::new(&identity)?);
            return Ok(Self { identity, resolver: renewing.clone(), renewing: Some(renewing) });
        };
        let identity = Identity::load(cert, key, now)?;
        let remaining = identity.remaining(now);
        if remaining < SOON {
            warn!(days = remaining.as_secs() / 86_400, "the certificate expires soon");
        }
        let resolver = Arc::new(SingleCertAndKey::from(identity.certified()?));
        Ok(Self { identity, resolver, renewing: None })
    }

    /// Renews a generated certificate when it is time.
    fn tend(&self) {
        match self.renewing.as_ref().map(|renewing| renewing.renew(SystemTime::now())) {
            Some(Ok(Some(fingerprint))) => info!(%fingerprint, "made a new certificate"),
            Some(Err(error)) => warn!(%error, "the certificate could not be renewed"),
            Some(Ok(None)) | None => {}
        }
    }
}

fn start(config: &Config, certificate: &Certificate) -> Result<Arc<Relay>> {
    let policy = Arc::new(Policy::public(config.publish.clone(), config.subscribe.clone()));
    let secret = certificate.identity.stable_secret();
    let mut options = Options::new(config.bind, certificate.resolver.clone(), secret, policy);
    options.workers = workers(config);
    options.hop = config.hop.map_or_else(random_hop, Ok)?;
    options.tuning = config.quic.clone();
    options.takeover = config.takeover;
    options.linger = config.linger;
    let limits = plan(config).limits(0, 0, &memory::read());
    options.cache_bytes = limits.capacity;
    options.memory_bytes = limits.ceiling;
    options.max_age = config.cache.duration;
    let relay = Relay::start(options).with_context(|| format!("cannot serve on {}", config.bind))?;
    Ok(Arc::new(relay))
}

/// As asked, or one a core as far as connection ids can name them.
pub(crate) fn workers(config: &Config) -> usize {
    let cores = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
    config.workers.map_or_else(cores, |workers| usize::from(workers.get())).min(limits::WORKERS)
}

/// An id that no other relay has drawn.
fn random_hop() -> Result<Hop> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("the system gives no random bytes"))?;
    Ok(Hop((u64::from_le_bytes(bytes) >> (u64::BITS - HOP_BITS)).max(1)))
}

/// Tells whoever started it that the relay serves.
fn announce(config: &Config, certificate: &Certificate, relay: &Relay) {
    let address = relay.local_addr();
    info!(%address, publish = %shown(&config.publish), subscribe = %shown(&config.subscribe), "serving");
    if certificate.renewing.is_some() && config.from_file {
        let fingerprint = certificate.identity.fingerprint();
        warn!(%fingerprint, "no [tls] in the file: showing a self-signed certificate");
    }
    if !config.from_file {
        if !address.ip().is_loopback() {
            warn!("open to everybody who can reach this address; a configuration file can restrict it");
        }
        let banner = Banner { address, fingerprint: certificate.identity.fingerprint() };
        // Nobody may be listening to standard output; the log has the address.
        let _ = write!(io::stdout().lock(), "{banner}").and_then(|()| io::stdout().flush());
    }
}

/// What is open, for people.
pub(crate) fn shown(scope: &Scope) -> String {
    match scope.prefixes() {
        [] => "nothing".to_owned(),
        [root] if root.is_root() => "everything".to_owned(),
        prefixes => prefixes.iter().map(|prefix| format!("{prefix}/**")).collect::<Vec<_>>().join(", "),
    }
}

/// Sees to what recurs until there is a reason to end.
fn wait(
    stop: &Stop<RunError>,
    certificate: &Certificate,
    relay: &Relay,
    memory: &mut Watch,
) -> Reason<RunError> {
    let mut shown = Instant::now();
    loop {
        if let Some(reason) = stop.wait(TICK) {
            return reason;
        }
        let limits = memory.look(relay.store().budget().used(), &memory::read());
        relay.set_memory(limits.capacity, limits.ceiling);
        if shown.elapsed() >= SHOW {
            shown = Instant::now();
            certificate.tend();
            debug!("{}", relay.counts());
        }
    }
}
