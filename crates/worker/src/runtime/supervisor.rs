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
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Condvar, Mutex};
use relay_core::{Core, CoreEvent};
use relay_meter::CounterBoard;
use relay_model::{SessionCode, WorkerId};
use relay_store::{Store, WakeSet};
use relay_transport::quic::{self, ServerTls};

use super::{
    accept_queue::AcceptQueue,
    control::ControlThread,
    counts::RelayCounts,
    inspector::{CoreQuery, Inspector},
    liveness::Pulse,
    options::RelayOptions,
    planes::SharedPlanes,
    reactor::Reactor,
    virtual_worker::{VirtualWorker, VirtualWorkerHandle},
};
use crate::{
    admission::CloseReason,
    engine::{Worker, WorkerShared},
    gate::{Gate, WallClock},
    ledger::MemoryLedger,
    mailbox::{Drain, Mailbox, WorkerMessage},
    session_control::SessionControl,
    socket::{self, BindError, Buffers, GroupLock, SocketGroup, WorkerSocket},
};

/// Longest wait of a shutdown for the closes to reach the peers.
const FAREWELL: Duration = Duration::from_secs(1);
/// Event batches queued for core; more are kept by their workers.
const EVENT_BATCHES: usize = 1_024;
/// Divisor of the client limit: the share of it for routes whose session is gone, and the same for logs that
/// linger without readers.
const STALE_SHARE: u64 = 8;

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
    planes: SharedPlanes,
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
        let planes = SharedPlanes::new(shared.store.clone(), shared.ledger.clone());
        let (inspector, questions) =
            Inspector::new(&mailboxes, planes.clone(), shared.board.clone(), shared.started);
        let mut relay = Self {
            addr: group.addr,
            has_loopback_v6,
            buffers: group.buffers,
            mailboxes,
            virtual_worker_handle: VirtualWorkerHandle::new(workers),
            gate: shared.gate.clone(),
            wall: shared.wall.clone(),
            planes,
            threads: Mutex::new(None),
            fate: Arc::default(),
            ending: AtomicBool::new(false),
            inspector,
            pulse: Mutex::new(Pulse::new()),
        };
        relay.planes.ledger.start(relay.sessions());
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
        self.virtual_worker_handle.take(&self.planes.store, &self.planes.ledger, &self.gate, &self.wall)
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
        &self.planes.store
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

    /// Sets new cache limits, bytes (see [`CacheLimits`](super::CacheLimits)), and evicts
    /// groups that exceed them or are too old. Call it periodically even without changes: logs without a
    /// writer age too.
    pub fn set_memory(&self, cache_bytes: u64, memory_bytes: u64) {
        self.planes.store.budget().set_limits(cache_bytes, memory_bytes);
        let mut wakes = WakeSet::new();
        self.planes.store.trim(Instant::now(), &mut wakes);
        self.planes.store.wake(&mut wakes, None);
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
        let (close, until) = (CloseReason::new(code, reason), Instant::now() + FAREWELL);
        self.end(|| WorkerMessage::Shutdown { close: close.clone(), until });
    }

    /// Ends every worker by a `message` and waits for all threads.
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
        let control = ControlThread::new(core, self.planes.clone(), self.addressees(), questions, beats);
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
        self.planes.store.ready_list(id).set_waker(reactor.wake_fn());
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
        capacity: options.cache.capacity,
        ceiling: options.cache.ceiling.max(options.cache.capacity),
        max_age: options.cache.max_age,
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
