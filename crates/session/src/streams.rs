//! Table of a session's streams, with a count of the bytes held for them.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use relay_model::transport::Stream;

/// Memory held for an entry of a [`StreamTable`].
pub(crate) trait StreamCost {
    /// Bytes charged to the session.
    fn cost(&self) -> u64;
}

/// Open streams and the purpose of each.
#[derive(Debug)]
pub(crate) struct StreamTable<K> {
    kinds: HashMap<Stream, K, RandomState>,
    bytes: u64,
}

impl<K> Default for StreamTable<K> {
    fn default() -> Self {
        Self { kinds: HashMap::default(), bytes: 0 }
    }
}

impl<K: StreamCost> StreamTable<K> {
    /// Number of open streams.
    pub(crate) fn len(&self) -> usize {
        self.kinds.len()
    }

    pub(crate) fn insert(&mut self, stream: Stream, kind: K) {
        self.bytes += kind.cost();
        if let Some(before) = self.kinds.insert(stream, kind) {
            self.bytes -= before.cost();
        }
    }

    pub(crate) fn remove(&mut self, stream: Stream) -> Option<K> {
        let kind = self.kinds.remove(&stream)?;
        self.bytes -= kind.cost();
        Some(kind)
    }

    pub(crate) fn get(&self, stream: Stream) -> Option<&K> {
        self.kinds.get(&stream)
    }

    /// An entry to change in place. A change of its cost is counted with [`Self::recount`].
    pub(crate) fn get_mut(&mut self, stream: Stream) -> Option<&mut K> {
        self.kinds.get_mut(&stream)
    }

    /// Counts an entry whose cost changed in place.
    pub(crate) fn recount(&mut self, before: u64, after: u64) {
        self.bytes = self.bytes + after - before;
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(Stream, &K) -> bool) {
        let bytes = &mut self.bytes;
        self.kinds.retain(|stream, kind| {
            let kept = keep(*stream, kind);
            if !kept {
                *bytes -= kind.cost();
            }
            kept
        });
    }

    /// Memory held for the streams, bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl StreamCost for u64 {
        fn cost(&self) -> u64 {
            *self
        }
    }

    #[test]
    fn table_counts_the_bytes_of_its_entries() {
        let mut table = StreamTable::default();
        table.insert(Stream(0), 100);
        table.insert(Stream(4), 7);
        table.insert(Stream(0), 50);
        assert_eq!((table.bytes(), table.len()), (57, 2));
        let entry = table.get_mut(Stream(4)).unwrap();
        let before = std::mem::replace(entry, 9).cost();
        table.recount(before, 9);
        assert_eq!(table.bytes(), 59);
        table.retain(|stream, _| stream != Stream(0));
        assert_eq!(table.bytes(), 9);
        assert!(table.remove(Stream(4)).is_some() && table.remove(Stream(4)).is_none());
        assert_eq!(table.bytes(), 0);
    }
}
