//! Announces and the announce board.

use super::*;

#[test]
fn an_announce_shows_and_its_withdrawal_hides_it_at_once() {
    let mut bench = Bench::new();
    bench.open(1);
    assert_eq!(bench.announce(1, "a", &[7], 1), [board("a", &[(1, &[7], 1)])]);
    assert_eq!(bench.unannounce(1, "a"), [board("a", &[])]);
    assert_eq!(bench.core.counts().paths, 0);
    assert_eq!(bench.unannounce(1, "a"), []);
    bench.everyone_leaves();
}

#[test]
fn board_update_only_on_a_visible_change() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.announce(1, "a", &[7], 1);
    assert_eq!(bench.announce(1, "a", &[7], 1), []);
    assert_eq!(bench.announce(1, "a", &[7], 2), [board("a", &[(1, &[7], 2)])]);
    assert_eq!(bench.announce(1, "a", &[8], 2), [board("a", &[(1, &[8], 2)])]);
    assert_eq!(bench.core.counts().routes, 1);
}

#[test]
fn closed_session_withdraws_its_routes() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.announce(1, "a", &[7], 1);
    bench.announce(1, "b", &[7], 1);
    assert_eq!(bench.close(1), [board("a", &[]), board("b", &[])]);
    bench.everyone_leaves();
}

