//! Status requests: current state of a relay, collected on demand only.
//!
//! Sessions are known to their workers, routes and readers to core, groups to the store. An [`Inspector`]
//! asks each of them from any thread, and gets the answer through a callback, at any time or never; no caller
//! blocks. Requests queued at a thread are bounded; further ones are dropped.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicUsize},
    time::Instant,
};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use relay_core::{Listing, ListingQuery};
use relay_meter::CounterBoard;
use relay_model::{LogId, SessionCode, SessionId};
use relay_store::LogStats;

use super::{counts::RelayCounts, planes::SharedPlanes};
use crate::{
    admission::CloseReason,
    mailbox::{Mailbox, WorkerMessage},
    query::{InFlightSlot, QueryReply, SessionList, SessionQuery, WorkerQuery},
};

/// Limit on requests queued at one worker or at core. Reached only if that thread is stalled.
const WAITING: usize = 64;

/// Handle for status requests to a relay, from any thread.
#[derive(Clone)]
pub struct Inspector {
    workers: Arc<[WorkerHandle]>,
    core: Sender<CoreQuery>,
    planes: SharedPlanes,
    board: Arc<CounterBoard>,
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
        planes: SharedPlanes,
        board: Arc<CounterBoard>,
        started: Instant,
    ) -> (Self, Receiver<CoreQuery>) {
        let handle =
            |mailbox: &Arc<Mailbox>| WorkerHandle { mailbox: mailbox.clone(), waiting: Arc::default() };
        let (core, questions) = crossbeam_channel::bounded(WAITING);
        let workers = mailboxes.iter().map(handle).collect();
        (Self { workers, core, planes, board, started }, questions)
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
        RelayCounts::of(&self.board, &self.planes)
    }

    /// Requests the sessions of every worker. Each calls `reply` once on its own thread, where it must not
    /// block. `reply` is dropped when no call is pending any more.
    pub fn sessions(&self, wanted: SessionQuery, reply: impl Fn(SessionList) + Send + Sync + 'static) {
        let (wanted, reply) = (Arc::new(wanted), Arc::new(reply));
        for handle in &*self.workers {
            let (wanted, reply) = (wanted.clone(), reply.clone());
            handle.ask(|slot| WorkerQuery::Sessions { wanted, reply: QueryReply::new(reply, slot) });
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
        let close = CloseReason::new(code, reason);
        handle.ask(|slot| WorkerQuery::Kick {
            session,
            close,
            reply: QueryReply::new(Arc::new(reply), slot),
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
        self.planes.store.log(log).map(|log| log.figures())
    }
}

impl fmt::Debug for Inspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspector").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl WorkerHandle {
    fn ask(&self, query: impl FnOnce(InFlightSlot) -> WorkerQuery) {
        if let Some(slot) = InFlightSlot::take(&self.waiting, WAITING) {
            self.mailbox.post(&mut vec![WorkerMessage::Inspect(query(slot))]);
        }
    }
}

/// A request to core.
pub(crate) struct CoreQuery {
    /// Selection of broadcasts.
    pub(crate) look: ListingQuery,
    /// Callback for the answer.
    pub(crate) reply: Box<dyn FnOnce(Listing) + Send>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use relay_model::Path;
    use relay_store::Store;

    use super::*;
    use crate::ledger::{MemoryLedger, StateLimits};

    #[test]
    fn requests_to_a_stalled_worker_are_bounded() {
        let mailbox = Arc::new(Mailbox::new(Box::new(|| {})));
        let store = Store::new(relay_store::StoreConfig {
            workers: 1,
            capacity: 1,
            ceiling: 1,
            max_age: Duration::ZERO,
        });
        let ledger = MemoryLedger::new(StateLimits { clients: 1, peers: 1 });
        let board = Arc::new(CounterBoard::new(1));
        let (inspector, _questions) = Inspector::new(
            std::slice::from_ref(&mailbox),
            SharedPlanes::new(store, ledger),
            board,
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
