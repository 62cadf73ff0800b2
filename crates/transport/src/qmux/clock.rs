//! Ping timers, round-trip time and idle timeout.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{QmuxCarrier, QmuxFraming, limits};

/// Timers of one connection.
#[derive(Debug)]
pub(super) struct QmuxTimers {
    /// Time of the last input.
    last_input: Instant,
    idle: Duration,
    /// Due time of the next WebSocket ping, and whether a ping is to be sent.
    websocket: Option<Instant>,
    pub(super) websocket_due: bool,
    /// The same for the QX_PING of qmux-01.
    ping: Option<Instant>,
    pub(super) ping_due: bool,
    sequence: u64,
    /// Outstanding pings: sequence number and send time.
    sent: VecDeque<(u64, Instant)>,
    /// Smoothed round-trip time of QX_PING.
    rtt: Option<Duration>,
}

impl QmuxTimers {
    pub(super) fn new(framing: QmuxFraming, over: QmuxCarrier, idle: Duration, now: Instant) -> Self {
        Self {
            last_input: now,
            idle,
            websocket: (over == QmuxCarrier::WebSocket).then(|| now + limits::WEBSOCKET_PING),
            websocket_due: false,
            ping: (framing == QmuxFraming::Qmux01).then(|| now + limits::PING),
            ping_due: false,
            sequence: 0,
            sent: VecDeque::new(),
            rtt: None,
        }
    }

    pub(super) fn on_input(&mut self, now: Instant) {
        self.last_input = self.last_input.max(now);
    }

    /// Applies the peer's idle timeout; the shorter one counts.
    pub(super) fn limit_idle(&mut self, idle: Option<Duration>) {
        self.idle = idle.map_or(self.idle, |idle| idle.min(self.idle));
    }

    pub(super) fn deadline(&self) -> Instant {
        let next = |at: Option<Instant>, is_due: bool| at.filter(|_| !is_due);
        [next(self.websocket, self.websocket_due), next(self.ping, self.ping_due)]
            .into_iter()
            .flatten()
            .fold(self.last_input + self.idle, Instant::min)
    }

    /// Marks due pings; returns whether the idle timeout expired.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        self.websocket_due |= is_due(self.websocket);
        self.ping_due |= is_due(self.ping);
        now >= self.last_input + self.idle
    }

    pub(super) fn websocket_sent(&mut self, now: Instant) {
        self.websocket_due = false;
        self.websocket = Some(now + limits::WEBSOCKET_PING);
    }

    /// Records that a ping is sent; returns its sequence number.
    pub(super) fn ping_sent(&mut self, now: Instant) -> u64 {
        self.ping_due = false;
        self.ping = Some(now + limits::PING);
        let sequence = self.sequence;
        self.sequence += 1;
        if self.sent.len() == limits::PINGS {
            self.sent.pop_front();
        }
        self.sent.push_back((sequence, now));
        sequence
    }

    /// Handles a ping response; unknown sequence numbers are ignored, as deployed peers do.
    pub(super) fn pong(&mut self, sequence: u64, now: Instant) {
        let Some(at) = self.sent.iter().position(|(sent, _)| *sent == sequence) else { return };
        let Some((_, sent)) = self.sent.drain(..=at).next_back() else { return };
        let sample = now.saturating_duration_since(sent);
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    #[test]
    fn pings_are_due_at_their_interval() {
        let now = Instant::now();
        let mut timers = QmuxTimers::new(QmuxFraming::Qmux01, QmuxCarrier::WebSocket, IDLE, now);
        assert_eq!(timers.deadline(), now + limits::PING);
        assert!(!timers.tick(now + limits::PING));
        assert_eq!((timers.ping_due, timers.websocket_due), (true, false));
        assert_eq!(timers.deadline(), now + limits::WEBSOCKET_PING);
        timers.ping_sent(now + limits::PING);
        assert_eq!(timers.deadline(), now + limits::PING * 2);
        timers.tick(now + limits::WEBSOCKET_PING);
        assert!(timers.websocket_due);
        timers.websocket_sent(now + limits::WEBSOCKET_PING);
        assert!(!timers.websocket_due);
    }

    #[test]
    fn shorter_idle_timeout_counts() {
        let now = Instant::now();
        let mut timers = QmuxTimers::new(QmuxFraming::Qmux00, QmuxCarrier::Bytes, IDLE, now);
        timers.limit_idle(Some(IDLE * 2));
        timers.limit_idle(None);
        assert_eq!(timers.deadline(), now + IDLE);
        timers.limit_idle(Some(IDLE / 2));
        timers.on_input(now + IDLE / 4);
        assert!(!timers.tick(now + IDLE / 2));
        assert!(timers.tick(now + IDLE / 4 + IDLE / 2));
    }

    #[test]
    fn round_trip_time_is_that_of_the_answered_ping() {
        let now = Instant::now();
        let mut timers = QmuxTimers::new(QmuxFraming::Qmux01, QmuxCarrier::Bytes, IDLE, now);
        let first = timers.ping_sent(now);
        let second = timers.ping_sent(now + Duration::from_secs(1));
        timers.pong(second + 1, now);
        assert_eq!(timers.rtt(), None, "no such ping");
        timers.pong(second, now + Duration::from_millis(1_040));
        assert_eq!(timers.rtt(), Some(Duration::from_millis(40)));
        timers.pong(first, now + Duration::from_secs(9));
        assert_eq!(timers.rtt(), Some(Duration::from_millis(40)), "older than an answered one");
    }
}
