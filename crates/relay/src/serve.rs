//! From arguments to a running relay, and to its end.

use std::{
    io::{self, Write},
    net::SocketAddr,
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, anyhow};
use relay_auth::Policy;
use relay_model::{Hop, Path, Scope, SessionCode, limits};
use relay_worker::{Options, Relay, RunError, StateLimits};
use tracing::{info, level_filters::LevelFilter, warn};

use crate::{
    access::Access,
    banner::Banner,
    certificate::{Fingerprint, News, Store, Watcher, made_for},
    chores::Chores,
    cli::RunArgs,
    config::{Config, Credentials, Tls},
    doctor::{reading::Files, verdict},
    limits::{
        memory,
        payload::{Plan, Watch},
        rlimit,
    },
    log,
    notify::Notify,
    signals::{Reason, Stop},
    trouble::{self, Trouble},
    web::Web,
};

/// What a service manager grants beyond the window of a drain, to end in.
const ENDING: Duration = Duration::from_secs(5);
/// How long a relay that has ended waits until an auth server has heard of all ends.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// Ids of relays stay below this: JavaScript peers keep them as floating-point numbers.
const HOP_BITS: u32 = 53;

/// Runs a relay until a signal ends it.
///
/// # Errors
/// What kept it from starting or from going on, in words for the person who started it.
pub fn run(args: &RunArgs) -> Result<()> {
    let mut serving = Serving::start(args, LevelFilter::INFO)?;
    serving.announce();
    loop {
        match serving.wait() {
            Reason::Signal(signal) => serving.drain(signal)?,
            Reason::Ended(end) => {
                serving.access.settle(LAST_WORDS);
                return Ok(end?);
            }
        }
    }
}

/// A relay that runs, and what it needs to be seen to.
pub(crate) struct Serving {
    /// Before the relay: it must not be asked once that has ended.
    web: Option<Web>,
    pub(crate) relay: Arc<Relay>,
    access: Arc<Access>,
    config: Config,
    /// Of the certificate that was shown first.
    fingerprint: Fingerprint,
    certificates: Watcher,
    stop: Stop<RunError>,
    chores: Chores,
    notify: Notify,
}

impl Serving {
    /// Starts a relay, and its log at `level` unless another is configured; signals are listened for from
    /// here on.
    pub(crate) fn start(args: &RunArgs, level: LevelFilter) -> Result<Self> {
        let stop = Stop::listen().context("cannot listen for signals")?;
        let config = configuration(args, level)?;
        let notify = Notify::from_env().context("NOTIFY_SOCKET")?;
        raise_file_limit();
        let certificates = certificates(&config)?;
        let fingerprint = certificates.fingerprint();
        let (relay, access) = start(&config, &certificates)?;
        let web = Web::start(&relay, &config, &certificates, &stop)?;
        let certificates =
            Watcher::start(certificates, stop.hangups()).context("cannot watch the certificates")?;
        stop.on("fate", {
            let relay = relay.clone();
            move || Reason::Ended(relay.join())
        })?;
        let chores = Chores::new(Watch::new(plan(&config)));
        Ok(Self { web, relay, access, config, fingerprint, certificates, stop, chores, notify })
    }

    /// Tells whoever started it that it serves.
    fn announce(&self) {
        let Self { web, relay, config, fingerprint, notify, .. } = self;
        let http = web.as_ref().and_then(|web| web.server.addresses().http);
        announce(config, *fingerprint, relay, http);
        warn_of_machine(config, relay, workers(config));
        if let Err(error) = notify.ready(&format!("serving on udp {}", relay.local_addr())) {
            warn!(%error, "the service manager does not hear that the relay serves");
        }
    }

    /// Of the certificate it shows.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Sees to what recurs until there is a reason to end.
    pub(crate) fn wait(&mut self) -> Reason<RunError> {
        loop {
            if let Some(reason) = self.wait_for(Chores::pause(&self.notify)) {
                return reason;
            }
        }
    }

    /// The same, no longer than `pause`, which should be short.
    pub(crate) fn wait_for(&mut self, pause: Duration) -> Option<Reason<RunError>> {
        let reason = self.stop.wait(pause);
        self.chores.run(&self.relay, &self.certificates, &self.notify);
        reason
    }

    /// Starts leaving, because of `signal` or whatever else. The relay has ended once it is done; what
    /// recurs goes on meanwhile.
    pub(crate) fn drain(&self, signal: &str) -> Result<()> {
        let (window, relay) = (self.config.drain_timeout, self.relay.clone());
        self.notify.stopping(window.saturating_add(ENDING), "draining");
        info!(signal, seconds = window.as_secs_f64(), sessions = relay.counts().total().sessions, "draining");
        let leave = move || relay.drain(window, SessionCode::GOAWAY_TIMEOUT, "goaway timeout");
        thread::Builder::new().name("drain".to_owned()).spawn(leave).context("cannot start draining")?;
        Ok(())
    }
}

/// What the cache may take, as configured.
pub(crate) fn plan(config: &Config) -> Plan {
    Plan::new(&config.cache, memory::read().limit)
}

