//! Status requests to a worker, and its answers.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use relay_meter::Worker as Meter;
use relay_model::{Path, SessionId, WorkerId};

use crate::admission::CloseReason;

/// Limit on sessions in a list of one worker, so that it fits a turn.
pub const SESSIONS_LISTED: usize = 1_000;

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
        /// Code and reason of the close.
        close: CloseReason,
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
    /// Creates a callback that frees `slot` once it is called or dropped.
    pub(crate) fn new(tell: Arc<dyn Fn(T) + Send + Sync>, slot: InFlightSlot) -> Self {
        Self { tell, slot: Arc::new(slot) }
    }

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

/// Slot of an unanswered request to a worker.
pub(crate) struct InFlightSlot(Arc<AtomicUsize>);

impl InFlightSlot {
    /// Takes one of `most` slots that `waiting` counts; `None` if all are taken.
    pub(crate) fn take(waiting: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let free = |taken: usize| (taken < most).then_some(taken + 1);
        waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).ok()?;
        Some(Self(waiting.clone()))
    }
}

impl Drop for InFlightSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
