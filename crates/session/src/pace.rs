//! How fast a peer may ask: a bucket of requests that refills, and an end to whoever keeps it empty.

use std::time::{Duration, Instant};

use relay_model::limits;

/// What one request takes out of the bucket.
const INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / limits::REQUEST_RATE as u64);
/// How often a peer that is held back is let on: a few requests at a time, not a wake for each.
const PAUSE: Duration = Duration::from_millis(50);

/// The requests of one session: [`limits::REQUEST_BURST`] at once, [`limits::REQUEST_RATE`] a second.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When the bucket will be full again: each request moves it by [`INTERVAL`].
    full_at: Option<Instant>,
    /// Since when requests have been held back without a pause.
    short_since: Option<Instant>,
    /// When those held back may go on.
    resume_at: Option<Instant>,
}

impl Pace {
    /// Whether a request may be read now; if not, again at [`Self::deadline`].
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        let debt = self.full_at.map_or(Duration::ZERO, |full| full.saturating_duration_since(now));
        if debt + INTERVAL <= INTERVAL * limits::REQUEST_BURST {
            return true;
        }
        self.short_since.get_or_insert(now);
        self.resume_at.get_or_insert(now + PAUSE);
        false
    }

    /// A request was read.
    pub(crate) fn took(&mut self, now: Instant) {
        self.full_at = Some(self.full_at.map_or(now, |full| full.max(now)) + INTERVAL);
    }

    /// Whether [`limits::REQUEST_FLOOD`] has passed without a pause.
    pub(crate) fn is_flooded(&self, now: Instant) -> bool {
        self.short_since.is_some_and(|since| now.saturating_duration_since(since) >= limits::REQUEST_FLOOD)
    }

    /// Whether requests that were held back may be tried again. True once.
    pub(crate) fn resumes(&mut self, now: Instant) -> bool {
        self.resume_at.take_if(|at| now >= *at).is_some()
    }

    /// Nothing is held back any more.
    pub(crate) fn caught_up(&mut self) {
        self.short_since = None;
    }

    /// When to try again what was held back.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.resume_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_one_more_waits() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for _ in 0..limits::REQUEST_BURST {
            assert!(pace.allows(now));
            pace.took(now);
        }
        assert!(!pace.allows(now));
        assert_eq!(pace.deadline(), Some(now + PAUSE));
        let later = now + PAUSE;
        assert!(pace.resumes(later) && !pace.resumes(later));
        let refilled = (PAUSE.as_nanos() / INTERVAL.as_nanos()) as u32;
        for _ in 0..refilled {
            assert!(pace.allows(later));
            pace.took(later);
        }
        assert!(!pace.allows(later));
    }

    #[test]
    fn who_never_pauses_is_flooded_and_who_catches_up_is_not() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for _ in 0..limits::REQUEST_BURST {
            pace.took(now);
        }
        assert!(!pace.allows(now));
        assert!(!pace.is_flooded(now + limits::REQUEST_FLOOD - Duration::from_nanos(1)));
        assert!(pace.is_flooded(now + limits::REQUEST_FLOOD));
        pace.caught_up();
        assert!(!pace.is_flooded(now + limits::REQUEST_FLOOD));
    }
}
