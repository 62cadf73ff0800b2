use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn expired(wheel: &mut Wheel, now: Instant) -> Vec<u32> {
    let mut due = Vec::new();
    wheel.expire(now, &mut due);
    due.sort_unstable();
    due
}

#[test]
fn a_deadline_fires_once_and_never_early() {
    let start = Instant::now();
    let mut wheel = Wheel::new(start);
    wheel.set(3, Some(start + Duration::from_micros(1_500)));
    assert_eq!(wheel.next_wake(), Some(start + ms(2)));
    assert!(expired(&mut wheel, start + Duration::from_micros(1_999)).is_empty());
    assert_eq!(expired(&mut wheel, start + ms(2)), [3]);
    assert!(expired(&mut wheel, start + ms(9_000)).is_empty());
    assert!(wheel.is_empty());
}

#[test]
fn a_past_deadline_fires_at_the_next_tick() {
    let start = Instant::now();
    let mut wheel = Wheel::new(start);
    assert!(expired(&mut wheel, start + ms(50)).is_empty());
    wheel.set(0, Some(start + ms(10)));
    assert_eq!(wheel.next_wake(), Some(start + ms(51)));
    assert_eq!(expired(&mut wheel, start + ms(51)), [0]);
}

#[test]
fn deadlines_move_both_ways_and_clear() {
    let start = Instant::now();
    let mut wheel = Wheel::new(start);
    for key in 0..4 {
        wheel.set(key, Some(start + ms(100)));
    }
    wheel.set(1, Some(start + ms(10)));
    wheel.set(2, Some(start + ms(10_000)));
    wheel.clear(3);
    wheel.clear(77);
    assert_eq!(expired(&mut wheel, start + ms(99)), [1]);
    assert_eq!(expired(&mut wheel, start + ms(100)), [0]);
    assert!(expired(&mut wheel, start + ms(9_999)).is_empty());
    assert_eq!(expired(&mut wheel, start + ms(10_000)), [2]);
    assert_eq!(wheel.next_wake(), None);
}

#[test]
fn a_long_sleep_visits_every_slot_once() {
    let start = Instant::now();
    let mut wheel = Wheel::new(start);
    for key in 0..1_000 {
        wheel.set(key, Some(start + ms(u64::from(key) * 97)));
    }
    assert_eq!(expired(&mut wheel, start + Duration::from_secs(3_600)).len(), 1_000);
}

proptest! {
    /// Compares with a plain map: the same keys fire at the same time, and no wake-up is late.
    #[test]
    fn wheel_expires_like_a_map(
        ops in proptest::collection::vec((0u32..20, proptest::option::of(0u64..20_000), 0u64..3_000), 1..200)
    ) {
        let start = Instant::now();
        let mut wheel = Wheel::new(start);
        let mut model: BTreeMap<u32, u64> = BTreeMap::new();
        let mut now = 0;
        wheel.expire(start, &mut Vec::new());
        for (key, after, pause) in ops {
            wheel.set(key, after.map(|after| start + ms(now + after)));
            match after {
                Some(after) => model.insert(key, (now + after).max(now + 1)),
                None => model.remove(&key),
            };
            if let Some(&first) = model.values().min() {
                prop_assert!(wheel.next_wake().unwrap() <= start + ms(first));
            } else {
                prop_assert_eq!(wheel.next_wake(), None);
            }
            now += pause;
            let due: Vec<u32> = model.iter().filter(|(_, at)| **at <= now).map(|(key, _)| *key).collect();
            model.retain(|_, at| *at > now);
            prop_assert_eq!(expired(&mut wheel, start + ms(now)), due);
            prop_assert_eq!(wheel.len(), model.len());
        }
    }
}
