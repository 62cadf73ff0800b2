//! Routes that are withdrawn with a word.

use super::*;

/// Session 1 publishes `a` as 7, session 9 reads it.
fn flowing() -> (Bench, LogId) {
    let mut bench = Bench::with(Takeover::Any);
    bench.open(1);
    bench.open(9);
    bench.announce(1, "a", &[7], 1);
    let log = bench.attached(9, 0, "a");
    (bench, log)
}

/// The same, and session 2 stands in for it.
fn with_a_stand_in() -> (Bench, LogId) {
    let (mut bench, log) = flowing();
    bench.open(2);
    bench.announce(2, "a", &[7, 8], 5);
    (bench, log)
}

/// A relay hears of publisher 7, at relay 20, from there and from relay 30, which has it from there too.
/// Session 9 reads it.
fn triangle() -> (Bench, LogId) {
    let mut bench = Bench::new();
    [1, 2, 9].into_iter().for_each(|session| bench.open(session));
    bench.announce(1, "a", &[7, 20], 1);
    bench.announce(2, "a", &[7, 20, 30], 2);
    let log = bench.attached(9, 0, "a");
    (bench, log)
}

/// All that is shown of `actions`.
fn shown(actions: &[Action]) -> Vec<&Action> {
    actions.iter().filter(|action| matches!(action, Action::Board { .. })).collect()
}

#[test]
fn a_goodbye_shows_at_once_where_nothing_else_is() {
    for withdraws in [true, false] {
        let (mut bench, _) = flowing();
        let actions = if withdraws { bench.unannounce(1, "a") } else { bench.close(1) };
        assert_eq!(actions, [board("a", &[])]);
        assert_eq!(bench.core.counts().ghosts, 0);
        bench.everyone_leaves();
    }
}

#[test]
fn a_goodbye_beside_another_publisher_shows_when_the_hold_back_is_over() {
    let (mut bench, _) = flowing();
    bench.open(2);
    bench.announce(2, "a", &[8], 5);
    assert_eq!(bench.unannounce(1, "a"), []);
    let counts = bench.core.counts();
    assert_eq!((counts.ghosts, counts.routes, counts.timers), (1, 1, 1));
    assert_eq!(bench.pass(HOLD_BACK - TICK), []);
    assert_eq!(shown(&bench.pass(TICK)), [&board("a", &[(2, &[8], 5)])]);
    let counts = bench.core.counts();
    assert_eq!((counts.ghosts, counts.timers), (0, 0));
    bench.everyone_leaves();
}

#[test]
fn a_log_stays_with_who_withdraws_it_until_that_shows_and_then_moves_to_the_stand_in() {
    let (mut bench, log) = with_a_stand_in();
    assert_eq!(bench.unannounce(1, "a"), []);
    assert_eq!(bench.pass(HOLD_BACK - TICK), []);
    assert_eq!(bench.model.writes(SessionId(1)), [log]);
    let moved = [
        board("a", &[(2, &[7, 8], 5)]),
        to(1, Order::Close { log }),
        fence(log, 2),
        open_order(2, log, 2, "a"),
    ];
    assert_eq!(bench.pass(TICK), moved);
    assert_eq!(bench.pass(LINGER * 2), []);
    bench.everyone_leaves();
}

#[test]
fn who_withdraws_beside_a_stand_in_can_still_say_the_end() {
    let (mut bench, log) = with_a_stand_in();
    bench.unannounce(1, "a");
    bench.pass(HOLD_BACK / 2);
    assert_eq!(bench.ended(1, log), []);
    assert_eq!(bench.pass(HOLD_BACK), [board("a", &[(2, &[7, 8], 5)])]);
    assert_eq!(bench.model.writes(SessionId(2)), []);
    assert_eq!(bench.unsubscribe(9, 0), [Action::Retire { log }]);
    bench.everyone_leaves();
}

