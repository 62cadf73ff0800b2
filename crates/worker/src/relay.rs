//! Supervisor: creates sockets, threads and shared state, and ends them together.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Condvar, Mutex};
use relay_core::{Core, CoreEvent, Takeover};
use relay_meter::{CounterBoard, Worker as Meter};
use relay_model::{
    Hop, SessionCode, WorkerId,
    limits::{self, SessionLimits},
};
use relay_store::{Store, WakeSet};
use relay_transport::quic::{self, Clients, QuicTuning, ServerTls, Tickets};
use rustls::server::ResolvesServerCert;

use crate::{
    accept::AcceptQueue,
    control::{ControlThread, CoreSnapshot},
    engine::{Fault, Worker, WorkerShared},
    gate::{Gate, SessionControl, WallClock},
    inspect::{CoreQuery, Inspector},
    ledger::{MemoryLedger, StateCounts, StateLimits},
    mailbox::{Drain, Mailbox, WorkerMessage},
    pulse::Pulse,
    run::Reactor,
    seat::{VirtualWorker, VirtualWorkerHandle},
    socket::{self, BindError, Buffers, GroupLock, SocketGroup, Steering, WorkerSocket},
};

/// Longest wait of a shutdown for the closes to reach the peers.
const FAREWELL: Duration = Duration::from_secs(1);
/// Event batches queued for core; more are kept by their workers.
const EVENT_BATCHES: usize = 1_024;
/// Default of [`RelayOptions::max_age`].
const MAX_AGE: Duration = Duration::from_secs(30);
/// Default of [`RelayOptions::cache_bytes`].
const CACHE_BYTES: u64 = 256 * 1024 * 1024;
/// Default of [`RelayOptions::memory_bytes`].
const MEMORY_BYTES: u64 = 512 * 1024 * 1024;
/// Default of [`RelayOptions::state`].
const STATE: StateLimits = StateLimits { clients: 256 * 1024 * 1024, peers: 128 * 1024 * 1024 };
/// Divisor of the client limit: the share of it for routes whose session is gone, and the same for logs that
/// linger without readers.
const STALE_SHARE: u64 = 8;
/// Default of [`RelayOptions::stream_sockets`], for the most common limit of 1,024 descriptors.
const STREAM_SOCKETS: usize = 768;

/// Settings of a relay. [`RelayOptions::new`] sets defaults.
#[derive(Clone)]
pub struct RelayOptions {
    /// Address to listen on. Port 0 takes any free one; an unspecified IPv6 address includes IPv4.
    pub bind: SocketAddr,
    /// With a `bind` of 127.0.0.1: also listen on ::1, if the machine has IPv6.
    pub loopback_v6: bool,
    /// Worker threads, each with its own socket, endpoint and sessions. Default: one per core.
    pub workers: usize,
    /// Source of the TLS certificate.
    pub resolver: Arc<dyn ResolvesServerCert>,
    /// Trust anchors for client certificates; `None` requests none.
    pub clients: Option<Arc<Clients>>,
    /// TLS session tickets. Renew them when the certificate changes, so that earlier sessions cannot be
    /// resumed.
    pub tickets: Arc<Tickets>,
    /// Key for reset tokens and connection ids, which must be stable over restarts.
    pub secret: [u8; 32],
    /// QUIC settings.
    pub tuning: QuicTuning,
    /// Authorizer of sessions, such as a `relay_auth::Policy`.
    pub gate: Arc<dyn Gate>,
    /// Source of the time of day, for the expiry of permits. Default: the system clock.
    pub wall: WallClock,
    /// Hop id of the relay. Anonymous by default; give each relay its own.
    pub hop: Hop,
    /// Time that the path of a vanished publisher is kept.
    pub linger: Duration,
    /// Target size of the group cache, bytes.
    pub cache_bytes: u64,
    /// Hard limit on the group cache, bytes: past it even the latest groups are evicted.
    pub memory_bytes: u64,
    /// Limits on the memory of sessions without payload, bytes: above three quarters the largest are closed.
    pub state: StateLimits,
    /// Longest time that a superseded group is cached.
    pub max_age: Duration,
    /// Rule for a second publisher of a path.
    pub takeover: Takeover,
    /// Limits of each session that is not a relay of the same cluster.
    pub session_limits: SessionLimits,
    /// Distribution of datagrams to workers.
    pub steering: Steering,
    /// Limit on stream sockets over all workers; each takes a descriptor.
    pub stream_sockets: usize,
    /// Fault injection, for tests.
    pub fault: Option<Fault>,
}

