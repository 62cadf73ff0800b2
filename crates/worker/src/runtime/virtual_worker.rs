//! Virtual worker for sessions read over HTTP.
//!
//! Such a session is like any other: admitted by the gate, known to core, woken by the store, and ended by a
//! revocation. It has no connection of a worker, so the owner of the virtual worker does a worker's part: sends core
//! its events, executes orders, and reads the logs.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use crossbeam_channel::{Sender, TrySendError};
use parking_lot::Mutex;
use relay_core::CoreEvent;
use relay_model::{SessionId, WorkerId};
use relay_store::Store;

use crate::{
    admission::Denial,
    conn_info::ConnInfo,
    gate::{Gate, GateAnswer, GateClient, SessionEnded, WallClock},
    ledger::MemoryLedger,
    mailbox::{Mailbox, WorkerMessage},
};

type Wake = Arc<dyn Fn() + Send + Sync>;

/// Relay's side of the virtual worker.
pub(crate) struct VirtualWorkerHandle {
    id: WorkerId,
    pub(crate) mailbox: Arc<Mailbox>,
    core: Arc<CoreSender>,
    is_taken: AtomicBool,
}

/// Connection from the virtual worker to core, until the relay ends.
#[derive(Default)]
struct CoreSender {
    events: Mutex<Option<Sender<Vec<CoreEvent>>>>,
    wake: Mutex<Option<Wake>>,
}

impl VirtualWorkerHandle {
    /// Creates the handle with the id after the last of `workers`.
    pub(crate) fn new(workers: usize) -> Self {
        let core = Arc::<CoreSender>::default();
        let woken = core.clone();
        let ring = move || {
            let wake = woken.wake.lock().clone();
            if let Some(wake) = wake {
                wake();
            }
        };
        let mailbox = Arc::new(Mailbox::vacant(Box::new(ring)));
        Self { id: WorkerId(workers as u16), mailbox, core, is_taken: AtomicBool::new(false) }
    }

    /// Connects the virtual worker to core.
    pub(crate) fn open(&self, events: Sender<Vec<CoreEvent>>) {
        *self.core.events.lock() = Some(events);
    }

    /// Disconnects the virtual worker from core, and posts `message` to its owner.
    pub(crate) fn close(&self, message: WorkerMessage) {
        *self.core.events.lock() = None;
        self.mailbox.post(&mut vec![message]);
    }

    /// Returns the virtual worker to its first caller.
    pub(crate) fn take(
        &self,
        store: &Arc<Store>,
        ledger: &Arc<MemoryLedger>,
        gate: &Arc<dyn Gate>,
        wall: &WallClock,
    ) -> Option<VirtualWorker> {
        if self.is_taken.swap(true, Ordering::Relaxed) {
            return None;
        }
        self.mailbox.occupy();
        Some(VirtualWorker {
            id: self.id,
            mailbox: self.mailbox.clone(),
            store: store.clone(),
            ledger: ledger.clone(),
            gate: GateClient::new(gate.clone(), wall.clone(), self.mailbox.clone()),
            core: self.core.clone(),
            next: AtomicU64::new(0),
        })
    }
}

/// Outcome of sending events to core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// Sent.
    Taken,
    /// The queue of core is full: nothing was sent, retry a little later.
    Behind,
    /// Core has ended.
    Gone,
}

/// Virtual worker without a socket, with the id after the last worker.
pub struct VirtualWorker {
    id: WorkerId,
    mailbox: Arc<Mailbox>,
    store: Arc<Store>,
    ledger: Arc<MemoryLedger>,
    gate: GateClient,
    core: Arc<CoreSender>,
    next: AtomicU64,
}

impl VirtualWorker {
    /// Worker id in the store and core.
    pub fn worker(&self) -> WorkerId {
        self.id
    }

    /// The logs and the announce board.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Memory accounting: sessions here are charged too.
    pub fn ledger(&self) -> &Arc<MemoryLedger> {
        &self.ledger
    }

    /// Time of day, for the expiry of permits.
    pub fn wall(&self) -> SystemTime {
        self.gate.wall()
    }

