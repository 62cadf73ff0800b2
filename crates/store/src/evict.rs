//! Eviction from a log when it is written. Unlinked groups are handed out, to be dropped once the lock is
//! released.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{
    bounds,
    budget::Budget,
    group::CachedGroup,
    ready_list::WakeSet,
    state::{LogState, Superseded},
};

/// Sweep over all logs of a store, run after a commit that exceeds the budget.
pub(crate) trait BudgetSweep: fmt::Debug + Send + Sync {
    /// Evicts from all logs until the budget is kept. Must not be called under a log's lock.
    fn sweep(&self, wakes: &mut WakeSet);
}

/// Groups a sweep may evict from a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shed {
    /// Superseded groups, oldest first, except those that a fetch is bringing.
    Superseded,
    /// Groups that a fetch is bringing, too.
    Fetches,
    /// The latest group too.
    Latest,
}

impl LogState {
    /// Evicts by age, by number, then by the budget. True: the budget requires more than this log's superseded
    /// groups.
    pub(crate) fn evict_excess(
        &mut self,
        now: Instant,
        max_age: Duration,
        budget: &Budget,
        evicted: &mut Vec<CachedGroup>,
    ) -> bool {
        self.age(now, max_age, evicted);
        while self.groups.len() > bounds::LOG_GROUPS
            && (self.evict_oldest(evicted).is_some() || self.evict_fetch(evicted).is_some())
        {}
        self.share.set(self.overhead);
        let freed: u64 = evicted.iter().map(|group| group.payload).sum();
        let excess = budget.used().saturating_sub(budget.capacity()).saturating_sub(freed);
        let left = excess.saturating_sub(self.shed(Shed::Superseded, excess, evicted));
        left > 0
    }

    /// Evicts groups superseded too long ago. A group that a fetch is bringing stays until the fetch has ended.
    #[inline]
    pub(crate) fn age(&mut self, now: Instant, max_age: Duration, evicted: &mut Vec<CachedGroup>) {
        let own = self.info.map(|info| Duration::from_millis(info.max_age_ms));
        let max_age = own.map_or(max_age, |own| own.min(max_age));
        while let Some(oldest) = self.superseded.front()
            && now.saturating_duration_since(oldest.since) > max_age
        {
            self.outdate(now, evicted);
        }
    }

    /// Evicts the oldest group, or restarts its age if a fetch is bringing it.
    fn outdate(&mut self, now: Instant, evicted: &mut Vec<CachedGroup>) {
        let Some(oldest) = self.superseded.pop_front() else { return };
        if !self.is_coming_by_fetch(oldest) {
            self.evict(oldest.sequence, evicted);
        } else if let Some(group) = self.groups.get_mut(&oldest.sequence) {
            group.superseded_at = Some(now);
            self.superseded.push_back(Superseded { since: now, ..oldest });
        }
    }

    /// Evicts until about `excess` bytes are unlinked or no group of the kind is left. Returns the bytes
    /// unlinked; readers may still hold handles to them.
    pub(crate) fn shed(&mut self, what: Shed, excess: u64, evicted: &mut Vec<CachedGroup>) -> u64 {
        let mut freed = 0;
        while freed < excess {
            let cost = match what {
                Shed::Superseded => self.evict_oldest(evicted),
                Shed::Fetches | Shed::Latest => {
                    self.evict_oldest(evicted).or_else(|| self.evict_fetch(evicted))
                }
            };
            match cost {
                Some(cost) => freed += cost,
                None => break,
            }
        }
        if what == Shed::Latest
            && freed < excess
            && let Some(latest) = self.latest
        {
            freed += self.evict(latest, evicted);
        }
        self.share.set(self.overhead);
        freed
    }

    fn evict_oldest(&mut self, evicted: &mut Vec<CachedGroup>) -> Option<u64> {
        let at = self.superseded.iter().position(|oldest| !self.is_coming_by_fetch(*oldest))?;
        let oldest = self.superseded.remove(at)?;
        Some(self.evict(oldest.sequence, evicted))
    }

    /// Evicts the oldest group that a fetch is bringing.
    fn evict_fetch(&mut self, evicted: &mut Vec<CachedGroup>) -> Option<u64> {
        let oldest = self.superseded.pop_front()?;
        Some(self.evict(oldest.sequence, evicted))
    }

    fn is_coming_by_fetch(&self, group: Superseded) -> bool {
        group.fetched && self.groups.get(&group.sequence).is_some_and(CachedGroup::is_coming_by_fetch)
    }
}
