//! HTTP readers as sessions of the relay: admitted by its gate, registered with its core, woken by its store.

mod entry;
mod session;
mod table;

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use relay_core::CoreEvent;
use relay_model::{LogId, Order, SessionCode, SessionId, SubId, WorkerId};
use relay_store::Store;
use relay_worker::{
    Charge, CloseReason, ConnInfo, GateAnswer, SendOutcome, VirtualWorker, mailbox::WorkerMessage,
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::client::origin_of;
use entry::{ReaderEntry, ReaderStatus};
pub(crate) use session::{ReaderRejection, ReaderSession};
use table::ReaderTable;

/// Interval of the expiry check: a reader ends within a second of its permit, even if the wall clock is stepped.
const RECHECK: Duration = Duration::from_millis(500);
/// Pause before events are offered again to core, which had no room for them.
const AGAIN: Duration = Duration::from_millis(5);
/// The one subscription of a reader.
pub(crate) const SUB: SubId = SubId(0);

/// All HTTP readers; a cheap handle.
#[derive(Clone)]
pub(crate) struct HttpReaders(Arc<ReadersInner>);

struct ReadersInner {
    worker: VirtualWorker,
    table: Mutex<ReaderTable>,
    /// Events to send to core, in order.
    events: Mutex<Vec<CoreEvent>>,
    /// Wakes the task of the readers.
    wake: Notify,
    boot: u64,
}

impl HttpReaders {
    /// Starts the readers of `worker`, in a task of the current runtime.
    pub(crate) fn start(worker: VirtualWorker) -> Self {
        let boot = RandomState::new().hash_one(worker.wall());
        let (table, events, wake) = Default::default();
        let readers = Self(Arc::new(ReadersInner { worker, table, events, wake, boot }));
        let woken = Arc::downgrade(&readers.0);
        readers.0.worker.on_news(move || {
            if let Some(inner) = woken.upgrade() {
                inner.wake.notify_one();
            }
        });
        tokio::spawn(readers.clone().run());
        readers
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        self.0.worker.store()
    }

    /// Number that differs after each start, so that cached answers of one relay are not taken for another's.
    pub(crate) fn boot(&self) -> u64 {
        self.0.boot
    }

    /// Worker id of the readers in the store.
    pub(crate) fn worker(&self) -> WorkerId {
        self.0.worker.worker()
    }

    /// Asks the gate to admit a reader.
    pub(crate) async fn admit(&self, conn: ConnInfo) -> Result<ReaderSession, ReaderRejection> {
        self.admit_noting(conn, &mut false).await
    }

    /// The same; sets `is_later` if the gate did not answer at once, as when it asks a server.
    pub(crate) async fn admit_noting(
        &self,
        conn: ConnInfo,
        is_later: &mut bool,
    ) -> Result<ReaderSession, ReaderRejection> {
        let worker = &self.0.worker;
        let (id, remote) = (worker.session(), conn.remote.ip());
        let entry = Arc::new(ReaderEntry::new(id, origin_of(remote)));
        {
            let mut table = self.0.table.lock();
            if table.is_over {
                return Err(ReaderRejection::Leaving);
            }
            if worker.ledger().is_full() || !table.enter(&entry) {
                return Err(ReaderRejection::Full);
            }
        }
        let charge = worker.ledger().open(id, remote);
        let mut session = ReaderSession::new(self.clone(), entry.clone(), charge);
        // Before the question: a late answer may come at once.
        entry.begin_waiting(Instant::now());
        match worker.ask(id, conn) {
            GateAnswer::Now(answer) => entry.answer(answer, worker.wall()),
            GateAnswer::Later => {
                *is_later = true;
                entry.wait_for_answer().await;
            }
        }
        session.start()?;
        Ok(session)
    }

    /// Whether new connections are refused for lack of memory.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        self.0.worker.ledger().is_full()
    }

    /// Opens a charge for a connection from `address`; `exceeded` is notified when it must be closed.
    pub(crate) fn charge_connection(&self, address: IpAddr, exceeded: Arc<Notify>) -> (SessionId, Charge) {
        let id = self.0.worker.session();
        self.0.table.lock().connections.insert(id, exceeded);
        (id, self.0.worker.ledger().open_pending(id, address))
    }

    /// Removes a connection that has ended.
    pub(crate) fn forget_connection(&self, id: SessionId) {
        self.0.table.lock().connections.remove(&id);
    }

    async fn run(self) {
        let (mut messages, mut logs) = (VecDeque::new(), Vec::new());
        let mut checked = Instant::now();
        loop {
            // A stepped wall clock gives no notice: it is read periodically.
            let _ = timeout(RECHECK, self.0.wake.notified()).await;
            self.0.worker.take_messages(&mut messages);
            messages.drain(..).for_each(|message| self.handle_message(message));
            let is_board = self.store().ready_list(self.worker()).take(&mut logs);
            self.notify_readers(&mut logs, is_board);
            if checked.elapsed() >= RECHECK {
                checked = Instant::now();
                self.expire(self.0.worker.wall());
            }
            self.send_events().await;
        }
    }

    /// Sends the queued events to core.
    async fn send_events(&self) {
        let outcome = {
            let mut events = self.0.events.lock();
            self.0.worker.send_events(&mut events)
        };
        match outcome {
            SendOutcome::Taken => {}
            SendOutcome::Behind => {
                self.0.wake.notify_one();
                sleep(AGAIN).await;
            }
            SendOutcome::Gone => self.end_all(),
        }
    }

    fn push(&self, event: CoreEvent) {
        self.0.events.lock().push(event);
        self.0.wake.notify_one();
    }

    fn notify_readers(&self, logs: &mut Vec<LogId>, is_board: bool) {
        let table = self.0.table.lock();
        for log in logs.drain(..) {
            table.notify_log(log);
        }
        if is_board {
            table.notify_watchers();
        }
    }

    fn handle_message(&self, message: WorkerMessage) {
        match message {
            WorkerMessage::Answer(session, answer) => {
                let wall = self.0.worker.wall();
                self.with_reader(session, |entry| entry.answer(answer, wall));
            }
            WorkerMessage::Revise(session, permit) => {
                self.with_reader(session, |entry| entry.revise(permit, |event| self.push(event)));
            }
            WorkerMessage::End { session, close } => self.end(session, close),
            WorkerMessage::EndWhere { filter, close } => {
                self.every().iter().for_each(|entry| entry.revoke_where(&filter, &close));
            }
            WorkerMessage::Order(session, order) => self.handle_order(session, order),
            // A reader has few asks in flight; the other messages are for workers.
            WorkerMessage::AsksDone(..)
            | WorkerMessage::Inspect(_)
            | WorkerMessage::Arrive(_)
            | WorkerMessage::Link(..)
            | WorkerMessage::Unlinked(_) => {}
            // Sent when the relay ends.
            WorkerMessage::Drain(_) | WorkerMessage::Shutdown { .. } => self.end_all(),
        }
    }

    fn handle_order(&self, session: SessionId, order: Order) {
        match order {
            Order::Attach { log, .. } => self.change(session, |status| status.served = Some(Ok(log))),
            Order::Refuse { code, .. } => self.change(session, |status| status.served = Some(Err(code))),
            Order::Kill { code, reason } => {
                self.change(session, |status| status.admission.close(CloseReason::new(code, reason)));
            }
            // Orders for publishers.
            Order::Open { .. }
            | Order::Prefs { .. }
            | Order::Close { .. }
            | Order::Asked { .. }
            | Order::Pull { .. }
            | Order::DropPull { .. } => {}
        }
    }

    /// Ends a reader, or closes a connection above its share.
    fn end(&self, session: SessionId, close: CloseReason) {
        if let Some(exceeded) = self.0.table.lock().connections.get(&session) {
            exceeded.notify_one();
            return;
        }
        self.change(session, |status| {
            if close.code == SessionCode::MEMORY_SHARE {
                status.admission.close(close);
            } else {
                status.admission.revoke(close);
            }
        });
    }

    fn every(&self) -> Vec<Arc<ReaderEntry>> {
        self.0.table.lock().all.values().cloned().collect()
    }

    fn with_reader(&self, session: SessionId, run: impl FnOnce(&ReaderEntry)) {
        let entry = self.0.table.lock().all.get(&session).cloned();
        if let Some(entry) = entry {
            run(&entry);
        }
    }

    fn change(&self, session: SessionId, change: impl FnOnce(&mut ReaderStatus)) {
        self.with_reader(session, |entry| entry.change(change));
    }

    fn expire(&self, wall: SystemTime) {
        self.every().iter().for_each(|entry| entry.expire(wall));
    }

    fn end_all(&self) {
        self.0.table.lock().is_over = true;
        let close = CloseReason::new(SessionCode::NONE, "going away");
        for entry in self.every() {
            entry.change(|status| status.admission.close(close.clone()));
        }
    }
}