    /// Sets a callback for new messages and store changes, upon which [`VirtualWorker::take_messages`] and the store's ready list
    /// must be read. It runs on other threads and must not block.
    pub fn on_news(&self, wake: impl Fn() + Send + Sync + 'static) {
        let wake: Wake = Arc::new(wake);
        *self.core.wake.lock() = Some(wake.clone());
        self.store.ready_list(self.id).set_waker(Box::new(move || wake()));
        self.mailbox.ring();
    }

    /// Moves the queued messages for sessions here to the end of `out`.
    pub fn take_messages(&self, out: &mut std::collections::VecDeque<WorkerMessage>) {
        self.mailbox.take(out);
    }

    /// Returns a new session id, never reused.
    pub fn session(&self) -> SessionId {
        SessionId::new(self.id, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Asks the gate to admit a session. A late answer arrives as a message. The caller reports the end by
    /// [`VirtualWorker::ended`], once, admitted or not.
    pub fn ask(&self, session: SessionId, conn: ConnInfo) -> GateAnswer {
        self.gate.ask(session, conn).unwrap_or(GateAnswer::Now(Err(Denial::Unavailable)))
    }

    /// Reports the end of a session that the gate was asked about.
    pub fn ended(&self, ended: &SessionEnded<'_>) {
        self.gate.report(ended);
    }

    /// Sends events to core, in order; empties `events` if they were sent.
    pub fn send_events(&self, events: &mut Vec<CoreEvent>) -> SendOutcome {
        if events.is_empty() {
            return SendOutcome::Taken;
        }
        let events_to_core = self.core.events.lock();
        let Some(core) = &*events_to_core else { return SendOutcome::Gone };
        match core.try_send(std::mem::take(events)) {
            Ok(()) => SendOutcome::Taken,
            Err(TrySendError::Full(back)) => {
                *events = back;
                SendOutcome::Behind
            }
            Err(TrySendError::Disconnected(_)) => SendOutcome::Gone,
        }
    }
}

impl fmt::Debug for VirtualWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualWorker").field("worker", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use relay_auth::Policy;
    use relay_model::{Scope, SessionCode};

    use super::*;
    use crate::{admission::CloseReason, ledger::StateLimits};

    fn take(handle: &VirtualWorkerHandle) -> Option<VirtualWorker> {
        let config =
            relay_store::StoreConfig { workers: 1, capacity: 1, ceiling: 1, max_age: Duration::ZERO };
        let ledger = MemoryLedger::new(StateLimits { clients: 1, peers: 1 });
        let gate: Arc<dyn Gate> = Arc::new(Policy::public(Scope::everything(), Scope::everything()));
        let wall: WallClock = Arc::new(|| SystemTime::UNIX_EPOCH);
        handle.take(&Store::new(config), &ledger, &gate, &wall)
    }

    fn closed(id: u64) -> Vec<CoreEvent> {
        vec![CoreEvent::Closed { session: SessionId(id), vanished: false }]
    }

    #[test]
    fn virtual_worker_is_taken_once() {
        let handle = VirtualWorkerHandle::new(3);
        let worker = take(&handle).unwrap();
        assert_eq!(worker.worker(), WorkerId(3));
        assert_ne!(worker.session(), worker.session());
        assert!(take(&handle).is_none());
    }

    #[test]
    fn events_stay_with_the_caller_while_core_is_full() {
        let handle = VirtualWorkerHandle::new(1);
        let worker = take(&handle).unwrap();
        let mut events = closed(1);
        assert_eq!(worker.send_events(&mut events), SendOutcome::Gone, "not connected");
        let (sender, core) = crossbeam_channel::bounded(1);
        handle.open(sender);
        assert_eq!(worker.send_events(&mut events), SendOutcome::Taken);
        assert!(events.is_empty());
        let mut more = closed(2);
        assert_eq!(worker.send_events(&mut more), SendOutcome::Behind);
        assert_eq!(more, closed(2));
        assert_eq!(core.try_recv().unwrap(), closed(1));
        let close = CloseReason::new(SessionCode::NONE, "going away");
        handle.close(WorkerMessage::Shutdown { close, until: std::time::Instant::now() });
        assert_eq!(worker.send_events(&mut more), SendOutcome::Gone);
        let mut messages = std::collections::VecDeque::new();
        worker.take_messages(&mut messages);
        assert!(matches!(messages.pop_front(), Some(WorkerMessage::Shutdown { .. })));
    }
}