#[test]
fn a_log_moves_at_once_when_who_withdrew_it_closes() {
    for vanished in [true, false] {
        let (mut bench, log) = with_a_stand_in();
        bench.unannounce(1, "a");
        let actions = if vanished { bench.vanish(1) } else { bench.close(1) };
        assert_eq!(actions, [fence(log, 2), open_order(2, log, 2, "a")]);
        assert_eq!(bench.pass(HOLD_BACK), [board("a", &[(2, &[7, 8], 5)])]);
        bench.everyone_leaves();
    }
}

#[test]
fn what_is_announced_again_within_the_hold_back_was_never_gone() {
    let (mut bench, log) = with_a_stand_in();
    assert_eq!(bench.unannounce(1, "a"), []);
    bench.pass(HOLD_BACK / 2);
    assert_eq!(bench.announce(1, "a", &[7], 1), []);
    let counts = bench.core.counts();
    assert_eq!((counts.ghosts, counts.timers), (0, 0));
    assert_eq!(bench.pass(LINGER), []);
    assert_eq!(bench.model.writes(SessionId(1)), [log]);
    bench.everyone_leaves();
}

#[test]
fn what_is_withdrawn_again_is_held_back_anew() {
    let (mut bench, _) = with_a_stand_in();
    bench.unannounce(1, "a");
    bench.pass(HOLD_BACK / 2);
    bench.announce(1, "a", &[7], 1);
    assert_eq!(bench.unannounce(1, "a"), []);
    assert_eq!(bench.pass(HOLD_BACK - TICK), []);
    assert_eq!(shown(&bench.pass(TICK)).len(), 1);
    bench.everyone_leaves();
}

#[test]
fn all_goes_at_once_when_the_last_route_does() {
    let (mut bench, _) = with_a_stand_in();
    bench.unannounce(1, "a");
    bench.pass(HOLD_BACK / 2);
    assert_eq!(bench.unannounce(2, "a"), [board("a", &[])]);
    assert_eq!(bench.core.counts().ghosts, 0);
    assert_eq!(bench.pass(LINGER), []);
    bench.everyone_leaves();
}

#[test]
fn who_said_goodbye_is_no_last_resort() {
    let (mut bench, _) = with_a_stand_in();
    bench.unannounce(1, "a");
    // Only who vanished is waited for.
    assert_eq!(bench.vanish(2), [board("a", &[(2, &[7, 8], 5)])]);
    assert_eq!(bench.pass(HOLD_BACK), []);
    bench.everyone_leaves();
}

#[test]
fn nobody_is_served_by_who_said_goodbye() {
    let (mut bench, _) = flowing();
    [2, 3].into_iter().for_each(|session| bench.open(session));
    bench.announce(2, "a", &[8], 5);
    bench.unannounce(1, "a");
    let log = bench.attached(3, 0, "a");
    assert_eq!(bench.model.writes(SessionId(2)), [log]);
    // The only one it could have been served by is itself.
    assert_eq!(bench.subscribe(2, 0, "a"), [refuse(2, 0, StreamCode::UNROUTABLE)]);
    bench.everyone_leaves();
}

#[test]
fn who_said_goodbye_may_drain_and_go() {
    let (mut bench, _) = with_a_stand_in();
    bench.unannounce(1, "a");
    assert_eq!(bench.ask(1, Ask::Draining), []);
    assert_eq!(bench.unannounce(1, "a"), []);
    assert_eq!(bench.core.counts().ghosts, 1);
    bench.everyone_leaves();
}

#[test]
fn a_publisher_that_moves_with_a_goodbye_is_one_update() {
    let (mut bench, _) = flowing();
    [2, 3].into_iter().for_each(|session| bench.open(session));
    bench.announce(2, "a", &[8], 9);
    assert_eq!(bench.unannounce(1, "a"), []);
    let moved = board("a", &[(3, &[7], 1), (2, &[8], 9)]);
    assert_eq!(shown(&bench.announce(3, "a", &[7], 1)), [&moved]);
    assert_eq!(bench.pass(HOLD_BACK), []);
    bench.everyone_leaves();
}

