//! Groups a publisher is known not to have.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use crate::bounds;

/// A bounded set of group numbers, as ranges; above the bound the oldest range is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Absent {
    /// Ascending, neither overlapping nor adjacent.
    ranges: Vec<Range>,
    /// Number of insertions.
    stamp: u64,
}

#[derive(Clone, Copy, Debug)]
struct Range {
    first: u64,
    last: u64,
    /// Stamp of the last insertion into it.
    stamp: u64,
}

impl Absent {
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn contains(&self, group: u64) -> bool {
        self.find(group).is_ok()
    }

    /// Bytes charged for the set.
    pub(crate) fn overhead(&self) -> u64 {
        (self.ranges.len() as u64).saturating_mul(bounds::RANGE_OVERHEAD)
    }

    pub(crate) fn insert(&mut self, group: u64) {
        self.stamp = self.stamp.saturating_add(1);
        let at = match self.find(group) {
            Ok(at) => {
                self.touch(at);
                return;
            }
            Err(at) => at,
        };
        let before = at
            .checked_sub(1)
            .filter(|at| self.ranges.get(*at).is_some_and(|range| range.last.checked_add(1) == Some(group)));
        let after = self.ranges.get(at).filter(|range| group.checked_add(1) == Some(range.first)).copied();
        match (before.and_then(|at| self.ranges.get_mut(at)), after) {
            (Some(range), None) => (range.last, range.stamp) = (group, self.stamp),
            (Some(range), Some(after)) => {
                (range.last, range.stamp) = (after.last, self.stamp);
                self.ranges.remove(at);
            }
            (None, Some(after)) => {
                if let Some(range) = self.ranges.get_mut(at) {
                    *range = Range { first: group, stamp: self.stamp, ..after };
                }
            }
            (None, None) => self.add(at, Range { first: group, last: group, stamp: self.stamp }),
        }
    }

    /// Removes a group that exists after all.
    pub(crate) fn remove(&mut self, group: u64) {
        let Ok(at) = self.find(group) else { return };
        let Some(range) = self.ranges.get(at).copied() else { return };
        self.ranges.remove(at);
        if let Some(first) = group.checked_add(1).filter(|first| *first <= range.last) {
            self.add(at, Range { first, ..range });
        }
        if let Some(last) = group.checked_sub(1).filter(|last| *last >= range.first) {
            let at = self.find(range.first).unwrap_or_else(|at| at);
            self.add(at, Range { last, ..range });
        }
    }

    /// Index of the range that contains `group`, or of the one after it.
    fn find(&self, group: u64) -> Result<usize, usize> {
        let at = self.ranges.partition_point(|range| range.last < group);
        if self.ranges.get(at).is_some_and(|range| range.first <= group) { Ok(at) } else { Err(at) }
    }

    fn touch(&mut self, at: usize) {
        if let Some(range) = self.ranges.get_mut(at) {
            range.stamp = self.stamp;
        }
    }

    fn add(&mut self, at: usize, range: Range) {
        self.ranges.insert(at, range);
        if self.ranges.len() > bounds::ABSENT_RANGES {
            let oldest = self.ranges.iter().enumerate().min_by_key(|(_, range)| range.stamp);
            if let Some((oldest, _)) = oldest {
                self.ranges.remove(oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(absent: &Absent) -> Vec<(u64, u64)> {
        absent.ranges.iter().map(|range| (range.first, range.last)).collect()
    }

    #[test]
    fn neighbours_are_one_range_and_a_group_that_comes_splits_it() {
        let mut absent = Absent::default();
        for group in [5, 3, 4, 9, u64::MAX, 0, 4] {
            absent.insert(group);
        }
        assert_eq!(ranges(&absent), [(0, 0), (3, 5), (9, 9), (u64::MAX, u64::MAX)]);
        for group in [4, 9, 7, u64::MAX] {
            absent.remove(group);
        }
        assert_eq!(ranges(&absent), [(0, 0), (3, 3), (5, 5)]);
        assert!(absent.contains(3) && !absent.contains(4));
    }

    #[test]
    fn range_past_the_bound_evicts_the_oldest() {
        let mut absent = Absent::default();
        for at in 0..bounds::ABSENT_RANGES as u64 {
            absent.insert(at * 2);
        }
        absent.insert(0);
        assert!(absent.contains(0) && absent.contains(2), "at the bound all are known");
        absent.insert(u64::MAX);
        assert_eq!(absent.ranges.len(), bounds::ABSENT_RANGES);
        assert!(absent.contains(0) && !absent.contains(2) && absent.contains(u64::MAX));
    }
}
