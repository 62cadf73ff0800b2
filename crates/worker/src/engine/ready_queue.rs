//! Queues of peers that are ready for their share of a turn, and their waiting time.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use relay_meter::Worker as Meter;

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
    /// Earliest time since when each queued peer may be ready, by index.
    queued_since: Vec<Option<Instant>>,
    /// Earliest time at which a peer found ready now can have become ready.
    since: Instant,
    /// The same for datagrams: what the socket holds may be older when the last turn left some.
    received_since: Instant,
    /// Whether the last turn left datagrams in the socket.
    is_receive_behind: bool,
    /// Earliest time at which a peer processed in this turn became ready, if one was.
    processed_since: Option<Instant>,
    /// End of the time in which a turn can begin without the worker having slept before.
    awake_until: Instant,
    /// Longest wait in this window and in the one before, microseconds.
    peaks: [u64; 2],
    window_ends: Instant,
}

impl ReadyQueue {
    /// Creates empty queues.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            fresh: VecDeque::new(),
            behind: VecDeque::new(),
            queued_since: Vec::new(),
            since: now,
            received_since: now,
            is_receive_behind: false,
            processed_since: None,
            awake_until: now,
            peaks: [0; 2],
            window_ends: now + PEAK_WINDOW,
        }
    }

    /// Begins a turn: peers became ready while the worker slept, or else during the last turn.
    #[inline]
    pub(super) fn begin_turn(&mut self, now: Instant) {
        if now > self.awake_until {
            self.since = now;
            for index in &self.fresh {
                if let Some(Some(since)) = self.queued_since.get_mut(*index as usize) {
                    *since = now;
                }
            }
        }
    }

    /// Begins the receive step of a turn.
    pub(super) fn begin_receive(&mut self) {
        if !std::mem::take(&mut self.is_receive_behind) {
            self.received_since = self.since;
        }
    }

    /// Records that the receive step left datagrams in the socket.
    pub(super) fn leave_datagrams(&mut self) {
        self.is_receive_behind = true;
    }

    /// Queues a peer with something to process.
    #[inline]
    pub(super) fn push(&mut self, index: u32) {
        if self.mark(index, self.since) {
            self.fresh.push_back(index);
        }
    }

    /// Queues a peer that has received a datagram.
    #[inline]
    pub(super) fn push_received(&mut self, index: u32) {
        if self.mark(index, self.received_since) {
            self.fresh.push_back(index);
        }
    }

    /// Queues a peer that used up its budget of work and has more to do behind all others.
    pub(super) fn push_behind(&mut self, index: u32, now: Instant) {
        if self.mark(index, now) {
            self.behind.push_back(index);
        }
    }

    #[inline]
    fn mark(&mut self, index: u32, since: Instant) -> bool {
        let index = index as usize;
        if index >= self.queued_since.len() {
            self.queued_since.resize(index + 1, None);
        }
        let Some(slot @ None) = self.queued_since.get_mut(index) else { return false };
        *slot = Some(since);
        true
    }

    /// Removes the first peer that has not used up a budget.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<u32> {
        self.fresh.pop_front()
    }

    /// Removes the first peer that has used up a budget.
    #[inline]
    pub(super) fn pop_behind(&mut self) -> Option<u32> {
        self.behind.pop_front()
    }

    /// Begins the share of a peer taken from a queue, so that it can be queued again. Returns the earliest time since
    /// when it may have been ready; `None` if it was dropped meanwhile.
    #[inline]
    pub(super) fn begin(&mut self, index: u32) -> Option<Instant> {
        self.queued_since.get_mut(index as usize)?.take()
    }

    /// Whether the peer is queued.
    #[inline]
    pub(super) fn contains(&self, index: u32) -> bool {
        self.queued_since.get(index as usize).is_some_and(Option::is_some)
    }

    /// Forgets a dropped peer.
    pub(super) fn forget(&mut self, index: u32) {
        self.begin(index);
    }

    /// Removes all.
    pub(super) fn clear(&mut self) {
        self.fresh.clear();
        self.behind.clear();
        self.queued_since.clear();
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

    /// Records that peers which had been ready for at most the time since `since` were processed.
    pub(super) fn processed_since(&mut self, since: Instant) {
        self.processed_since = Some(since);
    }

    /// Ends the turn from `start` to `end`. The wait of a ready peer counts until the end of the turn that
    /// processed it, when its packets are out.
    pub(super) fn end_turn(&mut self, start: Instant, end: Instant, meter: &mut Meter) {
        let took = micros(end.saturating_duration_since(start));
        meter.turn_us.record(took);
        (self.since, self.awake_until) = (start, end + AWAKE);
        let Some(since) = self.processed_since.take() else { return };
        let before = if since < start { micros(start.saturating_duration_since(since)) } else { 0 };
        let waited = before.saturating_add(took);
        meter.ready_wait_us.record(waited);
        let [latest, _] = &mut self.peaks;
        *latest = waited.max(*latest);
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

/// Whole microseconds.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn peer_is_queued_once_until_its_share_begins() {
        let now = Instant::now();
        let mut ready = ReadyQueue::new(now);
        (0..2).for_each(|_| ready.push(5));
        ready.push_behind(5, now);
        assert_eq!((ready.len(), ready.len_behind()), (1, 0));
        assert_eq!(ready.pop(), Some(5));
        assert!(ready.contains(5));
        assert_eq!(ready.begin(5), Some(now));
        ready.push_behind(5, now);
        assert_eq!((ready.pop(), ready.pop_behind()), (None, Some(5)));
    }

    #[test]
    fn dropped_peer_has_no_share() {
        let mut ready = ReadyQueue::new(Instant::now());
        ready.push(1);
        ready.forget(1);
        assert_eq!(ready.pop(), Some(1));
        assert_eq!(ready.begin(1), None);
    }

    #[test]
    fn wait_counts_from_the_wake_up_to_the_turns_end() {
        let start = Instant::now();
        let (mut ready, mut meter) = (ReadyQueue::new(start), Meter::default());
        ready.push(1);
        // The worker slept, so the peer became ready no earlier than now.
        let woken = start + 10 * MS;
        ready.begin_turn(woken);
        assert_eq!(ready.begin(1), Some(woken));
        ready.processed_since(woken);
        ready.end_turn(woken, woken + 2 * MS, &mut meter);
        assert_eq!(ready.peak_us(woken), 2_000);
        // Without sleep, it may have become ready during the last turn.
        let next = woken + 2 * MS + AWAKE / 2;
        ready.begin_turn(next);
        ready.push(1);
        assert_eq!(ready.begin(1), Some(woken));
    }

    #[test]
    fn peak_is_forgotten_after_two_windows() {
        let start = Instant::now();
        let (mut ready, mut meter) = (ReadyQueue::new(start), Meter::default());
        ready.processed_since(start);
        ready.end_turn(start, start + MS, &mut meter);
        assert_eq!(ready.peak_us(start + PEAK_WINDOW), 1_000);
        assert_eq!(ready.peak_us(start + PEAK_WINDOW * 2), 1_000);
        assert_eq!(ready.peak_us(start + PEAK_WINDOW * 2), 0);
    }
}
