//! Second publishers of a path.

use super::*;

/// Session 1, of alice, publishes `a` as 7; session 9 reads it; session 2 is of bob.
fn held(takeover: Takeover) -> (Bench, LogId) {
    let mut bench = Bench::with(takeover);
    bench.open_as(1, "alice");
    bench.open_as(2, "bob");
    bench.open(9);
    bench.announce(1, "a", &[7], 5);
    let log = bench.attached(9, 0, "a");
    (bench, log)
}

#[test]
fn other_subject_takes_over_in_one_update_after_the_holder() {
    let (mut bench, log) = held(Takeover::Identity);
    assert_eq!(bench.announce(2, "a", &[8], 0), []);
    assert_eq!(bench.core.tally(), tally(|t| t.takeover_held = 1));
    assert_eq!(bench.subscribe(9, 1, "a"), [attach(9, 1, log)]);
    assert_eq!(bench.subscribe(1, 0, "a"), [refuse(1, 0, StreamCode::UNROUTABLE)]);
    assert_eq!(bench.close(1), [board("a", &[(2, &[8], 0)]), ended(log)]);
    bench.everyone_leaves();
}

#[test]
fn any_subject_may_take_over_if_configured() {
    let (mut bench, _) = held(Takeover::Any);
    assert_eq!(bench.announce(2, "a", &[8], 0), [board("a", &[(2, &[8], 0), (1, &[7], 5)])]);
    assert_eq!(bench.core.tally(), CoreTally::default());
    bench.everyone_leaves();
}

#[test]
fn a_holder_that_vanished_keeps_its_path_for_the_linger() {
    let (mut bench, log) = held(Takeover::Identity);
    bench.announce(2, "a", &[8], 0);
    assert_eq!(bench.vanish(1), []);
    assert_eq!(bench.pass(LINGER - TICK), []);
    let taken = bench.pass(TICK);
    assert!(taken.contains(&board("a", &[(2, &[8], 0)])) && taken.contains(&ended(log)), "{taken:?}");
    assert_eq!(taken.len(), 2);
    bench.everyone_leaves();
}

#[test]
fn holder_returning_within_the_linger_keeps_its_path() {
    let (mut bench, log) = held(Takeover::Identity);
    bench.vanish(1);
    bench.announce(2, "a", &[8], 0);
    bench.pass(LINGER / 2);
    bench.open_as(3, "alice");
    let back = [board("a", &[(3, &[7], 5)]), fence(log, 2), open_order(3, log, 2, "a")];
    assert_eq!(bench.announce(3, "a", &[7], 5), back);
    assert_eq!(bench.pass(LINGER), []);
    bench.everyone_leaves();
}

#[test]
fn same_hop_of_another_subject_does_not_get_the_readers() {
    let (mut bench, log) = held(Takeover::Identity);
    assert_eq!(bench.announce(2, "a", &[7], 0), []);
    assert_eq!(bench.model.writes(SessionId(1)), [log]);
    bench.vanish(1);
    assert_eq!(bench.announce(2, "a", &[7], 1), []);
    assert_eq!(bench.pass(LINGER - TICK), []);
    bench.everyone_leaves();
}

#[test]
fn a_holder_may_publish_twice_and_the_public_is_one_subject() {
    let mut bench = Bench::new();
    bench.open_as(1, "alice");
    bench.open_as(2, "alice");
    bench.open(3);
    bench.open(4);
    bench.announce(1, "a", &[7], 1);
    assert_eq!(bench.announce(2, "a", &[8], 2), [board("a", &[(1, &[7], 1), (2, &[8], 2)])]);
    assert_eq!(bench.announce(3, "a", &[9], 0), []);
    bench.announce(3, "b", &[7], 1);
    assert_eq!(bench.announce(4, "b", &[8], 2), [board("b", &[(3, &[7], 1), (4, &[8], 2)])]);
    bench.everyone_leaves();
}

#[test]
fn best_waiting_subject_is_admitted_next_with_all_its_routes() {
    let mut bench = Bench::new();
    bench.open_as(1, "alice");
    bench.open_as(2, "bob");
    bench.open_as(3, "carol");
    bench.open_as(4, "bob");
    bench.announce(1, "a", &[7], 1);
    assert_eq!(bench.announce(2, "a", &[8], 4), []);
    assert_eq!(bench.announce(3, "a", &[9], 3), []);
    assert_eq!(bench.announce(4, "a", &[6], 2), []);
    assert_eq!(bench.unannounce(1, "a"), [board("a", &[(4, &[6], 2), (2, &[8], 4)])]);
    // Alice waits now, too.
    assert_eq!(bench.announce(1, "a", &[7], 1), []);
    bench.everyone_leaves();
}

#[test]
fn a_route_that_waits_leaves_no_stale_route() {
    let (mut bench, _) = held(Takeover::Identity);
    bench.announce(2, "a", &[8], 0);
    assert_eq!(bench.vanish(2), []);
    assert_eq!(bench.core.counts().stale_routes, 0);
    assert_eq!(bench.close(1), [board("a", &[])]);
    bench.everyone_leaves();
}

#[test]
fn cluster_relays_neither_hold_a_path_nor_wait_for_it() {
    let mut bench = Bench::new();
    let relay = policy("", "").for_peers().admit("/", SystemTime::UNIX_EPOCH).unwrap();
    bench.open_with(1, relay);
    bench.open_as(2, "alice");
    bench.open_as(3, "bob");
    bench.announce(1, "a", &[7, 8], 5);
    assert_eq!(bench.announce(2, "a", &[9], 4), [board("a", &[(2, &[9], 4), (1, &[7, 8], 5)])]);
    assert_eq!(bench.announce(3, "a", &[6], 1), []);
    assert_eq!(bench.announce(1, "a", &[7, 8], 0), [board("a", &[(1, &[7, 8], 0), (2, &[9], 4)])]);
    // The next subject is admitted when the withdrawal is shown.
    assert_eq!(bench.close(2), []);
    assert_eq!(bench.pass(HOLD_DOWN), [board("a", &[(1, &[7, 8], 0), (3, &[6], 1)])]);
    bench.everyone_leaves();
}
