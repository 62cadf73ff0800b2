//! What a log lets go of, when it is written. Unlinked groups are handed out, to be dropped once
//! the lock is released.

use std::time::{Duration, Instant};

use crate::{bounds, budget::Budget, entry::Entry, group::Group, state::State};

/// What a sweep takes from a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shed {
    /// Superseded groups, oldest first.
    Superseded,
    /// The latest group too.
    Latest,
}

impl State {
    /// Evicts by age, by number, then by the budget. True: more than this log's superseded groups
    /// must go.
    pub(crate) fn settle(
        &mut self,
        now: Instant,
        max_age: Duration,
        budget: &Budget,
        trash: &mut Vec<Group>,
    ) -> bool {
        let own = self.info.map(|info| Duration::from_millis(info.max_age_ms));
        let max_age = own.map_or(max_age, |own| own.min(max_age));
        while let Some((since, _)) = self.superseded.front()
            && now.saturating_duration_since(*since) > max_age
        {
            self.evict_oldest(trash);
        }
        while self.groups.len() > bounds::LOG_GROUPS && self.evict_oldest(trash).is_some() {}
        self.share.set(self.overhead);
        let freed: u64 = trash.iter().map(|group| group.payload).sum();
        let excess = budget.used().saturating_sub(budget.capacity()).saturating_sub(freed);
        let left = excess.saturating_sub(self.shed(Shed::Superseded, excess, trash));
        left > 0
    }

    /// Evicts until about `excess` bytes are unlinked or nothing of the kind is left. Returns what
    /// was unlinked; somebody may still hold handles to it.
    pub(crate) fn shed(&mut self, what: Shed, excess: u64, trash: &mut Vec<Group>) -> u64 {
        let mut freed = 0;
        while freed < excess {
            match self.evict_oldest(trash) {
                Some(cost) => freed += cost,
                None => break,
            }
        }
        if what == Shed::Latest
            && freed < excess
            && let Some(latest) = self.latest
        {
            freed += self.evict(latest, trash);
        }
        self.share.set(self.overhead);
        freed
    }

    fn evict_oldest(&mut self, trash: &mut Vec<Group>) -> Option<u64> {
        let (_, sequence) = self.superseded.pop_front()?;
        Some(self.evict(sequence, trash))
    }

    fn evict(&mut self, sequence: u64, trash: &mut Vec<Group>) -> u64 {
        let Some(group) = self.groups.remove(&sequence) else { return 0 };
        let cost = group.cost();
        self.overhead -= group.overhead;
        self.journal.push(Entry::Evicted { group: sequence });
        trash.push(group);
        cost
    }
}
