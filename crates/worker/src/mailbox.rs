//! Messages of other threads to a worker.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use relay_auth::Permit;
use relay_model::{Order, SessionCode, SessionId};

use crate::{
    accept::{AdmittedSocket, PendingAccept},
    admission::{CloseReason, Denial, PermitFilter},
    query::WorkerQuery,
};

/// Start of the wind-down within the window of a drain, percent.
const WIND_DOWN_PERCENT: u32 = 70;
/// Longest drain. Longer ones are cut, as later deadlines may overflow the clock.
const LONGEST_DRAIN: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Time within the window at which the remaining sessions are closed, percent.
const CLOSE_PERCENT: u32 = 95;

/// One message to a worker.
#[derive(Debug)]
pub enum WorkerMessage {
    /// Order of core to a session.
    Order(SessionId, Order),
    /// Number of requests of a session that core has handled.
    AsksDone(SessionId, u32),
    /// Late answer of the gate.
    Answer(SessionId, Result<Permit, Denial>),
    /// New connection over a stream socket.
    Arrive(Box<PendingAccept>),
    /// Socket of an admitted session.
    Link(SessionId, Box<AdmittedSocket>),
    /// Notice that a session gets no socket.
    Unlinked(SessionId),
    /// New permit of a session.
    Revise(SessionId, Permit),
    /// Ends an admitted session.
    End {
        /// Affected session.
        session: SessionId,
        /// Code and reason of the close.
        close: CloseReason,
    },
    /// Ends every session whose permit matches.
    EndWhere {
        /// Filter for permits.
        filter: PermitFilter,
        /// Code and reason of the close.
        close: CloseReason,
    },
    /// Status request.
    Inspect(WorkerQuery),
    /// Rejects new sessions, sends GOAWAY to all others, closes those that stay, and ends the worker once
    /// none is left.
    Drain(Drain),
    /// Closes all sessions at once, rejects new ones, and ends the worker once all is sent or time is up.
    Shutdown {
        /// Code and reason of the close.
        close: CloseReason,
        /// Latest time of the worker's end.
        until: Instant,
    },
}

/// Plan of a graceful drain.
#[derive(Clone, Debug)]
pub struct Drain {
    /// Workers that still have sessions. A worker without any stays until all have none: new connections to
    /// its socket must be refused, not left without an answer.
    pub busy: Arc<AtomicUsize>,
    /// Code and reason of the close of sessions that stay.
    pub close_reason: CloseReason,
    /// Start of the wind-down: remaining sessions, one after another, begin no more groups.
    pub wind_down: Instant,
    /// Time at which the remaining sessions are closed.
    pub close: Instant,
    /// Latest time of the worker's end.
    pub until: Instant,
}

impl Drain {
    /// Plans a drain of `workers` from `now` to the end of `window`. Most of the window is for sessions that
    /// leave on GOAWAY, the last three tenths for the others, the end of it for the closes to arrive.
    pub fn new(workers: usize, code: SessionCode, reason: &str, now: Instant, window: Duration) -> Self {
        let window = window.min(LONGEST_DRAIN);
        let at = |percent: u32| now + window / 100 * percent;
        let (wind_down, close) = (at(WIND_DOWN_PERCENT), at(CLOSE_PERCENT));
        let busy = Arc::new(AtomicUsize::new(workers));
        let close_reason = CloseReason::new(code, reason);
        Self { busy, close_reason, wind_down, close, until: now + window }
    }

    /// Start of the wind-down of session `place` of `count`: staggered, so that they do not all look for
    /// another relay at once. Publishers follow after all others, which still have to finish groups from
    /// them.
    pub fn turn_of(&self, place: usize, count: usize, publishes: bool) -> Instant {
        let half = self.close.saturating_duration_since(self.wind_down) / 2;
        let (from, span) = if publishes { (self.wind_down + half, half / 2) } else { (self.wind_down, half) };
        let share = place as f64 / count.max(1) as f64;
        from + span.mul_f64(share.clamp(0.0, 1.0))
    }
}

/// Mailbox of a worker, which takes all messages at once and is woken once for all of them.
pub struct Mailbox {
    /// `None`: the worker is not running yet, or any more.
    messages: Mutex<Option<Vec<WorkerMessage>>>,
    wake: Box<dyn Fn() + Send + Sync>,
    /// Connections of the worker.
    load: AtomicUsize,
}

impl Mailbox {
    /// Creates a mailbox whose `wake` wakes the worker.
    pub fn new(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { messages: Mutex::new(Some(Vec::new())), wake, load: AtomicUsize::new(0) }
    }

    /// Creates a mailbox without a reader, which drops messages until [`Self::occupy`].
    pub(crate) fn vacant(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { messages: Mutex::new(None), ..Self::new(wake) }
    }

    /// Keeps messages from now on.
    pub(crate) fn occupy(&self) {
        self.messages.lock().get_or_insert_default();
    }

    /// Adds `messages`, leaving the vector empty, and wakes the worker unless messages were already queued.
    pub fn post(&self, messages: &mut Vec<WorkerMessage>) {
        if messages.is_empty() {
            return;
        }
        let was_empty = {
            let mut held = self.messages.lock();
            held.as_mut().map(|held| {
                let was_empty = held.is_empty();
                held.append(messages);
                was_empty
            })
        };
        let Some(was_empty) = was_empty else {
            // After the lock is released: dropping a message may post.
            messages.clear();
            return;
        };
        if was_empty {
            (self.wake)();
        }
    }

    /// Wakes the worker without a message, so that it takes a turn.
    pub fn ring(&self) {
        (self.wake)();
    }

    /// Moves everything to the end of `out`.
    pub fn take(&self, out: &mut VecDeque<WorkerMessage>) {
        if let Some(held) = &mut *self.messages.lock()
            && !held.is_empty()
        {
            out.extend(held.drain(..));
        }
    }

    /// Drops all messages, queued and future ones.
    pub fn close(&self) {
        let held = self.messages.lock().take();
        drop(held);
    }

    /// Connections of the worker after its last turn, and those sent to it since.
    pub fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    pub(crate) fn add_load(&self) {
        self.load.fetch_add(1, Ordering::Relaxed);
    }

    /// Updates the number of connections.
    pub(crate) fn set_load(&self, connections: usize) {
        self.load.store(connections, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox")
            .field("messages", &self.messages.lock().as_ref().map(Vec::len))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wake_for_all_letters_until_they_are_taken() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let count = wakes.clone();
        let mailbox = Mailbox::new(Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        let message = || vec![WorkerMessage::AsksDone(SessionId(1), 1)];
        mailbox.post(&mut Vec::new());
        assert_eq!(wakes.load(Ordering::Relaxed), 0);
        mailbox.post(&mut message());
        mailbox.post(&mut message());
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        let mut taken = VecDeque::new();
        mailbox.take(&mut taken);
        assert_eq!(taken.len(), 2);
        mailbox.post(&mut message());
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
    }
}
