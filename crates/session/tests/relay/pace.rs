//! Request rate limits of peers, and waiting for stream credit.

use std::time::Duration;

use relay_model::{
    Ask, Prefs, SessionCode, StreamCode,
    limits::{self, SessionLimits},
    transport::{Dir, TransportClosed},
};
use relay_session::pair::PairOptions;
use relay_wire::lite::Version;

use crate::{
    harness::{MS, Relay, guest, host},
    peer::Ended,
    show::{Show, patient, versions},
};

/// A lower rate than the default, so that the streams of a peer do not run out before its requests.
const LIMITS: SessionLimits =
    SessionLimits { announces: 1_000, subscriptions: 1_000, fetches: 64, requests: 50 };
const BURST: usize = (LIMITS.requests * limits::REQUEST_BURST_SECS) as usize;

fn paced(version: Version) -> Relay {
    let mut relay = Relay::of(version, 1);
    relay.limits = LIMITS;
    relay
}

fn requests(relay: &Relay, at: usize) -> usize {
    relay
        .asks
        .iter()
        .filter(|(from, ask)| *from == at && matches!(ask, Ask::Subscribe { .. } | Ask::Update { .. }))
        .count()
}

fn ask(relay: &mut Relay, at: usize, count: usize) {
    for _ in 0..count {
        let sub = relay[at].subscribe("live/other", "video", Prefs::default());
        relay[at].finish(sub);
    }
}

fn is_closed(relay: &Relay, at: usize) -> bool {
    matches!(relay[at].closed, Some(TransportClosed::ByPeer(SessionCode::PROTOCOL_VIOLATION, _)))
}

#[test]
fn requests_beyond_the_burst_are_throttled() {
    versions(|version| {
        let mut relay = paced(version);
        let at = relay.subscriber();
        relay.run(MS * 100);
        ask(&mut relay, at, BURST + 100);
        relay.run(MS * 40);
        let passed = requests(&relay, at);
        assert!((BURST..BURST + 20).contains(&passed), "{passed}");
        relay.run(MS * 1_000);
        let passed = requests(&relay, at) - passed;
        assert!((46..=54).contains(&passed), "{passed} in a second");
        relay[at].reads = false;
        relay.run(MS * 2_000);
        relay[at].reads = true;
        assert_eq!(requests(&relay, at), BURST + 100);
        assert!(relay.is_alive(at) && relay.meter.requests_paced > 0);
        relay.disperse();
    });
}

#[test]
fn updates_are_requests_too() {
    let mut relay = paced(Version::V06);
    relay.publisher("live/cam", &["video"]);
    let at = relay.subscriber();
    let sub = relay[at].subscribe("live/cam", "video", patient());
    relay.run(MS * 100);
    for n in 0..650u64 {
        relay[at].update(sub, Prefs { priority: n as u8, ..patient() });
    }
    relay.run(MS * 100);
    let passed = requests(&relay, at);
    assert!((BURST..BURST + 40).contains(&passed), "{passed}");
    relay.run(MS * 1_000);
    assert_eq!(requests(&relay, at), 651);
    relay.disperse();
}

#[test]
fn ten_seconds_without_a_pause_close_the_session() {
    let mut relay = paced(Version::V05);
    let at = relay.subscriber();
    let other = relay.publisher("live/cam", &["video"]);
    ask(&mut relay, at, BURST + 50);
    let since = relay.now;
    while relay.now - since < limits::REQUEST_FLOOD - MS * 200 {
        ask(&mut relay, at, 4);
        relay.run(MS * 50);
        assert!(relay[at].closed.is_none(), "after {:?}", relay.now - since);
    }
    for _ in 0..10 {
        if relay[at].closed.is_none() {
            ask(&mut relay, at, 4);
        }
        relay.run(MS * 50);
    }
    assert!(is_closed(&relay, at), "{:?}", relay[at].closed);
    assert!(relay.is_alive(other));
    relay.disperse();
}

#[test]
fn session_that_pauses_is_not_closed() {
    let mut relay = paced(Version::V05);
    let at = relay.subscriber();
    for round in 1..4 {
        // Some are deferred each time.
        ask(&mut relay, at, BURST + 50);
        relay.run(MS * 14_000);
        assert_eq!(requests(&relay, at), round * (BURST + 50));
    }
    assert!(relay.is_alive(at));
    assert!(relay.meter.requests_paced > 0, "requests were throttled");
    relay.disperse();
}

#[test]
fn announces_are_not_paced() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.subscriber();
        for n in 0..900 {
            relay[publisher].publish(&format!("live/{n}"), &[], &[]);
        }
        relay.run(MS * 150);
        let announced = relay.asks.iter().filter(|(_, ask)| matches!(ask, Ask::Announce { .. })).count();
        assert_eq!(announced, 900);
        relay.disperse();
    });
}