impl RelayOptions {
    /// Settings with defaults for all but the arguments.
    pub fn new(
        bind: SocketAddr,
        resolver: Arc<dyn ResolvesServerCert>,
        secret: [u8; 32],
        gate: Arc<dyn Gate>,
    ) -> Self {
        Self {
            bind,
            loopback_v6: false,
            workers: thread::available_parallelism().map_or(1, usize::from).min(limits::WORKERS),
            resolver,
            clients: None,
            tickets: Arc::default(),
            secret,
            tuning: QuicTuning::default(),
            gate,
            wall: Arc::new(SystemTime::now),
            hop: Hop::ANONYMOUS,
            linger: limits::LINGER,
            cache_bytes: CACHE_BYTES,
            memory_bytes: MEMORY_BYTES,
            state: STATE,
            max_age: MAX_AGE,
            takeover: Takeover::default(),
            session_limits: SessionLimits::default(),
            steering: Steering::default(),
            stream_sockets: STREAM_SOCKETS,
            fault: None,
        }
    }
}

/// Reason why a relay did not start. The texts are for people.
#[derive(Debug, thiserror::Error)]
pub enum RelayStartError {
    /// The sockets cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificate, its key or the limits are invalid.
    #[error("cannot serve QUIC with this certificate and key: {0}")]
    Quic(#[from] quic::ConfigError),
    /// The kernel refused a poll or a thread.
    #[error("cannot start a worker: {0}")]
    Thread(#[source] io::Error),
}

/// Reason why a relay stopped by itself.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RunError {
    /// A bug in the control plane, whose state cannot be trusted any more.
    #[error("control plane panicked, see the panic logged above; restart the relay and report it")]
    ControlPanicked,
    /// A worker failed.
    #[error("worker {worker} failed: {reason}; restart the relay")]
    Worker {
        /// Index of the worker.
        worker: u16,
        /// Cause.
        reason: String,
    },
}

/// Sizes and counters of a relay.
#[derive(Clone, Debug)]
pub struct RelayCounts {
    /// Counters by worker, at most a quarter of a second old.
    pub workers: Vec<Meter>,
    /// Sizes of the store now.
    pub store: relay_store::StoreCounts,
    /// Memory of sessions now.
    pub state: StateCounts,
    /// Sizes of core after its last event.
    pub core: relay_core::CoreCounts,
    /// Requests refused or dropped by core.
    pub tally: relay_core::CoreTally,
}

impl RelayCounts {
    /// Combines the published counters of the workers, the store, the ledger and core.
    pub(crate) fn of(board: &CounterBoard, store: &Store, ledger: &MemoryLedger, seen: CoreSnapshot) -> Self {
        let CoreSnapshot { counts, tally } = seen;
        let (workers, store, state) = (board.workers(), store.counts(), ledger.counts());
        Self { workers, store, state, core: counts, tally }
    }

    /// Sum of the counters of all workers.
    pub fn total(&self) -> Meter {
        let mut total = Meter::default();
        self.workers.iter().for_each(|worker| total.add(worker));
        total
    }

    /// Connections and sessions refused, for any reason.
    pub fn refused(&self) -> u64 {
        self.total().counters().filter(|(name, _)| name.starts_with("refused_")).map(|(_, count)| count).sum()
    }

    /// Panics caught in all stages of all workers.
    pub fn panics(&self) -> u64 {
        self.total().counters().filter(|(name, _)| name.starts_with("panics_")).map(|(_, count)| count).sum()
    }
}

impl fmt::Display for RelayCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        write!(
            f,
            "{} sessions, {} broadcasts, {} tracks, {} subscriptions, {} KiB cached, \
             {} frames in, {} deliveries, {} stale routes, {} takeovers held, {} refused, {} panics",
            total.sessions,
            self.store.board_paths,
            self.core.logs,
            self.core.readers,
            self.store.bytes / 1024,
            total.frames_in,
            total.deliveries,
            self.core.stale_routes,
            self.tally.takeover_held,
            self.refused(),
            self.panics(),
        )
    }
}

