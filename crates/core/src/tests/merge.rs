//! Logs of one track that come to one writer.

use relay_model::limits::MERGE;

use super::*;

/// Sessions 1 and 2 lead to publisher 7; session 3 reads by way of 1, session 4 may not, and reads by way
/// of 2. Then 1 withdraws. The logs of 3 and 4.
fn twins() -> (Bench, LogId, LogId) {
    let mut bench = Bench::new();
    (1..=3).for_each(|session| bench.open(session));
    bench.open_behind(4, 21);
    bench.announce(1, "a", &[7, 21], 1);
    bench.announce(2, "a", &[7, 22], 2);
    let (moving, staying) = (bench.attached(3, 0, "a"), bench.attached(4, 0, "a"));
    assert_ne!(moving, staying);
    assert_eq!(bench.model.writes(SessionId(2)), [staying]);
    (bench, moving, staying)
}

/// Session 1 goes, and `moving` has come to session 2.
fn meet(bench: &mut Bench, moving: LogId) {
    bench.close(1);
    bench.pass(HOLD_BACK);
    assert!(bench.model.writes(SessionId(2)).contains(&moving));
}

#[test]
fn two_logs_that_come_to_one_writer_become_one_and_their_readers_go_over() {
    let (mut bench, moving, staying) = twins();
    meet(&mut bench, moving);
    let merged = [attach(3, 0, staying), to(2, Order::Close { log: moving }), Action::Retire { log: moving }];
    assert_eq!(bench.pass(MERGE), merged);
    assert_eq!(bench.core.tally(), Tally { merged: 1, ..Tally::default() });
    // It is an ordinary reader of the other one.
    assert_eq!(bench.unsubscribe(4, 0), []);
    assert_eq!(bench.unsubscribe(3, 0), []);
    assert_eq!(bench.pass(LINGER), [to(2, Order::Close { log: staying }), Action::Retire { log: staying }]);
    bench.everyone_leaves();
}

#[test]
fn what_a_reader_waits_for_is_asked_for_in_the_log_it_goes_over_to() {
    let (mut bench, moving, staying) = twins();
    meet(&mut bench, moving);
    bench.pull(3, 0, 5);
    let actions = bench.pass(MERGE);
    let expected = [drop_pull(2, moving, 5), attach(3, 0, staying), pull(2, staying, 5)];
    assert_eq!(actions[..3], expected);
    bench.everyone_leaves();
}

#[test]
fn logs_that_part_again_stay_as_they_are() {
    let (mut bench, moving, staying) = twins();
    meet(&mut bench, moving);
    bench.open(5);
    bench.announce(5, "a", &[7, 21], 1);
    assert_eq!(bench.model.writes(SessionId(5)), [moving], "back where only one of them may go");
    assert_eq!(bench.pass(MERGE), []);
    assert_eq!(bench.model.writes(SessionId(2)), [staying]);
    bench.everyone_leaves();
}

#[test]
fn who_reads_for_two_asks_for_what_both_want() {
    let (mut bench, moving, _) = twins();
    let prefs = Prefs { priority: 200, ..Prefs::default() };
    bench.ask(3, Ask::Update { sub: SubId(0), prefs });
    meet(&mut bench, moving);
    let actions = bench.pass(MERGE);
    let told = |action: &Action| matches!(action, Action::Order { order: Order::Prefs { prefs, .. }, .. } if prefs.priority == 200);
    assert!(actions.iter().any(told), "{actions:?}");
    bench.everyone_leaves();
}
