//! The supervisor: makes sockets, threads and what they share; ends them together.

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
use relay_core::{Core, Event, Takeover};
use relay_meter::{Board, Worker as Meter};
use relay_model::{
    Hop, SessionCode, WorkerId,
    limits::{self, SessionLimits},
};
use relay_store::{Rings, Store};
use relay_transport::quic::{self, Clients, Tickets, Tls, Tuning};
use rustls::server::ResolvesServerCert;

use crate::{
    arrival::Arrivals,
    control::{Control, Seen},
    engine::{Fault, Shared, Worker},
    gate::{Gate, Sessions, WallClock},
    inspect::{Inspector, Question},
    ledger::{Ledger, StateCounts, StateLimits},
    mailbox::{Drain, Letter, Mailbox},
    pulse::Pulse,
    run::Reactor,
    seat::{Desk, Seat},
    socket::{self, BindError, Buffers, Group, GroupLock, Socket, Steering},
};

/// How long a shutdown waits for peers to hear of it.
const FAREWELL: Duration = Duration::from_secs(1);
/// Turns' worth of events that wait for core; more wait with their worker.
const EVENT_BATCHES: usize = 1_024;
/// Default of [`Options::max_age`].
const MAX_AGE: Duration = Duration::from_secs(30);
/// Default of [`Options::cache_bytes`].
const CACHE_BYTES: u64 = 256 * 1024 * 1024;
/// Default of [`Options::memory_bytes`].
const MEMORY_BYTES: u64 = 512 * 1024 * 1024;
/// Default of [`Options::state`].
const STATE: StateLimits = StateLimits { clients: 256 * 1024 * 1024, peers: 128 * 1024 * 1024 };
/// Part of the limit of clients that routes may take whose session is gone.
const GHOST_SHARE: u64 = 8;
/// Default of [`Options::stream_sockets`]: what the least common limit of 1,024 descriptors leaves.
const STREAM_SOCKETS: usize = 768;

/// What a relay is made from. [`Options::new`] gives defaults for all that has one.
#[derive(Clone)]
pub struct Options {
    /// Where to listen. Port 0 takes any free one; an unspecified v6 address takes v4 too.
    pub bind: SocketAddr,
    /// With a `bind` of 127.0.0.1: listen on ::1 as well, where the machine has it.
    pub loopback_v6: bool,
    /// Threads, each with its own socket, endpoint and sessions. Default: one a core.
    pub workers: usize,
    /// Gives the certificate.
    pub resolver: Arc<dyn ResolvesServerCert>,
    /// Whose certificates clients may show; `None` asks for none.
    pub clients: Option<Arc<Clients>>,
    /// To be renewed by whoever changes the certificate: nobody resumes a session of before then.
    pub tickets: Arc<Tickets>,
    /// Stable over restarts: what reset tokens and connection ids are derived from.
    pub secret: [u8; 32],
    /// Knobs of QUIC.
    pub tuning: Tuning,
    /// Who decides who may come in: a `relay_auth::Policy`, or whoever asks others.
    pub gate: Arc<dyn Gate>,
    /// Gives the time of day, by which permits end. Default: the system's.
    pub wall: WallClock,
    /// The relay's own hop. Anonymous by default: give each relay one of its own.
    pub hop: Hop,
    /// How long a vanished publisher keeps its path.
    pub linger: Duration,
    /// What the cache of groups aims at, bytes.
    pub cache_bytes: u64,
    /// Where even the latest groups are let go, bytes.
    pub memory_bytes: u64,
    /// Memory of sessions beside payload, bytes: above three quarters the largest are closed.
    pub state: StateLimits,
    /// How long a superseded group is held at most.
    pub max_age: Duration,
    /// Who may publish a path that somebody publishes already.
    pub takeover: Takeover,
    /// Limits of each session that is no relay of the same cluster.
    pub session_limits: SessionLimits,
    /// How datagrams find their worker.
    pub steering: Steering,
    /// Most stream sockets of sessions, all workers together: each takes a descriptor.
    pub stream_sockets: usize,
    /// Fault injection, for tests.
    pub fault: Option<Fault>,
}

