//! Publishers that vanish without a close.

use relay_model::limits;

use super::*;
use crate::route_table::STALE_ROUTES;

/// Session 1 publishes `a` as 7, session 9 reads it.
fn flowing(takeover: Takeover) -> (Bench, LogId) {
    let mut bench = Bench::with(takeover);
    bench.open(1);
    bench.open(9);
    bench.announce(1, "a", &[7], 1);
    let log = bench.attached(9, 0, "a");
    (bench, log)
}

#[test]
fn vanished_route_stays_on_the_board_until_the_linger_ends() {
    let (mut bench, log) = flowing(Takeover::Any);
    assert_eq!(bench.vanish(1), []);
    let counts = bench.core.counts();
    assert_eq!((counts.stale_routes, counts.routes, counts.paths), (1, 0, 1));
    assert_eq!(bench.pass(HOLD_DOWN), []);
    assert_eq!(bench.pass(LINGER - HOLD_DOWN - TICK), []);
    assert_eq!(bench.pass(TICK), [ended(log), board("a", &[])]);
    assert_eq!(bench.core.tally(), tally(|t| t.abandoned = 1));
    bench.everyone_leaves();
}

#[test]
fn a_publisher_that_returns_beats_its_stale_route_in_one_update() {
    for away in [HOLD_DOWN / 2, HOLD_DOWN * 2] {
        let (mut bench, log) = flowing(Takeover::Any);
        assert_eq!(bench.vanish(1), []);
        assert_eq!(bench.pass(away), []);
        bench.open(2);
        let back = [board("a", &[(2, &[7], 1)]), fence(log, 2), open_order(2, log, 2, "a")];
        assert_eq!(bench.announce(2, "a", &[7], 1), back);
        assert_eq!(bench.core.next_deadline(), None);
        assert_eq!(bench.pass(LINGER * 2), []);
        bench.everyone_leaves();
    }
}

#[test]
fn failover_is_one_update_after_the_hold_down() {
    let (mut bench, log) = flowing(Takeover::Any);
    bench.open(2);
    bench.announce(2, "a", &[7, 8], 5);
    // Data moves at once.
    assert_eq!(bench.vanish(1), [fence(log, 2), open_order(2, log, 2, "a")]);
    assert_eq!(bench.pass(HOLD_DOWN - TICK), []);
    assert_eq!(bench.pass(TICK), [board("a", &[(2, &[7, 8], 5)])]);
    assert_eq!(bench.pass(LINGER * 2), []);
    bench.everyone_leaves();
}

#[test]
fn a_new_price_beside_a_stale_route_does_not_end_its_hold_down() {
    let (mut bench, _) = flowing(Takeover::Any);
    bench.open(2);
    bench.announce(2, "a", &[7, 8], 5);
    bench.vanish(1);
    assert_eq!(bench.announce(2, "a", &[7, 8], 5), []);
    assert_eq!(bench.announce(2, "a", &[7, 8], 6), [board("a", &[(1, &[7], 1), (2, &[7, 8], 6)])]);
    assert_eq!(bench.pass(HOLD_DOWN), [board("a", &[(2, &[7, 8], 6)])]);
    bench.everyone_leaves();
}

#[test]
fn readers_move_to_another_publisher_after_the_hold_down() {
    let (mut bench, log) = flowing(Takeover::Any);
    bench.open(2);
    bench.announce(2, "a", &[8], 5);
    assert_eq!(bench.vanish(1), []);
    assert_eq!(bench.pass(HOLD_DOWN - TICK), []);
    assert_eq!(bench.pass(TICK), [board("a", &[(2, &[8], 5)]), ended(log)]);
    assert_eq!(bench.core.tally(), tally(|t| t.replaced = 1));
    bench.everyone_leaves();
}

