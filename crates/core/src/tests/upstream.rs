//! Logs whose publisher moves, vanishes or comes back.

use super::*;

/// Session 1 publishes `a` as 7, session 9 reads it.
fn flowing() -> (Bench, LogId) {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open(9);
    bench.announce(1, "a", &[7], 1);
    let log = bench.attached(9, 0, "a");
    (bench, log)
}

#[test]
fn the_same_publisher_on_another_session_takes_over_at_once() {
    let (mut bench, log) = flowing();
    bench.open(2);
    bench.announce(2, "a", &[7, 8], 5);
    // Data moves before the board changes.
    assert_eq!(bench.close(1), [fence(log, 2), open_order(2, log, 2, "a")]);
    assert_eq!(bench.ended(1, log), []);
    assert_eq!(bench.pass(HOLD_DOWN), [board("a", &[(2, &[7, 8], 5)])]);
    bench.everyone_leaves();
}

#[test]
fn failover_prefers_a_route_that_serves_every_reader() {
    let (mut bench, log) = flowing();
    bench.open(2);
    bench.open(3);
    bench.announce(2, "a", &[7, 8], 2);
    bench.announce(3, "a", &[7, 6], 5);
    assert_eq!(bench.attached(2, 0, "a"), log);
    bench.close(1);
    assert_eq!(bench.model.writes(SessionId(3)), [log]);
    // Serving one reader its own content is better than serving none.
    bench.close(3);
    assert_eq!(bench.model.writes(SessionId(2)), [log]);
    bench.everyone_leaves();
}

#[test]
fn a_writer_that_reads_its_own_log_can_close() {
    let (mut bench, log) = flowing();
    bench.open(2);
    bench.announce(2, "a", &[7, 8], 2);
    let ask = Ask::Subscribe {
        sub: SubId(0),
        path: path("a"),
        track: track("video"),
        prefs: Prefs { priority: 200, ..Prefs::default() },
        want: Want::Live,
    };
    bench.ask(2, ask);
    bench.close(1);
    assert_eq!(bench.model.writes(SessionId(2)), [log]);
    bench.close(2);
    assert_eq!(bench.pass(LINGER), [Action::End { log, code: StreamCode::UNROUTABLE }]);
    bench.everyone_leaves();
}

#[test]
fn a_publisher_that_comes_back_in_time_resumes_its_logs() {
    let (mut bench, log) = flowing();
    assert_eq!(bench.close(1), [board("a", &[])]);
    assert_eq!(bench.core.next_deadline(), Some(bench.now + LINGER));
    assert_eq!(bench.pass(LINGER - Duration::from_millis(1)), []);
    bench.open(2);
    let shown = board("a", &[(2, &[7], 1)]);
    assert_eq!(bench.announce(2, "a", &[7], 1), [shown, fence(log, 2), open_order(2, log, 2, "a")]);
    assert_eq!(bench.pass(LINGER * 2), []);
    bench.open(3);
    assert_eq!(bench.attached(3, 0, "a"), log);
    bench.everyone_leaves();
}

#[test]
fn a_publisher_that_stays_away_ends_its_logs() {
    let (mut bench, log) = flowing();
    bench.close(1);
    assert_eq!(bench.pass(LINGER), [Action::End { log, code: StreamCode::UNROUTABLE }]);
    assert_eq!(bench.core.tally(), tally(|t| t.abandoned = 1));
    // Too late: a new log.
    bench.open(2);
    assert_eq!(bench.announce(2, "a", &[7], 1).len(), 1);
    bench.open(3);
    assert_ne!(bench.attached(3, 0, "a"), log);
    assert_eq!(bench.unsubscribe(9, 0), [Action::Retire { log }]);
    bench.everyone_leaves();
}

#[test]
fn withdrawn_broadcast_takes_no_new_readers() {
    let (mut bench, _) = flowing();
    bench.close(1);
    bench.open(3);
    assert_eq!(bench.subscribe(3, 0, "a"), [refuse(3, 0, StreamCode::UNROUTABLE)]);
}

#[test]
fn a_suspended_log_goes_with_its_last_reader() {
    let (mut bench, log) = flowing();
    bench.close(1);
    assert_eq!(bench.unsubscribe(9, 0), [Action::Retire { log }]);
    assert_eq!(bench.core.next_deadline(), None);
    assert_eq!(bench.core.counts().paths, 0);
}

#[test]
fn an_unread_log_does_not_outlive_its_session() {
    let (mut bench, log) = flowing();
    bench.unsubscribe(9, 0);
    assert_eq!(bench.close(1), [board("a", &[]), Action::Retire { log }]);
    assert_eq!(bench.core.next_deadline(), None);
}

