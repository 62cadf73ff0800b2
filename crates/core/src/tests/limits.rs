//! Each limit, and one past it.

use relay_model::{SessionCode, limits};

use super::*;

#[test]
fn one_announce_too_many_costs_the_session() {
    let mut bench = Bench::new();
    bench.open(1);
    for n in 0..limits::ANNOUNCES {
        assert_eq!(bench.announce(1, &format!("a/{n}"), &[7], 1).len(), 1);
    }
    // Replacing one is not one more.
    assert_eq!(bench.announce(1, "a/0", &[7], 2).len(), 1);
    let kill = Order::Kill { code: SessionCode::PROTOCOL_VIOLATION, reason: "too many announces" };
    assert_eq!(bench.announce(1, "b", &[7], 1), [to(1, kill)]);
    assert_eq!(bench.core.tally(), tally(|t| t.announce_limit = 1));
    assert_eq!(bench.announce(1, "b", &[7], 1), []);
    assert_eq!(bench.core.tally(), tally(|t| t.announce_limit = 2));
    assert_eq!(bench.subscribe(1, 0, "b"), [refuse(1, 0, StreamCode::CANCEL)]);
    bench.everyone_leaves();
}

#[test]
fn withdrawn_announces_do_not_count() {
    let mut bench = Bench::new();
    bench.open(1);
    for n in 0..limits::ANNOUNCES * 2 {
        let raw = format!("a/{n}");
        assert_eq!(bench.announce(1, &raw, &[7], 1).len(), 1);
        assert_eq!(bench.unannounce(1, &raw).len(), 1);
    }
    bench.everyone_leaves();
}

#[test]
fn one_subscription_too_many_is_refused_and_the_session_lives() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open(2);
    bench.announce(1, "a", &[7], 1);
    let most = u64::try_from(limits::SUBSCRIPTIONS).unwrap();
    (0..most).for_each(|sub| {
        bench.attached(2, sub, "a");
    });
    assert_eq!(bench.subscribe(2, most, "a"), [refuse(2, most, StreamCode::CANCEL)]);
    assert_eq!(bench.core.tally(), tally(|t| t.subscribe_limit = 1));
    bench.unsubscribe(2, 0);
    bench.attached(2, most, "a");
    bench.everyone_leaves();
}

#[test]
fn a_chain_at_the_limit_is_taken_and_one_past_is_dropped() {
    let mut bench = Bench::new();
    bench.open(1);
    let longest: Vec<u64> = (1..).take(limits::HOPS).collect();
    let longer: Vec<u64> = (1..).take(limits::HOPS + 1).collect();
    assert_eq!(bench.announce(1, "a", &longest, 1).len(), 1);
    assert_eq!(bench.announce(1, "b", &longer, 1), []);
    assert_eq!(bench.core.tally(), tally(|t| t.too_many_hops = 1));
    assert_eq!(bench.core.counts().paths, 1);
}
