//! The subscriber side alone, on a transport without a peer.

use relay_model::transport::Stream;
use relay_model::{Ask, Path, Prefs, StreamCode, TrackName};

use super::{SubParams, SubscriberSide};
use crate::{request::RequestId, sub::RequestKind, turn_fixture::TurnFixture};

fn params(alias: u64) -> SubParams {
    SubParams {
        broadcast: Path::parse("a").unwrap(),
        track: TrackName::parse("v").unwrap(),
        alias,
        prefs: Prefs::default(),
        kind: RequestKind::Live,
    }
}

fn side(fixture: &TurnFixture) -> SubscriberSide {
    SubscriberSide::new(fixture.dialect.encoder())
}

#[test]
fn subscription_over_the_limit_is_refused_alone() {
    let mut fixture = TurnFixture::new();
    let mut side = side(&fixture);
    for alias in [1, 2] {
        fixture.run(|turn| side.start_sub(turn, RequestId(alias * 4), params(alias)));
    }
    assert!(matches!(&fixture.asks()[..], [Ask::Subscribe { .. }]));
    assert_eq!(fixture.sink.resets, [(Stream(8), StreamCode::EXCESSIVE_LOAD)]);
    assert!(!fixture.state.phase.is_over());
}

#[test]
fn cancelled_request_unsubscribes() {
    let mut fixture = TurnFixture::new();
    let mut side = side(&fixture);
    fixture.run(|turn| side.start_sub(turn, RequestId(4), params(1)));
    let id = side.egress.of_request(RequestId(4)).expect("a subscription");
    fixture.asks();
    fixture.run(|turn| side.cancel(turn, RequestId(4)));
    assert!(matches!(&fixture.asks()[..], [Ask::Unsubscribe { sub }] if *sub == id));
    assert_eq!(side.egress.footprint(), 0);
}

#[test]
fn watch_leaves_the_board_with_its_last_request() {
    let mut fixture = TurnFixture::new();
    let mut side = side(&fixture);
    fixture.run(|turn| side.start_watch(turn, RequestId(4), &Path::root(), None));
    let watchers = |fixture: &TurnFixture| {
        let mut watchers = Vec::new();
        fixture.fanout.watchers(&mut watchers);
        watchers.len()
    };
    assert_eq!(watchers(&fixture), 1);
    fixture.run(|turn| side.cancel(turn, RequestId(4)));
    assert_eq!(watchers(&fixture), 0);
}

#[test]
fn repeated_alias_is_a_violation() {
    let mut fixture = TurnFixture::new();
    let mut side = side(&fixture);
    for request in [4, 8] {
        fixture.run(|turn| side.start_sub(turn, RequestId(request), params(1)));
    }
    assert!(fixture.state.phase.is_over());
}