/// A running relay. Dropping it shuts it down.
pub struct Relay {
    addr: SocketAddr,
    has_loopback_v6: bool,
    buffers: Buffers,
    /// Mailboxes of the workers.
    mailboxes: Vec<Arc<Mailbox>>,
    virtual_worker_handle: VirtualWorkerHandle,
    gate: Arc<dyn Gate>,
    wall: WallClock,
    store: Arc<Store>,
    ledger: Arc<MemoryLedger>,
    seen: Arc<Mutex<CoreSnapshot>>,
    inspector: Inspector,
    threads: Mutex<Option<Threads>>,
    fate: Arc<Fate>,
    ending: AtomicBool,
    pulse: Mutex<Pulse>,
}

struct Threads {
    workers: Vec<JoinHandle<Option<WorkerSocket>>>,
    control: JoinHandle<()>,
    /// Wakes the control thread.
    events: Sender<Vec<CoreEvent>>,
    /// Held until all sockets are closed.
    _lock: GroupLock,
}

/// Outcome of the relay, once it has ended.
#[derive(Default)]
struct Fate {
    end: Mutex<Option<Result<(), RunError>>>,
    known: Condvar,
}

impl Fate {
    /// Sets the outcome unless it is set already.
    fn seal(&self, end: Result<(), RunError>) {
        self.end.lock().get_or_insert(end);
        self.known.notify_all();
    }

    fn wait(&self) -> Result<(), RunError> {
        let mut end = self.end.lock();
        loop {
            if let Some(end) = &*end {
                return end.clone();
            }
            self.known.wait(&mut end);
        }
    }
}

/// Binds the sockets; also returns whether the sockets of 127.0.0.1 include ::1.
fn bind(options: &RelayOptions) -> Result<(SocketGroup, bool), BindError> {
    let RelayOptions { bind, workers, steering, .. } = *options;
    if options.loopback_v6 && bind.ip() == Ipv4Addr::LOCALHOST {
        match socket::bind_loopback(bind.port(), workers, steering) {
            Ok(group) => return Ok((group, true)),
            // No IPv6, or a kernel before 5.7, where binding to a device needs root.
            Err(error) => tracing::debug!(%error, "not listening on ::1"),
        }
    }
    socket::bind(bind, workers, steering).map(|group| (group, false))
}

impl Relay {
    /// Binds the sockets and starts the threads. The relay serves once this returns.
    pub fn start(options: RelayOptions) -> Result<Self, RelayStartError> {
        let (group, has_loopback_v6) = bind(&options)?;
        let workers = group.sockets.len();
        let core = Core::new(relay_core::CoreConfig {
            linger: options.linger,
            takeover: options.takeover,
            stale_bytes: options.state.clients / STALE_SHARE,
            linger_bytes: options.state.clients / STALE_SHARE,
            ..relay_core::CoreConfig::new(options.hop)
        });
        let sockets = (options.stream_sockets / workers.max(1)).max(1);
        let shared = Arc::new(share(options, workers, group.addr)?);
        let reactors: Vec<Reactor> = (0..workers)
            .map(|_| Reactor::new(sockets))
            .collect::<Result<_, _>>()
            .map_err(RelayStartError::Thread)?;
        let mailboxes: Vec<Arc<Mailbox>> =
            reactors.iter().map(|reactor| Arc::new(Mailbox::new(reactor.wake_fn()))).collect();
        let (events, received) = crossbeam_channel::bounded(EVENT_BATCHES);
        let seen = Arc::default();
        let (inspector, questions) = Inspector::new(
            &mailboxes,
            (shared.store.clone(), shared.ledger.clone()),
            shared.board.clone(),
            Arc::clone(&seen),
            shared.started,
        );
        let mut relay = Self {
            addr: group.addr,
            has_loopback_v6,
            buffers: group.buffers,
            mailboxes,
            virtual_worker_handle: VirtualWorkerHandle::new(workers),
            gate: shared.gate.clone(),
            wall: shared.wall.clone(),
            store: shared.store.clone(),
            ledger: shared.ledger.clone(),
            seen,
            threads: Mutex::new(None),
            fate: Arc::default(),
            ending: AtomicBool::new(false),
            inspector,
            pulse: Mutex::new(Pulse::new()),
        };
        relay.ledger.start(relay.sessions());
        relay.gate.started(&relay.sessions());
        let control = relay.spawn_control(core, received, questions)?;
        relay.virtual_worker_handle.open(events.clone());
        let mut threads =
            Threads { workers: Vec::with_capacity(workers), control, events, _lock: group.lock };
        for (index, (reactor, socket)) in reactors.into_iter().zip(group.sockets).enumerate() {
            match relay.spawn_worker(index as u16, reactor, socket, &shared, threads.events.clone()) {
                Ok(worker) => threads.workers.push(worker),
                Err(error) => {
                    *relay.threads.get_mut() = Some(threads);
                    return Err(error);
                }
            }
        }
        *relay.threads.get_mut() = Some(threads);
        Ok(relay)
    }