impl Options {
    /// Defaults around what has none.
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
            tuning: Tuning::default(),
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

/// Why a relay did not start. The texts are for people.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The sockets could not be made.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificate, its key or the limits are no good.
    #[error("cannot serve QUIC with this certificate and key ({0})")]
    Quic(#[from] quic::ConfigError),
    /// The kernel gave no poll or thread.
    #[error("cannot start a worker ({0})")]
    Thread(#[source] io::Error),
}

/// Why a relay stopped without being asked to.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RunError {
    /// A bug in the control plane: what it held cannot be trusted any more.
    #[error("the control plane panicked; the panic above says where; restart the relay and report it")]
    ControlPanicked,
    /// A worker cannot go on.
    #[error("worker {worker} failed: {reason}; restart the relay")]
    Worker {
        /// Which one.
        worker: u16,
        /// Why.
        reason: String,
    },
}

/// What a relay holds and has done.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Each worker's counters, at most a quarter of a second old.
    pub workers: Vec<Meter>,
    /// What the store holds now.
    pub store: relay_store::Counts,
    /// Memory of sessions now.
    pub state: StateCounts,
    /// What core held after its last event.
    pub core: relay_core::Counts,
    /// What core refused or dropped.
    pub tally: relay_core::Tally,
}

impl Counts {
    /// As workers published it, as the store holds it, as core was last seen.
    pub(crate) fn of(board: &Board, store: &Store, ledger: &Ledger, seen: Seen) -> Self {
        let Seen { counts, tally } = seen;
        let (workers, store, state) = (board.workers(), store.counts(), ledger.counts());
        Self { workers, store, state, core: counts, tally }
    }

    /// The counters of all workers together.
    pub fn total(&self) -> Meter {
        let mut total = Meter::default();
        self.workers.iter().for_each(|worker| total.add(worker));
        total
    }

    /// Connections and sessions refused, for whatever reason.
    pub fn refused(&self) -> u64 {
        self.total().counters().filter(|(name, _)| name.starts_with("refused_")).map(|(_, count)| count).sum()
    }

