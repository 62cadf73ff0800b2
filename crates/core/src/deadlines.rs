//! Set of deadlines, each with its owner.

use std::{collections::BTreeSet, time::Instant};

/// Deadlines in order; of equal ones the lowest key is first. The owner of a deadline remembers it, to disarm
/// it.
#[derive(Debug)]
pub(crate) struct DeadlineSet<K>(BTreeSet<(Instant, K)>);

impl<K> Default for DeadlineSet<K> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<K: Ord> DeadlineSet<K> {
    pub(crate) fn arm(&mut self, at: Instant, key: K) {
        self.0.insert((at, key));
    }

    pub(crate) fn disarm(&mut self, at: Instant, key: K) {
        self.0.remove(&(at, key));
    }

    /// Takes and disarms the first deadline that has passed.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let due = self.next().is_some_and(|at| at <= now);
        due.then(|| self.0.pop_first()).flatten().map(|(_, key)| key)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn contains(&self, at: Instant, key: K) -> bool {
        self.0.contains(&(at, key))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn due_deadlines_come_in_order_and_once() {
        let (now, mut set) = (Instant::now(), DeadlineSet::default());
        let later = now + Duration::from_millis(1);
        [(later, 1), (now, 3), (now, 2), (later, 4)].into_iter().for_each(|(at, key)| set.arm(at, key));
        set.disarm(later, 4);
        assert_eq!((set.next(), set.len()), (Some(now), 3));
        assert_eq!([set.pop_due(now), set.pop_due(now), set.pop_due(now)], [Some(2), Some(3), None]);
        assert_eq!((set.pop_due(later), set.next()), (Some(1), None));
    }
}
