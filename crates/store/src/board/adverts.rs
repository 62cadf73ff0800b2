//! Paths advertised by one watch, keyed by board slot: 14 bytes an entry in sorted chunks.
//!
//! A session may watch 64 prefixes over tens of thousands of paths, so a map of paths would be too large.
//! Chunks grow and shrink in small steps: no pause for a rehash, and at most a few unused entries.

/// Most entries of a chunk.
const CHUNK_ENTRIES: usize = 128;
/// Entries by which the allocation of a chunk grows.
const CHUNK_GROWTH: usize = 8;
/// A chunk with fewer entries is joined with the next one if both fit.
const CHUNK_LOW: usize = CHUNK_ENTRIES / 4;

/// State of one advertised path. Its meaning is up to the owner of the watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advert {
    /// Id of the announcement, for versions that have one.
    pub id: u32,
    /// Fingerprint of the advertised state.
    pub mark: u64,
}

/// Map from slot to [`Advert`].
#[derive(Debug, Default)]
pub(crate) struct AdvertTable {
    /// Ascending by `base`.
    chunks: Vec<AdvertChunk>,
    len: usize,
}

#[derive(Debug)]
struct AdvertChunk {
    /// Lower bound of the chunk's slots: they are at or above it, below the next chunk's, and equal in the
    /// upper 16 bits.
    base: u32,
    /// Ascending by `low`, never empty.
    entries: Vec<AdvertEntry>,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, packed(2))]
struct AdvertEntry {
    mark: u64,
    id: u32,
    /// Lower 16 bits of the slot.
    low: u16,
}

impl AdvertTable {
    /// Advertised paths.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes allocated.
    pub(crate) fn heap_bytes(&self) -> usize {
        let entries: usize = self.chunks.iter().map(|chunk| chunk.entries.capacity()).sum();
        entries * size_of::<AdvertEntry>() + self.chunks.capacity() * size_of::<AdvertChunk>()
    }

    pub(crate) fn get(&self, slot: u32) -> Option<Advert> {
        let chunk = self.chunks.get(self.chunk_of(slot)?)?;
        let entry = chunk.entries.get(chunk.find(slot).ok()?)?;
        Some(Advert { id: entry.id, mark: entry.mark })
    }

    /// First advertised slot at or above `slot`.
    pub(crate) fn next_from(&self, slot: u32) -> Option<u32> {
        let at = self.chunks.partition_point(|chunk| chunk.base <= slot).saturating_sub(1);
        self.chunks.get(at..)?.iter().find_map(|chunk| {
            let from = chunk.entries.partition_point(|entry| chunk.slot(entry) < slot);
            chunk.entries.get(from).map(|entry| chunk.slot(entry))
        })
    }

    pub(crate) fn set(&mut self, slot: u32, advert: Advert) {
        let entry = AdvertEntry { mark: advert.mark, id: advert.id, low: low(slot) };
        let Some(at) = self.chunk_of(slot) else {
            let at = self.chunks.partition_point(|chunk| chunk.base <= slot);
            return self.insert_chunk(at, AdvertChunk::of(high(slot), entry));
        };
        let Some(chunk) = self.chunks.get_mut(at) else { return };
        match chunk.find(slot) {
            Ok(found) => {
                if let Some(old) = chunk.entries.get_mut(found) {
                    *old = entry;
                }
            }
            // Slots inserted in order fill whole chunks.
            Err(CHUNK_ENTRIES) => self.insert_chunk(at + 1, AdvertChunk::of(slot, entry)),
            Err(_) if chunk.entries.len() >= CHUNK_ENTRIES => {
                let upper = chunk.split();
                self.insert_chunk(at + 1, upper);
                self.len -= 1;
                self.set(slot, advert);
            }
            Err(place) => {
                if chunk.entries.len() == chunk.entries.capacity() {
                    chunk.entries.reserve_exact(CHUNK_GROWTH);
                }
                chunk.entries.insert(place, entry);
                self.len += 1;
            }
        }
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Advert> {
        let at = self.chunk_of(slot)?;
        let chunk = self.chunks.get_mut(at)?;
        let found = chunk.find(slot).ok()?;
        let entry = chunk.entries.remove(found);
        self.len -= 1;
        if chunk.entries.is_empty() {
            self.chunks.remove(at);
        } else {
            chunk.shrink();
            self.join_next(at);
        }
        if self.chunks.capacity() > 2 * self.chunks.len() + CHUNK_GROWTH {
            self.chunks.shrink_to(self.chunks.len() + CHUNK_GROWTH);
        }
        Some(Advert { id: entry.id, mark: entry.mark })
    }

    /// Index of the chunk that contains `slot` or would take it.
    fn chunk_of(&self, slot: u32) -> Option<usize> {
        let at = self.chunks.partition_point(|chunk| chunk.base <= slot).checked_sub(1)?;
        self.chunks.get(at).filter(|chunk| high(chunk.base) == high(slot)).map(|_| at)
    }

    fn insert_chunk(&mut self, at: usize, chunk: AdvertChunk) {
        if self.chunks.len() == self.chunks.capacity() {
            self.chunks.reserve_exact(CHUNK_GROWTH + self.chunks.len() / 8);
        }
        self.chunks.insert(at, chunk);
        self.len += 1;
    }

    /// Joins a chunk that has become small with the next one.
    fn join_next(&mut self, at: usize) {
        let [Some(chunk), Some(next)] = [self.chunks.get(at), self.chunks.get(at + 1)] else { return };
        let entries = chunk.entries.len() + next.entries.len();
        let is_low = chunk.entries.len() < CHUNK_LOW || next.entries.len() < CHUNK_LOW;
        if !is_low || entries > CHUNK_ENTRIES - CHUNK_LOW || high(chunk.base) != high(next.base) {
            return;
        }
        let next = self.chunks.remove(at + 1);
        if let Some(chunk) = self.chunks.get_mut(at) {
            chunk.entries.reserve_exact(next.entries.len());
            chunk.entries.extend_from_slice(&next.entries);
        }
    }
}

impl AdvertChunk {
    fn of(base: u32, entry: AdvertEntry) -> Self {
        let mut entries = Vec::with_capacity(CHUNK_GROWTH);
        entries.push(entry);
        Self { base, entries }
    }