#[test]
fn publisher_announced_in_hold_down_takes_over_after_it() {
    let (mut bench, log) = flowing(Takeover::Any);
    bench.vanish(1);
    bench.pass(HOLD_DOWN / 2);
    bench.open(2);
    assert_eq!(bench.announce(2, "a", &[8], 5), [board("a", &[(1, &[7], 1), (2, &[8], 5)])]);
    assert_eq!(bench.pass(HOLD_DOWN / 2), [board("a", &[(2, &[8], 5)]), ended(log)]);
    bench.everyone_leaves();
}

#[test]
fn publisher_announced_after_hold_down_takes_over_at_once() {
    let (mut bench, log) = flowing(Takeover::Any);
    bench.vanish(1);
    bench.pass(HOLD_DOWN);
    bench.open(2);
    assert_eq!(bench.announce(2, "a", &[8], 5), [board("a", &[(2, &[8], 5)]), ended(log)]);
    assert_eq!(bench.core.next_deadline(), None);
    bench.everyone_leaves();
}

#[test]
fn subscription_to_a_stale_route_joins_the_suspended_log() {
    let (mut bench, log) = flowing(Takeover::Any);
    bench.vanish(1);
    bench.open(3);
    assert_eq!(bench.subscribe(3, 0, "a"), [attach(3, 0, log)]);
    bench.pass(LINGER - TICK);
    assert_eq!(bench.subscribe(3, 1, "a"), [attach(3, 1, log)]);
    // The stale route and the log have the same linger.
    assert_eq!(bench.pass(TICK), [ended(log), board("a", &[])]);
    bench.everyone_leaves();
}

#[test]
fn subscription_to_a_new_track_of_a_stale_route_waits() {
    let mut bench = Bench::new();
    (1..=3).for_each(|session| bench.open(session));
    bench.announce(1, "a", &[7], 1);
    bench.vanish(1);
    bench.pass(LINGER / 2);
    let actions = bench.subscribe(2, 0, "a");
    let Some(Action::Create { log }) = actions.first().cloned() else { panic!("{actions:?}") };
    assert_eq!(actions, [Action::Create { log }, attach(2, 0, log)]);
    assert_eq!(bench.subscribe(3, 0, "a"), [attach(3, 0, log)]);
    bench.open(4);
    let back = [board("a", &[(4, &[7], 1)]), fence(log, 1), open_order(4, log, 1, "a")];
    assert_eq!(bench.announce(4, "a", &[7], 1), back);
    bench.everyone_leaves();
}

#[test]
fn a_log_that_waits_for_a_stale_route_has_a_linger_of_its_own() {
    let mut bench = Bench::new();
    (1..=2).for_each(|session| bench.open(session));
    bench.announce(1, "a", &[7], 1);
    bench.vanish(1);
    bench.pass(LINGER / 2);
    let log = bench.attached(2, 0, "a");
    assert_eq!(bench.pass(LINGER / 2), [board("a", &[])]);
    assert_eq!(bench.pass(LINGER / 2), [ended(log)]);
    bench.everyone_leaves();
}

#[test]
fn stale_route_serves_only_readers_its_route_may_serve() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.announce(1, "a", &[7, 8], 1);
    bench.vanish(1);
    bench.open_behind(2, 8);
    assert_eq!(bench.subscribe(2, 0, "a"), [refuse(2, 0, StreamCode::UNROUTABLE)]);
    bench.open_with(3, permit("", "mine"));
    assert_eq!(bench.subscribe(3, 0, "a"), [refuse(3, 0, StreamCode::UNROUTABLE)]);
    bench.everyone_leaves();
}

#[test]
fn subscription_beside_a_live_route_waits_for_no_stale_route() {
    let mut bench = Bench::new();
    (1..=2).for_each(|session| bench.open(session));
    bench.announce(1, "a", &[7], 1);
    bench.announce(2, "a", &[7], 1);
    bench.vanish(1);
    assert_eq!(bench.subscribe(2, 0, "a"), [refuse(2, 0, StreamCode::UNROUTABLE)]);
    bench.everyone_leaves();
}

