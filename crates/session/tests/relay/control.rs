//! Requests, SETUP, and invalid streams.

use std::time::Duration;

use relay_model::{SessionCode, StreamCode, TrackInfo, transport::TransportClosed};
use relay_wire::{
    lite::{BidiType, Goaway, Setup, TrackRequest, UniType, Version},
    varint,
};

use crate::{
    harness::{MS, Relay, guest, host},
    peer::{encoded, path, track},
    show::{Show, patient, rough, seeds, version_of, versions},
};

fn violation(closed: &Option<TransportClosed>) -> bool {
    matches!(closed, Some(TransportClosed::ByPeer(SessionCode::PROTOCOL_VIOLATION, _)))
}

#[test]
fn track_info_is_served_and_refused() {
    seeds(20, |seed, rng| {
        let mut relay = Relay::of(version_of(seed % 2), seed);
        let publisher = relay.publisher("live/cam", &["video"]);
        let ordered = relay.version == Version::V05;
        let info = TrackInfo { priority: 9, ordered, max_age_ms: 77, timescale: 90_000 };
        relay[publisher].tracks.insert((path("live/cam"), track("video")), info);
        let (ours, theirs) = (rough(rng), rough(rng));
        let reader = relay.connect(ours, theirs);
        let [one, two, none, nowhere] = [
            relay[reader].ask_track("live/cam", "video"),
            relay[reader].ask_track("live/cam", "video"),
            relay[reader].ask_track("live/cam", "absent"),
            relay[reader].ask_track("live/other", "video"),
        ];
        let answers = |relay: &Relay, at| {
            let answer = &relay[reader].track_answers[&at];
            (answer.info, answer.end)
        };
        relay.until("answers", |relay| {
            [one, two, none, nowhere].iter().all(|at| answers(relay, *at).1.is_some())
        });
        for at in [one, two] {
            let (got, end) = answers(&relay, at);
            assert_eq!(got, Some(info), "seed {seed}");
            assert!(end.unwrap().is_fin(), "seed {seed}");
        }
        assert_eq!(answers(&relay, none).1.unwrap().code(), Some(StreamCode::NOT_FOUND), "seed {seed}");
        assert_eq!(answers(&relay, nowhere).1.unwrap().code(), Some(StreamCode::UNROUTABLE), "seed {seed}");
        relay.disperse();
    });
}

#[test]
fn requests_for_one_track_are_asked_upstream_once() {
    let mut relay = Relay::new(1);
    let publisher = relay.publisher("live/cam", &["video"]);
    let readers = [relay.subscriber(), relay.subscriber()];
    let answers = readers.map(|reader| relay[reader].ask_track("live/cam", "video"));
    let subs = readers.map(|reader| relay[reader].subscribe("live/cam", "video", patient()));
    relay.run(MS * 100);
    for (reader, answer) in readers.iter().zip(answers) {
        assert!(relay[*reader].track_answers[&answer].info.is_some());
    }
    assert_eq!(relay[publisher].asked.iter().filter(|asked| asked.what_is_track("video")).count(), 1);
    let mut show = Show::new(&mut relay, publisher, "video");
    show.run(&mut relay, 1, MS * 50, |_| vec![(0, vec![1])]);
    for (reader, sub) in readers.iter().zip(subs) {
        show.check_all(&relay, *reader, sub, 0);
    }
    relay.disperse();
}

#[test]
fn groups_before_track_info_do_not_answer_a_track_request() {
    let mut relay = Relay::new(1);
    let publisher = relay.publisher("live/cam", &["video"]);
    relay[publisher].answers = false;
    let reader = relay.subscriber();
    let sub = relay[reader].subscribe("live/cam", "video", patient());
    let answer = relay[reader].ask_track("live/cam", "video");
    let mut show = Show::new(&mut relay, publisher, "video");
    show.run(&mut relay, 2, MS * 50, |_| vec![(0, vec![1])]);
    show.check_all(&relay, reader, sub, 0);
    let request = relay[publisher].asked.iter().find(|asked| asked.what_is_track("video")).unwrap().stream;
    relay[publisher].write(request, encoded(Version::V05, &TrackInfo::default()));
    relay[publisher].finish(request);
    relay.run(MS * 50);
    assert_eq!(relay[reader].track_answers[&answer].info, Some(TrackInfo::default()));
    relay.disperse();
}

#[test]
fn a_subscription_to_an_absent_track_is_refused() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let absent = relay[reader].subscribe("live/cam", "absent", patient());
        let nowhere = relay[reader].subscribe("live/other", "video", patient());
        relay.run(MS * 100);
        assert_eq!(relay[reader].sub(absent).end.unwrap().code(), Some(StreamCode::NOT_FOUND));
        assert_eq!(relay[reader].sub(nowhere).end.unwrap().code(), Some(StreamCode::UNROUTABLE));
        relay.disperse();
    });
}

