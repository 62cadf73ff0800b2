//! What all readers of a log want together, kept in O(log n) a change.

use std::collections::BTreeMap;

use relay_model::{Prefs, Want};

/// The union of the readers' wishes. Readers that want properties only do not weigh: a request for
/// them has no preferences.
#[derive(Debug, Default)]
pub(crate) struct Union {
    live: usize,
    ordered: usize,
    endless: usize,
    latest: usize,
    priority: Bag<u8>,
    max_age_ms: Bag<u64>,
    start: Bag<u64>,
    end: Bag<u64>,
}

impl Union {
    pub(crate) fn add(&mut self, prefs: Prefs, want: Want) {
        if want == Want::Info {
            return;
        }
        self.live += 1;
        self.ordered += usize::from(prefs.ordered);
        self.endless += usize::from(prefs.end.is_none());
        self.latest += usize::from(prefs.start.is_none());
        self.priority.add(Some(prefs.priority));
        self.max_age_ms.add(Some(prefs.max_age_ms));
        self.start.add(prefs.start);
        self.end.add(prefs.end);
    }

    /// Takes back exactly what [`Self::add`] was given.
    pub(crate) fn remove(&mut self, prefs: Prefs, want: Want) {
        if want == Want::Info {
            return;
        }
        self.live -= 1;
        self.ordered -= usize::from(prefs.ordered);
        self.endless -= usize::from(prefs.end.is_none());
        self.latest -= usize::from(prefs.start.is_none());
        self.priority.remove(Some(prefs.priority));
        self.max_age_ms.remove(Some(prefs.max_age_ms));
        self.start.remove(prefs.start);
        self.end.remove(prefs.end);
    }

    /// What one upstream subscription must ask to serve every live reader; `None` without any.
    pub(crate) fn live(&self) -> Option<Prefs> {
        (self.live > 0).then(|| Prefs {
            priority: self.priority.max().unwrap_or_default(),
            ordered: self.ordered == self.live,
            max_age_ms: self.max_age_ms.max().unwrap_or_default(),
            start: if self.latest == 0 { self.start.min() } else { None },
            end: if self.endless == 0 { self.end.max() } else { None },
        })
    }
}

/// A multiset.
#[derive(Debug)]
struct Bag<T>(BTreeMap<T, usize>);

impl<T> Default for Bag<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Ord + Copy> Bag<T> {
    fn add(&mut self, value: Option<T>) {
        if let Some(value) = value {
            *self.0.entry(value).or_default() += 1;
        }
    }

    fn remove(&mut self, value: Option<T>) {
        if let Some(value) = value
            && let Some(count) = self.0.get_mut(&value)
        {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&value);
            }
        }
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
        let opt = || proptest::option::of(0..4_u64);
        (0..3_u8, any::<bool>(), 0..3_u64, opt(), opt()).prop_map(
            |(priority, ordered, max_age_ms, start, end)| Prefs { priority, ordered, max_age_ms, start, end },
        )
    }

    proptest! {
        #[test]
        fn it_is_the_fold_of_those_that_stayed(all in proptest::collection::vec((prefs(), any::<bool>()), 0..12)) {
            let mut union = Union::default();
            all.iter().for_each(|(prefs, _)| union.add(*prefs, Want::Live));
            union.add(Prefs::default(), Want::Info);
            all.iter().filter(|(_, stays)| !stays).for_each(|(prefs, _)| union.remove(*prefs, Want::Live));
            let fold = all.iter().filter(|(_, stays)| *stays).map(|(prefs, _)| *prefs).reduce(Prefs::union);
            prop_assert_eq!(union.live(), fold);
        }
    }
}
