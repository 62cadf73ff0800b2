//! Subscriptions: one upstream request for all readers.

use super::*;

/// Session 1 publishes `a`; sessions from 2 on read.
fn published(readers: u64) -> Bench {
    let mut bench = Bench::new();
    bench.open(1);
    bench.announce(1, "a", &[7], 1);
    (2..2 + readers).for_each(|session| bench.open(session));
    bench
}

fn prefs(priority: u8) -> Prefs {
    Prefs { priority, ..Prefs::default() }
}

#[test]
fn the_first_subscriber_opens_the_track() {
    let mut bench = published(1);
    let actions = bench.subscribe(2, 0, "a");
    let Some(Action::Create { log }) = actions.first().cloned() else { panic!("{actions:?}") };
    assert_eq!(
        actions,
        [Action::Create { log }, fence(log, 1), open_order(1, log, 1, "a"), attach(2, 0, log)]
    );
    bench.everyone_leaves();
}

#[test]
fn fifty_subscribers_cost_one_upstream_ask() {
    let mut bench = published(50);
    let log = bench.attached(2, 0, "a");
    for session in 3..52 {
        assert_eq!(bench.subscribe(session, 0, "a"), [attach(session, 0, log)]);
    }
    assert_eq!((bench.core.counts().logs, bench.core.counts().readers), (1, 50));
    bench.everyone_leaves();
}

#[test]
fn tracks_and_broadcasts_have_logs_of_their_own() {
    let mut bench = published(1);
    bench.announce(1, "b", &[7], 1);
    let first = bench.attached(2, 0, "a");
    assert_ne!(bench.attached(2, 1, "b"), first);
    let audio = Ask::Subscribe {
        sub: SubId(2),
        path: path("a"),
        track: track("audio"),
        prefs: Prefs::default(),
        want: Want::Live,
    };
    bench.ask(2, audio);
    assert_eq!(bench.core.counts().logs, 3);
    bench.everyone_leaves();
}

#[test]
fn no_route_is_unroutable() {
    let mut bench = published(1);
    assert_eq!(bench.subscribe(2, 0, "nowhere"), [refuse(2, 0, StreamCode::UNROUTABLE)]);
    assert_eq!(bench.core.tally(), tally(|t| t.unroutable = 1));
}

#[test]
fn forbidden_path_is_refused_like_an_unknown_one() {
    let mut bench = published(0);
    bench.open_with(2, permit("", "mine"));
    assert_eq!(bench.subscribe(2, 0, "a"), [refuse(2, 0, StreamCode::UNROUTABLE)]);
    assert_eq!(bench.core.tally(), tally(|t| t.subscribe_denied = 1));
}

#[test]
fn a_session_is_not_served_its_own_broadcast() {
    let mut bench = published(0);
    assert_eq!(bench.subscribe(1, 0, "a"), [refuse(1, 0, StreamCode::UNROUTABLE)]);
}

#[test]
fn a_peer_is_not_served_through_itself() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open_behind(2, 8);
    bench.open_behind(3, 0);
    bench.announce(1, "a", &[7, 8, 9], 1);
    assert_eq!(bench.subscribe(2, 0, "a"), [refuse(2, 0, StreamCode::UNROUTABLE)]);
    bench.attached(3, 0, "a");
}

#[test]
fn a_reader_that_may_not_use_the_open_route_gets_the_next_best() {
    let mut bench = Bench::new();
    (1..=3).for_each(|session| bench.open(session));
    bench.open_behind(4, 8);
    bench.announce(1, "a", &[7, 8], 1);
    bench.announce(2, "a", &[7, 9], 5);
    let shared = bench.attached(3, 0, "a");
    let own = bench.attached(4, 0, "a");
    assert_ne!(own, shared);
    assert_eq!(bench.model.writes(SessionId(2)), [own]);
    // Session 1 itself can share that log; a viewer takes the first one.
    assert_eq!(bench.attached(1, 0, "a"), own);
    assert_eq!(bench.attached(3, 1, "a"), shared);
    bench.everyone_leaves();
}

#[test]
fn upstream_request_is_the_union_of_preferences() {
    let mut bench = published(3);
    let actions = bench.subscribe_as(2, 0, "a", prefs(5), Want::Live);
    let Action::Create { log } = actions[0] else { panic!("{actions:?}") };
    let changed = |priority| to(1, Order::Prefs { log, prefs: prefs(priority), want: Want::Live });
    assert_eq!(bench.subscribe_as(3, 0, "a", prefs(9), Want::Live), [changed(9), attach(3, 0, log)]);
    assert_eq!(bench.subscribe_as(4, 0, "a", prefs(7), Want::Live), [attach(4, 0, log)]);
    assert_eq!(bench.unsubscribe(3, 0), [changed(7)]);
    assert_eq!(bench.ask(2, Ask::Update { sub: SubId(0), prefs: prefs(8) }), [changed(8)]);
    assert_eq!(bench.ask(4, Ask::Update { sub: SubId(0), prefs: prefs(6) }), []);
    bench.everyone_leaves();
}

#[test]
fn far_ahead_start_does_not_hide_the_latest_from_others() {
    let mut bench = published(2);
    let ahead = Prefs { start: Start::Group(1 << 60), ..prefs(5) };
    let actions = bench.subscribe_as(2, 0, "a", ahead, Want::Live);
    let Action::Create { log } = actions[0] else { panic!("{actions:?}") };
    let latest = to(1, Order::Prefs { log, prefs: prefs(5), want: Want::Live });
    assert_eq!(bench.subscribe_as(3, 0, "a", prefs(5), Want::Live), [latest, attach(3, 0, log)]);
    assert_eq!(
        bench.ask(2, Ask::Update { sub: SubId(0), prefs: Prefs { start: Start::Group(7), ..ahead } }),
        []
    );
    bench.everyone_leaves();
}

