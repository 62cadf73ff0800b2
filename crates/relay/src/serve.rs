//! Running a relay: start, periodic tasks, drain and end.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, anyhow};
use relay_access::Access;
use relay_auth::Policy;
use relay_certificate::{CertificateEvent, CertificateStore, Fingerprint, Watcher, made_for};
use relay_config::{Config, Credentials, Tls};
use relay_host::{
    diagnostics::{self, Diagnostic},
    doctor::{reading::Files, verdict},
    limits::{
        memory::{self, Gauge},
        payload::{Plan, Watch},
        rlimit,
    },
    machine::{has_ipv6_sockets, workers},
    notify::Notify,
    signals::{Reason, StopReasons},
};
use relay_model::{Hop, Path, Scope, SessionCode};
use relay_worker::{Relay, RelayOptions, RunError, StateLimits};
use tracing::{info, level_filters::LevelFilter, warn};

use crate::{
    banner::Banner,
    cli::RunArgs,
    log::{self, LogOutput},
    maintenance::Maintenance,
    web::{WebParts, WebServer},
};

/// Time beyond the drain window that the service manager is asked for.
const ENDING: Duration = Duration::from_secs(5);
/// Longest time a stopped relay waits until the auth server has received all end events.
const END_EVENTS_TIMEOUT: Duration = Duration::from_secs(3);
/// Bits of a random hop id: JavaScript peers store hop ids as floating-point numbers.
const HOP_BITS: u32 = 53;

/// Runs a relay until a signal ends it.
///
/// # Errors
/// The relay cannot start, or ended with an error.
pub fn run(args: &RunArgs) -> Result<()> {
    let mut serving = Serving::start(args, LevelFilter::INFO)?;
    serving.announce();
    loop {
        match serving.wait() {
            Reason::Signal(signal) => serving.drain(signal)?,
            Reason::Ended(end) => {
                serving.access.wait_idle(END_EVENTS_TIMEOUT);
                return Ok(end?);
            }
        }
    }
}

/// A running relay with its periodic tasks.
pub(crate) struct Serving {
    /// Declared before the relay, so that it is dropped first and serves no request about a stopped relay.
    web: Option<WebServer>,
    pub(crate) relay: Arc<Relay>,
    access: Arc<Access>,
    config: Config,
    /// Fingerprint of the first certificate at start.
    fingerprint: Fingerprint,
    certificates: Watcher,
    stop: StopReasons<RunError>,
    chores: Maintenance,
    notify: Notify,
}

impl Serving {
    /// Starts a relay, and its log at `level` unless another is configured. Signals are handled from the beginning.
    pub(crate) fn start(args: &RunArgs, level: LevelFilter) -> Result<Self> {
        let stop = StopReasons::listen().context("cannot listen for signals")?;
        let config = configuration(args, level)?;
        let notify = Notify::from_env().unwrap_or_else(|error| {
            warn!(%error, "NOTIFY_SOCKET cannot be used: the service manager is not notified");
            Notify::default()
        });
        let config = config.for_machine(has_ipv6_sockets());
        raise_file_limit();
        enough_files(workers(&config))?;
        let memory = Arc::new(Gauge::new());
        memory.read();
        memory.failure().inspect(|trouble| warn!("{trouble}"));
        let certificates = certificates(&config)?;
        let fingerprint = certificates.fingerprint();
        let (relay, access) = start(&config, &certificates, &memory)?;
        let parts = WebParts {
            relay: &relay,
            config: &config,
            certificates: &certificates,
            memory: &memory,
            stop: &stop,
        };
        let web = WebServer::start(&parts)?;
        let certificates =
            Watcher::start(certificates, stop.hangups()).context("cannot watch the certificates")?;
        stop.on("fate", {
            let relay = relay.clone();
            move || Reason::Ended(relay.join())
        })?;
        let chores = Maintenance::new(Watch::new(plan(&config, &memory.read())), memory);
        Ok(Self { web, relay, access, config, fingerprint, certificates, stop, chores, notify })
    }

    /// Reports readiness to the log, standard output and the service manager.
    fn announce(&self) {
        let Self { web, relay, config, fingerprint, notify, .. } = self;
        let http = web.as_ref().and_then(|web| web.server.addresses().http);
        announce(config, *fingerprint, relay, http);
        warn_of_machine(config, relay, &self.chores.memory(), workers(config));
        if let Err(error) = notify.ready(&format!("serving on udp {}", relay.local_addr())) {
            warn!(%error, "cannot notify the service manager that the relay is ready");
        }
    }

    /// Fingerprint of the first certificate at start.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Runs the periodic tasks until there is a reason to end.
    pub(crate) fn wait(&mut self) -> Reason<RunError> {
        loop {
            if let Some(reason) = self.wait_for(Maintenance::pause(&self.notify)) {
                return reason;
            }
        }
    }

    /// Waits at most `pause` for a reason to end, and runs the periodic tasks once. `pause` should be short.
    pub(crate) fn wait_for(&mut self, pause: Duration) -> Option<Reason<RunError>> {
        let reason = self.stop.wait(pause);
        self.chores.run(&self.relay, &self.certificates, &self.notify);
        reason
    }