/// Sessions on the board of one path after these announces, best first; session n announces the n-th.
fn order(routes: &[(&[u64], u64)]) -> Vec<u64> {
    let mut bench = Bench::new();
    let mut last = Vec::new();
    for (session, (chain, cost)) in (1..).zip(routes) {
        bench.open(session);
        last = bench.announce(session, "a", chain, *cost);
    }
    match last.as_slice() {
        [Action::Board { routes, .. }] => routes.iter().map(|route| route.session.0).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_named_publisher_comes_before_an_anonymous_one() {
    assert_eq!(order(&[(&[5, 0], 0), (&[6, 7, 8], 9)]), [2, 1]);
    assert_eq!(order(&[(&[0], 0), (&[6, 7, 8], 9)]), [2, 1]);
}

#[test]
fn a_lower_cost_comes_before_a_shorter_chain() {
    assert_eq!(order(&[(&[5], 2), (&[6, 7, 8], 1)]), [2, 1]);
    assert_eq!(order(&[(&[5], u64::MAX), (&[6, 7, 8], u64::MAX - 1)]), [2, 1]);
}

/// Sessions on the board of one path after sessions 1 and 2 announce the same route at these costs.
fn cheaper(first: Cost, second: Cost) -> Vec<u64> {
    let mut bench = Bench::new();
    (1..=2).for_each(|session| bench.open(session));
    bench.announce_at(1, "a", &[5], first);
    match bench.announce_at(2, "a", &[5], second).as_slice() {
        [Action::Board { routes, .. }] => routes.iter().map(|route| route.session.0).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn warm_route_preferred_over_cold() {
    assert_eq!(cheaper(Cost { warm: 0, cold: 9 }, Cost { warm: 1, cold: 1 }), [1, 2]);
    assert_eq!(cheaper(Cost { warm: 1, cold: 2 }, Cost { warm: 1, cold: 3 }), [1, 2]);
    assert_eq!(cheaper(Cost::UNKNOWN, cost(0)), [2, 1]);
}

#[test]
fn routes_of_a_draining_session_rank_last() {
    let mut bench = Bench::new();
    (1..=2).for_each(|session| bench.open(session));
    bench.announce(1, "a", &[5], 0);
    bench.announce(2, "a", &[0], 9);
    bench.announce(2, "b", &[0], 9);
    assert_eq!(bench.ask(1, Ask::Draining), [board("a", &[(2, &[0], 9), (1, &[5], 0)])]);
    assert_eq!(bench.announce(1, "b", &[5], 0), [board("b", &[(2, &[0], 9), (1, &[5], 0)])]);
    bench.everyone_leaves();
}

#[test]
fn the_withdrawal_of_an_unknown_path_is_ignored() {
    let mut bench = Bench::new();
    (1..=2).for_each(|session| bench.open(session));
    bench.announce(1, "a", &[5], 1);
    assert_eq!(bench.unannounce(1, "b"), []);
    assert_eq!(bench.unannounce(2, "a"), [], "of another session");
    assert_eq!(bench.core.tally(), CoreTally::default());
    assert_eq!(bench.core.counts().routes, 1);
    bench.everyone_leaves();
}

#[test]
fn a_shorter_chain_comes_before_a_longer_one() {
    assert_eq!(order(&[(&[5, 6], 1), (&[7], 1)]), [2, 1]);
}

#[test]
fn equal_relayed_routes_have_the_same_order_on_every_relay() {
    // Each through another relay: of direct publishers the newest would win.
    let chains: [&[u64]; 3] = [&[5, 8], &[6, 8], &[7, 8]];
    let reference: Vec<&[u64]> = order(&chains.map(|chain| (chain, 1)))
        .iter()
        .map(|session| chains[usize::try_from(*session).unwrap() - 1])
        .collect();
    let turned = [chains[2], chains[0], chains[1]];
    let other: Vec<&[u64]> = order(&turned.map(|chain| (chain, 1)))
        .iter()
        .map(|session| turned[usize::try_from(*session).unwrap() - 1])
        .collect();
    assert_eq!(reference, other);
}

#[test]
fn newest_direct_publisher_ranks_first() {
    assert_eq!(order(&[(&[5], 1), (&[6], 1), (&[7], 1)]), [3, 2, 1]);
    assert_eq!(order(&[(&[7], 1), (&[6], 1), (&[5], 1)]), [3, 2, 1]);
}

#[test]
fn newest_of_equal_routes_ranks_first() {
    assert_eq!(order(&[(&[5], 1), (&[5], 1), (&[5], 1)]), [3, 2, 1]);
}

#[test]
fn repricing_a_route_does_not_make_it_newer() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open(2);
    bench.announce(1, "a", &[5], 1);
    bench.announce(2, "a", &[5], 1);
    bench.announce(1, "a", &[5], 2);
    let shown = bench.announce(1, "a", &[5], 1);
    assert_eq!(shown, [board("a", &[(2, &[5], 1), (1, &[5], 1)])]);
}

#[test]
fn looped_announce_is_dropped() {
    let mut bench = Bench::new();
    bench.open(1);
    assert_eq!(bench.announce(1, "a", &[5, SELF, 6], 1), []);
    assert_eq!(bench.core.tally(), tally(|t| t.looped = 1));
    assert_eq!(bench.core.counts().paths, 0);
}

#[test]
fn a_route_replaced_by_a_loop_is_gone() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.announce(1, "a", &[5], 1);
    assert_eq!(bench.announce(1, "a", &[5, SELF], 1), [board("a", &[])]);
    bench.everyone_leaves();
}

#[test]
fn an_announce_outside_the_permit_is_ignored_and_counted() {
    let mut bench = Bench::new();
    bench.open_with(1, permit("mine", ""));
    assert_eq!(bench.announce(1, "other", &[5], 1), []);
    assert_eq!(bench.announce(1, "mineral", &[5], 1), []);
    assert_eq!(bench.core.tally(), tally(|t| t.announce_denied = 2));
    assert_eq!(bench.announce(1, "mine/a", &[5], 1).len(), 1);
}

#[test]
fn requests_with_unknown_ids_are_dropped_and_counted() {
    let mut bench = Bench::new();
    assert_eq!(bench.announce(1, "a", &[5], 1), []);
    assert_eq!(bench.close(1), []);
    bench.open(1);
    assert_eq!(bench.unsubscribe(1, 3), []);
    assert_eq!(bench.ask(1, Ask::Update { sub: SubId(3), prefs: Prefs::default() }), []);
    assert_eq!(bench.ended(1, LogId(77)), []);
    let again = CoreEvent::Opened { session: SessionId(1), permit: permit("", "") };
    assert_eq!(bench.event(again), []);
    assert_eq!(bench.core.tally(), tally(|t| t.unknown = 6));
    bench.everyone_leaves();
}
