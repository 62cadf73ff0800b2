//! Logs of one track with the same writer.

use relay_model::limits::MERGE;

use super::*;

/// Sessions 1 and 2 have routes to publisher 7; session 3 reads through 1, and session 4, which may not,
/// through 2. Returns the logs of 3 and 4.
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

/// Closes session 1, so that `moving` gets session 2 as its writer.
fn meet(bench: &mut Bench, moving: LogId) {
    bench.close(1);
    bench.pass(HOLD_DOWN);
    assert!(bench.model.writes(SessionId(2)).contains(&moving));
}

#[test]
fn logs_with_the_same_writer_are_merged_with_their_readers() {
    let (mut bench, moving, staying) = twins();
    meet(&mut bench, moving);
    let merged = [attach(3, 0, staying), to(2, Order::Close { log: moving }), Action::Retire { log: moving }];
    assert_eq!(bench.pass(MERGE), merged);
    assert_eq!(bench.core.tally(), CoreTally { merged: 1, ..CoreTally::default() });
    // The moved reader is an ordinary reader of the other log.
    assert_eq!(bench.unsubscribe(4, 0), []);
    assert_eq!(bench.unsubscribe(3, 0), []);
    assert_eq!(bench.pass(LINGER), [to(2, Order::Close { log: staying }), Action::Retire { log: staying }]);
    bench.everyone_leaves();
}

#[test]
fn pull_of_a_merged_reader_moves_to_the_other_log() {
    let (mut bench, moving, staying) = twins();
    meet(&mut bench, moving);
    bench.pull(3, 0, 5);
    let actions = bench.pass(MERGE);
    let expected = [drop_pull(2, moving, 5), attach(3, 0, staying), pull(2, staying, 5)];
    assert_eq!(actions[..3], expected);
    bench.everyone_leaves();
}

#[test]
fn logs_that_part_before_the_merge_stay_separate() {
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
fn merged_log_requests_the_union_of_preferences() {
    let (mut bench, moving, _) = twins();
    let prefs = Prefs { priority: 200, ..Prefs::default() };
    bench.ask(3, Ask::Update { sub: SubId(0), prefs });
    meet(&mut bench, moving);
    let actions = bench.pass(MERGE);
    let is_sent = |action: &Action| matches!(action, Action::Order { order: Order::Prefs { prefs, .. }, .. } if prefs.priority == 200);
    assert!(actions.iter().any(is_sent), "{actions:?}");
    bench.everyone_leaves();
}
