//! Withdrawn routes.

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

/// As `flowing`, and session 2 has another route to the same publisher.
fn with_a_stand_in() -> (Bench, LogId) {
    let (mut bench, log) = flowing();
    bench.open(2);
    bench.announce(2, "a", &[7, 8], 5);
    (bench, log)
}

/// A relay with routes to publisher 7 from relay 20, which serves it, and from relay 30, which has it from
/// relay 20 too. Session 9 reads it.
fn triangle() -> (Bench, LogId) {
    let mut bench = Bench::new();
    [1, 2, 9].into_iter().for_each(|session| bench.open(session));
    bench.announce(1, "a", &[7, 20], 1);
    bench.announce(2, "a", &[7, 20, 30], 2);
    let log = bench.attached(9, 0, "a");
    (bench, log)
}

/// Board updates in `actions`.
fn shown(actions: &[Action]) -> Vec<&Action> {
    actions.iter().filter(|action| matches!(action, Action::Board { .. })).collect()
}

#[test]
fn withdrawal_of_the_only_route_shows_at_once() {
    for withdraws in [true, false] {
        let (mut bench, _) = flowing();
        let actions = if withdraws { bench.unannounce(1, "a") } else { bench.close(1) };
        assert_eq!(actions, [board("a", &[])]);
        assert_eq!(bench.core.counts().stale_routes, 0);
        bench.everyone_leaves();
    }
}

#[test]
fn withdrawal_beside_another_publisher_shows_after_hold_down() {
    let (mut bench, _) = flowing();
    bench.open(2);
    bench.announce(2, "a", &[8], 5);
    assert_eq!(bench.unannounce(1, "a"), []);
    let counts = bench.core.counts();
    assert_eq!((counts.stale_routes, counts.routes, counts.timers), (1, 1, 1));
    assert_eq!(bench.pass(HOLD_DOWN - TICK), []);
    assert_eq!(shown(&bench.pass(TICK)), [&board("a", &[(2, &[8], 5)])]);
    let counts = bench.core.counts();
    assert_eq!((counts.stale_routes, counts.timers), (0, 0));
    bench.everyone_leaves();
}

