//! Table of values by index; the indexes of removed values are used again.

/// Values by index. An index carries no generation: its owner removes the value once, and drops the index.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    entries: Vec<Option<T>>,
    vacant: Vec<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), vacant: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Adds a value. Returns its index, the one that became vacant last if there is one.
    pub(crate) fn insert(&mut self, value: T) -> usize {
        let index = self.vacant.pop().unwrap_or(self.entries.len());
        match self.entries.get_mut(index) {
            Some(vacant) => *vacant = Some(value),
            None => self.entries.push(Some(value)),
        }
        index
    }

    /// Removes the value at `index`; `None` if there is none.
    pub(crate) fn remove(&mut self, index: usize) -> Option<T> {
        let value = self.entries.get_mut(index)?.take()?;
        self.vacant.push(index);
        Some(value)
    }

    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.entries.get(index)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.entries.get_mut(index)?.as_mut()
    }

    /// Values in the order of their indexes.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().flatten()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn removed_index_is_used_again() {
        let mut slots = Slots::default();
        assert_eq!([slots.insert('a'), slots.insert('b'), slots.insert('c')], [0, 1, 2]);
        assert_eq!((slots.remove(1), slots.remove(1), slots.get(1)), (Some('b'), None, None));
        assert_eq!(slots.values().collect::<String>(), "ac");
        assert_eq!((slots.insert('d'), slots.insert('e')), (1, 3));
        assert_eq!(slots.get_mut(1), Some(&mut 'd'));
    }
}
