//! Queues of peers that are ready for their share of a turn, and their waiting time.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{Worker, finish::micros};

/// Longest gap between two turns in which the worker cannot have slept.
const AWAKE: Duration = Duration::from_micros(100);
/// Half of the time over which the longest wait is reported.
const PEAK_WINDOW: Duration = Duration::from_secs(30);

/// Queues of ready peers. Those that have not used up a budget of work go before those that have.
#[derive(Debug)]
pub(super) struct ReadyQueue {
    /// In the order in which they became ready.
    fresh: VecDeque<u32>,
    /// Peers that used up a budget of work and have more to do, in turn.
    behind: VecDeque<u32>,
    /// Earliest time at which a peer found ready now can have become ready.
    since: Instant,
    /// The same for datagrams: what the socket holds may be older when the last turn left some.
    received_since: Instant,
    /// Whether the last turn left datagrams in the socket.
    pub(super) is_receive_behind: bool,
    /// Earliest time at which a peer settled in this turn became ready, if one was.
    settled_since: Option<Instant>,
    /// End of the time in which a turn can begin without the worker having slept before.
    awake_until: Instant,
    /// Longest wait in this window and in the one before, microseconds.
    peaks: [u64; 2],
    window_ends: Instant,
}

impl ReadyQueue {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            fresh: VecDeque::new(),
            behind: VecDeque::new(),
            since: now,
            received_since: now,
            is_receive_behind: false,
            settled_since: None,
            awake_until: now,
            peaks: [0; 2],
            window_ends: now + PEAK_WINDOW,
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.behind.is_empty()
    }

    /// Peers that are ready and have not used up a budget.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.fresh.len()
    }

    /// Peers that have used up a budget and have more to do.
    #[inline]
    pub(super) fn len_behind(&self) -> usize {
        self.behind.len()
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<u32> {
        self.fresh.pop_front()
    }

    #[inline]
    pub(super) fn pop_behind(&mut self) -> Option<u32> {
        self.behind.pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.fresh.clear();
        self.behind.clear();
    }

    /// Begins the receive step of a turn.
    pub(super) fn begin_receive(&mut self) {
        if !std::mem::take(&mut self.is_receive_behind) {
            self.received_since = self.since;
        }
    }

    /// Earliest time at which a datagram that is received now can have arrived.
    pub(super) fn received_since(&self) -> Instant {
        self.received_since
    }

    /// Peers that had been ready for at most the time since `since` were settled.
    pub(super) fn processed_since(&mut self, since: Instant) {
        self.settled_since = Some(since);
    }

    /// Longest wait of a ready peer in the last half to whole minute, microseconds.
    pub(super) fn peak_us(&mut self, now: Instant) -> u64 {
        let [latest, before] = self.peaks;
        if now >= self.window_ends {
            (self.peaks, self.window_ends) = ([0, latest], now + PEAK_WINDOW);
        }
        latest.max(before)
    }
}

impl Worker {
    /// Begins a turn: peers became ready while the worker slept, or else during the last turn.
    #[inline]
    pub(super) fn begin_turn(&mut self, now: Instant) {
        if now > self.ready.awake_until {
            self.ready.since = now;
            if !self.ready.fresh.is_empty() {
                self.date_ready(now);
            }
        }
    }

    fn date_ready(&mut self, now: Instant) {
        for index in &self.ready.fresh {
            if let Some(peer) = self.peers.get_mut(*index) {
                peer.ready_since = now;
            }
        }
    }

    /// Queues a peer with something to settle.
    pub(super) fn touch(&mut self, index: u32) {
        self.touch_since(index, self.ready.since);
    }

    /// Queues a peer that has been ready for at most the time since `since`.
    #[inline]
    pub(super) fn touch_since(&mut self, index: u32, since: Instant) {
        if let Some(peer) = self.peers.get_mut(index)
            && !std::mem::replace(&mut peer.is_touched, true)
        {
            peer.ready_since = since;
            self.ready.fresh.push_back(index);
        }
    }

    /// Queues a peer that used up its budget of work and has more to do behind all others.
    pub(super) fn put_behind(&mut self, index: u32, now: Instant) {
        if let Some(peer) = self.peers.get_mut(index)
            && !std::mem::replace(&mut peer.is_touched, true)
        {
            peer.ready_since = now;
            self.ready.behind.push_back(index);
        }
    }

    /// Ends the turn from `start` to `end`. The wait of a ready peer counts until the end of the turn that
    /// settled it, when its packets are out.
    pub(super) fn end_turn(&mut self, start: Instant, end: Instant) {
        let took = micros(end.saturating_duration_since(start));
        self.meter.turn_us.record(took);
        (self.ready.since, self.ready.awake_until) = (start, end + AWAKE);
        let Some(since) = self.ready.settled_since.take() else { return };
        let before = if since < start { micros(start.saturating_duration_since(since)) } else { 0 };
        let waited = before.saturating_add(took);
        self.meter.ready_wait_us.record(waited);
        let [latest, _] = &mut self.ready.peaks;
        *latest = waited.max(*latest);
    }
}
