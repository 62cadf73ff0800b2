//! Deadlines: at most one of each kind a log, one a ghost, and one a braked session.

use std::{collections::BTreeSet, time::Instant};

use relay_model::{LogId, Path, SessionId};

/// What waits for its time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The linger of a log.
    Log(LogId),
    /// A log that came to the writer of another one of its track is to be merged into that.
    Merge(LogId),
    /// The next thing to come of a ghost: its hold-back is over, or its linger.
    Ghost(Path, SessionId),
    /// The next request of a braked session goes to its publisher.
    Brake(SessionId),
}

/// Deadlines in order. The owner keeps each one's own to disarm it.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Instant, Timer)>);

impl Timers {
    pub(crate) fn arm(&mut self, at: Instant, timer: Timer) {
        self.0.insert((at, timer));
    }

    pub(crate) fn disarm(&mut self, at: Instant, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    /// The next whose deadline has passed; it is disarmed.
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
