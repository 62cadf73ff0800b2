//! Deadlines: at most one of each kind per log, one per ghost and one per braked session.

use std::{collections::BTreeSet, time::Instant};

use relay_model::{LogId, Path, SessionId};

/// Kind and owner of a deadline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// End of the linger of a log.
    Log(LogId),
    /// Merge of a log into another one with the same track and writer.
    Merge(LogId),
    /// End of the hold-back or the linger of a ghost.
    Ghost(Path, SessionId),
    /// Release of the next request of a braked session.
    Brake(SessionId),
}

/// Deadlines in order. The owner remembers its own, to disarm it.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Instant, Timer)>);

impl Timers {
    pub(crate) fn arm(&mut self, at: Instant, timer: Timer) {
        self.0.insert((at, timer));
    }

    pub(crate) fn disarm(&mut self, at: Instant, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    /// Takes and disarms the first timer whose deadline has passed.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        if self.0.first()?.0 > now {
            return None;
        }
        self.0.pop_first().map(|(_, timer)| timer)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn contains(&self, at: Instant, timer: Timer) -> bool {
        self.0.contains(&(at, timer))
    }
}
