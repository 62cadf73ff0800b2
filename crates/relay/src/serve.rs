//! From arguments to a running relay, and to its end.

use std::{
    io::{self, Write},
    num::NonZeroUsize,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, anyhow};
use relay_auth::Policy;
use relay_model::{Hop, Path, Scope, SessionCode, limits};
use relay_worker::{Options, Relay, RunError};
use rustls::{server::ResolvesServerCert, sign::SingleCertAndKey};
use tracing::{debug, info, warn};

use crate::{
    banner::Banner,
    certificate::{Fingerprint, Identity, Renewing},
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
const SOON: Duration = Duration::from_secs(14 * 24 * 3_600);
/// Ids of relays stay below this: JavaScript peers keep them as floating-point numbers.
const HOP_BITS: u32 = 53;

/// Runs a relay until a signal ends it.
///
/// # Errors
/// What kept it from starting or from going on, in words for the person who started it.
pub fn run(args: &RunArgs) -> Result<()> {
    let mut serving = Serving::start(args)?;
    announce(&serving.config, &serving.certificate, &serving.relay);
    loop {
        match serving.wait() {
            Reason::Signal(signal) => serving.drain(signal)?,
            Reason::Ended(end) => return Ok(end?),
        }
    }
}

/// A relay that runs, and what it needs to be seen to.
pub(crate) struct Serving {
    pub(crate) relay: Arc<Relay>,
    config: Config,
    certificate: Certificate,
    stop: Stop<RunError>,
    memory: Watch,
}

impl Serving {
    /// Starts a relay; signals are listened for from here on.
    pub(crate) fn start(args: &RunArgs) -> Result<Self> {
        let stop = Stop::listen().context("cannot listen for signals")?;
        let config = configuration(args)?;
        raise_file_limit();
        let certificate = Certificate::prepare(&config.tls)?;
        let relay = start(args, &config, &certificate)?;
        stop.on("fate", {
            let relay = relay.clone();
            move || Reason::Ended(relay.join())
        })?;
        let memory = Watch::new(plan(&config));
        Ok(Self { relay, config, certificate, stop, memory })
    }

    /// Of the certificate it shows.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.certificate.identity.fingerprint()
    }

    /// Sees to what recurs until there is a reason to end.
    pub(crate) fn wait(&mut self) -> Reason<RunError> {
        let mut shown = Instant::now();
        loop {
            if let Some(reason) = self.wait_for(TICK) {
                return reason;
            }
            if shown.elapsed() >= SHOW {
                shown = Instant::now();
                self.certificate.tend();
                debug!("{}", self.relay.counts());
            }
        }
    }

    /// The same, no longer than `pause`, which should be short.
    pub(crate) fn wait_for(&mut self, pause: Duration) -> Option<Reason<RunError>> {
        let reason = self.stop.wait(pause);
        let limits = self.memory.look(self.relay.store().budget().used(), &memory::read());
        self.relay.set_memory(limits.capacity, limits.ceiling);
        reason
    }

    /// Starts leaving. The relay has ended once it is done; what recurs goes on meanwhile.
    pub(crate) fn drain(&self, why: &str) -> Result<()> {
        let (window, relay) = (self.config.drain_timeout, self.relay.clone());
        info!(why, seconds = window.as_secs_f64(), sessions = relay.counts().total().sessions, "draining");
        let leave = move || relay.drain(window, SessionCode::GOAWAY_TIMEOUT, "goaway timeout");
        thread::Builder::new().name("drain".to_owned()).spawn(leave).context("cannot start draining")?;
        Ok(())
    }
}

/// What the cache may take, as configured.
fn plan(config: &Config) -> Plan {
    Plan::new(&config.cache, memory::read().limit)
}

/// The file, where there is one, under the flags.
fn configuration(args: &RunArgs) -> Result<Config> {
    let mut config = match args.config_file() {
        Some(file) => Config::load(file)?,
        None => Config::development(),
    };
    if let Some(bind) = args.bind {
        config.bind = bind;
    }
    Ok(config)
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

fn start(args: &RunArgs, config: &Config, certificate: &Certificate) -> Result<Arc<Relay>> {
    let open = Scope::of([config.public.clone()]);
    let policy = Arc::new(Policy::public(open.clone(), open));
    let secret = certificate.identity.stable_secret();
    let mut options = Options::new(config.bind, certificate.resolver.clone(), secret, policy);
    options.workers = workers(args);
    options.hop = config.hop.map_or_else(random_hop, Ok)?;
    options.tuning.versions.clone_from(&config.versions);
    options.takeover = config.takeover;
    let limits = plan(config).limits(0, 0, &memory::read());
    options.cache_bytes = limits.capacity;
    options.memory_bytes = limits.ceiling;
    options.max_age = config.cache.duration;
    let relay = Relay::start(options).with_context(|| format!("cannot serve on {}", config.bind))?;
    Ok(Arc::new(relay))
}

/// As asked, or one a core as far as connection ids can name them.
fn workers(args: &RunArgs) -> usize {
    let cores = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
    args.workers.map_or_else(cores, |workers| usize::from(workers.get())).min(limits::WORKERS)
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
    info!(%address, public = %shown(&config.public), "serving");
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

/// A prefix as the log shows it.
fn shown(public: &Path) -> String {
    if public.is_root() { "everything".to_owned() } else { format!("{public}/**") }
}
