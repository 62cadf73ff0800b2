//! Merging of two logs of one track that have the same writer: readers that could not share a route had a log
//! each, until routes changed.

use std::time::Instant;

use relay_model::{LogId, Order, limits};

use crate::{
    core::Core,
    log::{LogUpstream, ReaderKey, ReaderState},
    timers::Timer,
};

impl Core {
    /// Schedules a merge if the new writer of `log` also writes another log of the track.
    pub(crate) fn plan_merge(&mut self, log: LogId, now: Instant) {
        if self.twin(log).is_some() {
            self.cancel_merge(log);
            let at = now + limits::MERGE;
            if let Some(state) = self.logs.get_mut(&log) {
                state.merge_at = Some(at);
                self.timers.arm(at, Timer::Merge(log));
            }
        }
    }

    /// Cancels the merge of `log` after the loss of its writer.
    pub(crate) fn cancel_merge(&mut self, log: LogId) {
        if let Some(at) = self.logs.get_mut(&log).and_then(|state| state.merge_at.take()) {
            self.timers.disarm(at, Timer::Merge(log));
        }
    }

    /// Moves the readers of `log` to its twin, if it still has one; they keep their position.
    pub(crate) fn merge(&mut self, log: LogId, now: Instant) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        state.merge_at = None;
        let Some(twin) = self.twin(log) else { return };
        let readers: Vec<(ReaderKey, ReaderState)> = self
            .logs
            .get(&log)
            .map(|state| state.readers().map(|(reader, reading)| (*reader, *reading)).collect())
            .unwrap_or_default();
        for (reader, reading) in readers {
            self.hand_over(reader, reading, log, twin);
        }
        self.improve(twin, now);
        self.sync_prefs(twin);
        self.tally.merged += 1;
        self.retire(log);
    }

    fn hand_over(&mut self, reader: ReaderKey, reading: ReaderState, log: LogId, twin: LogId) {
        let abandoned = self.logs.get_mut(&log).and_then(|state| state.remove(reader));
        if let Some(group) = abandoned {
            self.drop_pull(log, group);
        }
        self.join(twin, reader, reading.prefs, reading.want);
        self.outbox.order(reader.0, Order::Attach { sub: reader.1, log: twin });
        if let Some(group) = reading.pull {
            self.pull(reader, group);
        }
    }

    /// Another log of the track with the same writer.
    pub(crate) fn twin(&self, log: LogId) -> Option<LogId> {
        let state = self.logs.get(&log)?;
        let LogUpstream::Open(writer) = state.upstream else { return None };
        let logs = self.broadcasts.get(&state.path)?.logs_of(state.publisher, &state.track);
        let mut others = logs.iter().copied().filter(|other| *other != log);
        others.find(|other| {
            self.logs.get(other).is_some_and(|other| other.upstream == LogUpstream::Open(writer))
        })
    }
}
