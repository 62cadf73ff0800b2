//! Clock readings of a turn, and the interval of publishing counters.

use std::time::{Duration, Instant};

/// Interval of publishing the counters.
const PUBLISH: Duration = Duration::from_millis(250);

/// Latest clock reading of a worker, and when it published its counters.
#[derive(Debug)]
pub(super) struct TurnClock {
    /// Latest reading of the clock in this turn, with which the next part of it begins.
    pub(super) latest: Instant,
    published: Instant,
    /// Whether something was counted since `published`.
    is_unpublished: bool,
}

impl TurnClock {
    /// Creates a clock that publishes first after an interval from `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { latest: now, published: now, is_unpublished: false }
    }

    /// Counts a turn at `now`. True: the counters are to be published.
    pub(super) fn is_publish_due(&mut self, now: Instant) -> bool {
        self.is_unpublished = now < self.published + PUBLISH;
        if !self.is_unpublished {
            self.published = now;
        }
        !self.is_unpublished
    }

    /// Time of the next publication, if something was counted since the last one. A turn that did not publish is
    /// followed by one that does.
    pub(super) fn publish_at(&self) -> Option<Instant> {
        self.is_unpublished.then(|| self.published + PUBLISH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_published_once_an_interval() {
        let now = Instant::now();
        let mut clock = TurnClock::new(now);
        assert_eq!(clock.publish_at(), None);
        assert!(!clock.is_publish_due(now + PUBLISH / 2));
        assert_eq!(clock.publish_at(), Some(now + PUBLISH));
        assert!(clock.is_publish_due(now + PUBLISH));
        assert_eq!(clock.publish_at(), None, "nothing counted since");
    }
}