    fn slot(&self, entry: &AdvertEntry) -> u32 {
        high(self.base) | u32::from(entry.low)
    }

    /// Index of `slot`, or its insertion point.
    fn find(&self, slot: u32) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&low(slot), |entry| entry.low)
    }

    /// Splits off the upper half.
    fn split(&mut self) -> Self {
        let upper = self.entries.get(CHUNK_ENTRIES / 2..).unwrap_or_default();
        let entries = upper.to_vec();
        self.entries.truncate(CHUNK_ENTRIES / 2);
        self.entries.shrink_to_fit();
        let base =
            entries.first().map_or(self.base, |entry: &AdvertEntry| high(self.base) | u32::from(entry.low));
        Self { base, entries }
    }

    /// Releases allocated space beyond the next few entries.
    fn shrink(&mut self) {
        if self.entries.capacity() >= self.entries.len() + 2 * CHUNK_GROWTH {
            self.entries.shrink_to(self.entries.len() + CHUNK_GROWTH);
        }
    }
}

/// The slot with its lower 16 bits cleared.
fn high(slot: u32) -> u32 {
    slot & !u32::from(u16::MAX)
}

/// The lower 16 bits of the slot.
#[expect(clippy::cast_possible_truncation, reason = "the upper bits are those of the chunk")]
fn low(slot: u32) -> u16 {
    slot as u16
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn advert(id: u32) -> Advert {
        Advert { id, mark: u64::from(id) << 32 }
    }

    /// Bytes an entry, measured.
    fn bytes_per_entry(table: &AdvertTable) -> f64 {
        table.heap_bytes() as f64 / table.len() as f64
    }

    /// Distinct slots in an order that is not ascending.
    fn shuffled(count: u32) -> impl Iterator<Item = u32> {
        (0..count).map(move |at| (u64::from(at) * 7_919 % u64::from(count)) as u32)
    }

    #[test]
    fn entries_take_at_most_16_bytes_in_any_order() {
        let ascending: Vec<u32> = (0..20_000).collect();
        let descending: Vec<u32> = (0..20_000).rev().collect();
        let mixed: Vec<u32> = shuffled(20_000).collect();
        let spread: Vec<u32> = (0..20_000).map(|at| at * 37).collect();
        for order in [ascending, descending, mixed, spread] {
            let mut table = AdvertTable::default();
            order.iter().for_each(|slot| table.set(*slot, advert(*slot)));
            assert_eq!(table.len(), 20_000);
            assert!(bytes_per_entry(&table) <= 16.0, "{}", bytes_per_entry(&table));
        }
    }

    #[test]
    fn memory_is_released_as_entries_are_removed() {
        let mut table = AdvertTable::default();
        (0..20_000).for_each(|slot| table.set(slot, advert(slot)));
        for slot in shuffled(20_000).take(19_000) {
            assert!(table.remove(slot).is_some());
        }
        assert_eq!(table.len(), 1_000);
        assert!(bytes_per_entry(&table) <= 20.0, "{}", bytes_per_entry(&table));
        let rest: Vec<u32> =
            std::iter::successors(table.next_from(0), |slot| table.next_from(slot + 1)).collect();
        rest.iter().for_each(|slot| assert!(table.remove(*slot).is_some()));
        assert!(table.is_empty() && table.heap_bytes() <= CHUNK_GROWTH * size_of::<AdvertChunk>());
    }

    proptest! {
        #[test]
        fn table_agrees_with_a_map(ops in prop::collection::vec((0..3u8, 0..600u32, any::<u32>()), 0..2_000)) {
            let (mut table, mut model) = (AdvertTable::default(), BTreeMap::new());
            for (op, slot, id) in ops {
                // Several ranges of 16 bits, and many slots in one.
                let slot = if slot < 500 { slot } else { slot << 12 };
                match op {
                    0 | 1 => {
                        table.set(slot, advert(id));
                        model.insert(slot, advert(id));
                    }
                    _ => prop_assert_eq!(table.remove(slot), model.remove(&slot)),
                }
                prop_assert_eq!(table.get(slot), model.get(&slot).copied());
                prop_assert_eq!(table.next_from(slot), model.range(slot..).next().map(|(slot, _)| *slot));
            }
            prop_assert_eq!(table.len(), model.len());
        }
    }
}
