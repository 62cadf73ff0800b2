//! What other threads want of a worker.

use std::{
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
    arrival::{Arrival, Link},
    gate::{Denial, Which},
};

/// Where in the window of a drain sessions begin to wind down, percent.
const WIND_DOWN_PERCENT: u32 = 70;
/// Longer drains are cut to this: nobody waits for longer, and later moments may not fit the clock.
const LONGEST_DRAIN: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Where in it those that are left are closed, percent.
const CLOSE_PERCENT: u32 = 95;

/// One message to a worker.
#[derive(Debug)]
pub enum Letter {
    /// Core wants something of a session.
    Order(SessionId, Order),
    /// Core has taken so many asks of a session.
    AsksDone(SessionId, u32),
    /// Whether a session is let in that waits for that.
    Answer(SessionId, Result<Permit, Denial>),
    /// Somebody comes whose connection is a stream socket.
    Arrive(Box<Arrival>),
    /// The socket of a session.
    Link(SessionId, Box<Link>),
    /// A session gets no socket.
    Unlinked(SessionId),
    /// What a session may do from now on.
    Revise(SessionId, Permit),
    /// End a session that was let in.
    End {
        /// Which one.
        session: SessionId,
        /// What the peer is told.
        code: SessionCode,
        /// The same in words.
        reason: Arc<str>,
    },
    /// End every session that was let in with such a permit.
    EndWhere {
        /// With which.
        which: Which,
        /// What the peers are told.
        code: SessionCode,
        /// The same in words.
        reason: Arc<str>,
    },
    /// Let nobody in, ask everybody to leave, close who does not, and end once nobody is left.
    Drain(Drain),
    /// Close everything at once, let nobody in, and end once all is said or time is up.
    Shutdown {
        /// What the peers are told.
        code: SessionCode,
        /// The same in words.
        reason: Arc<str>,
        /// When to end anyway.
        until: Instant,
    },
}

/// How a worker is left in order.
#[derive(Clone, Debug)]
pub struct Drain {
    /// Workers that still have sessions. One that has none stays until all have none: whoever comes to its
    /// socket must be refused, and not wait for an answer.
    pub busy: Arc<AtomicUsize>,
    /// What sessions that do not leave are told.
    pub code: SessionCode,
    /// The same in words.
    pub reason: Arc<str>,
    /// From when on those that are left begin no more groups, one after another.
    pub wind_down: Instant,
    /// When those that are left are closed, whatever they are about.
    pub close: Instant,
    /// When to end anyway.
    pub until: Instant,
}

impl Drain {
    /// A drain of `workers` that begins `now` and is over after `window`: most of it for those who leave by
    /// themselves, the last three tenths for the others, and of that a little for the closes to arrive.
    pub fn new(workers: usize, code: SessionCode, reason: &str, now: Instant, window: Duration) -> Self {
        let window = window.min(LONGEST_DRAIN);
        let at = |percent: u32| now + window / 100 * percent;
        let (wind_down, close) = (at(WIND_DOWN_PERCENT), at(CLOSE_PERCENT));
        let busy = Arc::new(AtomicUsize::new(workers));
        Self { busy, code, reason: reason.into(), wind_down, close, until: now + window }
    }

    /// When the session at `place` of `count` begins to wind down: one after another, so that they do not
    /// all look for another relay at once. Publishers take their turns after everybody else, for groups
    /// that readers are still to finish come from them.
    pub fn turn_of(&self, place: usize, count: usize, publishes: bool) -> Instant {
        let half = self.close.saturating_duration_since(self.wind_down) / 2;
        let (from, span) = if publishes { (self.wind_down + half, half / 2) } else { (self.wind_down, half) };
        let share = place as f64 / count.max(1) as f64;
        from + span.mul_f64(share.clamp(0.0, 1.0))
    }
}

/// A worker's mailbox: the worker takes all letters at once, and is woken once for all of them.
pub struct Mailbox {
    /// `None`: nobody reads them any more.
    letters: Mutex<Option<Vec<Letter>>>,
    wake: Box<dyn Fn() + Send + Sync>,
    /// Connections of the worker.
    load: AtomicUsize,
}

impl Mailbox {
    /// `wake` makes the worker look into it.
    pub fn new(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { letters: Mutex::new(Some(Vec::new())), wake, load: AtomicUsize::new(0) }
    }

    /// One that nobody reads yet, and where nothing is kept until then.
    pub(crate) fn vacant(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { letters: Mutex::new(None), ..Self::new(wake) }
    }

    /// Somebody reads it from now on.
    pub(crate) fn occupy(&self) {
        self.letters.lock().get_or_insert_default();
    }

    /// Adds `letters`, leaving the vector empty, and wakes the worker unless it was about to look.
    pub fn post(&self, letters: &mut Vec<Letter>) {
        if letters.is_empty() {
            return;
        }
        let was_empty = {
            let mut held = self.letters.lock();
            held.as_mut().map(|held| {
                let was_empty = held.is_empty();
                held.append(letters);
                was_empty
            })
        };
        let Some(was_empty) = was_empty else {
            // Not while the lock is held: what is dropped may post.
            letters.clear();
            return;
        };
        if was_empty {
            (self.wake)();
        }
    }

    /// Wakes the worker without a letter: it takes a turn, and that can be seen.
    pub fn ring(&self) {
        (self.wake)();
    }

    /// Moves everything to the end of `out`.
    pub fn take(&self, out: &mut Vec<Letter>) {
        if let Some(held) = &mut *self.letters.lock() {
            out.append(held);
        }
    }

    /// The worker is gone: letters are dropped from now on, those that wait too.
    pub fn close(&self) {
        let held = self.letters.lock().take();
        drop(held);
    }

    /// Connections the worker had after its last turn, and those that were sent to it since.
    pub fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    pub(crate) fn add_load(&self) {
        self.load.fetch_add(1, Ordering::Relaxed);
    }

    /// What the worker has.
    pub(crate) fn set_load(&self, connections: usize) {
        self.load.store(connections, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox")
            .field("letters", &self.letters.lock().as_ref().map(Vec::len))
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
        let letter = || vec![Letter::AsksDone(SessionId(1), 1)];
        mailbox.post(&mut Vec::new());
        assert_eq!(wakes.load(Ordering::Relaxed), 0);
        mailbox.post(&mut letter());
        mailbox.post(&mut letter());
        assert_eq!(wakes.load(Ordering::Relaxed), 1);
        let mut taken = Vec::new();
        mailbox.take(&mut taken);
        assert_eq!(taken.len(), 2);
        mailbox.post(&mut letter());
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
    }
}