#[test]
fn an_unread_log_is_not_taken_over() {
    let (mut bench, log) = flowing();
    bench.open(2);
    bench.announce(2, "a", &[7, 8], 5);
    bench.unsubscribe(9, 0);
    assert_eq!(bench.close(1), [Action::Retire { log }]);
}

#[test]
fn another_publisher_does_not_resume_the_log() {
    let (mut bench, log) = flowing();
    bench.open(2);
    bench.announce(2, "a", &[8], 1);
    // Its readers may subscribe to the other publisher at once.
    assert_eq!(bench.close(1), [ended(log)]);
    assert_eq!(bench.core.tally(), tally(|t| t.replaced = 1));
    assert_eq!(bench.model.writes(SessionId(2)), []);
    assert_ne!(bench.attached(9, 1, "a"), log);
    bench.everyone_leaves();
}

#[test]
fn another_publisher_that_comes_later_does_not_resume_the_log() {
    let (mut bench, log) = flowing();
    bench.close(1);
    bench.open(2);
    assert_eq!(bench.announce(2, "a", &[8], 1), [board("a", &[(2, &[8], 1)]), ended(log)]);
    bench.everyone_leaves();
}

#[test]
fn nameless_publisher_never_resumes_an_earlier_log() {
    let mut bench = Bench::new();
    (1..=3).for_each(|session| bench.open(session));
    bench.announce(1, "a", &[0], 1);
    let log = bench.attached(3, 0, "a");
    bench.announce(2, "a", &[0], 1);
    bench.close(1);
    assert_eq!(bench.model.writes(SessionId(2)), []);
    assert_ne!(bench.attached(3, 1, "a"), log);
    bench.everyone_leaves();
}

#[test]
fn new_publisher_gets_new_readers_and_old_ones_keep_their_log() {
    let (mut bench, log) = flowing();
    bench.open(3);
    assert_eq!(bench.announce(1, "a", &[8], 1), [board("a", &[(1, &[8], 1)])]);
    let new = bench.attached(3, 0, "a");
    assert_ne!(new, log);
    assert_eq!(bench.model.writes(SessionId(1)), [log, new]);
    bench.ended(1, log);
    assert_eq!(bench.unsubscribe(9, 0), [Action::Retire { log }]);
    bench.everyone_leaves();
}

#[test]
fn better_publisher_elsewhere_does_not_move_readers() {
    let (mut bench, log) = flowing();
    bench.open(2);
    bench.open(3);
    let shown = board("a", &[(2, &[8], 0), (1, &[7], 1)]);
    assert_eq!(bench.announce(2, "a", &[8], 0), [shown]);
    assert_ne!(bench.attached(3, 0, "a"), log);
    assert_eq!(bench.model.writes(SessionId(1)), [log]);
}

/// Whether the log of session 9, published by session 1 as 7, moves to session 2 when that announces `chain`.
fn moves(chain: &[u64], cost: Cost) -> bool {
    let (mut bench, log) = flowing();
    bench.open(2);
    let actions = bench.announce_at(2, "a", chain, cost);
    let moved = bench.model.writes(SessionId(2)) == [log];
    assert_eq!(actions.len(), if moved { 4 } else { 1 }, "{actions:?}");
    bench.everyone_leaves();
    moved
}

#[test]
fn log_moves_only_to_a_better_route_of_its_publisher() {
    assert!(moves(&[7, 8], Cost { warm: 0, cold: 1 }), "cheaper");
    assert!(moves(&[7], cost(1)), "newer");
    assert!(!moves(&[7, 8], cost(1)), "longer");
    assert!(!moves(&[7], cost(2)), "dearer");
    assert!(!moves(&[8], cost(0)), "of another publisher");
}

#[test]
fn reconnected_publisher_takes_over_its_logs_at_once() {
    let (mut bench, log) = flowing();
    bench.open(2);
    let expected = [
        board("a", &[(2, &[7], 1), (1, &[7], 1)]),
        to(1, Order::Close { log }),
        fence(log, 2),
        open_order(2, log, 2, "a"),
    ];
    assert_eq!(bench.announce(2, "a", &[7], 1), expected);
    // The end of the old session changes nothing for readers.
    assert_eq!(bench.vanish(1), []);
    assert_eq!(bench.pass(HOLD_DOWN), [board("a", &[(2, &[7], 1)])]);
    assert_eq!(bench.pass(LINGER), []);
    bench.everyone_leaves();
}

#[test]
fn a_log_that_moved_stays_while_its_route_is_the_best() {
    let (mut bench, log) = flowing();
    bench.open(2);
    bench.announce(2, "a", &[7], 1);
    assert_eq!(bench.model.writes(SessionId(2)), [log]);
    // A repeated announce, and costs that do not change the order.
    assert_eq!(bench.announce(1, "a", &[7], 1), []);
    assert_eq!(bench.announce(1, "a", &[7], 3).len(), 1);
    assert_eq!(bench.announce(2, "a", &[7], 2).len(), 1);
    assert_eq!(bench.model.writes(SessionId(2)), [log]);
    bench.everyone_leaves();
}

