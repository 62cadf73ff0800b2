//! Union of the preferences of a log's readers, kept in O(log n) per change.

use std::collections::BTreeMap;

use relay_model::{Prefs, Start, Want};

/// Union of the readers' preferences. Readers of properties only do not count, as such a request has no
/// preferences.
#[derive(Debug, Default)]
pub(crate) struct Union {
    live: usize,
    ordered: usize,
    priority: Bag<u8>,
    max_age_ms: Bag<u64>,
    starts: Bag<(StartKey, u64)>,
    /// Group and frame. `None` (no end) sorts first.
    ends: Bag<(Option<u64>, Option<u64>)>,
}

/// [`Start`] with an order: latest, then groups, then fresh ones, each lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum StartKey {
    Latest,
    Group(u64),
    Fresh(u64),
}

impl Union {
    pub(crate) fn add(&mut self, prefs: Prefs, want: Want) {
        if want == Want::Info {
            return;
        }
        self.live += 1;
        self.ordered += usize::from(prefs.ordered);
        self.priority.add(prefs.priority);
        self.max_age_ms.add(prefs.max_age_ms);
        self.starts.add((prefs.start.into(), prefs.start_frame));
        self.ends.add((prefs.end, prefs.end_frame));
    }

    /// Removes exactly one value given to [`Self::add`].
    pub(crate) fn remove(&mut self, prefs: Prefs, want: Want) {
        if want == Want::Info {
            return;
        }
        self.live -= 1;
        self.ordered -= usize::from(prefs.ordered);
        self.priority.remove(prefs.priority);
        self.max_age_ms.remove(prefs.max_age_ms);
        self.starts.remove((prefs.start.into(), prefs.start_frame));
        self.ends.remove((prefs.end, prefs.end_frame));
    }

    /// Preferences of one upstream subscription that serves every live reader; `None` without any.
    pub(crate) fn live(&self) -> Option<Prefs> {
        // `None` sorts first, so a minimum of `None` makes the union endless; otherwise the last end counts.
        let end = self.ends.min()?.0.and(self.ends.max()?.0);
        Some(Prefs {
            priority: self.priority.max()?,
            ordered: self.ordered == self.live,
            max_age_ms: self.max_age_ms.max()?,
            start: self.start()?,
            start_frame: self.starts.only().map_or(0, |(_, frame)| frame),
            end,
            end_frame: self.ends.only().and_then(|(_, frame)| frame),
        })
    }

    /// Union of the lowest start of each kind; the others of a kind add nothing to it.
    fn start(&self) -> Option<Start> {
        let lowest = [StartKey::Latest, StartKey::Group(0), StartKey::Fresh(0)]
            .map(|key| self.starts.at_least((key, 0)).map(|(key, _)| Start::from(key)));
        lowest.into_iter().flatten().reduce(Start::union)
    }
}

impl From<Start> for StartKey {
    fn from(start: Start) -> Self {
        match start {
            Start::Latest => Self::Latest,
            Start::Group(group) => Self::Group(group),
            Start::Fresh { floor } => Self::Fresh(floor),
        }
    }
}

impl From<StartKey> for Start {
    fn from(key: StartKey) -> Self {
        match key {
            StartKey::Latest => Self::Latest,
            StartKey::Group(group) => Self::Group(group),
            StartKey::Fresh(floor) => Self::Fresh { floor },
        }
    }
}

/// A multiset.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bag<T>(BTreeMap<T, usize>);

impl<T> Default for Bag<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord + Copy> Bag<T> {
    pub(crate) fn add(&mut self, value: T) {
        *self.0.entry(value).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, value: T) {
        if let Some(count) = self.0.get_mut(&value) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&value);
            }
        }
    }

    pub(crate) fn contains(&self, value: T) -> bool {
        self.0.contains_key(&value)
    }

    /// The value, if the bag holds only equal ones.
    fn only(&self) -> Option<T> {
        self.min().filter(|_| self.0.len() == 1)
    }

    fn at_least(&self, value: T) -> Option<T> {
        self.0.range(value..).next().map(|(value, _)| *value)
    }

    fn min(&self) -> Option<T> {
        self.0.first_key_value().map(|(value, _)| *value)
    }

    fn max(&self) -> Option<T> {
        self.0.last_key_value().map(|(value, _)| *value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefs() -> impl Strategy<Value = Prefs> {
        let opt = || proptest::option::of(0..3_u64);
        let start = prop_oneof![
            1 => Just(Start::Latest),
            2 => (0..3_u64).prop_map(Start::Group),
            2 => (0..3_u64).prop_map(|floor| Start::Fresh { floor }),
        ];
        (0..3_u8, any::<bool>(), 0..3_u64, start, 0..2_u64, opt(), opt()).prop_map(
            |(priority, ordered, max_age_ms, start, start_frame, end, end_frame)| Prefs {
                priority,
                ordered,
                max_age_ms,
                start,
                start_frame,
                end,
                end_frame,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn union_equals_fold_over_remaining_readers(all in proptest::collection::vec((prefs(), any::<bool>()), 0..8)) {
            let mut union = Union::default();
            all.iter().for_each(|(prefs, _)| union.add(*prefs, Want::Live));
            union.add(Prefs::default(), Want::Info);
            all.iter().filter(|(_, stays)| !stays).for_each(|(prefs, _)| union.remove(*prefs, Want::Live));
            let fold = all.iter().filter(|(_, stays)| *stays).map(|(prefs, _)| *prefs).reduce(Prefs::union);
            prop_assert_eq!(union.live(), fold);
        }

        #[test]
        fn frames_kept_while_all_readers_agree(one in prefs(), readers in 1..5_usize) {
            let mut union = Union::default();
            (0..readers).for_each(|_| union.add(one, Want::Live));
            prop_assert_eq!(union.live(), Some(one));
        }
    }
}