#[test]
fn a_second_setup_is_a_violation() {
    let mut relay = Relay::new(1);
    let at = relay.subscriber();
    relay[at].setup();
    relay.run(MS * 50);
    assert!(violation(&relay[at].closed), "{:?}", relay[at].closed);
    relay.disperse();
}

#[test]
fn a_duplicate_parameter_closes_the_session() {
    let mut relay = Relay::new(1);
    let at = relay.link(host(), guest());
    relay[at].open_uni(vec![1, 7, 2, 4, 1, 1, 4, 1, 1]);
    relay.run(MS * 50);
    assert!(violation(&relay[at].closed), "{:?}", relay[at].closed);
    assert_eq!(relay.seats[at].authorizes, [""; 0]);
}

#[test]
fn nothing_is_sent_before_authorisation() {
    let mut relay = Relay::new(1);
    let at = relay.link(host(), guest());
    relay.seats[at].admit = false;
    let setup = Setup { path: Some("/live?jwt=x".to_owned()), ..Setup::default() };
    relay[at].setup_with(setup);
    relay.run(MS * 500);
    assert_eq!(relay.seats[at].authorizes, ["/live?jwt=x"]);
    assert!(relay[at].setups.is_empty() && relay[at].asked.is_empty());
    let permit = relay.seats[at].permit.clone();
    relay.with(at, |session, t, cx| session.authorized(t, cx, permit));
    relay.run(MS * 50);
    assert_eq!(relay[at].setups.len(), 1);
    assert_eq!(relay[at].asked.len(), 1);
}

#[test]
fn streams_before_setup_are_served_after_authorisation() {
    seeds(20, |seed, rng| {
        let mut relay = Relay::of(version_of(seed % 2), seed);
        let publisher = relay.publisher("live/cam", &["video"]);
        let (mut ours, theirs) = (rough(rng), rough(rng));
        ours.uni_streams += 2;
        let reader = relay.link(ours, theirs);
        relay.seats[reader].admit = false;
        let watch = relay[reader].watch("");
        let answer = relay[reader].ask_track("live/cam", "video");
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        relay.run(MS * rng.below(300) as u32);
        relay[reader].setup();
        relay.until("authorize", |relay| relay.seats[reader].authorizes.len() == 1);
        relay.run(MS * rng.below(300) as u32);
        assert_eq!(relay.asks.iter().filter(|(at, _)| *at == reader).count(), 0, "seed {seed}");
        let permit = relay.seats[reader].permit.clone();
        relay.with(reader, |session, t, cx| session.authorized(t, cx, permit));
        let mut show = Show::new(&mut relay, publisher, "video");
        show.run(&mut relay, 3, MS * 50, |n| vec![(n as i64, vec![n as u8; 100])]);
        relay.run(MS * 2_000);
        assert!(relay[reader].watches[&watch].live.contains_key(&path("live/cam")), "seed {seed}");
        assert!(relay[reader].track_answers[&answer].info.is_some(), "seed {seed}");
        show.check_all(&relay, reader, sub, 0);
        relay.disperse();
    });
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let mut relay = Relay::new(1);
    let publisher = relay.publisher("live/cam", &["video"]);
    let reader = relay.subscriber();
    let message = TrackRequest { broadcast: path("live/cam"), track: track("video") };
    let bytes = relay[reader].request(BidiType::Track.id(), &message);
    let stream = relay[reader].open_bi(vec![]);
    for byte in bytes {
        relay[reader].write(stream, vec![byte]);
        relay.run(MS * 20);
    }
    relay.run(MS * 50);
    assert!(relay[reader].raw[&stream].1.unwrap().is_fin());
    assert_eq!(relay[reader].raw[&stream].0, [0x06, 0x7f, 0x00, 0x53, 0x88, 0x43, 0xe8]);

    let sub = relay[reader].subscribe("live/cam", "video", patient());
    let show = Show::new(&mut relay, publisher, "video");
    let bytes =
        relay[publisher].group_bytes(show.subscribe, 0, &[(3, vec![1, 2, 3]), (1, vec![]), (400, vec![4])]);
    let stream = relay[publisher].open_uni(vec![]);
    for byte in bytes {
        relay[publisher].write(stream, vec![byte]);
        relay.run(MS * 10);
    }
    relay[publisher].finish(stream);
    relay.run(MS * 50);
    assert_eq!(relay[reader].group(sub, 0)[0].frames, [(3, vec![1, 2, 3]), (1, vec![]), (400, vec![4])]);
    assert!(relay[reader].has(sub, 0));
    relay.disperse();
}