    /// Local address, with the actual port.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether it also listens on ::1, in addition to [`Self::local_addr`].
    pub fn has_loopback_v6(&self) -> bool {
        self.has_loopback_v6
    }

    /// Kernel buffer sizes of its sockets, compared with the requested ones; logging them is up to the
    /// caller.
    pub fn buffers(&self) -> Buffers {
        self.buffers
    }

    /// Sizes and counters.
    pub fn counts(&self) -> RelayCounts {
        self.inspector.counts()
    }

    /// Handle for changing its sessions.
    pub fn sessions(&self) -> SessionControl {
        SessionControl::new(&self.addressees())
    }

    /// Place for sessions without a connection of a worker; `None` if it is taken already.
    pub fn virtual_worker(&self) -> Option<VirtualWorker> {
        self.virtual_worker_handle.take(&self.store, &self.ledger, &self.gate, &self.wall)
    }

    /// Mailboxes of all owners of sessions, by worker.
    fn addressees(&self) -> Vec<Arc<Mailbox>> {
        self.mailboxes.iter().chain([&self.virtual_worker_handle.mailbox]).cloned().collect()
    }

    /// Handle for status requests, from any thread.
    pub fn inspect(&self) -> Inspector {
        self.inspector.clone()
    }

    /// Entry point for sessions over stream sockets.
    pub fn arrivals(&self) -> AcceptQueue {
        AcceptQueue::new(&self.mailboxes)
    }

    /// Logs and announce board.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Waits until the relay has ended. An error if it ended by itself.
    pub fn join(&self) -> Result<(), RunError> {
        self.fate.wait()
    }

    /// Whether it accepts new sessions; false once it drains, shuts down or has failed.
    pub fn is_ready(&self) -> bool {
        !self.ending.load(Ordering::Relaxed) && self.fate.end.lock().is_none()
    }

    /// Wakes every thread, and returns the names of those without a turn since the last call. For a watchdog
    /// that calls it periodically. Empty while the relay is ending.
    pub fn pulse(&self) -> Vec<String> {
        let threads = self.threads.lock();
        let Some(threads) = &*threads else { return Vec::new() };
        let silent = self.pulse.lock().look();
        // A full channel is a turn that is due anyway.
        let _ = threads.events.try_send(Vec::new());
        self.mailboxes.iter().for_each(|mailbox| mailbox.ring());
        silent
    }

    /// Sets new cache limits, bytes (see [`RelayOptions::cache_bytes`] and [`RelayOptions::memory_bytes`]), and evicts
    /// groups that exceed them or are too old. Call it periodically even without changes: logs without a
    /// writer age too.
    pub fn set_memory(&self, cache_bytes: u64, memory_bytes: u64) {
        self.store.budget().set_limits(cache_bytes, memory_bytes);
        let mut wakes = WakeSet::new();
        self.store.trim(Instant::now(), &mut wakes);
        self.store.wake(&mut wakes, None);
    }

    /// Drains the relay: rejects new sessions, sends GOAWAY to open ones, and closes those that remain, with
    /// `code` and `reason`, in the last three tenths of `window`, one after another, each once its open
    /// groups are sent. Returns when no session is left and all threads have ended, at the latest after
    /// `window`. Does nothing when called again, or after [`Relay::shutdown`].
    pub fn drain(&self, window: Duration, code: SessionCode, reason: &str) {
        let drain = Drain::new(self.mailboxes.len(), code, reason, Instant::now(), window);
        self.end(|| WorkerMessage::Drain(drain.clone()));
    }

    /// Closes every session with `code`, waits up to a second for the closes to be delivered, and ends all
    /// threads. Does nothing when called again.
    pub fn shutdown(&self, code: SessionCode, reason: &str) {
        let (reason, until): (Arc<str>, _) = (reason.into(), Instant::now() + FAREWELL);
        self.end(|| WorkerMessage::Shutdown { code, reason: reason.clone(), until });
    }

