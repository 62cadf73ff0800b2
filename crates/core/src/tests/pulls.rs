//! Old groups: one upstream pull for all readers.

use super::*;

/// Session 1 publishes `a` as 7, sessions 2 to 4 read it.
fn flowing() -> (Bench, LogId) {
    let mut bench = Bench::new();
    (1..=4).for_each(|session| bench.open(session));
    bench.announce(1, "a", &[7], 1);
    let log = bench.attached(2, 0, "a");
    bench.attached(3, 0, "a");
    bench.attached(4, 0, "a");
    (bench, log)
}

#[test]
fn many_readers_of_a_group_cost_one_pull() {
    let (mut bench, log) = flowing();
    assert_eq!(bench.pull(2, 0, 5), [pull(1, log, 5)]);
    assert_eq!(bench.pull(3, 0, 5), []);
    assert_eq!(bench.pull(2, 0, 5), []);
    assert_eq!(bench.pull(4, 0, 6), [pull(1, log, 6)]);
    assert_eq!(bench.core.counts().pulls, 2);
    bench.everyone_leaves();
}

#[test]
fn pull_is_cancelled_when_its_last_reader_leaves() {
    let (mut bench, log) = flowing();
    bench.pull(2, 0, 5);
    bench.pull(3, 0, 5);
    assert_eq!(bench.unsubscribe(2, 0), []);
    assert_eq!(bench.unsubscribe(3, 0), [drop_pull(1, log, 5)]);
    // A closing session cancels its pulls too.
    bench.pull(4, 0, 6);
    assert_eq!(bench.vanish(4), [drop_pull(1, log, 6)]);
    assert_eq!(bench.core.counts().pulls, 0);
    bench.everyone_leaves();
}

#[test]
fn a_reader_waits_for_the_last_group_it_asked_for() {
    let (mut bench, log) = flowing();
    bench.pull(2, 0, 5);
    assert_eq!(bench.pull(2, 0, 6), [drop_pull(1, log, 5), pull(1, log, 6)]);
    bench.pull(3, 0, 6);
    assert_eq!(bench.pull(2, 0, 7), [pull(1, log, 7)]);
    bench.everyone_leaves();
}

#[test]
fn finished_pull_is_not_cancelled_and_may_be_repeated() {
    let (mut bench, log) = flowing();
    bench.pull(2, 0, 5);
    bench.pull(3, 0, 5);
    assert_eq!(bench.pulled(1, log, 5), []);
    assert_eq!(bench.core.counts().pulls, 0);
    assert_eq!(bench.unsubscribe(2, 0), []);
    assert_eq!(bench.pull(3, 0, 5), [pull(1, log, 5)]);
    bench.everyone_leaves();
}

#[test]
fn only_the_current_writer_ends_a_pull() {
    let (mut bench, log) = flowing();
    bench.pull(2, 0, 5);
    let stale = |group| Ask::Pulled { log, epoch: Epoch(9), group };
    assert_eq!(bench.ask(1, stale(5)), []);
    assert_eq!(bench.pulled(3, log, 5), []);
    assert_eq!(bench.pulled(1, log, 6), []);
    assert_eq!(bench.core.tally(), tally(|t| t.unknown = 3));
    assert_eq!(bench.core.counts().pulls, 1);
    bench.everyone_leaves();
}

#[test]
fn new_writer_gets_the_open_pulls() {
    let (mut bench, log) = flowing();
    bench.pull(2, 0, 5);
    bench.pull(3, 0, 6);
    bench.pulled(1, log, 6);
    bench.open(5);
    let moved = [
        board("a", &[(5, &[7], 0), (1, &[7], 1)]),
        to(1, Order::Close { log }),
        fence(log, 2),
        open_order(5, log, 2, "a"),
        pull(5, log, 5),
    ];
    assert_eq!(bench.announce(5, "a", &[7], 0), moved);
    // A late report of the old writer is ignored.
    assert_eq!(bench.ask(1, Ask::Pulled { log, epoch: Epoch(1), group: 5 }), []);
    assert_eq!(bench.unsubscribe(2, 0), [drop_pull(5, log, 5)]);
    bench.everyone_leaves();
}

#[test]
fn pulls_are_ordered_when_the_publisher_is_back() {
    let (mut bench, log) = flowing();
    bench.pull(2, 0, 5);
    assert_eq!(bench.vanish(1), []);
    assert_eq!(bench.pull(3, 0, 6), []);
    assert_eq!(bench.pull(4, 0, 7), []);
    assert_eq!(bench.unsubscribe(4, 0), []);
    bench.open(5);
    let back = [
        board("a", &[(5, &[7], 1)]),
        fence(log, 2),
        open_order(5, log, 2, "a"),
        pull(5, log, 5),
        pull(5, log, 6),
    ];
    assert_eq!(bench.announce(5, "a", &[7], 1), back);
    bench.everyone_leaves();
}

#[test]
fn a_log_that_ends_pulls_nothing_more() {
    let (mut bench, log) = flowing();
    bench.pull(2, 0, 5);
    assert_eq!(bench.ended(1, log), []);
    assert_eq!(bench.core.counts().pulls, 0);
    assert_eq!(bench.unsubscribe(2, 0), []);
    assert_eq!(bench.pull(3, 0, 5), []);
    assert_eq!(bench.core.tally(), tally(|t| t.pull_unknown = 1));
    bench.everyone_leaves();
}

#[test]
fn pull_of_an_unknown_subscription_is_counted() {
    let (mut bench, _) = flowing();
    assert_eq!(bench.pull(2, 7, 5), []);
    assert_eq!(bench.core.tally(), tally(|t| t.pull_unknown = 1));
    bench.everyone_leaves();
}

#[test]
fn reader_waiting_for_a_group_keeps_the_log_open() {
    let mut bench = Bench::new();
    (1..=2).for_each(|session| bench.open(session));
    bench.announce(1, "a", &[7], 1);
    let actions = bench.subscribe_as(2, 0, "a", Prefs::default(), Want::Info);
    let Action::Create { log } = actions[0] else { panic!("{actions:?}") };
    bench.pull(2, 0, 5);
    assert_eq!(bench.pass(LINGER * 2), []);
    let left = bench.unsubscribe(2, 0);
    assert_eq!(left, [drop_pull(1, log, 5)]);
    assert_eq!(bench.pass(LINGER), [to(1, Order::Close { log }), Action::Retire { log }]);
    bench.everyone_leaves();
}
