//! Negative cache: tracks that publishers recently reported as missing. New requests for them are refused
//! without asking the publisher.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use foldhash::fast::RandomState;
use relay_model::limits;

use crate::publisher::TrackKey;

/// Negative answers, each kept for [`limits::MISSING_TIME`], at most [`limits::MISSING_TRACKS`].
#[derive(Debug, Default)]
pub(crate) struct MissingTracks {
    until: HashMap<TrackKey, Instant, RandomState>,
    /// In order of expiry.
    order: VecDeque<(Instant, TrackKey)>,
}

impl MissingTracks {
    pub(crate) fn insert(&mut self, key: TrackKey, now: Instant) {
        self.expire(now);
        while self.order.len() >= limits::MISSING_TRACKS {
            self.pop();
        }
        let until = now + limits::MISSING_TIME;
        self.until.insert(key.clone(), until);
        self.order.push_back((until, key));
    }

    pub(crate) fn contains(&mut self, key: &TrackKey, now: Instant) -> bool {
        self.expire(now);
        self.until.contains_key(key)
    }

    fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        let Some((until, key)) = self.order.pop_front() else { return };
        // A later answer for the same track has its own entry in `order`.
        if self.until.get(&key) == Some(&until) {
            self.until.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use relay_model::{Hop, Path, TrackName};

    use super::*;
    use crate::publisher::PublisherId;

    fn key(n: usize) -> TrackKey {
        TrackKey {
            path: Path::parse("a").unwrap(),
            publisher: PublisherId::Named(Hop(7)),
            track: TrackName::parse(&n.to_string()).unwrap(),
        }
    }

    #[test]
    fn negative_answer_is_forgotten_in_time() {
        let (mut missing, now) = (MissingTracks::default(), Instant::now());
        missing.insert(key(1), now);
        assert!(missing.contains(&key(1), now) && !missing.contains(&key(2), now));
        let later = now + limits::MISSING_TIME / 2;
        missing.insert(key(1), later);
        assert!(missing.contains(&key(1), now + limits::MISSING_TIME));
        assert!(!missing.contains(&key(1), later + limits::MISSING_TIME));
        assert!(missing.until.is_empty() && missing.order.is_empty());
    }

    #[test]
    fn oldest_negative_answers_make_room_past_the_limit() {
        let (mut missing, now) = (MissingTracks::default(), Instant::now());
        (0..=limits::MISSING_TRACKS).for_each(|n| missing.insert(key(n), now));
        assert!(!missing.contains(&key(0), now));
        assert!(missing.contains(&key(1), now) && missing.contains(&key(limits::MISSING_TRACKS), now));
        assert_eq!(missing.until.len(), limits::MISSING_TRACKS);
    }
}
