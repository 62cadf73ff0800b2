//! Set of peer indices.

/// Set of peer indices, as one flag per index.
#[derive(Debug, Default)]
pub(super) struct Marks(Vec<bool>);

impl Marks {
    /// Adds an index. False: it was in the set already.
    #[inline]
    pub(super) fn insert(&mut self, index: u32) -> bool {
        let index = index as usize;
        if index >= self.0.len() {
            self.0.resize(index + 1, false);
        }
        self.0.get_mut(index).is_some_and(|mark| !std::mem::replace(mark, true))
    }

    /// Removes an index. False: it was not in the set.
    #[inline]
    pub(super) fn remove(&mut self, index: u32) -> bool {
        self.0.get_mut(index as usize).is_some_and(std::mem::take)
    }

    /// Removes all.
    pub(super) fn clear(&mut self) {
        self.0.fill(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_in_the_set_until_removed() {
        let mut marks = Marks::default();
        assert!(!marks.remove(70), "never added");
        assert!(marks.insert(70) && !marks.insert(70));
        assert!(marks.insert(3));
        assert!(marks.remove(70) && !marks.remove(70));
        marks.clear();
        assert!(!marks.remove(3));
    }
}