#[test]
fn a_live_route_serves_before_a_better_stale_route() {
    let mut bench = Bench::with(Takeover::Any);
    (1..=3).for_each(|session| bench.open(session));
    bench.announce(1, "a", &[7], 1);
    bench.announce(2, "a", &[8], 5);
    bench.vanish(1);
    let log = bench.attached(3, 0, "a");
    assert_eq!(bench.model.writes(SessionId(2)), [log]);
    bench.everyone_leaves();
}

#[test]
fn route_past_the_stale_route_limit_is_withdrawn_at_once() {
    let mut core = Core::new(CoreConfig::new(Hop(SELF)));
    let now = Instant::now();
    let publish = |core: &mut Core, session: usize, paths: usize| {
        let session = SessionId(u64::try_from(session).unwrap());
        core.handle(CoreEvent::Opened { session, permit: permit("", "") }, now);
        for n in 0..paths {
            let ask =
                Ask::Announce { path: path(&format!("{session}/{n}")), hops: hops(&[7]), cost: cost(1) };
            core.handle(CoreEvent::Ask { session, ask }, now);
        }
        while core.poll_action().is_some() {}
        core.handle(CoreEvent::Closed { session, vanished: true }, now);
    };
    for session in 0..STALE_ROUTES / limits::ANNOUNCES {
        publish(&mut core, session, limits::ANNOUNCES);
    }
    assert_eq!((core.counts().stale_routes, core.tally().stale_limit), (STALE_ROUTES, 0));
    publish(&mut core, STALE_ROUTES, 1);
    assert_eq!(core.poll_action(), Some(board(&format!("{STALE_ROUTES}/0"), &[])));
    assert_eq!((core.counts().stale_routes, core.tally().stale_limit), (STALE_ROUTES, 1));
    say_goodbye_beside_another(&mut core, now);
    assert_eq!((core.counts().stale_routes, core.tally().stale_limit), (STALE_ROUTES, 2));
    core.handle_timeout(now + limits::LINGER);
    while core.poll_action().is_some() {}
    assert_eq!(core.counts(), crate::CoreCounts::default());
}

#[test]
fn stale_route_memory_has_a_limit() {
    let now = Instant::now();
    // Room for one stale route, and one byte more.
    let ghost_bytes = crate::route_table::stale_footprint(&path("a")) + 1;
    let mut core = Core::new(CoreConfig { stale_bytes: ghost_bytes, ..CoreConfig::new(Hop(SELF)) });
    for (session, raw) in [(1, "a"), (2, "b"), (3, "c")] {
        let session = SessionId(session);
        core.handle(CoreEvent::Opened { session, permit: permit("", "") }, now);
        let ask = Ask::Announce { path: path(raw), hops: hops(&[7]), cost: cost(1) };
        core.handle(CoreEvent::Ask { session, ask }, now);
        core.handle(CoreEvent::Closed { session, vanished: true }, now);
        core.check();
    }
    assert_eq!((core.counts().stale_routes, core.tally().stale_limit), (2, 1));
    assert_eq!(core.stale_bytes(), 2 * (ghost_bytes - 1));
    core.handle_timeout(now + limits::LINGER);
    assert_eq!(core.stale_bytes(), 0);
}

#[test]
fn vanished_sessions_leave_nothing_after_the_linger() {
    let mut bench = Bench::new();
    for session in 1..=20 {
        bench.open(session);
        bench.announce(session, &format!("a/{}", session % 7), &[session, session % 3], 1);
    }
    for session in 1..=20 {
        bench.subscribe(session, 0, &format!("a/{}", (session + 1) % 7));
        bench.pull(session, 0, 3);
    }
    assert_eq!(bench.core.counts().pulls, 7);
    for session in 1..=20 {
        bench.vanish(session);
        bench.pass(TICK * 40);
    }
    assert_ne!(bench.core.counts(), crate::CoreCounts::default());
    bench.everyone_leaves();
}

