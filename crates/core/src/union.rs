//! What all readers of a log want together, kept in O(log n) a change.

use std::collections::BTreeMap;

use relay_model::{Prefs, Start, Want};

/// The union of the readers' wishes. Readers that want properties only do not weigh: a request for
/// them has no preferences.
#[derive(Debug, Default)]
pub(crate) struct Union {
    live: usize,
    ordered: usize,
    priority: Bag<u8>,
    max_age_ms: Bag<u64>,
    starts: Bag<(StartKey, u64)>,
    /// Group and frame. No end sorts first.
    ends: Bag<(Option<u64>, Option<u64>)>,
}

/// [`Start`], ordered: the latest, then groups, then fresh ones; lowest first within each.
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

    /// Takes back exactly what [`Self::add`] was given.
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

    /// What one upstream subscription must ask to serve every live reader; `None` without any.
    pub(crate) fn live(&self) -> Option<Prefs> {
        // Without an end first, if there is one: then there is none. Else the last end, last.
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

    /// The lowest of each kind together: the others of a kind add nothing to it.
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

    /// The value, if all that is in it is equal.
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
        fn it_is_the_fold_of_those_that_stayed(all in proptest::collection::vec((prefs(), any::<bool>()), 0..8)) {
            let mut union = Union::default();
            all.iter().for_each(|(prefs, _)| union.add(*prefs, Want::Live));
            union.add(Prefs::default(), Want::Info);
            all.iter().filter(|(_, stays)| !stays).for_each(|(prefs, _)| union.remove(*prefs, Want::Live));
            let fold = all.iter().filter(|(_, stays)| *stays).map(|(prefs, _)| *prefs).reduce(Prefs::union);
            prop_assert_eq!(union.live(), fold);
        }

        #[test]
        fn frames_stay_while_all_agree_on_them(one in prefs(), readers in 1..5_usize) {
            let mut union = Union::default();
            (0..readers).for_each(|_| union.add(one, Want::Live));
            prop_assert_eq!(union.live(), Some(one));
        }
    }
}