    /// Panics caught in all stages of all workers.
    pub fn panics(&self) -> u64 {
        self.total().counters().filter(|(name, _)| name.starts_with("panics_")).map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        write!(
            f,
            "{} sessions, {} broadcasts, {} tracks, {} subscriptions, {} KiB cached, \
             {} frames in, {} deliveries, {} ghosts, {} takeovers held, {} refused, {} panics",
            total.sessions,
            self.store.board_paths,
            self.core.logs,
            self.core.readers,
            self.store.bytes / 1024,
            total.frames_in,
            total.deliveries,
            self.core.ghosts,
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
    /// Of the workers.
    mailboxes: Vec<Arc<Mailbox>>,
    desk: Desk,
    gate: Arc<dyn Gate>,
    wall: WallClock,
    store: Arc<Store>,
    ledger: Arc<Ledger>,
    seen: Arc<Mutex<Seen>>,
    inspector: Inspector,
    threads: Mutex<Option<Threads>>,
    fate: Arc<Fate>,
    ending: AtomicBool,
    pulse: Mutex<Pulse>,
}

struct Threads {
    workers: Vec<JoinHandle<Option<Socket>>>,
    control: JoinHandle<()>,
    /// To make the control thread take a turn.
    events: Sender<Vec<Event>>,
    /// Held until all sockets are closed.
    _lock: GroupLock,
}

/// How the relay ended, once it has.
#[derive(Default)]
struct Fate {
    end: Mutex<Option<Result<(), RunError>>>,
    known: Condvar,
}

impl Fate {
    /// The first one counts.
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

/// The sockets, and whether those of 127.0.0.1 are those of ::1 as well.
fn bind(options: &Options) -> Result<(Group, bool), BindError> {
    let Options { bind, workers, steering, .. } = *options;
    if options.loopback_v6 && bind.ip() == Ipv4Addr::LOCALHOST {
        match socket::bind_loopback(bind.port(), workers, steering) {
            Ok(group) => return Ok((group, true)),
            // No IPv6, or a kernel before 5.7 that leaves the device to root.
            Err(error) => tracing::debug!(%error, "not listening on ::1"),
        }
    }
    socket::bind(bind, workers, steering).map(|group| (group, false))
}

impl Relay {
    /// Binds the sockets and starts the threads. Once it returns, the relay serves.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let (group, has_loopback_v6) = bind(&options)?;
        let workers = group.sockets.len();
        let core = Core::new(relay_core::Config {
            linger: options.linger,
            takeover: options.takeover,
            ghost_bytes: options.state.clients / GHOST_SHARE,
            ..relay_core::Config::new(options.hop)
        });
        let sockets = (options.stream_sockets / workers.max(1)).max(1);
        let shared = Arc::new(share(options, workers, group.addr)?);
        let reactors: Vec<Reactor> = (0..workers)
            .map(|_| Reactor::new(sockets))
            .collect::<Result<_, _>>()
            .map_err(StartError::Thread)?;
        let mailboxes: Vec<Arc<Mailbox>> =
            reactors.iter().map(|reactor| Arc::new(Mailbox::new(reactor.ringer()))).collect();
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
            desk: Desk::new(workers),
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
        relay.desk.open(events.clone());
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

    /// Where it listens; the port is known even if any was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether it listens on ::1 beside [`Self::local_addr`].
    pub fn has_loopback_v6(&self) -> bool {
        self.has_loopback_v6
    }

    /// What its sockets got of the kernel buffers wanted; telling somebody is up to the caller.
    pub fn buffers(&self) -> Buffers {
        self.buffers
    }

    /// What it holds and has done.
    pub fn counts(&self) -> Counts {
        self.inspector.counts()
    }

    /// Its sessions, to act on them.
    pub fn sessions(&self) -> Sessions {
        Sessions::new(&self.addressees())
    }

    /// The seat of sessions that no worker carries; `None` once somebody has taken it.
    pub fn seat(&self) -> Option<Seat> {
        self.desk.take(&self.store, &self.ledger, &self.gate, &self.wall)
    }

    /// Everybody who has sessions, by worker.
    fn addressees(&self) -> Vec<Arc<Mailbox>> {
        self.mailboxes.iter().chain([&self.desk.mailbox]).cloned().collect()
    }

    /// What it holds right now, to be asked from any thread.
    pub fn inspect(&self) -> Inspector {
        self.inspector.clone()
    }

    /// Where sessions over stream sockets come in.
    pub fn arrivals(&self) -> Arrivals {
        Arrivals::new(&self.mailboxes)
    }

    /// Its logs and announce board, to look into.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Waits until the relay has ended. Errors: it was not asked to.
    pub fn join(&self) -> Result<(), RunError> {
        self.fate.wait()
    }

    /// Whether it takes new sessions: not once it drains, shuts down or has failed.
    pub fn is_ready(&self) -> bool {
        !self.ending.load(Ordering::Relaxed) && self.fate.end.lock().is_none()
    }

    /// Asks every thread for a sign of life, and says which have given none since they were last asked: for
    /// a watchdog, which calls it again and again. Nobody is missed while the relay is ending.
    pub fn pulse(&self) -> Vec<String> {
        let threads = self.threads.lock();
        let Some(threads) = &*threads else { return Vec::new() };
        let silent = self.pulse.lock().look();
        // A full channel is a turn that is due anyway.
        let _ = threads.events.try_send(Vec::new());
        self.mailboxes.iter().for_each(|mailbox| mailbox.ring());
        silent
    }

    /// New limits of what is held, bytes (see [`Options::cache_bytes`] and [`Options::memory_bytes`]),
    /// and evicts what is past them or too old. To be called now and then even if nothing changed: logs
    /// that nobody writes to age too.
    pub fn set_memory(&self, cache_bytes: u64, memory_bytes: u64) {
        self.store.budget().set_limits(cache_bytes, memory_bytes);
        let mut rings = Rings::new();
        self.store.trim(Instant::now(), &mut rings);
        self.store.ring(&mut rings, None);
    }

    /// Leaves in order: refuses new sessions, asks those it has to move (GOAWAY), and closes those that
    /// are left in the last three tenths of `window`, one after another, each once what it had begun is
    /// said, with `code` and `reason`. Returns when nobody is left and all threads have ended, at the
    /// latest after `window`. Calling it again, or after [`Relay::shutdown`], does nothing.
    pub fn drain(&self, window: Duration, code: SessionCode, reason: &str) {
        let drain = Drain::new(self.mailboxes.len(), code, reason, Instant::now(), window);
        self.end(|| Letter::Drain(drain.clone()));
    }

    /// Closes every session with `code`, gives the peers up to a second to hear of it, and ends all
    /// threads. Calling it again does nothing.
    pub fn shutdown(&self, code: SessionCode, reason: &str) {
        let (reason, until): (Arc<str>, _) = (reason.into(), Instant::now() + FAREWELL);
        self.end(|| Letter::Shutdown { code, reason: reason.clone(), until });
    }

    /// Has every worker end by a `letter`, and waits for all threads.
    fn end(&self, letter: impl Fn() -> Letter) {
        self.ending.store(true, Ordering::Relaxed);
        let Some(threads) = self.threads.lock().take() else { return };
        for mailbox in &self.mailboxes {
            mailbox.post(&mut vec![letter()]);
        }
        // A group's sockets are closed together: the kernel renumbers what is left.
        let sockets: Vec<_> = threads.workers.into_iter().map(JoinHandle::join).collect();
        drop(sockets);
        self.desk.close(letter());
        // Core ends with the last of those who tell it things.
        drop(threads.events);
        if threads.control.join().is_err() {
            self.fate.seal(Err(RunError::ControlPanicked));
        }
        self.fate.seal(Ok(()));
    }

    fn spawn_control(
        &self,
        core: Core,
        events: Receiver<Vec<Event>>,
        questions: Receiver<Question>,
    ) -> Result<JoinHandle<()>, StartError> {
        let beats = self.pulse.lock().follow("control");
        let control = Control::new(
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
                tracing::error!("the control plane panicked: the relay cannot go on");
                fate.seal(Err(RunError::ControlPanicked));
            }
        })
    }

    fn spawn_worker(
        &self,
        index: u16,
        reactor: Reactor,
        socket: Socket,
        shared: &Arc<Shared>,
        events: Sender<Vec<Event>>,
    ) -> Result<JoinHandle<Option<Socket>>, StartError> {
        let id = WorkerId(index);
        let (shared, fate) = (shared.clone(), self.fate.clone());
        let mailbox = self.mailboxes.get(usize::from(index)).cloned();
        self.store.bell(id).set_ringer(reactor.ringer());
        let name = format!("worker-{index}");
        let beats = self.pulse.lock().follow(&name);
        spawn(name, move || {
            let mailbox = mailbox?;
            let mtu_discovery = socket.never_fragments();
            // Sessions share things within their thread: the worker is made where it lives.
            let ended = catch_unwind(AssertUnwindSafe(|| {
                let worker = Worker::new(id, shared, mailbox.clone(), events, mtu_discovery, Instant::now());
                reactor.run(worker, socket, &beats)
            }));
            mailbox.close();
            let (socket, reason) = match ended {
                Ok((socket, Ok(()))) => return Some(socket),
                Ok((socket, Err(error))) => (Some(socket), error.to_string()),
                Err(_) => (None, "it panicked outside of its turn".to_owned()),
            };
            tracing::error!(worker = index, reason, "a worker failed: the relay cannot go on");
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

/// What workers share, from what the caller asked for.
fn share(options: Options, workers: usize, local: SocketAddr) -> Result<Shared, StartError> {
    let tls = Tls { resolver: options.resolver, clients: options.clients, tickets: options.tickets };
    let quic = quic::Config::new(tls, &options.secret, workers as u16, &options.tuning)?;
    let store = Store::new(relay_store::Config {
        workers,
        capacity: options.cache_bytes,
        ceiling: options.memory_bytes.max(options.cache_bytes),
        max_age: options.max_age,
    });
    Ok(Shared {
        quic,
        store,
        ledger: Ledger::new(options.state),
        gate: options.gate,
        wall: options.wall,
        local,
        hop: options.hop,
        started: Instant::now(),
        limits: options.session_limits,
        board: Arc::new(Board::new(workers)),
        fault: options.fault,
    })
}

fn spawn<T: Send + 'static>(
    name: String,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StartError> {
    thread::Builder::new().name(name).spawn(run).map_err(StartError::Thread)
}

#[cfg(test)]
mod tests;