/// The two last sessions announce `a`; the first withdraws, which is shown at once as no stale route may be kept.
fn say_goodbye_beside_another(core: &mut Core, now: Instant) {
    let ask = |core: &mut Core, session: u64, ask: Ask| {
        core.handle(CoreEvent::Ask { session: SessionId(session), ask }, now);
    };
    let sessions = [u64::MAX - 1, u64::MAX];
    for session in sessions {
        core.handle(CoreEvent::Opened { session: SessionId(session), permit: permit("", "") }, now);
        ask(core, session, Ask::Announce { path: path("a"), hops: hops(&[7]), cost: cost(1) });
    }
    while core.poll_action().is_some() {}
    ask(core, sessions[0], Ask::Unannounce { path: path("a") });
    assert_eq!(core.poll_action(), Some(board("a", &[(sessions[1], &[7], 1)])));
    core.handle(CoreEvent::Closed { session: SessionId(sessions[1]), vanished: false }, now);
    core.handle(CoreEvent::Closed { session: SessionId(sessions[0]), vanished: false }, now);
}

#[test]
fn group_subscription_to_a_stale_route_gets_no_other_publisher() {
    let mut bench = Bench::new();
    (1..=4).for_each(|id| bench.open(id));
    bench.announce(1, "a", &[7], 1);
    bench.announce(2, "a", &[8], 2);
    bench.vanish(1);
    let ask = |sub: u64, start| {
        let prefs = Prefs { start, ..Prefs::default() };
        Ask::Subscribe { sub: SubId(sub), path: path("a"), track: track("video"), prefs, want: Want::Live }
    };
    // Publisher 7 is still advertised, and group 5 of 7 is not group 5 of 8.
    let actions = bench.ask(3, ask(1, Start::Group(5)));
    assert!(
        actions.iter().any(|action| matches!(
            action,
            Action::Order { order: Order::Refuse { code: StreamCode::GOING_AWAY, .. }, .. }
        )),
        "{actions:?}"
    );
    // A reader of the latest group is attached.
    let actions = bench.ask(4, ask(1, Start::Latest));
    assert!(actions.iter().any(|action| matches!(action, Action::Order { order: Order::Attach { .. }, .. })));
    bench.pass(limits::HOLD_DOWN);
    let actions = bench.ask(3, ask(2, Start::Group(5)));
    assert!(actions.iter().any(|action| matches!(action, Action::Order { order: Order::Attach { .. }, .. })));
    bench.everyone_leaves();
}

#[test]
fn lingering_logs_have_a_limit() {
    let now = Instant::now();
    let linger_bytes = 2 * crate::log_table::LOG_BYTES;
    let mut core = Core::new(CoreConfig { linger_bytes, ..CoreConfig::new(Hop(SELF)) });
    for session in [1, 2] {
        core.handle(CoreEvent::Opened { session: SessionId(session), permit: permit("", "") }, now);
    }
    let announce = Ask::Announce { path: path("a"), hops: hops(&[7]), cost: cost(1) };
    core.handle(CoreEvent::Ask { session: SessionId(1), ask: announce }, now);
    for number in 0..4 {
        let (sub, track) = (SubId(number), track(&number.to_string()));
        let (path, prefs, want) = (path("a"), Prefs::default(), Want::Live);
        let asks = [Ask::Subscribe { sub, path, track, prefs, want }, Ask::Unsubscribe { sub }];
        for ask in asks {
            core.handle(CoreEvent::Ask { session: SessionId(2), ask }, now);
            core.check();
        }
    }
    assert_eq!((core.counts().logs, core.tally().linger_limit), (2, 2));
    assert_eq!(core.stale_bytes(), linger_bytes);
    while core.poll_action().is_some() {}
    core.handle_timeout(now + limits::LINGER);
    assert_eq!((core.counts().logs, core.stale_bytes()), (0, 0));
}