/// Limits of the memory of sessions where `available` bytes may be used.
fn state(config: &Config, available: u64) -> StateLimits {
    let clients = config.state.of(available);
    StateLimits { clients, peers: clients / 2 }
}

/// The file, where there is one, under the environment and the flags; the log starts as they say.
fn configuration(args: &RunArgs, level: LevelFilter) -> Result<Config> {
    let mut resolution = Config::resolve(args.config_file().map(PathBuf::as_path), &args.outside())?;
    let warnings = std::mem::take(&mut resolution.warnings);
    let config = resolution.into_config()?;
    log::init(config.log.level.or(Some(level)), config.log.format.unwrap_or_default())?;
    for warning in warnings {
        warn!("{}{}", warning.place, warning.text);
    }
    Ok(config)
}

fn raise_file_limit() {
    if let Err(error) = rlimit::raise() {
        warn!(%error, "cannot raise the limit on open files to the hard one");
    }
}

/// What the machine has too little of.
fn warn_of_machine(config: &Config, relay: &Relay, workers: usize) {
    let memory = memory::read();
    let cache = plan(config).limits(0, 0, &memory).capacity;
    let files = Files { hard: rlimit::current(), needed: rlimit::needed(workers), workers };
    for verdict in
        [verdict::buffers(&Ok(relay.buffers())), verdict::files(&files), verdict::memory(&memory, cache)]
    {
        verdict.trouble().inspect(|trouble| warn!("{trouble}"));
    }
}

/// What the relay shows, and asks of clients.
fn certificates(config: &Config) -> Result<Store> {
    let now = SystemTime::now();
    let store = Store::open(&config.tls, &config.client_roots, now)?;
    store.opening(now).iter().for_each(News::log);
    Ok(store)
}

fn start(config: &Config, certificates: &Store) -> Result<(Arc<Relay>, Arc<Access>)> {
    let hop = config.hop.map_or_else(random_hop, Ok)?;
    let public = Policy::public(config.publish.clone(), config.subscribe.clone());
    let access = Access::start(public, &config.auth, &hop.0.to_string())?;
    let access = Arc::new(access.only_from(config.origins()));
    let secret = certificates.stable_secret();
    let mut options = Options::new(config.bind, certificates.resolver(), secret, access.clone());
    certificates.furnish(&mut options);
    options.workers = workers(config);
    options.hop = hop;
    options.tuning = config.quic.clone();
    options.takeover = config.takeover;
    options.linger = config.linger;
    options.session_limits = config.limits;
    let memory = memory::read();
    let limits = plan(config).limits(0, 0, &memory);
    options.state = state(config, memory.limit);
    options.cache_bytes = limits.capacity;
    options.memory_bytes = limits.ceiling;
    options.max_age = config.cache.duration;
    let workers = options.workers;
    let relay = Relay::start(options).map_err(|error| -> Trouble { trouble::start(&error, workers) })?;
    Ok((Arc::new(relay), access))
}

/// As asked, or one a core as far as connection ids can name them.
pub(crate) fn workers(config: &Config) -> usize {
    config.workers.map_or_else(cores, |workers| usize::from(workers.get())).min(limits::WORKERS)
}

/// How many cores this process may use.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// An id that no other relay has drawn.
fn random_hop() -> Result<Hop> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("the system gives no random bytes"))?;
    Ok(Hop((u64::from_le_bytes(bytes) >> (u64::BITS - HOP_BITS)).max(1)))
}

/// Tells whoever started it that the relay serves.
fn announce(config: &Config, fingerprint: Fingerprint, relay: &Relay, http: Option<SocketAddr>) {
    let address = relay.local_addr();
    let (publish, subscribe) = (shown(&config.publish), shown(&config.subscribe));
    let credentials = config.auth.credentials.key();
    match config.auth.credentials {
        Credentials::None => info!(%address, %publish, %subscribe, "serving"),
        Credentials::Server(_) | Credentials::Api(_) => info!(%address, credentials, "serving"),
        Credentials::Files(_) | Credentials::Dir(_) | Credentials::Jwks(_) => {
            info!(%address, %publish, %subscribe, credentials, "serving");
        }
    }
    if let Tls::Generated(names) = &config.tls
        && config.from_file
    {
        let names = made_for(names).join(", ");
        warn!(%fingerprint, names, "no certificate is configured: showing a self-signed one");
    }
    if !config.from_file {
        if !address.ip().is_loopback() {
            warn!("open to everybody who can reach this address; a configuration file can restrict it");
        }
        let banner = Banner { address, http, fingerprint };
        // Nobody may be listening to standard output; the log has the address.
        let _ = write!(io::stdout().lock(), "{banner}").and_then(|()| io::stdout().flush());
    }
}

/// What is open, for people.
pub(crate) fn shown(scope: &Scope) -> String {
    match scope.patterns() {
        [] => "nothing".to_owned(),
        [all] if all.as_subtree().is_some_and(Path::is_root) => "everything".to_owned(),
        patterns => patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}