#[test]
fn log_does_not_move_to_a_route_through_a_reader() {
    let (mut bench, log) = flowing();
    bench.open(2);
    bench.open_behind(3, 8);
    assert_eq!(bench.attached(2, 0, "a"), log);
    assert_eq!(bench.attached(3, 0, "a"), log);
    assert_eq!(bench.announce(2, "a", &[7, 8], 0).len(), 1);
    bench.unsubscribe(2, 0);
    assert_eq!(bench.model.writes(SessionId(1)), [log]);
    // The last reader that the route would not serve leaves.
    let moved = [to(1, Order::Close { log }), fence(log, 2), open_order(2, log, 2, "a")];
    assert_eq!(bench.unsubscribe(3, 0), moved);
    bench.everyone_leaves();
}

#[test]
fn unread_log_moves_with_its_next_reader() {
    let (mut bench, log) = flowing();
    bench.unsubscribe(9, 0);
    bench.open(2);
    assert_eq!(bench.announce(2, "a", &[7], 0).len(), 1);
    bench.open(3);
    let moved = [to(1, Order::Close { log }), fence(log, 2), open_order(2, log, 2, "a"), attach(3, 0, log)];
    assert_eq!(bench.subscribe(3, 0, "a"), moved);
    bench.everyone_leaves();
}

#[test]
fn log_moves_from_a_draining_session_to_another_route() {
    let (mut bench, log) = flowing();
    bench.open(2);
    bench.announce(2, "a", &[7, 8], 9);
    let expected = [
        board("a", &[(2, &[7, 8], 9), (1, &[7], 1)]),
        to(1, Order::Close { log }),
        fence(log, 2),
        open_order(2, log, 2, "a"),
    ];
    assert_eq!(bench.ask(1, Ask::Draining), expected);
    assert_eq!(bench.ask(1, Ask::Draining), []);
    bench.everyone_leaves();
}

#[test]
fn log_stays_on_a_draining_session_without_another_route() {
    let (mut bench, log) = flowing();
    bench.open(2);
    bench.announce(2, "a", &[8], 9);
    assert_eq!(bench.ask(1, Ask::Draining), [board("a", &[(2, &[8], 9), (1, &[7], 1)])]);
    assert_eq!(bench.model.writes(SessionId(1)), [log]);
    bench.everyone_leaves();
}

#[test]
fn late_excluded_hop_counts_for_new_subscriptions() {
    let (mut bench, log) = flowing();
    bench.announce(1, "a", &[7, 8], 1);
    // Open subscriptions stay.
    assert_eq!(bench.exclude(9, 8), []);
    assert_eq!(bench.model.writes(SessionId(1)), [log]);
    assert_eq!(bench.subscribe(9, 1, "a"), [refuse(9, 1, StreamCode::UNROUTABLE)]);
    // The log does not move to another route through the excluded hop.
    bench.open(2);
    assert_eq!(bench.announce(2, "a", &[7, 8], 0).len(), 1);
    // The last excluded hop replaces the earlier one.
    let moved = [to(1, Order::Close { log }), fence(log, 2)];
    let actions = bench.exclude(9, 0);
    assert_eq!(actions[..2], moved);
    assert_eq!(bench.attached(9, 2, "a"), log);
    bench.everyone_leaves();
}

#[test]
fn withdrawn_broadcast_still_delivers_to_its_readers() {
    let (mut bench, log) = flowing();
    bench.open(3);
    assert_eq!(bench.unannounce(1, "a"), [board("a", &[])]);
    assert_eq!(bench.subscribe(3, 0, "a"), [refuse(3, 0, StreamCode::UNROUTABLE)]);
    assert_eq!(bench.pass(LINGER * 3), []);
    assert_eq!(bench.ended(1, log), []);
    assert_eq!(bench.unsubscribe(9, 0), [Action::Retire { log }]);
    assert_eq!(bench.core.counts().paths, 0);
    bench.everyone_leaves();
}

#[test]
fn unread_withdrawn_broadcast_is_closed_after_the_linger() {
    let (mut bench, log) = flowing();
    bench.unannounce(1, "a");
    bench.unsubscribe(9, 0);
    assert_eq!(bench.pass(LINGER), [to(1, Order::Close { log }), Action::Retire { log }]);
    assert_eq!(bench.core.counts().paths, 0);
}

#[test]
fn a_broadcast_withdrawn_and_announced_again_carries_on() {
    let (mut bench, log) = flowing();
    bench.open(3);
    bench.unannounce(1, "a");
    assert_eq!(bench.announce(1, "a", &[7], 2), [board("a", &[(1, &[7], 2)])]);
    assert_eq!(bench.attached(3, 0, "a"), log);
    bench.everyone_leaves();
}

