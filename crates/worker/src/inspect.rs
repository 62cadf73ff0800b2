//! What a relay holds right now, for whoever looks: asked for, and never kept up to date for nobody.
//!
//! Sessions are known to their workers, routes and readers to core, groups to the store. An [`Inspector`] asks
//! each of them from any thread. Who is asked answers through a callback, in its own time or never: nobody
//! here waits. What waits with a thread that does not turn is bounded, and past that it is not asked.

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
use relay_core::{Listing, Look};
use relay_meter::{Board, Worker as Meter};
use relay_model::{LogId, Path, SessionCode, SessionId, WorkerId};
use relay_store::{Figures, Store};

use crate::{
    control::Seen,
    ledger::Ledger,
    mailbox::{Letter, Mailbox},
    relay::Counts,
};

/// Sessions that a worker lists at most, whatever it is asked: what a turn has time for.
pub const SESSIONS_LISTED: usize = 1_000;
/// Questions that wait for one worker, or for core. More come only when it does not turn.
const WAITING: usize = 64;

/// Which sessions to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Those whose root is this path or lies below it.
    pub prefix: Path,
    /// Only those with an id past this one.
    pub after: Option<SessionId>,
    /// At most so many of each worker, those with the lowest ids; never more than [`SESSIONS_LISTED`].
    pub limit: usize,
}

/// What a worker has moved since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes received, as carriers count.
    pub bytes_in: u64,
    /// Bytes sent, as carriers count.
    pub bytes_out: u64,
    /// Frames received from publishers.
    pub frames_in: u64,
    /// Frames handed to subscribers' streams.
    pub frames_out: u64,
}

impl From<&Meter> for Traffic {
    fn from(meter: &Meter) -> Self {
        let Meter { bytes_in, bytes_out, frames_in, deliveries, .. } = *meter;
        Self { bytes_in, bytes_out, frames_in, frames_out: deliveries }
    }
}

