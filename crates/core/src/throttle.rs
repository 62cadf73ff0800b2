//! Rate limit on the requests of one session to publishers, while they are mostly for missing tracks.
//!
//! Each such request costs a publisher two streams and a reply. The requests of a session that asks for one
//! missing track after another are queued and released one at a time, at a fixed rate. Subscriptions to
//! tracks that already have a log are not delayed.

use std::{collections::VecDeque, time::Instant};

use relay_model::{Path, Prefs, SubId, TrackName, limits};

use crate::log::TrackDemand;

/// Subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SubscribeRequest {
    pub(crate) sub: SubId,
    pub(crate) path: Path,
    pub(crate) track: TrackName,
    pub(crate) demand: TrackDemand,
}

/// Decision on a request to a publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ThrottleVerdict {
    /// It may be sent now, and is counted.
    Pass,
    /// It was queued.
    Queued,
    /// The queue is full.
    Full,
}

/// Recent requests of one session to publishers, and its queued subscriptions.
#[derive(Debug, Default)]
pub(crate) struct RequestThrottle {
    /// Requests sent to publishers for this session, and those answered as missing. Both are halved every
    /// [`limits::BRAKE_HALF_LIFE`].
    asked: u32,
    missed: u32,
    halved_at: Option<Instant>,
    queue: VecDeque<SubscribeRequest>,
    /// Release time of the next queued request; `Some` exactly while one is queued.
    due: Option<Instant>,
    /// Earliest time of the next request to a publisher while the throttle is on.
    free_at: Option<Instant>,
}

impl RequestThrottle {
    /// Number of queued requests.
    #[cfg(test)]
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Release time of the next queued request.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether the request `sub` (the session's key) is queued.
    pub(crate) fn holds(&self, sub: SubId) -> bool {
        self.queue.iter().any(|request| request.sub == sub)
    }

    /// Updates the preferences of a queued request; false if it is not queued.
    pub(crate) fn update(&mut self, sub: SubId, prefs: Prefs) -> bool {
        let found = self.queue.iter_mut().find(|request| request.sub == sub);
        found.map(|request| request.demand.prefs = prefs).is_some()
    }

    /// Counts a request to a publisher on behalf of the session.
    pub(crate) fn count(&mut self, now: Instant) {
        self.decay(now);
        self.asked = self.asked.saturating_add(1);
        self.free_at = Some(now + limits::BRAKE_INTERVAL);
    }

    /// Counts a reply that the track does not exist.
    pub(crate) fn count_missing(&mut self, now: Instant) {
        self.decay(now);
        self.missed = self.missed.saturating_add(1);
    }

    /// Decides on a request to a publisher. The deadline [`Self::due`] may be new afterwards.
    pub(crate) fn admit(&mut self, request: SubscribeRequest, now: Instant) -> ThrottleVerdict {
        if !self.is_limiting(now) {
            self.count(now);
            return ThrottleVerdict::Pass;
        }
        if self.queue.len() >= limits::BRAKE_WAITING {
            return ThrottleVerdict::Full;
        }
        self.queue.push_back(request);
        self.due.get_or_insert(self.free_at.map_or(now, |at| at.max(now)));
        ThrottleVerdict::Queued
    }

    /// Takes and counts the next queued request; [`Self::due`] has passed.
    pub(crate) fn release(&mut self, now: Instant) -> Option<SubscribeRequest> {
        let request = self.queue.pop_front();
        self.due = (!self.queue.is_empty()).then(|| now + limits::BRAKE_INTERVAL);
        if request.is_some() {
            self.count(now);
        }
        request
    }

    /// Removes a queued request; false if it is not queued.
    pub(crate) fn cancel(&mut self, sub: SubId) -> bool {
        let before = self.queue.len();
        self.queue.retain(|request| request.sub != sub);
        if self.queue.is_empty() {
            self.due = None;
        }
        self.queue.len() < before
    }

    /// Whether another request must be queued.
    fn is_limiting(&mut self, now: Instant) -> bool {
        self.decay(now);
        let is_on = self.missed >= limits::BRAKE_MISSES && self.missed > self.asked / 2;
        !self.queue.is_empty() || is_on && self.free_at.is_some_and(|at| now < at)
    }

    fn decay(&mut self, now: Instant) {
        let since = *self.halved_at.get_or_insert(now);
        let passed = now.saturating_duration_since(since).as_millis() / limits::BRAKE_HALF_LIFE.as_millis();
        let halvings = u32::try_from(passed).unwrap_or(u32::MAX);
        if halvings > 0 {
            self.asked = self.asked.checked_shr(halvings).unwrap_or(0);
            self.missed = self.missed.checked_shr(halvings).unwrap_or(0);
            self.halved_at = Some(since + limits::BRAKE_HALF_LIFE * halvings);
        }
    }

    /// Asserts the invariants of the queue.
    pub(crate) fn check(&self) {
        assert!(self.queue.len() <= limits::BRAKE_WAITING);
        assert_eq!(self.due.is_some(), !self.queue.is_empty(), "queued requests and deadline disagree");
    }
}

#[cfg(test)]
mod tests {
    use relay_model::Want;

    use super::*;

    fn request(sub: u64) -> SubscribeRequest {
        let (path, track) = (Path::parse("a").unwrap(), TrackName::parse("video").unwrap());
        let demand = TrackDemand { prefs: Prefs::default(), want: Want::Live };
        SubscribeRequest { sub: SubId(sub), path, track, demand }
    }

    fn limiting(now: Instant) -> RequestThrottle {
        let mut throttle = RequestThrottle::default();
        (0..limits::BRAKE_MISSES).for_each(|_| {
            throttle.count(now);
            throttle.count_missing(now);
        });
        throttle
    }

    #[test]
    fn requests_pass_while_most_tracks_exist() {
        let (now, mut throttle) = (Instant::now(), RequestThrottle::default());
        for sub in 0..1_000 {
            assert_eq!(throttle.admit(request(sub), now), ThrottleVerdict::Pass);
        }
        assert_eq!((throttle.queued(), throttle.due()), (0, None));
    }

    #[test]
    fn queued_requests_are_released_one_at_a_time() {
        let now = Instant::now();
        let mut throttle = limiting(now);
        assert_eq!(throttle.admit(request(1), now), ThrottleVerdict::Queued);
        assert_eq!(throttle.admit(request(2), now), ThrottleVerdict::Queued);
        let due = now + limits::BRAKE_INTERVAL;
        assert_eq!(throttle.due(), Some(due));
        assert_eq!(throttle.release(due), Some(request(1)));
        assert_eq!(throttle.due(), Some(due + limits::BRAKE_INTERVAL));
        assert!(throttle.cancel(SubId(2)) && !throttle.cancel(SubId(2)));
        assert_eq!(throttle.due(), None);
        throttle.check();
    }

    #[test]
    fn requests_past_the_queue_limit_are_refused() {
        let now = Instant::now();
        let mut throttle = limiting(now);
        for sub in 0..limits::BRAKE_WAITING as u64 {
            assert_eq!(throttle.admit(request(sub), now), ThrottleVerdict::Queued);
        }
        assert_eq!(throttle.admit(request(999), now), ThrottleVerdict::Full);
        throttle.check();
    }

    #[test]
    fn misses_are_forgotten_in_time() {
        let now = Instant::now();
        let mut throttle = limiting(now);
        let later = now + limits::BRAKE_HALF_LIFE;
        assert_eq!(throttle.admit(request(1), later), ThrottleVerdict::Pass);
        assert_eq!(throttle.admit(request(2), later), ThrottleVerdict::Pass);
    }
}
