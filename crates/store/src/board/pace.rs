//! Rate limit for the changes of one path: a small burst, then one per interval.

use std::time::{Duration, Instant};

/// Limit on the changes of one path that watches see in any second. Further changes collapse into the newest
/// state.
pub const PATH_CHANGES_PER_SECOND: u32 = 20;

/// Changes that pass without delay: enough for a publisher that returns on another route.
const BURST: u32 = 4;
/// Time between changes once the burst is spent: [`BURST`] plus those that fit make up the rate of one second.
const INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / (PATH_CHANGES_PER_SECOND - BURST) as u64);

/// Recent changes of one path.
#[derive(Debug, Default)]
pub(super) struct ChangePace {
    /// Time at which no recent change counts any more; each change moves it by [`INTERVAL`].
    idle_at: Option<Instant>,
}

impl ChangePace {
    /// Time from which the next change may be shown; `None` = at once.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let due = self.idle_at?.checked_sub(INTERVAL * (BURST - 1))?;
        (due > now).then_some(due)
    }

    /// Counts a change.
    pub(super) fn count(&mut self, now: Instant) {
        self.idle_at = Some(self.idle_at.map_or(now, |idle| idle.max(now)) + INTERVAL);
    }

    /// Whether the state equals that of a new pace.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.idle_at.is_none_or(|idle| idle <= now)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn any_second_has_at_most_twenty_changes() {
        let (mut pace, begun) = (ChangePace::default(), Instant::now());
        let mut changes = Vec::new();
        for ms in 0..5_000 {
            let now = begun + Duration::from_millis(ms);
            while pace.due(now).is_none() {
                pace.count(now);
                changes.push(ms);
            }
        }
        assert_eq!(changes[..BURST as usize], [0; BURST as usize]);
        let most = changes
            .iter()
            .map(|at| changes.iter().filter(|other| (*at..at + 1_000).contains(*other)).count());
        let most = most.max().unwrap_or_default();
        assert!((PATH_CHANGES_PER_SECOND as usize - 1..=PATH_CHANGES_PER_SECOND as usize).contains(&most));
        assert!(!pace.is_idle(begun + Duration::from_millis(5_000)));
        assert!(pace.is_idle(begun + Duration::from_millis(5_000) + INTERVAL * BURST));
    }
}