#[test]
fn log_moves_to_stand_in_when_the_withdrawal_shows() {
    let (mut bench, log) = with_a_stand_in();
    assert_eq!(bench.unannounce(1, "a"), []);
    assert_eq!(bench.pass(HOLD_DOWN - TICK), []);
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
fn withdrawn_writer_can_still_end_its_log() {
    let (mut bench, log) = with_a_stand_in();
    bench.unannounce(1, "a");
    bench.pass(HOLD_DOWN / 2);
    assert_eq!(bench.ended(1, log), []);
    assert_eq!(bench.pass(HOLD_DOWN), [board("a", &[(2, &[7, 8], 5)])]);
    assert_eq!(bench.model.writes(SessionId(2)), []);
    assert_eq!(bench.unsubscribe(9, 0), [Action::Retire { log }]);
    bench.everyone_leaves();
}

#[test]
fn log_moves_at_once_when_its_withdrawn_session_closes() {
    for vanished in [true, false] {
        let (mut bench, log) = with_a_stand_in();
        bench.unannounce(1, "a");
        let actions = if vanished { bench.vanish(1) } else { bench.close(1) };
        assert_eq!(actions, [fence(log, 2), open_order(2, log, 2, "a")]);
        assert_eq!(bench.pass(HOLD_DOWN), [board("a", &[(2, &[7, 8], 5)])]);
        bench.everyone_leaves();
    }
}

#[test]
fn route_announced_again_within_hold_down_causes_no_update() {
    let (mut bench, log) = with_a_stand_in();
    assert_eq!(bench.unannounce(1, "a"), []);
    bench.pass(HOLD_DOWN / 2);
    assert_eq!(bench.announce(1, "a", &[7], 1), []);
    let counts = bench.core.counts();
    assert_eq!((counts.stale_routes, counts.timers), (0, 0));
    assert_eq!(bench.pass(LINGER), []);
    assert_eq!(bench.model.writes(SessionId(1)), [log]);
    bench.everyone_leaves();
}

#[test]
fn second_withdrawal_starts_a_new_hold_down() {
    let (mut bench, _) = with_a_stand_in();
    bench.unannounce(1, "a");
    bench.pass(HOLD_DOWN / 2);
    bench.announce(1, "a", &[7], 1);
    assert_eq!(bench.unannounce(1, "a"), []);
    assert_eq!(bench.pass(HOLD_DOWN - TICK), []);
    assert_eq!(shown(&bench.pass(TICK)).len(), 1);
    bench.everyone_leaves();
}

#[test]
fn withdrawal_of_the_last_route_withdraws_all() {
    let (mut bench, _) = with_a_stand_in();
    bench.unannounce(1, "a");
    bench.pass(HOLD_DOWN / 2);
    assert_eq!(bench.unannounce(2, "a"), [board("a", &[])]);
    assert_eq!(bench.core.counts().stale_routes, 0);
    assert_eq!(bench.pass(LINGER), []);
    bench.everyone_leaves();
}

#[test]
fn withdrawn_route_is_no_last_resort() {
    let (mut bench, _) = with_a_stand_in();
    bench.unannounce(1, "a");
    // Only a vanished publisher is waited for.
    assert_eq!(bench.vanish(2), [board("a", &[(2, &[7, 8], 5)])]);
    assert_eq!(bench.pass(HOLD_DOWN), []);
    bench.everyone_leaves();
}

#[test]
fn withdrawn_route_serves_no_new_readers() {
    let (mut bench, _) = flowing();
    [2, 3].into_iter().for_each(|session| bench.open(session));
    bench.announce(2, "a", &[8], 5);
    bench.unannounce(1, "a");
    let log = bench.attached(3, 0, "a");
    assert_eq!(bench.model.writes(SessionId(2)), [log]);
    // Its only other route would be its own.
    assert_eq!(bench.subscribe(2, 0, "a"), [refuse(2, 0, StreamCode::UNROUTABLE)]);
    bench.everyone_leaves();
}

#[test]
fn session_with_a_withdrawn_route_may_drain_and_close() {
    let (mut bench, _) = with_a_stand_in();
    bench.unannounce(1, "a");
    assert_eq!(bench.ask(1, Ask::Draining), []);
    assert_eq!(bench.unannounce(1, "a"), []);
    assert_eq!(bench.core.counts().stale_routes, 1);
    bench.everyone_leaves();
}

#[test]
fn publisher_moving_after_a_withdrawal_is_one_update() {
    let (mut bench, _) = flowing();
    [2, 3].into_iter().for_each(|session| bench.open(session));
    bench.announce(2, "a", &[8], 9);
    assert_eq!(bench.unannounce(1, "a"), []);
    let moved = board("a", &[(3, &[7], 1), (2, &[8], 9)]);
    assert_eq!(shown(&bench.announce(3, "a", &[7], 1)), [&moved]);
    assert_eq!(bench.pass(HOLD_DOWN), []);
    bench.everyone_leaves();
}

#[test]
fn withdrawal_in_a_triangle_is_one_update_for_readers() {
    let (mut bench, log) = triangle();
    assert_eq!(bench.unannounce(1, "a"), [fading("a", &[(1, &[7, 20], 1)])]);
    // The other relay is about to withdraw too: its route is not used.
    assert_eq!(bench.subscribe(9, 1, "a"), [refuse(9, 1, StreamCode::UNROUTABLE)]);
    assert_eq!(bench.pass(TICK * 20), []);
    assert_eq!(bench.unannounce(2, "a"), [board("a", &[])]);
    assert_eq!(bench.core.counts().stale_routes, 0);
    // The end is still on its way.
    assert_eq!(bench.ended(1, log), []);
    assert_eq!(bench.pass(LINGER), []);
    bench.everyone_leaves();
}

#[test]
fn relayed_route_counts_again_after_the_hold_down() {
    let (mut bench, log) = triangle();
    bench.unannounce(1, "a");
    assert_eq!(bench.pass(HOLD_DOWN - TICK), []);
    let actions = bench.pass(TICK);
    assert_eq!(shown(&actions), [&board("a", &[(2, &[7, 20, 30], 2)])]);
    assert_eq!(bench.model.writes(SessionId(2)), [log]);
    bench.everyone_leaves();
}

#[test]
fn broadcast_with_another_publisher_stays_visible_to_readers() {
    let (mut bench, _) = triangle();
    assert_eq!(shown(&bench.unannounce(1, "a")), [&fading("a", &[(1, &[7, 20], 1)])]);
    bench.pass(HOLD_DOWN - TICK);
    // The other relay knows another publisher that it had no reason to advertise.
    let actions = bench.announce(2, "a", &[8, 30], 4);
    let Some(Action::Board { routes, .. }) = shown(&actions).last() else { panic!("{actions:?}") };
    assert!(!routes.is_empty() && routes.iter().all(|route| !route.stale), "{routes:?}");
    bench.everyone_leaves();
}

#[test]
fn announce_after_the_withdrawal_of_a_relay_counts() {
    let (mut bench, _) = triangle();
    bench.unannounce(1, "a");
    let again = bench.announce(2, "a", &[7, 20, 30], 3);
    assert_eq!(shown(&again), [&board("a", &[(1, &[7, 20], 1), (2, &[7, 20, 30], 3)])]);
    bench.everyone_leaves();
}

#[test]
fn relayed_route_counts_while_its_relay_has_another_session() {
    let (mut bench, log) = triangle();
    bench.open(3);
    bench.announce(3, "a", &[7, 20], 5);
    assert_eq!(bench.unannounce(1, "a"), []);
    bench.close(1);
    assert_eq!(bench.model.writes(SessionId(2)), [log]);
    assert_eq!(shown(&bench.pass(HOLD_DOWN)), [&board("a", &[(2, &[7, 20, 30], 2), (3, &[7, 20], 5)])]);
    bench.everyone_leaves();
}

#[test]
fn close_or_loop_of_a_relay_does_not_silence_relayed_routes() {
    for closes in [true, false] {
        let (mut bench, _) = triangle();
        let actions = if closes { bench.close(1) } else { bench.announce(1, "a", &[7, SELF, 20], 1) };
        assert_eq!(shown(&actions), Vec::<&Action>::new());
        assert_eq!(shown(&bench.pass(HOLD_DOWN)), [&board("a", &[(2, &[7, 20, 30], 2)])]);
        bench.everyone_leaves();
    }
}

#[test]
fn withdrawal_by_a_publisher_does_not_silence_other_routes() {
    let (mut bench, log) = with_a_stand_in();
    // 7 is the publisher, not a relay of the other chain.
    assert_eq!(bench.unannounce(1, "a"), []);
    bench.pass(HOLD_DOWN);
    assert_eq!(bench.model.writes(SessionId(2)), [log]);
    bench.everyone_leaves();
}