/// The sessions of one worker that were let in and have not ended.
#[derive(Clone, Debug)]
pub struct SessionList {
    /// Whose they are.
    pub worker: WorkerId,
    /// When it looked.
    pub at: Instant,
    /// What it has moved until then.
    pub traffic: Traffic,
    /// By id, as far as the limit went.
    pub sessions: Vec<SessionSeen>,
    /// How many there are, whatever the limit and where the list begins.
    pub total: usize,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionSeen {
    /// Its id.
    pub id: SessionId,
    /// The peer's address.
    pub remote: SocketAddr,
    /// What carries it, as the gate was told.
    pub transport: &'static str,
    /// The protocol version, as ALPN or subprotocol names it.
    pub version: &'static str,
    /// The path all of its paths are relative to.
    pub root: Path,
    /// Since its first packet.
    pub age: Duration,
    /// Round trip time, where the transport knows.
    pub rtt: Option<Duration>,
    /// Bytes received, as the carrier counts.
    pub bytes_in: u64,
    /// Bytes sent, as the carrier counts.
    pub bytes_out: u64,
    /// Broadcasts it announces.
    pub publishes: usize,
    /// Tracks it subscribes to.
    pub subscriptions: usize,
    /// Announces of it that wait, since as many as it may have are routed.
    pub surplus: usize,
    /// Announces of it that were not routed since it began, for their number or their name.
    pub unrouted: u64,
    /// Memory it is charged, bytes.
    pub memory: u64,
}

/// Asks a relay what it holds, from any thread.
#[derive(Clone)]
pub struct Inspector {
    workers: Arc<[Desk]>,
    core: Sender<Question>,
    store: Arc<Store>,
    ledger: Arc<Ledger>,
    board: Arc<Board>,
    seen: Arc<Mutex<Seen>>,
    started: Instant,
}

/// Where a worker is asked.
struct Desk {
    mailbox: Arc<Mailbox>,
    /// Questions it has not answered.
    waiting: Arc<AtomicUsize>,
}

impl Inspector {
    /// Core takes the questions that come out of the receiver.
    pub(crate) fn new(
        mailboxes: &[Arc<Mailbox>],
        (store, ledger): (Arc<Store>, Arc<Ledger>),
        board: Arc<Board>,
        seen: Arc<Mutex<Seen>>,
        started: Instant,
    ) -> (Self, Receiver<Question>) {
        let desk = |mailbox: &Arc<Mailbox>| Desk { mailbox: mailbox.clone(), waiting: Arc::default() };
        let (core, questions) = crossbeam_channel::bounded(WAITING);
        let workers = mailboxes.iter().map(desk).collect();
        (Self { workers, core, store, ledger, board, seen, started }, questions)
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// When the relay began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// What the relay holds and has done, without asking anybody.
    pub fn counts(&self) -> Counts {
        Counts::of(&self.board, &self.store, &self.ledger, *self.seen.lock())
    }

    /// Asks every worker for its sessions. Each answers once, on its own thread: `reply` must not wait. It is
    /// dropped when nobody is left to call it.
    pub fn sessions(&self, wanted: Wanted, reply: impl Fn(SessionList) + Send + Sync + 'static) {
        let (wanted, reply) = (Arc::new(wanted), Arc::new(reply));
        for desk in &*self.workers {
            let (wanted, reply) = (wanted.clone(), reply.clone());
            desk.ask(|seat| Asked::Sessions { wanted, reply: Reply { tell: reply, seat } });
        }
    }

    /// Ends a session that was let in: the peer is told `code` and `reason`, which must hold no secret.
    /// `reply` hears whether there was such a session, on the worker's thread; it is dropped unheard when its
    /// worker cannot be asked.
    pub fn kick(
        &self,
        session: SessionId,
        code: SessionCode,
        reason: &str,
        reply: impl Fn(bool) + Send + Sync + 'static,
    ) {
        let Some(desk) = self.workers.get(usize::from(session.worker().0)) else { return reply(false) };
        let (reason, reply) = (reason.into(), Arc::new(reply));
        desk.ask(|seat| Asked::Kick { session, code, reason, reply: Reply { tell: reply, seat } });
    }

    /// Asks core what is served. `reply` is called on the control thread and must not wait; it is dropped
    /// unheard when core cannot be asked.
    pub fn broadcasts(&self, look: Look, reply: impl FnOnce(Listing) + Send + 'static) {
        let question = Question { look, reply: Box::new(reply) };
        match self.core.try_send(question) {
            // It does not turn, or the relay is over.
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    /// What the store knows of a log; `None`: it is gone.
    pub fn figures(&self, log: LogId) -> Option<Figures> {
        self.store.log(log).map(|log| log.figures())
    }
}

impl fmt::Debug for Inspector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspector").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl Desk {
    fn ask(&self, asked: impl FnOnce(Arc<Seat>) -> Asked) {
        if let Some(seat) = Seat::take(&self.waiting) {
            self.mailbox.post(&mut vec![Letter::Inspect(asked(Arc::new(seat)))]);
        }
    }
}

/// One of the questions a worker may be behind with.
pub(crate) struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(waiting: &Arc<AtomicUsize>) -> Option<Self> {
        let free = |taken: usize| (taken < WAITING).then_some(taken + 1);
        waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).ok()?;
        Some(Self(waiting.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A question to core.
pub(crate) struct Question {
    /// What is asked.
    pub(crate) look: Look,
    /// Takes the answer.
    pub(crate) reply: Box<dyn FnOnce(Listing) + Send>,
}

/// A question to a worker.
#[derive(Clone)]
pub enum Asked {
    /// Which sessions are there?
    Sessions {
        /// Which of them are meant.
        wanted: Arc<Wanted>,
        /// Takes the answer.
        reply: Reply<SessionList>,
    },
    /// End a session, and say whether there was one.
    Kick {
        /// Which one.
        session: SessionId,
        /// What the peer is told.
        code: SessionCode,
        /// The same in words.
        reason: Arc<str>,
        /// Takes the answer.
        reply: Reply<bool>,
    },
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sessions { wanted, .. } => f.debug_tuple("Sessions").field(wanted).finish(),
            Self::Kick { session, .. } => f.debug_tuple("Kick").field(session).finish(),
        }
    }
}

/// Where a worker's answer goes.
pub struct Reply<T> {
    tell: Arc<dyn Fn(T) + Send + Sync>,
    /// Free once the answer is given.
    seat: Arc<Seat>,
}

impl<T> Reply<T> {
    /// The answer.
    pub(crate) fn give(self, answer: T) {
        (self.tell)(answer);
    }
}

impl<T> Clone for Reply<T> {
    fn clone(&self) -> Self {
        Self { tell: self.tell.clone(), seat: self.seat.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_to_a_worker_that_does_not_turn_are_bounded() {
        let mailbox = Arc::new(Mailbox::new(Box::new(|| {})));
        let store =
            Store::new(relay_store::Config { workers: 1, capacity: 1, ceiling: 1, max_age: Duration::ZERO });
        let ledger = Ledger::new(crate::ledger::StateLimits { clients: 1, peers: 1 });
        let board = Arc::new(Board::new(1));
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
            let wanted = Wanted { prefix: Path::root(), after: None, limit: 1 };
            inspector.sessions(wanted, move |_| drop(Arc::clone(&held)));
        };
        (0..WAITING + 1).for_each(|_| ask());
        let mut letters = Vec::new();
        mailbox.take(&mut letters);
        assert_eq!(letters.len(), WAITING);
        assert_eq!(Arc::strong_count(&alive), 1 + WAITING, "who is not asked is told by the drop");
        letters.clear();
        ask();
        mailbox.take(&mut letters);
        assert_eq!(letters.len(), 1, "it turns again");
    }
}
