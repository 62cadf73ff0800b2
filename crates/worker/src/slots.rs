//! Table keyed by session id: index and generation in one number, so that a lookup takes no hashing and a
//! stale id finds nothing.

use relay_model::{SessionId, WorkerId};

/// Bits of the index: a million sessions per worker.
const INDEX_BITS: u32 = 20;
/// Bits of the generation: the remaining bits of a session id.
const GENERATION_BITS: u32 = 28;
const MAX_INDEX: usize = (1 << INDEX_BITS) - 1;
const MAX_GENERATION: u64 = (1 << GENERATION_BITS) - 1;

/// Entries of one worker by session id.
#[derive(Debug)]
pub struct SessionSlots<T> {
    worker: WorkerId,
    slots: Vec<SessionSlot<T>>,
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct SessionSlot<T> {
    generation: u64,
    value: Option<T>,
}

impl<T> SessionSlots<T> {
    /// An empty table of `worker`.
    pub fn new(worker: WorkerId) -> Self {
        Self { worker, slots: Vec::new(), free: Vec::new(), len: 0 }
    }

    /// The worker.
    pub fn worker(&self) -> WorkerId {
        self.worker
    }

    /// Adds the entry that `make` returns for its id, and returns its index. `None`: the table is full.
    pub fn insert(&mut self, make: impl FnOnce(SessionId) -> T) -> Option<u32> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() <= MAX_INDEX => {
                self.slots.push(SessionSlot { generation: 0, value: None });
                u32::try_from(self.slots.len() - 1).ok()?
            }
            None => return None,
        };
        let slot = self.slots.get_mut(index as usize)?;
        slot.generation += 1;
        let sequence = (slot.generation << INDEX_BITS) | u64::from(index);
        slot.value = Some(make(SessionId::new(self.worker, sequence)));
        self.len += 1;
        Some(index)
    }

    /// Index of the entry of `id`; `None` if it was removed or belongs to another worker.
    pub fn index_of(&self, id: SessionId) -> Option<u32> {
        let index = id.0 & MAX_INDEX as u64;
        let slot = self.slots.get(index as usize).filter(|slot| slot.value.is_some())?;
        let sequence = (slot.generation << INDEX_BITS) | index;
        (SessionId::new(self.worker, sequence) == id).then_some(index as u32)
    }

    /// The entry at `index`.
    pub fn get(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.value.as_ref()
    }

    /// The entry at `index`.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize)?.value.as_mut()
    }

    /// Removes the entry at `index`. Its index is reused, its id never.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let slot = self.slots.get_mut(index as usize)?;
        let value = slot.value.take()?;
        self.len -= 1;
        if slot.generation < MAX_GENERATION {
            self.free.push(index);
        }
        Some(value)
    }

    /// Indices in use, ascending.
    pub fn indices(&self) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.slots).filter(|(_, slot)| slot.value.is_some()).map(|(index, _)| index)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_id_finds_nothing_and_is_never_reused() {
        let mut slots = SessionSlots::new(WorkerId(3));
        let first = slots.insert(|id| id).unwrap();
        let old = *slots.get(first).unwrap();
        assert_eq!(old.worker(), WorkerId(3));
        assert_eq!(slots.index_of(old), Some(first));
        assert_eq!(slots.remove(first), Some(old));
        assert_eq!(slots.remove(first), None);
        let second = slots.insert(|id| id).unwrap();
        assert_eq!(second, first, "the index is reused");
        assert_ne!(*slots.get(second).unwrap(), old);
        assert_eq!(slots.index_of(old), None);
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn ids_of_other_workers_find_nothing() {
        let (mut mine, mut other) = (SessionSlots::new(WorkerId(0)), SessionSlots::new(WorkerId(1)));
        mine.insert(|id| id).unwrap();
        let theirs = other.insert(|id| id).unwrap();
        assert_eq!(mine.index_of(*other.get(theirs).unwrap()), None);
    }

    #[test]
    fn a_slot_out_of_generations_is_retired() {
        let mut slots = SessionSlots::new(WorkerId(0));
        let index = slots.insert(|id| id).unwrap();
        slots.slots[index as usize].generation = MAX_GENERATION;
        slots.remove(index);
        assert_ne!(slots.insert(|id| id), Some(index));
        assert_eq!(slots.indices().count(), 1);
    }
}
