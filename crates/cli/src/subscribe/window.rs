//! Flow control by groups: the last group of a subscription, moved ahead as groups are written.

use std::time::{Duration, Instant};

use relay_client::{Prefs, Start};

/// Smallest and largest number of groups requested ahead; the largest is what a relay holds open for one reader.
const FEWEST: u64 = 2;
const MOST: u64 = 24;
/// Bytes requested ahead: what a relay holds for a reader that is behind.
const AHEAD_BYTES: u64 = 3 * 1024 * 1024;
/// Shortest time between two updates, each of which costs a message.
const PAUSE: Duration = Duration::from_millis(8);

/// Window of one subscription.
#[derive(Debug)]
pub(crate) struct Window {
    prefs: Prefs,
    until: Option<u64>,
    /// Whether no group may be skipped.
    lossless: bool,
    /// Bytes of the group being written; below, those of the largest group so far.
    bytes: u64,
    largest: u64,
    asked: Option<Instant>,
}

impl Window {
    pub(crate) fn new(prefs: Prefs, until: Option<u64>, lossless: bool) -> Self {
        Self { prefs, until, lossless, bytes: 0, largest: 0, asked: None }
    }

    /// Whether missing groups are fetched.
    pub(crate) fn repairs(&self) -> bool {
        self.lossless
    }

    pub(crate) fn took(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Records the end of a group.
    pub(crate) fn passed(&mut self) {
        self.largest = self.largest.max(std::mem::take(&mut self.bytes));
    }

    /// Preferences to request now that `next` is the group to write next; `None` = no change.
    pub(crate) fn update(&mut self, next: u64, max_age: Duration) -> Option<Prefs> {
        if !self.lossless {
            return None;
        }
        let largest = self.largest.max(self.bytes).max(1);
        let ahead = (AHEAD_BYTES / largest).clamp(FEWEST, MOST);
        let target = next.saturating_add(ahead);
        let end = self.until.map_or(target, |until| target.min(until));
        let is_due = match (self.asked, self.prefs.end) {
            (None, _) => true,
            (Some(at), Some(last)) => {
                let left = last.saturating_sub(next);
                end > last && left <= ahead / 2 && (left == 0 || at.elapsed() >= PAUSE)
            }
            (Some(_), None) => true,
        };
        if !is_due {
            return None;
        }
        if self.asked.is_none() && self.prefs.start == Start::Latest {
            self.prefs.start = Start::Group(next);
        }
        self.prefs.max_age_ms = u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX);
        self.prefs.end = Some(end);
        self.asked = Some(Instant::now());
        Some(self.prefs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_shrinks_for_large_groups_and_moves_at_half() {
        let mut window = Window::new(Prefs::default(), None, true);
        let first = window.update(5, Duration::from_secs(30)).unwrap();
        assert_eq!((first.start, first.end), (Start::Group(5), Some(5 + MOST)));
        assert_eq!(window.update(6, Duration::ZERO), None);
        assert_eq!(window.update(5 + MOST, Duration::ZERO).unwrap().end, Some(5 + 2 * MOST));
        window.took(AHEAD_BYTES as usize);
        window.passed();
        assert_eq!(window.update(5 + 2 * MOST, Duration::ZERO).unwrap().end, Some(5 + 2 * MOST + FEWEST));
    }

    #[test]
    fn no_window_where_groups_may_skip_and_none_past_the_end() {
        let mut live = Window::new(Prefs::default(), None, false);
        assert_eq!(live.update(0, Duration::ZERO), None);
        let mut bounded = Window::new(Prefs { end: Some(3), ..Prefs::default() }, Some(3), true);
        assert_eq!(bounded.update(0, Duration::ZERO).unwrap().end, Some(3));
        assert_eq!(bounded.update(2, Duration::ZERO), None);
    }
}