#[test]
fn groups_requested_with_first_live_reader() {
    let mut bench = published(2);
    let actions = bench.subscribe_as(2, 0, "a", prefs(5), Want::Info);
    let Action::Create { log } = actions[0] else { panic!("{actions:?}") };
    assert!(matches!(&actions[2], Action::Order { order: Order::Open { want: Want::Info, .. }, .. }));
    let live = to(1, Order::Prefs { log, prefs: prefs(3), want: Want::Live });
    assert_eq!(bench.subscribe_as(3, 0, "a", prefs(3), Want::Live), [live, attach(3, 0, log)]);
    // Not reduced for a reader of properties.
    assert_eq!(bench.unsubscribe(3, 0), []);
    bench.everyone_leaves();
}

#[test]
fn an_unread_track_is_closed_after_the_linger() {
    let mut bench = published(1);
    let log = bench.attached(2, 0, "a");
    assert_eq!(bench.unsubscribe(2, 0), []);
    assert_eq!(bench.core.next_deadline(), Some(bench.now + LINGER));
    assert_eq!(bench.pass(LINGER - Duration::from_millis(1)), []);
    assert_eq!(bench.pass(Duration::from_millis(1)), [to(1, Order::Close { log }), Action::Retire { log }]);
    assert_ne!(bench.attached(2, 1, "a"), log);
    bench.everyone_leaves();
}

#[test]
fn reader_joining_in_the_linger_causes_no_upstream_request() {
    let mut bench = published(2);
    let log = bench.attached(2, 0, "a");
    bench.unsubscribe(2, 0);
    assert_eq!(bench.subscribe(3, 0, "a"), [attach(3, 0, log)]);
    assert_eq!(bench.core.next_deadline(), None);
    assert_eq!(bench.pass(LINGER * 2), []);
    // The same if the timer is due and has not run yet.
    bench.unsubscribe(3, 0);
    bench.now += LINGER;
    assert_eq!(bench.subscribe(2, 1, "a"), [attach(2, 1, log)]);
    assert_eq!(bench.pass(Duration::ZERO), []);
    bench.everyone_leaves();
}

#[test]
fn linger_restarts_each_time_the_last_reader_leaves() {
    let mut bench = published(1);
    let log = bench.attached(2, 0, "a");
    bench.unsubscribe(2, 0);
    bench.pass(LINGER / 2);
    bench.attached(2, 1, "a");
    bench.unsubscribe(2, 1);
    assert_eq!(bench.pass(LINGER / 2), []);
    assert_eq!(bench.pass(LINGER / 2), [to(1, Order::Close { log }), Action::Retire { log }]);
}

#[test]
fn ended_track_is_requested_again_while_old_readers_finish() {
    let mut bench = published(2);
    let log = bench.attached(2, 0, "a");
    assert_eq!(bench.ended(1, log), []);
    let next = bench.attached(3, 0, "a");
    assert_ne!(next, log);
    assert_eq!(bench.unsubscribe(2, 0), [Action::Retire { log }]);
    bench.everyone_leaves();
}

#[test]
fn end_of_an_unread_log_retires_it_at_once() {
    let mut bench = published(1);
    let log = bench.attached(2, 0, "a");
    bench.unsubscribe(2, 0);
    assert_eq!(bench.ended(1, log), [Action::Retire { log }]);
    assert_eq!(bench.core.next_deadline(), None);
}

#[test]
fn only_its_writer_can_end_a_log() {
    let mut bench = published(2);
    let log = bench.attached(2, 0, "a");
    assert_eq!(bench.ended(3, log), []);
    assert_eq!(bench.core.tally(), tally(|t| t.unknown = 1));
    assert_eq!(bench.attached(3, 0, "a"), log);
}

#[test]
fn a_key_used_twice_is_dropped_and_the_first_stays() {
    let mut bench = published(1);
    let log = bench.attached(2, 0, "a");
    assert_eq!(bench.subscribe(2, 0, "a"), []);
    assert_eq!(bench.core.tally(), tally(|t| t.unknown = 1));
    bench.unsubscribe(2, 0);
    assert_eq!(bench.pass(LINGER), [to(1, Order::Close { log }), Action::Retire { log }]);
}

#[test]
fn closed_session_leaves_its_logs() {
    let mut bench = published(1);
    let log = bench.attached(2, 0, "a");
    bench.attached(2, 1, "a");
    assert_eq!(bench.close(2), []);
    assert_eq!(bench.pass(LINGER), [to(1, Order::Close { log }), Action::Retire { log }]);
    bench.everyone_leaves();
}

#[test]
fn queued_board_update_is_replaced_by_a_newer_one() {
    let mut bench = published(1);
    let now = bench.now;
    let announce = |price| CoreEvent::Ask {
        session: SessionId(1),
        ask: Ask::Announce { path: path("a"), hops: hops(&[7]), cost: cost(price) },
    };
    (2..100).for_each(|price| bench.core.handle(announce(price), now));
    assert_eq!(bench.core.counts().pending, 1);
    assert_eq!(bench.core.poll_action(), Some(board("a", &[(1, &[7], 99)])));
}