#[test]
fn requests_wait_ten_seconds_for_stream_credit() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let names = ["video", "audio"];
        // Streams for the announce request and one track.
        let theirs = PairOptions { bidi_streams: if version.has_tracks() { 3 } else { 2 }, ..guest() };
        let publisher = relay.publisher_on(host(), theirs, "live/cam", &names);
        relay[publisher].pair.b.hold_credit(true);
        let reader = relay.subscriber();
        let video = relay[reader].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, publisher, "video");
        let audio = relay[reader].subscribe("live/cam", "audio", patient());
        relay.run(limits::WAITING_TIMEOUT - MS * 100);
        assert_eq!(relay[reader].sub(audio).end, None);
        relay.run(MS * 200);
        let code = relay[reader].sub(audio).end.and_then(Ended::code);
        assert_eq!(code, Some(StreamCode::CONTROL_TIMEOUT));
        assert!(relay.meter.requests_starved >= 1);
        show.run(&mut relay, 2, MS * 30, |_| vec![(0, vec![1; 100])]);
        show.check_all(&relay, reader, video, 0);
        assert!(relay.is_alive(publisher));
        // Requests are sent as soon as it grants streams.
        let again = relay[reader].subscribe("live/cam", "audio", patient());
        relay.run(MS * 3_000);
        relay[publisher].pair.b.hold_credit(false);
        relay[publisher].pair.b.allow(Dir::Bi, 2);
        relay.run(MS * 100);
        let mut show = Show::new(&mut relay, publisher, "audio");
        show.run(&mut relay, 1, MS * 50, |_| vec![(0, vec![1; 100])]);
        show.check_all(&relay, reader, again, 0);
        relay.disperse();
    });
}

#[test]
fn fetch_without_stream_credit_times_out_alone() {
    let mut relay = Relay::of(Version::V06, 1);
    let theirs = PairOptions { bidi_streams: 3, ..guest() };
    let publisher = relay.publisher_on(host(), theirs, "live/cam", &["video"]);
    relay[publisher].pair.b.hold_credit(true);
    let reader = relay.subscriber();
    let sub = relay[reader].subscribe("live/cam", "video", patient());
    let mut show = Show::new(&mut relay, publisher, "video");
    show.groups.insert(4, vec![]);
    show.run(&mut relay, 1, MS * 30, |_| vec![(0, vec![1; 100])]);
    let fetch = relay[reader].fetch("live/cam", "video", 3);
    relay.run(limits::WAITING_TIMEOUT + MS * 100);
    let end = relay[reader].fetches[&fetch].end.and_then(Ended::code);
    assert_eq!(end, Some(StreamCode::CONTROL_TIMEOUT));
    show.run(&mut relay, 1, MS * 30, |_| vec![(0, vec![1; 100])]);
    show.check_all(&relay, reader, sub, 5);
    relay.disperse();
}

#[test]
fn request_past_the_waiting_limit_is_refused_at_once() {
    let mut relay = Relay::of(Version::V04, 1);
    let count = limits::WAITING_REQUESTS + 2;
    let names: Vec<_> = (0..count).map(|n| n.to_string()).collect();
    let all: Vec<_> = names.iter().map(String::as_str).collect();
    // A stream for the announce request only.
    let theirs = PairOptions { bidi_streams: 1, ..guest() };
    let publisher = relay.publisher_on(host(), theirs, "live/cam", &all);
    let mut subs = Vec::new();
    for part in names.chunks(limits::SUBSCRIPTIONS) {
        let reader = relay.subscriber();
        relay.run(MS * 50);
        subs.extend(part.iter().map(|name| (reader, relay[reader].subscribe("live/cam", name, patient()))));
    }
    relay.run(MS * 200);
    let refused = |relay: &Relay| -> Vec<_> {
        let codes =
            subs.iter().filter_map(|(reader, sub)| relay[*reader].sub(*sub).end.and_then(Ended::code));
        codes.collect()
    };
    assert_eq!(refused(&relay), [StreamCode::CONTROL_TIMEOUT; 2]);
    // Nothing is sent until then.
    subs.iter().for_each(|(reader, _)| relay[*reader].reads = false);
    relay.run(limits::WAITING_TIMEOUT - MS * 300);
    subs.iter().for_each(|(reader, _)| relay[*reader].reads = true);
    assert_eq!(refused(&relay).len(), 2);
    relay.run(MS * 300);
    assert_eq!(refused(&relay).len(), count);
    assert!(relay.is_alive(publisher));
    relay.run(Duration::from_millis(100));
    relay.disperse();
}

#[test]
fn unwanted_requests_leave_the_queue() {
    let mut relay = Relay::of(Version::V04, 1);
    let theirs = PairOptions { bidi_streams: 1, ..guest() };
    let names: Vec<_> = (0..7 * 200).map(|n| n.to_string()).collect();
    let all: Vec<_> = names.iter().map(String::as_str).collect();
    let publisher = relay.publisher_on(host(), theirs, "live/cam", &all);
    let patient_ = relay.subscriber();
    let first = relay[patient_].subscribe("live/cam", "0", patient());
    relay.run(MS * 50);
    // Requests come and go behind one that stays.
    for part in names[1..].chunks(200) {
        let reader = relay.subscriber();
        for name in part {
            relay[reader].subscribe("live/cam", name, patient());
        }
        relay.run(MS * 100);
        relay[reader].close(SessionCode::NONE, "");
        relay.run(MS * 50);
    }
    let last = relay[patient_].subscribe("live/cam", "5", patient());
    relay.run(MS * 100);
    assert_eq!(relay[patient_].sub(first).end, None);
    assert_eq!(relay[patient_].sub(last).end, None, "there is room");
    assert!(relay.is_alive(publisher));
    relay.disperse();
}

#[test]
fn all_tracks_of_a_join_pass_without_a_pause() {
    let mut relay = Relay::new(1);
    let at = relay.subscriber();
    relay.publisher("live/cam", &["video"]);
    let since = relay.now;
    // TRACK is sent first for each, as published clients do.
    let count = limits::SUBSCRIPTIONS - 100;
    for _ in 0..count {
        relay[at].ask_track("live/cam", "video");
        relay[at].subscribe("live/cam", "video", patient());
    }
    relay.until("all requests", |relay| requests(relay, at) == 2 * count);
    assert!(relay.now - since < MS * 200, "{:?}", relay.now - since);
    assert_eq!(relay.meter.requests_paced, 0);
    relay.disperse();
}