    /// Starts to drain the relay; `signal` is the reason in the log. The relay ends after the drain; the periodic
    /// tasks continue meanwhile.
    pub(crate) fn drain(&self, signal: &str) -> Result<()> {
        let (window, relay) = (self.config.drain_timeout, self.relay.clone());
        self.notify.stopping(window.saturating_add(ENDING), "draining");
        info!(signal, seconds = window.as_secs_f64(), sessions = relay.counts().total().sessions, "draining");
        let leave = move || relay.drain(window, SessionCode::GOAWAY_TIMEOUT, "goaway timeout");
        thread::Builder::new().name("drain".to_owned()).spawn(leave).context("cannot start draining")?;
        Ok(())
    }
}

/// Configured memory limits of the cache.
pub(crate) fn plan(config: &Config, memory: &memory::Reading) -> Plan {
    Plan::new(&config.cache, memory.limit)
}

/// Memory limits of sessions, of `available` bytes.
fn state(config: &Config, available: u64) -> StateLimits {
    let clients = config.state.of(available);
    StateLimits { clients, peers: clients / 2 }
}

/// Resolves the configuration from file, environment and flags, and starts the log accordingly.
fn configuration(args: &RunArgs, level: LevelFilter) -> Result<Config> {
    let mut resolution = Config::resolve(args.config_file().map(PathBuf::as_path), &args.overrides())?;
    let warnings = std::mem::take(&mut resolution.warnings);
    let config = resolution.into_config()?;
    log::init(config.log.level.or(Some(level)), config.log.format.unwrap_or_default(), LogOutput::Queued)?;
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

/// Logs warnings about scarce resources of the machine.
fn warn_of_machine(config: &Config, relay: &Relay, memory: &memory::Reading, workers: usize) {
    let cache = plan(config, memory).limits(0, 0, memory).capacity;
    let files = Files { hard: rlimit::current(), needed: rlimit::needed(workers), workers };
    for verdict in [verdict::buffers(relay.buffers()), verdict::files(&files), verdict::memory(memory, cache)]
    {
        verdict.diagnostic().inspect(|trouble| warn!("{trouble}"));
    }
}

/// Loads the certificates and client authorities.
fn certificates(config: &Config) -> Result<CertificateStore> {
    let now = SystemTime::now();
    let store = CertificateStore::open(&config.tls, &config.client_roots, now)?;
    store.opening(now).iter().for_each(CertificateEvent::log);
    Ok(store)
}

/// Checks the limit of open files before a start that would fail half-way.
fn enough_files(workers: usize) -> Result<(), Diagnostic> {
    match rlimit::current() {
        Some(limit) if limit < rlimit::needed(workers) => Err(diagnostics::files(workers, Some(limit))),
        _ => Ok(()),
    }
}

fn start(
    config: &Config,
    certificates: &CertificateStore,
    memory: &Gauge,
) -> Result<(Arc<Relay>, Arc<Access>)> {
    let hop = config.hop.map_or_else(random_hop, Ok)?;
    let public = Policy::public(config.publish.clone(), config.subscribe.clone());
    let access = Access::start(public, &config.auth, &hop.0.to_string())?;
    let access = Arc::new(access.only_from(config.origins()));
    let secret = certificates.stable_secret();
    let mut options = RelayOptions::new(config.bind, certificates.resolver(), secret, access.clone());
    certificates.configure(&mut options);
    // `localhost` often resolves to ::1 first.
    options.loopback_v6 = !config.from_file;
    options.workers = workers(config);
    options.hop = hop;
    options.tuning = config.quic.clone();
    options.takeover = config.takeover;
    options.linger = config.linger;
    options.session_limits = config.limits;
    let reading = memory.read();
    let limits = plan(config, &reading).limits(0, 0, &reading);
    options.state = state(config, reading.limit);
    options.cache = relay_worker::CacheLimits {
        capacity: limits.capacity,
        ceiling: limits.ceiling,
        max_age: config.cache.duration,
    };
    let workers = options.workers;
    options.stream_sockets = rlimit::sockets(workers).sessions;
    let relay =
        Relay::start(options).map_err(|error| -> Diagnostic { diagnostics::start(&error, workers) })?;
    Ok((Arc::new(relay), access))
}

/// Draws a random hop id.
fn random_hop() -> Result<Hop> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("the system provides no random bytes"))?;
    Ok(Hop((u64::from_le_bytes(bytes) >> (u64::BITS - HOP_BITS)).max(1)))
}

/// Logs the start, and prints the banner of a development relay.
fn announce(config: &Config, fingerprint: Fingerprint, relay: &Relay, http: Option<SocketAddr>) {
    let address = relay.local_addr();
    let (publish, subscribe) = (scope_text(&config.publish), scope_text(&config.subscribe));
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
        warn!(%fingerprint, names, "no certificate is configured: using a self-signed one");
    }
    if !config.from_file {
        if !address.ip().is_loopback() {
            warn!("open to everybody who can reach this address; a configuration file can restrict it");
        }
        let banner = Banner { address, http, fingerprint };
        print(banner.to_string());
    }
}

/// Prints `text` to standard output from a separate thread, as the reader may block or be gone.
fn print(text: String) {
    let write = move || {
        let _ = io::stdout().lock().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
    };
    let _ = thread::Builder::new().name("banner".to_owned()).spawn(write);
}

/// Text of a scope.
pub(crate) fn scope_text(scope: &Scope) -> String {
    match scope.patterns() {
        [] => "nothing".to_owned(),
        [all] if all.as_subtree().is_some_and(Path::is_root) => "everything".to_owned(),
        patterns => patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}