#[test]
fn a_withdrawn_broadcast_announced_elsewhere_moves_there() {
    let (mut bench, log) = flowing();
    bench.open(2);
    bench.unannounce(1, "a");
    let expected = [
        board("a", &[(2, &[7, 8], 5)]),
        to(1, Order::Close { log }),
        fence(log, 2),
        open_order(2, log, 2, "a"),
    ];
    assert_eq!(bench.announce(2, "a", &[7, 8], 5), expected);
    bench.everyone_leaves();
}

#[test]
fn log_of_a_withdrawn_and_closed_session_waits_for_publisher() {
    let (mut bench, log) = flowing();
    bench.unannounce(1, "a");
    assert_eq!(bench.close(1), []);
    bench.open(2);
    bench.announce(2, "a", &[7], 1);
    assert_eq!(bench.model.writes(SessionId(2)), [log]);
    bench.everyone_leaves();
}

#[test]
fn a_rerouted_chain_is_seen_by_the_next_reader() {
    let (mut bench, log) = flowing();
    bench.open_behind(3, 8);
    bench.open(4);
    bench.announce(1, "a", &[7, 8], 1);
    assert_eq!(bench.subscribe(3, 0, "a"), [refuse(3, 0, StreamCode::UNROUTABLE)]);
    assert_eq!(bench.attached(4, 0, "a"), log);
}

#[test]
fn prefs_set_during_absence_are_sent_when_the_publisher_is_back() {
    let (mut bench, log) = flowing();
    bench.close(1);
    let prefs = Prefs { priority: 3, ..Prefs::default() };
    assert_eq!(bench.ask(9, Ask::Update { sub: SubId(0), prefs }), []);
    bench.open(2);
    let actions = bench.announce(2, "a", &[7], 1);
    let order = Order::Open {
        log,
        epoch: Epoch(2),
        path: path("a"),
        publisher: Hop(7),
        track: track("video"),
        prefs,
        want: Want::Live,
        asker: ANYBODY,
    };
    assert_eq!(actions.last(), Some(&to(2, order)));
}

#[test]
fn log_with_ambiguous_groups_ends_instead_of_moving() {
    let (mut bench, log) = flowing();
    bench.open(2);
    // A better route to the same publisher: the log moves, with the groups session 1 has delivered.
    bench.announce(2, "a", &[7], 0);
    assert_eq!(bench.model.writes(SessionId(2)), [log]);
    // They were requested while the announce of another publisher was on its way.
    let actions = bench.announce(1, "a", &[8], 1);
    assert!(actions.contains(&Action::End { log, code: StreamCode::GOING_AWAY }), "{actions:?}");
    assert_eq!(bench.core.tally(), tally(|t| t.ambiguous = 1));
    bench.unsubscribe(9, 0);
    assert_ne!(bench.attached(9, 1, "a"), log);
    bench.everyone_leaves();
}

#[test]
fn log_of_an_ambiguous_writer_ends_instead_of_moving() {
    let (mut bench, log) = flowing();
    bench.open(2);
    bench.announce(2, "a", &[7, 6], 5);
    let actions = bench.announce(1, "a", &[8], 1);
    assert!(actions.contains(&Action::End { log, code: StreamCode::GOING_AWAY }), "{actions:?}");
    assert_eq!(bench.model.writes(SessionId(2)), [], "what was mixed went on");
    bench.unsubscribe(9, 0);
    bench.everyone_leaves();
}

#[test]
fn ambiguous_log_ends_under_a_writer_that_withdraws() {
    let (mut bench, log) = flowing();
    bench.open(2);
    bench.announce(2, "a", &[7], 0);
    bench.ask(2, Ask::Draining);
    assert_eq!(bench.model.writes(SessionId(1)), [log]);
    // Its last groups would be delivered during the hold-down, but those of session 2 may be another's.
    bench.unannounce(1, "a");
    let actions = bench.announce(2, "a", &[8], 1);
    assert!(actions.contains(&to(1, Order::Close { log })), "{actions:?}");
    assert!(actions.contains(&Action::End { log, code: StreamCode::GOING_AWAY }), "{actions:?}");
    bench.everyone_leaves();
}

#[test]
fn log_answered_long_ago_moves_with_its_publisher() {
    let (mut bench, log) = flowing();
    bench.open(2);
    bench.announce(2, "a", &[7, 6], 5);
    bench.pass(relay_model::limits::OWNER_CHANGE_WINDOW);
    bench.announce(1, "a", &[8], 1);
    assert_eq!(bench.model.writes(SessionId(2)), [log]);
    bench.everyone_leaves();
}
