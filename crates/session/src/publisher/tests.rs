//! The publisher side alone, on a transport without a peer.

use relay_model::{Ask, Cost, Epoch, Hop, Hops, LogId, Path, Prefs, SessionId, StreamCode, TrackName, Want};

use super::PublisherSide;
use crate::{
    request::{Announcement, Reply, RequestId},
    turn_fixture::TurnFixture,
    upstream::UpstreamParams,
    upstream_request::UpstreamRequest,
};

fn path(raw: &str) -> Path {
    Path::parse(raw).unwrap()
}

fn live(raw: &str) -> Announcement {
    let hops: Hops = [Hop(5)].into();
    Announcement::Live { path: path(raw), hops, cost: Cost::UNKNOWN, is_new: true }
}

/// A publisher side with an announce request for everything, and its id.
fn watched(fixture: &mut TurnFixture) -> (PublisherSide, RequestId) {
    fixture.sink.openable = 1;
    let mut side = PublisherSide::default();
    fixture.run(|turn| side.request(turn, UpstreamRequest::Announces(Path::root())));
    let request = *side.sent.keys().next().expect("the request was sent");
    (side, request)
}

#[test]
fn announce_over_the_limit_is_routed_when_another_ends() {
    let mut fixture = TurnFixture::new();
    let (mut side, request) = watched(&mut fixture);
    for raw in ["a", "b"] {
        assert!(!fixture.run(|turn| side.on_announcement(turn, request, live(raw))));
    }
    assert!(matches!(&fixture.asks()[..], [Ask::Announce { path: at, .. }] if *at == path("a")));
    fixture.run(|turn| side.on_announcement(turn, request, Announcement::Ended { path: path("a") }));
    let asks = fixture.asks();
    assert!(
        matches!(&asks[..], [Ask::Unannounce { .. }, Ask::Announce { path: at, .. }] if *at == path("b"))
    );
    assert_eq!((side.announces.len(), side.announces.unrouted()), (1, 1));
}

#[test]
fn ended_announce_request_withdraws_its_paths() {
    let mut fixture = TurnFixture::new();
    let (mut side, request) = watched(&mut fixture);
    fixture.run(|turn| side.on_announcement(turn, request, live("a")));
    fixture.asks();
    fixture.run(|turn| side.on_announcements_ended(turn, request, vec![path("a")]));
    assert!(matches!(&fixture.asks()[..], [Ask::Unannounce { path: at }] if *at == path("a")));
    assert!(side.sent.is_empty() && side.announces.len() == 0);
}

fn params(log: LogId, epoch: Epoch) -> UpstreamParams {
    UpstreamParams {
        log,
        epoch,
        path: path("a"),
        publisher: Hop::ANONYMOUS,
        broadcast: Path::root(),
        track: TrackName::parse("v").unwrap(),
        prefs: Prefs::default(),
        want: Want::Live,
        asker: SessionId(2),
    }
}

/// A side that was ordered to open the track of a log.
fn opened(fixture: &mut TurnFixture, streams: u64) -> (PublisherSide, LogId) {
    let (log, epoch) = (LogId(1), Epoch(1));
    fixture.store.create(log);
    fixture.store.fence(log, epoch);
    fixture.sink.openable = streams;
    let mut side = PublisherSide::default();
    fixture.run(|turn| side.open_track(turn, params(log, epoch)));
    (side, log)
}

#[test]
fn requests_wait_for_stream_credit() {
    let mut fixture = TurnFixture::new();
    let (mut side, _) = opened(&mut fixture, 0);
    assert_eq!(side.waiting(), 2);
    assert!(matches!(&fixture.asks()[..], [Ask::StreamsBlocked { blocked: true }]));
    fixture.sink.openable = 2;
    fixture.run(|turn| side.open_requests(turn));
    assert_eq!((side.waiting(), side.sent.len()), (0, 2));
    assert!(matches!(&fixture.asks()[..], [Ask::StreamsBlocked { blocked: false }]));
}

#[test]
fn refused_track_ends_its_log_as_missing() {
    let mut fixture = TurnFixture::new();
    let (mut side, log) = opened(&mut fixture, 2);
    let request = side.upstreams.get(log).and_then(|up| up.track_request).expect("a request");
    let refused = Reply::Refused { code: StreamCode::NOT_FOUND };
    fixture.run(|turn| side.on_reply(turn, request, &refused));
    assert!(matches!(&fixture.asks()[..], [Ask::Ended { missing: true, .. }]));
    assert!(side.upstreams.is_empty() && side.sent.is_empty());
}
