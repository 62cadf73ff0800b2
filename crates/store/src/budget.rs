//! Byte budget over all payload and bookkeeping held.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;

/// A count of bytes from allocation to the drop of the last handle, so data pinned by a slow peer's
/// unacknowledged sends is counted, too.
#[derive(Debug)]
pub struct Budget {
    used: AtomicU64,
    capacity: AtomicU64,
    ceiling: AtomicU64,
}

impl Budget {
    /// A budget with a target of `capacity` bytes and a hard limit of `ceiling` bytes.
    pub(crate) fn new(capacity: u64, ceiling: u64) -> Self {
        let ceiling = AtomicU64::new(ceiling.max(capacity));
        Self { used: AtomicU64::new(0), capacity: AtomicU64::new(capacity), ceiling }
    }

    /// Replaces the limits, bytes; the ceiling is at least the capacity. Nothing is evicted here, but by the
    /// next commit, or by [`crate::Store::trim`] when there is no writer.
    pub fn set_limits(&self, capacity: u64, ceiling: u64) {
        self.capacity.store(capacity, Ordering::Relaxed);
        self.ceiling.store(ceiling.max(capacity), Ordering::Relaxed);
    }

    /// Turns `data` into shared bytes, counted by capacity until the last handle drops.
    pub fn chunk(self: &Arc<Self>, data: Vec<u8>) -> Bytes {
        if data.is_empty() {
            return Bytes::new();
        }
        self.add(data.capacity() as u64);
        Bytes::from_owner(BudgetedChunk { data, budget: Arc::clone(self) })
    }

    /// Bytes currently held, by any owner.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Target size of the cache, bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Hard limit, bytes; at it new work is refused.
    pub fn ceiling(&self) -> u64 {
        self.ceiling.load(Ordering::Relaxed)
    }

    /// Whether superseded groups must be evicted.
    pub fn over_capacity(&self) -> bool {
        self.used() > self.capacity()
    }

    /// Whether new work must be refused.
    pub fn at_ceiling(&self) -> bool {
        self.used() >= self.ceiling()
    }

    fn add(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn sub(&self, bytes: u64) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "more bytes returned than charged");
    }
}

struct BudgetedChunk {
    data: Vec<u8>,
    budget: Arc<Budget>,
}

impl AsRef<[u8]> for BudgetedChunk {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for BudgetedChunk {
    fn drop(&mut self) {
        self.budget.sub(self.data.capacity() as u64);
    }
}

/// A share of the budget set explicitly: bookkeeping memory that no chunk accounts for.
#[derive(Debug)]
pub(crate) struct BudgetShare {
    budget: Arc<Budget>,
    bytes: u64,
}

impl BudgetShare {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Sets the size of the share to `bytes`.
    pub(crate) fn set(&mut self, bytes: u64) {
        match bytes.checked_sub(self.bytes) {
            Some(0) => {}
            Some(more) => self.budget.add(more),
            None => self.budget.sub(self.bytes - bytes),
        }
        self.bytes = bytes;
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        self.budget.sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_every_handle_returns_the_bytes() {
        let budget = Arc::new(Budget::new(100, 200));
        let bytes = budget.chunk(vec![7; 64]);
        assert_eq!(budget.used(), 64);
        drop(bytes);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_slow_holder_of_a_slice_keeps_its_whole_chunk_counted() {
        let budget = Arc::new(Budget::new(100, 200));
        let bytes = budget.chunk(vec![7; 64]);
        let slice = bytes.slice(10..12);
        drop(bytes);
        assert_eq!(budget.used(), 64);
        drop(slice);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn capacity_and_ceiling_hold_at_the_limit_and_one_past() {
        let budget = Arc::new(Budget::new(100, 200));
        let first = budget.chunk(vec![0; 100]);
        assert!(!budget.over_capacity());
        let second = budget.chunk(vec![0; 1]);
        assert!(budget.over_capacity() && !budget.at_ceiling());
        let third = budget.chunk(vec![0; 99]);
        assert!(budget.at_ceiling());
        drop((first, second, third));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_share_follows_its_number_and_ends_with_its_owner() {
        let budget = Arc::new(Budget::new(100, 200));
        let mut share = BudgetShare::new(Arc::clone(&budget));
        share.set(30);
        share.set(10);
        assert_eq!(budget.used(), 10);
        drop(share);
        assert_eq!(budget.used(), 0);
    }
}
