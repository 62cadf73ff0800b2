//! Memory limits of the payload (cached groups): as configured, as long as the machine has that memory.

use relay_config::{Cache, Size};

use super::memory::Reading;

/// Share of the memory above which even the newest groups are evicted, before the kernel runs out of memory.
const CEILING: Size = Size::Percent(60);
/// Divisor by which the memory in `returning` decays at each poll.
const FORGET: u64 = 8;

/// Memory limits of the payload, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Target of the cache.
    pub capacity: u64,
    /// Limit above which even the newest groups are evicted and no new data is accepted.
    pub ceiling: u64,
}

/// Configured limits, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    wished: Limits,
    headroom: u64,
}

/// Adapts the limits to the free memory of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    plan: Plan,
    /// Payload and resident memory at the last poll.
    last: Option<(u64, u64)>,
    /// Evicted payload that the allocator has not returned to the system yet.
    returning: u64,
}

impl Plan {
    /// Converts `cache` to bytes, of `available` bytes.
    pub fn new(cache: &Cache, available: u64) -> Self {
        let (capacity, headroom) = (cache.capacity.of(available), cache.headroom.of(available));
        // Between the capacity and the headroom, however close they are.
        let between =
            capacity.saturating_add(available.saturating_sub(headroom).saturating_sub(capacity) / 4);
        let ceiling = CEILING.of(available).max(between);
        Self { wished: Limits { capacity, ceiling: ceiling.max(capacity) }, headroom }
    }

    /// Computes the limits for a payload of `used` bytes while `returning` bytes are about to become free.
    ///
    /// The process is larger than its payload, by connections and memory that the allocator keeps. All of that is in
    /// use, so the room for payload is the free memory plus the current payload.
    pub fn limits(&self, used: u64, returning: u64, reading: &Reading) -> Limits {
        // A control group may count other processes too, and may lag behind.
        let ours = reading.limit.saturating_sub(reading.resident);
        let room = used.saturating_add(reading.free.min(ours)).saturating_add(returning);
        let capacity = self.wished.capacity.min(room.saturating_sub(self.headroom));
        let ceiling = self.wished.ceiling.min(room.saturating_sub(self.headroom / 2));
        Limits { capacity, ceiling: ceiling.max(capacity) }
    }
}

impl Watch {
    /// Creates a watch of `plan`.
    pub fn new(plan: Plan) -> Self {
        Self { plan, last: None, returning: 0 }
    }

    /// Computes the limits for a payload of `used` bytes; to be called at regular intervals.
    pub fn update(&mut self, used: u64, reading: &Reading) -> Limits {
        if let Some((used_before, resident_before)) = self.last {
            let gone = used_before.saturating_sub(used);
            let came = used.saturating_sub(used_before);
            let returned = resident_before.saturating_sub(reading.resident);
            // Evicted memory returns late; without this correction one shortage would empty the cache.
            self.returning =
                self.returning.saturating_add(gone).saturating_sub(came.saturating_add(returned));
        }
        self.last = Some((used, reading.resident));
        let limits = self.plan.limits(used, self.returning, reading);
        self.returning -= self.returning.div_ceil(FORGET);
        limits
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn cache(capacity: Size, headroom: Size) -> Cache {
        Cache { capacity, headroom, duration: Duration::ZERO }
    }

    fn plan() -> Plan {
        Plan::new(&Cache::default(), 1_000 * MIB)
    }

    fn reading(free: u64, resident: u64) -> Reading {
        Reading { limit: 1_000 * MIB, free: free * MIB, resident: resident * MIB }
    }

    /// Capacity and ceiling, MiB.
    fn shown(limits: Limits) -> (u64, u64) {
        (limits.capacity / MIB, limits.ceiling / MIB)
    }

    #[test]
    fn ample_memory_gives_the_configured_limits() {
        assert_eq!(shown(plan().limits(0, 0, &reading(950, 20))), (400, 600));
        assert_eq!(shown(plan().limits(390 * MIB, 0, &reading(500, 450))), (400, 600));
        let small = Plan::new(&cache(Size::Bytes(8 * MIB), Size::Bytes(0)), 1_000 * MIB);
        assert_eq!(shown(small.limits(0, 0, &reading(950, 20))), (8, 600));
        let large = Plan::new(&cache(Size::Percent(80), Size::Percent(10)), 1_000 * MIB);
        assert_eq!(shown(large.limits(0, 0, &reading(990, 10))), (800, 825), "between capacity and headroom");
    }

    #[test]
    fn memory_of_others_and_headroom_are_left_free() {
        // 300 MiB are free, of which 100 are headroom.
        assert_eq!(shown(plan().limits(100 * MIB, 0, &reading(300, 120))), (300, 350));
        assert_eq!(shown(plan().limits(200 * MIB, 0, &reading(60, 220))), (160, 210), "40 MiB must go");
        assert_eq!(shown(plan().limits(30 * MIB, 0, &reading(10, 60))), (0, 0));
    }

    #[test]
    fn memory_beyond_the_payload_is_subtracted() {
        // Regardless of the free memory of a group: the process has 700 MiB, 100 of them payload.
        assert_eq!(shown(plan().limits(100 * MIB, 0, &reading(950, 700))), (300, 350));
    }

    #[test]
    fn ceiling_is_between_the_capacity_and_the_limit() {
        for used in (0..1_000).step_by(50) {
            for free in (0..1_000).step_by(50) {
                let resident = used + 30;
                let limits = plan().limits(used * MIB, 0, &reading(free, resident));
                assert!(limits.capacity <= limits.ceiling);
                // The payload may grow only by memory that is free.
                let grows = (limits.ceiling / MIB).saturating_sub(used);
                assert!(
                    grows <= free && resident + grows <= 1_000.max(resident),
                    "{used} {free}: {limits:?}"
                );
            }
        }
    }

    #[test]
    fn memory_that_comes_back_late_does_not_empty_the_cache() {
        let mut watch = Watch::new(plan());
        assert_eq!(shown(watch.update(400 * MIB, &reading(100, 500))), (400, 450));
        // Another process takes 60 MiB: as much must be evicted.
        assert_eq!(shown(watch.update(400 * MIB, &reading(40, 500))).0, 340);
        // It was evicted, but the allocator has not returned it.
        for _ in 0..2 {
            let capacity = watch.update(340 * MIB, &reading(40, 500)).capacity / MIB;
            assert!((325..=340).contains(&capacity), "{capacity}");
        }
        assert_eq!(shown(watch.update(340 * MIB, &reading(100, 440))).0, 340, "returned");
        // Memory that never returns stops counting soon.
        let mut watch = Watch::new(plan());
        watch.update(400 * MIB, &reading(40, 500));
        let hoped: Vec<u64> =
            (0..40).map(|_| watch.update(340 * MIB, &reading(40, 500)).capacity / MIB).collect();
        assert!(hoped.first() > hoped.last() && hoped.last().is_some_and(|last| *last <= 281), "{hoped:?}");
    }
}
