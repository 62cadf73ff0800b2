//! End of a turn: events to core, counters, and the time of the next turn.

use std::time::{Duration, Instant};

use crossbeam_channel::TrySendError;

use super::{NextTurn, RETRY_FULL, Worker, drain::Ending};
use crate::socket::Io;

/// Interval of publishing the counters.
const PUBLISH: Duration = Duration::from_millis(250);
/// Delay before core is tried again when its channel is full.
pub(super) const RETRY_CORE: Duration = Duration::from_millis(1);
/// Interval at which a drained worker checks whether the others are drained too.
const OTHERS: Duration = Duration::from_millis(20);

impl Worker {
    /// Sends this turn's events to core, and wakes workers with changes to deliver.
    pub(super) fn send_events(&mut self) {
        if !self.events.is_empty() {
            match self.core.try_send(std::mem::take(&mut self.events)) {
                // Retried next turn; bounded by the sessions' limits on requests in flight.
                Err(TrySendError::Full(events)) => self.events = events,
                // Core is gone only when the relay is ending.
                Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            }
        }
        self.woke_itself = false;
        if !self.wakes.is_empty() {
            // Its own changes are delivered in its next turn, without a wake-up.
            self.woke_itself =
                self.wakes.contains(self.id) && self.shared.store.ready_list(self.id).is_pending();
            self.shared.store.wake(&mut self.wakes, Some(self.id));
        }
    }

    pub(super) fn publish(&mut self, now: Instant, io: &impl Io) {
        self.end_turn(now, io.now());
        self.unpublished = now < self.published + PUBLISH;
        if !self.unpublished {
            self.published = now;
            self.gauge(now);
            self.shared.board.publish(usize::from(self.id.0), &self.meter);
        }
    }

    pub(super) fn gauge(&mut self, now: Instant) {
        self.meter.ready_wait_peak_us = self.ready.peak_us(now);
        self.meter.connections_now = self.peers.len() as u64;
        self.meter.sessions = self
            .peers
            .indices()
            .filter(|index| self.peers.get(*index).is_some_and(|peer| peer.session.is_some()))
            .count() as u64;
    }

    pub(super) fn next(&self, now: Instant) -> NextTurn {
        let is_full = self.full_since.is_some();
        let is_busy = self.readable
            || self.has_received()
            || !self.messages.is_empty()
            || !self.news.is_empty()
            || self.delivery.is_some()
            || self.board_changed
            || !self.board_queue.is_empty()
            || self.woke_itself
            || self.fanout.is_due()
            || !self.ready.is_empty()
            || !self.dirty_streams.is_empty()
            || (!is_full && !self.dirty.is_empty());
        if is_busy {
            return NextTurn::Now;
        }
        // A turn that did not publish is followed by one that does.
        let publish = self.unpublished.then(|| self.published + PUBLISH);
        let retry = self.full_since.map(|since| since + RETRY_FULL);
        let until = self.ending.as_ref().map(Ending::next);
        let behind = (!self.events.is_empty()).then(|| now + RETRY_CORE);
        let others = self.counted_off.then(|| now + OTHERS);
        let expiring = self.expiring.next();
        let charges = self.uncharged.next();
        let rare = earlier(earlier(retry, until), earlier(behind, others));
        let first = earlier(earlier(self.wheel.next_wake(), publish), earlier(expiring, charges));
        earlier(first, rare).map_or(NextTurn::Idle, NextTurn::At)
    }
}

/// The earlier of two times, if any.
#[inline]
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Whole microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
