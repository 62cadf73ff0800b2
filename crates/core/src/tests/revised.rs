//! A permit changes while its session lives.

use super::*;

impl Bench {
    fn revise(&mut self, session: u64, publish: &str, subscribe: &str) -> Vec<Action> {
        let permit = permit(publish, subscribe);
        self.event(Event::Revised { session: SessionId(session), permit })
    }
}

fn close(session: u64, log: LogId) -> Action {
    to(session, Order::Close { log })
}

#[test]
fn what_a_narrower_permit_does_not_publish_is_withdrawn_and_its_readers_hear_the_end() {
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
fn readers_go_on_through_another_route_of_the_publisher() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open(2);
    bench.open(9);
    bench.announce(1, "a", &[7], 1);
    bench.announce(2, "a", &[7], 2);
    let log = bench.attached(9, 0, "a");
    assert_eq!(bench.revise(1, "b", ""), [close(1, log), fence(log, 2), open_order(2, log, 2, "a")]);
    assert_eq!(bench.pass(HOLD_BACK), [board("a", &[(2, &[7], 2)])]);
    bench.everyone_leaves();
}

#[test]
fn a_log_of_an_earlier_announce_is_cut_off_too() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open(9);
    bench.announce(1, "a", &[7], 1);
    let log = bench.attached(9, 0, "a");
    // It may say its last groups, until it may not.
    assert_eq!(bench.unannounce(1, "a"), [board("a", &[])]);
    assert_eq!(bench.revise(1, "b", ""), [close(1, log), ended(log)]);
    bench.everyone_leaves();
}

#[test]
fn what_a_narrower_permit_does_not_subscribe_ends_like_a_path_that_is_not_there() {
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
fn a_revision_of_a_session_that_is_gone_is_counted_and_nothing_else() {
    let mut bench = Bench::new();
    assert_eq!(bench.revise(1, "", ""), []);
    assert_eq!(bench.core.tally(), tally(|t| t.unknown = 1));
    bench.everyone_leaves();
}