    /// Ends every worker by a `letter` and waits for all threads.
    fn end(&self, message: impl Fn() -> WorkerMessage) {
        self.ending.store(true, Ordering::Relaxed);
        let Some(threads) = self.threads.lock().take() else { return };
        for mailbox in &self.mailboxes {
            mailbox.post(&mut vec![message()]);
        }
        // A group's sockets are closed together: the kernel renumbers what is left.
        let sockets: Vec<_> = threads.workers.into_iter().map(JoinHandle::join).collect();
        drop(sockets);
        self.virtual_worker_handle.close(message());
        // Core ends once the last sender of events is dropped.
        drop(threads.events);
        if threads.control.join().is_err() {
            self.fate.seal(Err(RunError::ControlPanicked));
        }
        self.fate.seal(Ok(()));
    }

    fn spawn_control(
        &self,
        core: Core,
        events: Receiver<Vec<CoreEvent>>,
        questions: Receiver<CoreQuery>,
    ) -> Result<JoinHandle<()>, RelayStartError> {
        let beats = self.pulse.lock().follow("control");
        let control = ControlThread::new(
            core,
            (self.store.clone(), self.ledger.clone()),
            self.addressees(),
            self.seen.clone(),
            questions,
            beats,
        );
        let fate = self.fate.clone();
        spawn("control".to_owned(), move || {
            if catch_unwind(AssertUnwindSafe(|| control.run(&events))).is_err() {
                tracing::error!("control plane panicked; restart the relay");
                fate.seal(Err(RunError::ControlPanicked));
            }
        })
    }

    fn spawn_worker(
        &self,
        index: u16,
        reactor: Reactor,
        socket: WorkerSocket,
        shared: &Arc<WorkerShared>,
        events: Sender<Vec<CoreEvent>>,
    ) -> Result<JoinHandle<Option<WorkerSocket>>, RelayStartError> {
        let id = WorkerId(index);
        let (shared, fate) = (shared.clone(), self.fate.clone());
        let mailbox = self.mailboxes.get(usize::from(index)).cloned();
        self.store.ready_list(id).set_waker(reactor.wake_fn());
        let name = format!("worker-{index}");
        let beats = self.pulse.lock().follow(&name);
        spawn(name, move || {
            let mailbox = mailbox?;
            let mtu_discovery = socket.never_fragments();
            // Sessions hold thread-local state, so the worker is created on its own thread.
            let ended = catch_unwind(AssertUnwindSafe(|| {
                let worker = Worker::new(id, shared, mailbox.clone(), events, mtu_discovery, Instant::now());
                reactor.run(worker, socket, &beats)
            }));
            mailbox.close();
            let (socket, reason) = match ended {
                Ok((socket, Ok(()))) => return Some(socket),
                Ok((socket, Err(error))) => (Some(socket), error.to_string()),
                Err(_) => (None, "panicked outside of its turn".to_owned()),
            };
            tracing::error!(worker = index, reason, "worker failed; restart the relay");
            fate.seal(Err(RunError::Worker { worker: index, reason }));
            socket
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shutdown(SessionCode::NONE, "going away");
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("addr", &self.addr).finish_non_exhaustive()
    }
}

/// Creates the shared state of the workers from the options.
fn share(options: RelayOptions, workers: usize, local: SocketAddr) -> Result<WorkerShared, RelayStartError> {
    let tls = ServerTls { resolver: options.resolver, clients: options.clients, tickets: options.tickets };
    let quic = quic::QuicConfig::new(tls, &options.secret, workers as u16, &options.tuning)?;
    let store = Store::new(relay_store::StoreConfig {
        workers,
        capacity: options.cache_bytes,
        ceiling: options.memory_bytes.max(options.cache_bytes),
        max_age: options.max_age,
    });
    Ok(WorkerShared {
        quic,
        store,
        ledger: MemoryLedger::new(options.state),
        gate: options.gate,
        wall: options.wall,
        local,
        hop: options.hop,
        started: Instant::now(),
        limits: options.session_limits,
        board: Arc::new(CounterBoard::new(workers)),
        fault: options.fault,
    })
}

fn spawn<T: Send + 'static>(
    name: String,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, RelayStartError> {
    thread::Builder::new().name(name).spawn(run).map_err(RelayStartError::Thread)
}

#[cfg(test)]
mod tests;
