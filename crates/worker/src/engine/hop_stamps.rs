//! Random hop ids of sessions.

use std::hash::{BuildHasher, Hasher, RandomState};

use relay_model::Hop;

/// Random hop ids fit a JSON number.
const HOP_BITS: u32 = 53;

/// Source of hop ids, which need not be unpredictable (splitmix64).
#[derive(Debug)]
pub(super) struct HopStamps(u64);

impl HopStamps {
    /// Creates a source with a random start.
    pub(super) fn new() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }

    /// Returns the next id, which is not 0.
    pub(super) fn next(&mut self) -> Hop {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        Hop((mixed >> (u64::BITS - HOP_BITS)).max(1))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn hop_ids_fit_53_bits_and_do_not_repeat() {
        let mut stamps = HopStamps::new();
        let ids: Vec<u64> = (0..1_000).map(|_| stamps.next().0).collect();
        assert!(ids.iter().all(|id| (1..1 << HOP_BITS).contains(id)));
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    }
}
