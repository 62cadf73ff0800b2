//! Token bucket that limits the control requests of one session; a session that keeps it empty is closed.

use std::time::{Duration, Instant};

use relay_model::limits::{self, SessionLimits};

/// Interval at which a throttled peer is resumed: a few requests at a time, not a wake-up for each.
const PAUSE: Duration = Duration::from_millis(50);

/// Request rate of one session: [`SessionLimits::burst`] at once, [`SessionLimits::requests`] per second.
#[derive(Debug)]
pub(crate) struct RequestLimiter {
    /// Time to refill one request; zero without a limit.
    interval: Duration,
    /// Capacity of the bucket, in requests.
    burst: u32,
    /// Time at which the bucket is full again; each request moves it by the interval.
    full_at: Option<Instant>,
    /// Time since which requests are deferred without a pause.
    short_since: Option<Instant>,
    /// Time at which deferred requests may be tried again.
    resume_at: Option<Instant>,
}

impl RequestLimiter {
    pub(crate) fn new(limits: &SessionLimits) -> Self {
        Self {
            interval: Duration::from_nanos(1_000_000_000 / u64::from(limits.requests.max(1))),
            burst: limits.burst(),
            full_at: None,
            short_since: None,
            resume_at: None,
        }
    }

    /// Whether a request may be read now; if not, try again at [`Self::deadline`].
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        let debt = self.full_at.map_or(Duration::ZERO, |full| full.saturating_duration_since(now));
        if debt + self.interval <= self.interval.saturating_mul(self.burst) {
            return true;
        }
        self.short_since.get_or_insert(now);
        self.resume_at.get_or_insert(now + PAUSE);
        false
    }

    /// Counts a request.
    pub(crate) fn took(&mut self, now: Instant) {
        self.full_at = Some(self.full_at.map_or(now, |full| full.max(now)) + self.interval);
    }

    /// Whether [`limits::REQUEST_FLOOD`] has passed without a pause.
    pub(crate) fn is_flooded(&self, now: Instant) -> bool {
        self.short_since.is_some_and(|since| now.saturating_duration_since(since) >= limits::REQUEST_FLOOD)
    }

    /// Whether deferred requests may be tried again. True once.
    pub(crate) fn resumes(&mut self, now: Instant) -> bool {
        self.resume_at.take_if(|at| now >= *at).is_some()
    }

    /// Records that no request is deferred any more.
    pub(crate) fn caught_up(&mut self) {
        self.short_since = None;
    }

    /// Time at which to try deferred requests again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.resume_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_one_more_waits() {
        let (mut pace, now) = (RequestLimiter::new(&SessionLimits::default()), Instant::now());
        for _ in 0..limits::REQUEST_BURST {
            assert!(pace.allows(now));
            pace.took(now);
        }
        assert!(!pace.allows(now));
        assert_eq!(pace.deadline(), Some(now + PAUSE));
        let later = now + PAUSE;
        assert!(pace.resumes(later) && !pace.resumes(later));
        let refilled = (PAUSE.as_nanos() / pace.interval.as_nanos()) as u32;
        for _ in 0..refilled {
            assert!(pace.allows(later));
            pace.took(later);
        }
        assert!(!pace.allows(later));
    }

    #[test]
    fn flood_is_detected_without_pauses_only() {
        let (mut pace, now) = (RequestLimiter::new(&SessionLimits::default()), Instant::now());
        for _ in 0..limits::REQUEST_BURST {
            pace.took(now);
        }
        assert!(!pace.allows(now));
        assert!(!pace.is_flooded(now + limits::REQUEST_FLOOD - Duration::from_nanos(1)));
        assert!(pace.is_flooded(now + limits::REQUEST_FLOOD));
        pace.caught_up();
        assert!(!pace.is_flooded(now + limits::REQUEST_FLOOD));
    }

    #[test]
    fn session_without_limits_is_never_held_back() {
        let (mut pace, now) = (RequestLimiter::new(&SessionLimits::NONE), Instant::now());
        for _ in 0..100_000 {
            assert!(pace.allows(now));
            pace.took(now);
        }
        assert_eq!(pace.deadline(), None);
    }

    #[test]
    fn burst_covers_two_requests_for_each_subscription() {
        let limits = SessionLimits::default();
        assert!(limits.burst() as usize >= 2 * limits.subscriptions);
    }
}
