//! Hashed timer wheel: one deadline per key, in ticks of a millisecond.
//!
//! Keys are small dense numbers (slots of a table). Setting, moving and clearing a deadline takes a few
//! writes each, regardless of their number; only one entry per key is allocated.

use std::time::{Duration, Instant};

/// Slots: one revolution takes about four seconds. Later deadlines are passed over until due.
const SLOTS: usize = 4_096;
const WORDS: usize = SLOTS / 64;
/// End of a list, and "in no list".
const NONE: u32 = u32::MAX;

/// Deadlines of many keys.
#[derive(Debug)]
pub struct Wheel {
    /// Time of tick 0.
    epoch: Instant,
    /// Ticks before this one have fired.
    next_tick: u64,
    heads: Box<[u32; SLOTS]>,
    /// One bit per slot that is not empty.
    occupied: [u64; WORDS],
    entries: Vec<TimerEntry>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct TimerEntry {
    deadline: u64,
    previous: u32,
    next: u32,
    is_set: bool,
}

const UNSET: TimerEntry = TimerEntry { deadline: 0, previous: NONE, next: NONE, is_set: false };

impl Wheel {
    /// An empty wheel. Deadlines before `now` fire at once.
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            next_tick: 0,
            heads: Box::new([NONE; SLOTS]),
            occupied: [0; WORDS],
            entries: Vec::new(),
            len: 0,
        }
    }

    /// Sets, moves or (`None`) clears the deadline of `key`.
    pub fn set(&mut self, key: u32, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return self.clear(key) };
        let tick = self.tick_at_or_after(deadline).max(self.next_tick);
        let index = key as usize;
        if index >= self.entries.len() {
            self.entries.resize(index + 1, UNSET);
        }
        if self.entries[index].is_set {
            if self.entries[index].deadline == tick {
                return;
            }
            self.unlink(key);
        }
        self.link(key, tick);
    }

    /// Clears the deadline of `key`, if it has one.
    pub fn clear(&mut self, key: u32) {
        if self.entries.get(key as usize).is_some_and(|entry| entry.is_set) {
            self.unlink(key);
        }
    }

    /// Moves the keys whose deadlines have passed to `due`, in no order within a tick.
    pub fn expire(&mut self, now: Instant, due: &mut Vec<u32>) {
        let now = self.tick_at_or_before(now);
        if now < self.next_tick {
            return;
        }
        let turns = (now - self.next_tick + 1).min(SLOTS as u64);
        let from = self.next_tick;
        self.next_tick = now + 1;
        let mut tick = from;
        while let Some(found) = self.occupied_from(tick, from + turns) {
            self.expire_slot(slot_of(found), now, due);
            tick = found + 1;
        }
    }

    /// Time of the next [`Self::expire`]: no later than the earliest deadline, and at most one revolution
    /// before it. `None`: no deadlines.
    pub fn next_wake(&self) -> Option<Instant> {
        if self.len == 0 {
            return None;
        }
        let tick = self.occupied_from(self.next_tick, self.next_tick + SLOTS as u64)?;
        Some(self.epoch + Duration::from_millis(tick))
    }

    /// Number of keys with a deadline.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no key has a deadline.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn expire_slot(&mut self, slot: usize, now: u64, due: &mut Vec<u32>) {
        let mut key = self.heads[slot];
        while key != NONE {
            let TimerEntry { deadline, next, .. } = self.entries[key as usize];
            if deadline <= now {
                self.unlink(key);
                due.push(key);
            }
            key = next;
        }
    }

    /// First tick in `from..to` (at most one revolution) whose slot is not empty.
    fn occupied_from(&self, from: u64, to: u64) -> Option<u64> {
        let mut tick = from;
        while tick < to {
            let slot = slot_of(tick);
            let ahead = self.occupied[slot / 64] >> (slot % 64);
            if ahead != 0 {
                let found = tick + u64::from(ahead.trailing_zeros());
                return (found < to).then_some(found);
            }
            tick += 64 - (slot % 64) as u64;
        }
        None
    }

    fn link(&mut self, key: u32, deadline: u64) {
        let slot = slot_of(deadline);
        let next = std::mem::replace(&mut self.heads[slot], key);
        self.entries[key as usize] = TimerEntry { deadline, previous: NONE, next, is_set: true };
        if next != NONE {
            self.entries[next as usize].previous = key;
        }
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.len += 1;
    }

    fn unlink(&mut self, key: u32) {
        let TimerEntry { deadline, previous, next, .. } =
            std::mem::replace(&mut self.entries[key as usize], UNSET);
        let slot = slot_of(deadline);
        if previous == NONE {
            self.heads[slot] = next;
            if next == NONE {
                self.occupied[slot / 64] &= !(1 << (slot % 64));
            }
        } else {
            self.entries[previous as usize].next = next;
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        self.len -= 1;
    }

    fn tick_at_or_before(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch);
        since.as_secs().saturating_mul(1_000).saturating_add(u64::from(since.subsec_millis()))
    }

    fn tick_at_or_after(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch);
        let millis = u64::from(since.subsec_nanos().div_ceil(1_000_000));
        since.as_secs().saturating_mul(1_000).saturating_add(millis)
    }
}

fn slot_of(tick: u64) -> usize {
    (tick % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests;
