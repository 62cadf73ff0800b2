//! Permit changes of open sessions.

use super::*;

impl Bench {
    fn revise(&mut self, session: u64, publish: &str, subscribe: &str) -> Vec<Action> {
        let permit = permit(publish, subscribe);
        self.event(CoreEvent::Revised { session: SessionId(session), permit })
    }
}

fn close(session: u64, log: LogId) -> Action {
    to(session, Order::Close { log })
}

#[test]
fn narrower_permit_withdraws_routes_and_ends_their_logs() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open(9);
    bench.announce(1, "a/cam", &[7], 1);
    bench.announce(1, "b/cam", &[7], 1);
    let outside = bench.attached(9, 0, "a/cam");
    let inside = bench.attached(9, 1, "b/cam");
    assert_eq!(
        bench.revise(1, "b", ""),
        [board("a/cam", &[]), close(1, outside), ended(outside)],
        "{inside} goes on"
    );
    assert_eq!(bench.announce(1, "a/cam", &[7], 1), []);
    assert_eq!(bench.core.tally(), tally(|t| t.announce_denied = 2));
    bench.everyone_leaves();
}

#[test]
fn narrower_permit_moves_logs_to_another_route() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open(2);
    bench.open(9);
    bench.announce(1, "a", &[7], 1);
    bench.announce(2, "a", &[7], 2);
    let log = bench.attached(9, 0, "a");
    assert_eq!(bench.revise(1, "b", ""), [close(1, log), fence(log, 2), open_order(2, log, 2, "a")]);
    assert_eq!(bench.pass(HOLD_DOWN), [board("a", &[(2, &[7], 2)])]);
    bench.everyone_leaves();
}

#[test]
fn narrower_permit_ends_logs_of_withdrawn_routes() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open(9);
    bench.announce(1, "a", &[7], 1);
    let log = bench.attached(9, 0, "a");
    // It may deliver its last groups until the permit changes.
    assert_eq!(bench.unannounce(1, "a"), [board("a", &[])]);
    assert_eq!(bench.revise(1, "b", ""), [close(1, log), ended(log)]);
    bench.everyone_leaves();
}

#[test]
fn narrower_permit_ends_subscriptions_as_unroutable() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open(8);
    bench.open(9);
    bench.announce(1, "a", &[7], 1);
    let log = bench.attached(9, 0, "a");
    bench.subscribe(8, 0, "a");
    assert_eq!(bench.revise(9, "", "b"), [refuse(9, 0, StreamCode::UNROUTABLE)]);
    assert_eq!(bench.subscribe(9, 1, "a"), [refuse(9, 1, StreamCode::UNROUTABLE)]);
    assert_eq!(bench.subscribe(9, 2, "b"), [refuse(9, 2, StreamCode::UNROUTABLE)], "the same answer");
    assert_eq!(bench.core.tally(), tally(|t| (t.subscribe_denied, t.unroutable) = (2, 1)));
    assert_eq!(bench.revise(9, "", ""), []);
    assert_eq!(bench.subscribe(9, 3, "a"), [attach(9, 3, log)]);
    bench.everyone_leaves();
}

#[test]
fn revision_of_a_closed_session_is_only_counted() {
    let mut bench = Bench::new();
    assert_eq!(bench.revise(1, "", ""), []);
    assert_eq!(bench.core.tally(), tally(|t| t.unknown = 1));
    bench.everyone_leaves();
}
