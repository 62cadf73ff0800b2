//! Status requests: current state of a relay, collected on demand only.
//!
//! Sessions are known to their workers, routes and readers to core, groups to the store. An [`Inspector`]
//! asks each of them from any thread, and gets the answer through a callback, at any time or never; no caller
//! blocks. Requests queued at a thread are bounded; further ones are dropped.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use parking_lot::Mutex;
use relay_core::{Listing, ListingQuery};
use relay_meter::{CounterBoard, Worker as Meter};
use relay_model::{LogId, Path, SessionCode, SessionId, WorkerId};
use relay_store::{LogStats, Store};

use crate::{
    control::CoreSnapshot,
    ledger::MemoryLedger,
    mailbox::{Mailbox, WorkerMessage},
    relay::RelayCounts,
};

/// Limit on sessions in a list of one worker, so that it fits a turn.
pub const SESSIONS_LISTED: usize = 1_000;
/// Limit on requests queued at one worker or at core. Reached only if that thread is stalled.
const WAITING: usize = 64;

/// Selection of sessions to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionQuery {
    /// Only sessions whose root is this path or below it.
    pub prefix: Path,
    /// Only sessions with a higher id than this one.
    pub after: Option<SessionId>,
    /// Limit on sessions per worker, lowest ids first; at most [`SESSIONS_LISTED`].
    pub limit: usize,
}

/// Traffic of a worker since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerTraffic {
    /// Bytes received, as counted by the carriers.
    pub bytes_in: u64,
    /// Bytes sent, as counted by the carriers.
    pub bytes_out: u64,
    /// Frames received from publishers.
    pub frames_in: u64,
    /// Frames written to subscribers' streams.
    pub frames_out: u64,
}

impl From<&Meter> for WorkerTraffic {
    fn from(meter: &Meter) -> Self {
        let Meter { bytes_in, bytes_out, frames_in, deliveries, .. } = *meter;
        Self { bytes_in, bytes_out, frames_in, frames_out: deliveries }
    }
}

