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
    Stale(Path, SessionId),
    /// Release of the next request of a braked session.
    Brake(SessionId),
}

/// Deadlines in order. The owner remembers its own, to disarm it.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    armed: BTreeSet<(Instant, Timer)>,
    /// Number of armed [`Timer::Log`].
    lingering: usize,
}

impl Timers {
    pub(crate) fn arm(&mut self, at: Instant, timer: Timer) {
        let is_log = matches!(timer, Timer::Log(_));
        if self.armed.insert((at, timer)) && is_log {
            self.lingering += 1;
        }
    }

    pub(crate) fn disarm(&mut self, at: Instant, timer: Timer) {
        let key = (at, timer);
        if self.armed.remove(&key) && matches!(key.1, Timer::Log(_)) {
            self.lingering -= 1;
        }
    }

    /// Takes and disarms the first timer whose deadline has passed.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        if self.armed.first()?.0 > now {
            return None;
        }
        let (_, timer) = self.armed.pop_first()?;
        if matches!(timer, Timer::Log(_)) {
            self.lingering -= 1;
        }
        Some(timer)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.armed.first().map(|(at, _)| *at)
    }

    pub(crate) fn len(&self) -> usize {
        self.armed.len()
    }

    /// Number of logs that linger.
    pub(crate) fn lingering(&self) -> usize {
        self.lingering
    }

    pub(crate) fn contains(&self, at: Instant, timer: Timer) -> bool {
        self.armed.contains(&(at, timer))
    }
}
