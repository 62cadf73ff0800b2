//! Lingers: at most one deadline a log.

use std::{collections::BTreeSet, time::Instant};

use relay_model::LogId;

/// Deadlines in order. The owner keeps each log's own deadline to disarm it.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Instant, LogId)>);

impl Timers {
    pub(crate) fn arm(&mut self, at: Instant, log: LogId) {
        self.0.insert((at, log));
    }

    pub(crate) fn disarm(&mut self, at: Instant, log: LogId) {
        self.0.remove(&(at, log));
    }

    /// The next log whose deadline has passed; it is disarmed.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<LogId> {
        let (at, log) = *self.0.first()?;
        if at > now {
            return None;
        }
        self.0.pop_first();
        Some(log)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn contains(&self, at: Instant, log: LogId) -> bool {
        self.0.contains(&(at, log))
    }
}