#[test]
fn an_unknown_stream_type_ends_only_that_stream() {
    let mut relay = Relay::new(1);
    let publisher = relay.publisher("live/cam", &["video"]);
    let reader = relay.subscriber();
    let sub = relay[reader].subscribe("live/cam", "video", patient());
    let mut show = Show::new(&mut relay, publisher, "video");
    for kind in [0, 7, 63, 16_000, varint::MAX] {
        let mut bytes = Vec::new();
        varint::put(kind, &mut bytes);
        bytes.push(9);
        let bidi = relay[reader].open_bi(bytes.clone());
        relay.run(MS * 30);
        assert_eq!(relay[reader].raw[&bidi].1.unwrap().code(), Some(StreamCode::CANCEL), "type {kind}");
        assert!(relay[reader].stopped.contains_key(&bidi), "type {kind}");
        if kind != UniType::Group.id() {
            let uni = relay[reader].open_uni(bytes);
            relay.run(MS * 30);
            assert!(relay[reader].stopped.contains_key(&uni), "type {kind}");
        }
        assert!(relay.is_alive(reader), "type {kind}");
    }
    show.run(&mut relay, 1, MS * 50, |_| vec![(0, vec![1])]);
    assert!(relay[reader].has(sub, 0));
    relay.disperse();
}

#[test]
fn a_request_with_bytes_left_over_ends_only_its_stream() {
    let mut relay = Relay::new(1);
    let reader = relay.subscriber();
    for kind in [BidiType::Announce, BidiType::Subscribe, BidiType::Track, BidiType::Goaway] {
        let stream =
            relay[reader].open_bi(vec![kind.id() as u8, 40, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        relay[reader].write(stream, vec![0; 40]);
        relay.run(MS * 30);
        assert!(relay[reader].raw[&stream].1.is_some_and(|end| !end.is_fin()), "{kind:?}");
        assert!(relay.is_alive(reader), "{kind:?}");
    }
    relay.disperse();
}

#[test]
fn a_group_of_an_unknown_subscription_is_refused() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let reader = relay.subscriber();
        let bytes = relay[reader].group_bytes(5, 0, &[(0, vec![1; 100])]);
        let stream = relay[reader].open_uni(bytes);
        relay.run(MS * 30);
        assert_eq!(relay[reader].stopped.get(&stream), Some(&StreamCode::CANCEL));
        assert!(relay.is_alive(reader));
        relay.disperse();
    });
}

#[test]
fn stream_without_a_header_times_out() {
    let mut relay = Relay::new(1);
    let reader = relay.subscriber();
    let bidi = relay[reader].open_bi(vec![BidiType::Track.id() as u8, 20, 1]);
    let uni = relay[reader].open_uni(vec![0x40]);
    relay.run(Duration::from_millis(4_900));
    assert!(relay[reader].stopped.is_empty());
    relay.run(MS * 200);
    assert!(relay[reader].stopped.contains_key(&bidi) && relay[reader].stopped.contains_key(&uni));
    assert!(relay.is_alive(reader));
    relay.disperse();
}

#[test]
fn goaway_of_a_client_keeps_the_session_open() {
    let mut relay = Relay::new(1);
    let publisher = relay.publisher("live/cam", &["video"]);
    let bytes = relay[publisher].request(BidiType::Goaway.id(), &Goaway { uri: String::new() });
    let stream = relay[publisher].open_bi(bytes);
    relay[publisher].finish(stream);
    relay.run(MS * 50);
    let reader = relay.subscriber();
    relay[reader].subscribe("live/cam", "video", patient());
    relay.upstream(publisher, "video");
    relay.disperse();
}

#[test]
fn the_same_subscribe_id_twice_is_a_violation() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        relay[reader].subscribe("live/cam", "video", patient());
        relay[reader].reuse_subscribe_id();
        relay[reader].subscribe("live/cam", "video", patient());
        relay.run(MS * 50);
        assert!(violation(&relay[reader].closed), "{:?}", relay[reader].closed);
        relay.disperse();
    });
}

#[test]
fn kill_closes_the_session_with_the_given_code() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let reader = relay.subscriber();
        let kill = relay_model::Order::Kill { code: SessionCode::UNAUTHORIZED, reason: "expired" };
        relay.with(reader, |session, t, cx| session.order(t, cx, kill));
        relay.run(MS * 50);
        assert_eq!(
            relay[reader].closed,
            Some(TransportClosed::ByPeer(SessionCode::UNAUTHORIZED, "expired".to_owned()))
        );
        relay.disperse();
    });
}