/// Admitted sessions of one worker that have not ended.
#[derive(Clone, Debug)]
pub struct SessionList {
    /// The worker.
    pub worker: WorkerId,
    /// Time of the list.
    pub at: Instant,
    /// Traffic until then.
    pub traffic: WorkerTraffic,
    /// In id order, up to the limit.
    pub sessions: Vec<SessionSeen>,
    /// Number of matching sessions, regardless of the limit and the starting point.
    pub total: usize,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSeen {
    /// Its id.
    pub id: SessionId,
    /// Address of the peer.
    pub remote: SocketAddr,
    /// Transport, as in the gate's request.
    pub transport: &'static str,
    /// Protocol version, as ALPN or the subprotocol names it.
    pub version: &'static str,
    /// Root that all its paths are relative to.
    pub root: Path,
    /// Time since its first packet.
    pub age: Duration,
    /// Round trip time, if the transport measures it.
    pub rtt: Option<Duration>,
    /// Bytes received, as counted by the carrier.
    pub bytes_in: u64,
    /// Bytes sent, as counted by the carrier.
    pub bytes_out: u64,
    /// Broadcasts it announces.
    pub publishes: usize,
    /// Tracks it subscribes to.
    pub subscriptions: usize,
    /// Announces waiting because the session has reached its limit on routed ones.
    pub surplus: usize,
    /// Announces that were not routed since its start, because of their number or their name.
    pub unrouted: u64,
    /// Memory charged to it, bytes.
    pub memory: u64,
}

/// Handle for status requests to a relay, from any thread.
#[derive(Clone)]
pub struct Inspector {
    workers: Arc<[WorkerHandle]>,
    core: Sender<CoreQuery>,
    store: Arc<Store>,
    ledger: Arc<MemoryLedger>,
    board: Arc<CounterBoard>,
    seen: Arc<Mutex<CoreSnapshot>>,
    started: Instant,
}

/// Request queue of a worker.
struct WorkerHandle {
    mailbox: Arc<Mailbox>,
    /// Number of unanswered requests.
    waiting: Arc<AtomicUsize>,
}

impl Inspector {
    /// Creates an inspector, and the receiver of requests to core.
    pub(crate) fn new(
        mailboxes: &[Arc<Mailbox>],
        (store, ledger): (Arc<Store>, Arc<MemoryLedger>),
        board: Arc<CounterBoard>,
        seen: Arc<Mutex<CoreSnapshot>>,
        started: Instant,
    ) -> (Self, Receiver<CoreQuery>) {
        let handle =
            |mailbox: &Arc<Mailbox>| WorkerHandle { mailbox: mailbox.clone(), waiting: Arc::default() };
        let (core, questions) = crossbeam_channel::bounded(WAITING);
        let workers = mailboxes.iter().map(handle).collect();
        (Self { workers, core, store, ledger, board, seen, started }, questions)
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Start time of the relay.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Sizes and counters of the relay, read without a request to another thread.
    pub fn counts(&self) -> RelayCounts {
        RelayCounts::of(&self.board, &self.store, &self.ledger, *self.seen.lock())
    }

    /// Requests the sessions of every worker. Each calls `reply` once on its own thread, where it must not
    /// block. `reply` is dropped when no call is pending any more.
    pub fn sessions(&self, wanted: SessionQuery, reply: impl Fn(SessionList) + Send + Sync + 'static) {
        let (wanted, reply) = (Arc::new(wanted), Arc::new(reply));
        for handle in &*self.workers {
            let (wanted, reply) = (wanted.clone(), reply.clone());
            handle.ask(|virtual_worker| WorkerQuery::Sessions {
                wanted,
                reply: QueryReply { tell: reply, slot: virtual_worker },
            });
        }
    }

    /// Ends an admitted session; the peer is sent `code` and `reason`, which must not hold secrets. `reply`
    /// is called with whether the session existed, on the worker's thread; it is dropped without a call if
    /// the request cannot be queued.
    pub fn kick(
        &self,
        session: SessionId,
        code: SessionCode,
        reason: &str,
        reply: impl Fn(bool) + Send + Sync + 'static,
    ) {
        let Some(handle) = self.workers.get(usize::from(session.worker().0)) else { return reply(false) };
        let (reason, reply) = (reason.into(), Arc::new(reply));
        handle.ask(|virtual_worker| WorkerQuery::Kick {
            session,
            code,
            reason,
            reply: QueryReply { tell: reply, slot: virtual_worker },
        });
    }

    /// Requests a listing of served broadcasts from core. `reply` is called on the control thread and must
    /// not block; it is dropped without a call if the request cannot be queued.
    pub fn broadcasts(&self, look: ListingQuery, reply: impl FnOnce(Listing) + Send + 'static) {
        let question = CoreQuery { look, reply: Box::new(reply) };
        match self.core.try_send(question) {
            // Core is stalled, or the relay has ended.
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    /// Figures of a log in the store; `None` if it does not exist any more.
    pub fn figures(&self, log: LogId) -> Option<LogStats> {
        self.store.log(log).map(|log| log.figures())
    }
}

impl fmt::Debug for Inspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspector").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl WorkerHandle {
    fn ask(&self, asked: impl FnOnce(Arc<InFlightSlot>) -> WorkerQuery) {
        if let Some(virtual_worker) = InFlightSlot::take(&self.waiting) {
            self.mailbox.post(&mut vec![WorkerMessage::Inspect(asked(Arc::new(virtual_worker)))]);
        }
    }
}

/// Slot of an unanswered request to a worker.
pub(crate) struct InFlightSlot(Arc<AtomicUsize>);

impl InFlightSlot {
    fn take(waiting: &Arc<AtomicUsize>) -> Option<Self> {
        let free = |taken: usize| (taken < WAITING).then_some(taken + 1);
        waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).ok()?;
        Some(Self(waiting.clone()))
    }
}

impl Drop for InFlightSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request to core.
pub(crate) struct CoreQuery {
    /// Selection of broadcasts.
    pub(crate) look: ListingQuery,
    /// Callback for the answer.
    pub(crate) reply: Box<dyn FnOnce(Listing) + Send>,
}

/// A request to a worker.
#[derive(Clone)]
pub enum WorkerQuery {
    /// Lists sessions.
    Sessions {
        /// Selection of sessions.
        wanted: Arc<SessionQuery>,
        /// Callback for the answer.
        reply: QueryReply<SessionList>,
    },
    /// Ends a session; the answer is whether it existed.
    Kick {
        /// Session to end.
        session: SessionId,
        /// Close code.
        code: SessionCode,
        /// Close reason.
        reason: Arc<str>,
        /// Callback for the answer.
        reply: QueryReply<bool>,
    },
}

impl fmt::Debug for WorkerQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sessions { wanted, .. } => f.debug_tuple("Sessions").field(wanted).finish(),
            Self::Kick { session, .. } => f.debug_tuple("Kick").field(session).finish(),
        }
    }
}

/// Callback for a worker's answer.
pub struct QueryReply<T> {
    tell: Arc<dyn Fn(T) + Send + Sync>,
    /// Released once the answer is given.
    slot: Arc<InFlightSlot>,
}

impl<T> QueryReply<T> {
    /// Gives the answer.
    pub(crate) fn give(self, answer: T) {
        (self.tell)(answer);
    }
}

impl<T> Clone for QueryReply<T> {
    fn clone(&self) -> Self {
        Self { tell: self.tell.clone(), slot: self.slot.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_to_a_stalled_worker_are_bounded() {
        let mailbox = Arc::new(Mailbox::new(Box::new(|| {})));
        let store = Store::new(relay_store::StoreConfig {
            workers: 1,
            capacity: 1,
            ceiling: 1,
            max_age: Duration::ZERO,
        });
        let ledger = MemoryLedger::new(crate::ledger::StateLimits { clients: 1, peers: 1 });
        let board = Arc::new(CounterBoard::new(1));
        let (inspector, _questions) = Inspector::new(
            std::slice::from_ref(&mailbox),
            (store, ledger),
            board,
            Arc::default(),
            Instant::now(),
        );
        let alive = Arc::new(());
        let ask = || {
            let held = alive.clone();
            let wanted = SessionQuery { prefix: Path::root(), after: None, limit: 1 };
            inspector.sessions(wanted, move |_| drop(Arc::clone(&held)));
        };
        (0..WAITING + 1).for_each(|_| ask());
        let mut messages = std::collections::VecDeque::new();
        mailbox.take(&mut messages);
        assert_eq!(messages.len(), WAITING);
        assert_eq!(Arc::strong_count(&alive), 1 + WAITING, "dropped requests drop their callback");
        messages.clear();
        ask();
        mailbox.take(&mut messages);
        assert_eq!(messages.len(), 1, "it turns again");
    }
}