#[test]
fn a_publisher_that_leaves_a_triangle_is_one_update_to_who_watches_at_the_other_corners() {
    let (mut bench, log) = triangle();
    assert_eq!(bench.unannounce(1, "a"), [fading("a", &[(1, &[7, 20], 1)])]);
    // What the other corner says is about to be taken back: nobody is sent there.
    assert_eq!(bench.subscribe(9, 1, "a"), [refuse(9, 1, StreamCode::UNROUTABLE)]);
    assert_eq!(bench.pass(TICK * 20), []);
    assert_eq!(bench.unannounce(2, "a"), [board("a", &[])]);
    assert_eq!(bench.core.counts().ghosts, 0);
    // The end is still on its way.
    assert_eq!(bench.ended(1, log), []);
    assert_eq!(bench.pass(LINGER), []);
    bench.everyone_leaves();
}

#[test]
fn what_others_pass_on_counts_again_if_they_do_not_take_it_back() {
    let (mut bench, log) = triangle();
    bench.unannounce(1, "a");
    assert_eq!(bench.pass(HOLD_BACK - TICK), []);
    let actions = bench.pass(TICK);
    assert_eq!(shown(&actions), [&board("a", &[(2, &[7, 20, 30], 2)])]);
    assert_eq!(bench.model.writes(SessionId(2)), [log]);
    bench.everyone_leaves();
}

#[test]
fn a_broadcast_that_goes_on_beyond_another_corner_is_never_gone_for_readers() {
    let (mut bench, _) = triangle();
    assert_eq!(shown(&bench.unannounce(1, "a")), [&fading("a", &[(1, &[7, 20], 1)])]);
    bench.pass(HOLD_BACK - TICK);
    // The other corner has a publisher behind it that it had no reason to tell of.
    let actions = bench.announce(2, "a", &[8, 30], 4);
    let Some(Action::Board { routes, .. }) = shown(&actions).last() else { panic!("{actions:?}") };
    assert!(!routes.is_empty() && routes.iter().all(|route| !route.fading), "{routes:?}");
    bench.everyone_leaves();
}

#[test]
fn what_others_say_after_the_goodbye_of_a_relay_counts() {
    let (mut bench, _) = triangle();
    bench.unannounce(1, "a");
    let again = bench.announce(2, "a", &[7, 20, 30], 3);
    assert_eq!(shown(&again), [&board("a", &[(1, &[7, 20], 1), (2, &[7, 20, 30], 3)])]);
    bench.everyone_leaves();
}

#[test]
fn what_others_pass_on_counts_while_the_relay_itself_offers_it_elsewhere() {
    let (mut bench, log) = triangle();
    bench.open(3);
    bench.announce(3, "a", &[7, 20], 5);
    assert_eq!(bench.unannounce(1, "a"), []);
    bench.close(1);
    assert_eq!(bench.model.writes(SessionId(2)), [log]);
    assert_eq!(shown(&bench.pass(HOLD_BACK)), [&board("a", &[(2, &[7, 20, 30], 2), (3, &[7, 20], 5)])]);
    bench.everyone_leaves();
}

#[test]
fn a_relay_that_closes_or_loops_says_nothing_of_what_others_pass_on() {
    for closes in [true, false] {
        let (mut bench, _) = triangle();
        let actions = if closes { bench.close(1) } else { bench.announce(1, "a", &[7, SELF, 20], 1) };
        assert_eq!(shown(&actions), Vec::<&Action>::new());
        assert_eq!(shown(&bench.pass(HOLD_BACK)), [&board("a", &[(2, &[7, 20, 30], 2)])]);
        bench.everyone_leaves();
    }
}

#[test]
fn a_publisher_that_leaves_says_nothing_of_where_else_it_is() {
    let (mut bench, log) = with_a_stand_in();
    // 7 is no relay, if it is in the chain of the other.
    assert_eq!(bench.unannounce(1, "a"), []);
    bench.pass(HOLD_BACK);
    assert_eq!(bench.model.writes(SessionId(2)), [log]);
    bench.everyone_leaves();
}
