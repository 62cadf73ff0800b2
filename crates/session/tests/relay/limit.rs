//! Each limit at its value and one past it.

use relay_model::{
    Ask, SessionCode, StreamCode,
    limits::{self, SessionLimits},
    transport::TransportClosed,
};
use relay_session::pair::PairOptions;
use relay_wire::{
    lite::{
        BidiType, FrameHead, Group, SubscribeResponse, UniType, Version, put_frame_head, put_group_header,
    },
    varint,
};

use crate::{
    harness::{MS, Relay, cluster_peer, guest, host},
    peer::{Ended, path},
    show::{Show, patient},
};

fn violation(closed: &Option<TransportClosed>) -> bool {
    matches!(closed, Some(TransportClosed::ByPeer(SessionCode::PROTOCOL_VIOLATION, _)))
}

/// A SETUP with a body of `len` bytes, most of it an unknown parameter.
fn setup_of(len: usize) -> Vec<u8> {
    let mut body = vec![1, 0x2a];
    varint::put(len as u64 - 2 - 4, &mut body);
    assert_eq!(body.len(), 6);
    body.resize(len, 0);
    let mut out = vec![UniType::Setup.id() as u8];
    varint::put(len as u64, &mut out);
    out.extend_from_slice(&body);
    out
}

#[test]
fn a_control_message_of_the_limit_passes_and_one_past_it_closes() {
    for past in [0, 1] {
        let mut relay = Relay::new(1);
        let at = relay.link(host(), guest());
        relay[at].open_uni(setup_of(limits::CONTROL_MESSAGE_BYTES + past));
        relay.run(MS * 100);
        assert_eq!(relay[at].setups.len(), 1 - past);
        assert_eq!(violation(&relay[at].closed), past == 1, "{:?}", relay[at].closed);
        relay.disperse();
    }
}

#[test]
fn a_request_one_past_the_limit_closes_by_its_size_alone() {
    for kind in [BidiType::Announce, BidiType::Subscribe, BidiType::Track] {
        let mut relay = Relay::new(1);
        let at = relay.subscriber();
        let mut bytes = vec![kind.id() as u8];
        varint::put(limits::CONTROL_MESSAGE_BYTES as u64 + 1, &mut bytes);
        relay[at].open_bi(bytes);
        relay.run(MS * 50);
        assert!(violation(&relay[at].closed), "{kind:?}: {:?}", relay[at].closed);
        relay.disperse();
    }
}

#[test]
fn a_path_of_the_limit_is_served_and_one_past_it_closes() {
    for past in [0, 1] {
        let mut relay = Relay::new(1);
        let long = "x".repeat(limits::PATH_BYTES);
        relay.publisher(&long, &["video"]);
        let at = relay.subscriber();
        let mut body = Vec::new();
        varint::put((limits::PATH_BYTES + past) as u64, &mut body);
        body.resize(body.len() + limits::PATH_BYTES + past, b'x');
        body.extend_from_slice(b"\x05video");
        let mut bytes = vec![BidiType::Track.id() as u8];
        varint::put(body.len() as u64, &mut bytes);
        bytes.extend_from_slice(&body);
        let stream = relay[at].open_bi(bytes);
        relay.run(MS * 100);
        assert_eq!(relay[at].raw[&stream].0.len(), if past == 0 { 7 } else { 0 });
        assert_eq!(violation(&relay[at].closed), past == 1);
        relay.disperse();
    }
}

#[test]
fn a_frame_of_the_limit_passes_and_one_past_it_is_refused() {
    for past in [0, 1] {
        let mut relay = Relay::new(1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, publisher, "video");
        let mut bytes = Vec::new();
        put_group_header(
            Version::V05,
            &Group { subscribe: show.subscribe, sequence: 0, first_frame: 0 },
            &mut bytes,
        );
        put_frame_head(
            Version::V05,
            0,
            FrameHead { tick: Some(0), size: limits::FRAME_BYTES + past },
            &mut bytes,
        );
        bytes.resize(bytes.len() + (limits::FRAME_BYTES + past) as usize, 7);
        let stream = relay[publisher].open_uni(bytes);
        relay[publisher].finish(stream);
        relay.run(MS * 1_000);
        if past == 0 {
            assert!(relay[reader].has(sub, 0));
            assert_eq!(relay[reader].group(sub, 0)[0].frames[0].1.len() as u64, limits::FRAME_BYTES);
        } else {
            assert_eq!(relay[publisher].stopped.get(&stream), Some(&StreamCode::FRAME_TOO_LARGE));
            assert!(!relay[reader].has(sub, 0));
            let ends: Vec<_> =
                relay[reader].group(sub, 0).iter().map(|group| group.end.unwrap().code()).collect();
            assert!(ends.iter().all(|code| *code == Some(StreamCode::FRAME_TOO_LARGE)), "{ends:?}");
        }
        // The track continues in both cases.
        show.groups.insert(0, vec![]);
        show.run(&mut relay, 1, MS * 50, |_| vec![(0, vec![1])]);
        assert!(relay[reader].has(sub, 1));
        relay.disperse();
    }
}

#[test]
fn oldest_open_group_is_reset_past_the_limit() {
    let mut relay = Relay::new(1);
    let publisher = relay.publisher("live/cam", &["video"]);
    let reader = relay.subscriber();
    let sub = relay[reader].subscribe("live/cam", "video", patient());
    let mut show = Show::new(&mut relay, publisher, "video");
    let count = limits::READER_GROUPS as u64;
    let mut streams = Vec::new();
    for sequence in 0..=count {
        let body = vec![(0, vec![1; 100]), (1, vec![2; 100])];
        let whole = relay[publisher].group_bytes(show.subscribe, sequence, &body);
        streams.push((relay[publisher].open_uni(whole[..150].to_vec()), whole[150..].to_vec()));
        show.groups.insert(sequence, body);
        show.aired.insert(sequence, relay.now);
        relay.run(MS * 20);
        let ended = relay[reader].groups_of(sub).filter(|group| group.end.is_some()).count();
        assert_eq!(ended, usize::from(sequence == count), "after group {sequence}");
    }
    for (stream, rest) in streams {
        relay[publisher].write(stream, rest);
        relay[publisher].finish(stream);
    }
    relay.run(MS * 50);
    assert_eq!(show.check_resets(&relay, reader, sub), 1);
    assert_eq!(relay[reader].group(sub, 0)[0].end.unwrap().code(), Some(StreamCode::TOO_FAR_BEHIND));
    show.check_all(&relay, reader, sub, 1);
    relay.disperse();
}

#[test]
fn oldest_group_is_reset_past_the_lag_limit() {
    for past in [0, 1] {
        let mut relay = Relay::new(1);
        let publisher = relay.publisher("live/cam", &["video"]);
        // A stream for SETUP, none for groups.
        let reader = relay.connect(host(), PairOptions { uni_streams: 1, ..guest() });
        relay[reader].t().hold_credit(true);
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, publisher, "video");
        relay[reader].t().allow(relay_model::transport::Dir::Uni, 1_000);
        // One frame each, with a header of 5 bytes.
        let each = limits::READER_LAG_BYTES / 4;
        for sequence in 0..4 {
            let len = each - 5 + if sequence == 3 { past } else { 0 };
            show.air(&mut relay, sequence, vec![(0, vec![sequence as u8; len])]);
            relay.run(MS * 50);
        }
        show.air(&mut relay, 4, vec![(0, vec![4; 2 * each])]);
        relay.run(MS * 200);
        let dropped: Vec<_> = relay[reader]
            .sub(sub)
            .responses
            .iter()
            .filter(|response| matches!(response, SubscribeResponse::Drop { .. }))
            .copied()
            .collect();
        if past > 0 {
            let first = relay[reader].sub(sub).responses[0];
            assert_eq!(first, SubscribeResponse::Start { group: 0 }, "START comes before any DROP");
        }
        let code = u64::from(StreamCode::TOO_FAR_BEHIND.0);
        let expected = [SubscribeResponse::Drop { start: 0, end: 0, code }];
        assert_eq!(dropped, expected[..past]);
        relay[reader].t().hold_credit(false);
        relay.run(MS * 500);
        show.check_all(&relay, reader, sub, past as u64);
        relay.disperse();
    }
}

#[test]
fn subscriptions_are_served_up_to_the_limit_and_refused_past_it() {
    let mut relay = Relay::new(1);
    relay.publisher("live/cam", &["video"]);
    let reader = relay.subscriber();
    let subs: Vec<_> =
        (0..limits::SUBSCRIPTIONS).map(|_| relay[reader].subscribe("live/cam", "video", patient())).collect();
    relay.run(MS * 200);
    // However often it is repeated, only the request ends.
    for _ in 0..500 {
        let past = relay[reader].subscribe("live/cam", "video", patient());
        relay.run(MS * 20);
        assert_eq!(relay[reader].sub(past).end.and_then(Ended::code), Some(StreamCode::EXCESSIVE_LOAD));
    }
    assert!(subs.iter().all(|sub| relay[reader].sub(*sub).end.is_none()));
    assert_eq!(relay.meter.subscriptions_limited, 500);
    relay[reader].finish(subs[0]);
    relay.run(MS * 50);
    let again = relay[reader].subscribe("live/cam", "video", patient());
    relay.run(MS * 100);
    assert!(relay[reader].sub(again).end.is_none());
    relay.disperse();
}

#[test]
fn session_sends_core_no_more_asks_than_its_credit() {
    let mut relay = Relay::new(1);
    relay.publisher("live/cam", &["video"]);
    let reader = relay.subscriber();
    relay.run(MS * 50);
    relay.core_sleeps = true;
    let count = 3 * limits::ASKS_IN_FLIGHT as usize;
    let answers: Vec<_> = (0..count).map(|_| relay[reader].ask_track("live/cam", "video")).collect();
    let asked = |relay: &Relay| relay.asks.iter().filter(|(at, _)| *at == reader).count();
    relay.run(MS * 500);
    assert_eq!(asked(&relay), limits::ASKS_IN_FLIGHT as usize);
    relay.core_sleeps = false;
    relay.run(MS * 500);
    assert!(answers.iter().all(|at| relay[reader].track_answers[at].info.is_some()));
    relay.disperse();
}

#[test]
fn announces_wait_for_core_and_none_is_lost() {
    let mut relay = Relay::new(1);
    let publisher = relay.subscriber();
    relay.core_sleeps = true;
    for n in 0..300 {
        relay[publisher].publish(&format!("live/{n}"), &[], &[]);
    }
    relay.run(MS * 200);
    assert_eq!(relay.asks.iter().filter(|(at, _)| *at == publisher).count(), limits::ASKS_IN_FLIGHT as usize);
    relay.core_sleeps = false;
    let watcher = relay.subscriber();
    let watch = relay[watcher].watch("live");
    relay.run(MS * 500);
    let live = &relay[watcher].watches[&watch].live;
    assert!((0..300).all(|n| live.contains_key(&path(&n.to_string()))), "{}", live.len());
    relay.disperse();
}

#[test]
fn session_with_a_blocked_control_stream_times_out() {
    let mut relay = Relay::new(1);
    relay.publisher("live/cam", &["video"]);
    let theirs = PairOptions { connection_window: 60, ..guest() };
    let reader = relay.connect(host(), theirs);
    relay[reader].t().hold_credit(true);
    relay[reader].reads = false;
    for _ in 0..20 {
        relay[reader].ask_track("live/cam", "video");
    }
    relay.run(limits::CONTROL_STALL - MS * 100);
    assert!(relay[reader].closed.is_none());
    relay.run(MS * 300);
    assert_eq!(
        relay[reader]
            .closed
            .as_ref()
            .map(|closed| matches!(closed, TransportClosed::ByPeer(SessionCode::TIMEOUT, _))),
        Some(true)
    );
    relay.disperse();
}

#[test]
fn watches_are_served_up_to_the_limit_and_refused_past_it() {
    let mut relay = Relay::new(1);
    let at = relay.subscriber();
    let watches: Vec<_> = (0..limits::ANNOUNCE_REQUESTS).map(|_| relay[at].watch("live")).collect();
    relay.run(MS * 50);
    let past = relay[at].watch("live");
    relay.run(MS * 50);
    assert_eq!(relay[at].watches[&past].end.and_then(Ended::code), Some(StreamCode::EXCESSIVE_LOAD));
    assert!(watches.iter().all(|watch| relay[at].watches[watch].end.is_none()));
    assert!(relay.is_alive(at) && relay.meter.watches_limited == 1);
    relay.disperse();
}

#[test]
fn relays_of_the_cluster_have_no_session_limits() {
    let mut relay = Relay::new(1);
    relay.limits = SessionLimits { announces: 2, subscriptions: 2, fetches: 1, requests: 10 };
    relay.publisher("live/cam", &["video"]);
    let at = relay.link(host(), guest());
    relay.seats[at].permit = cluster_peer();
    relay.let_in(at);
    (0..50).for_each(|n| relay[at].publish(&format!("p/{n}"), &[], &[]));
    let subs: Vec<_> = (0..400).map(|_| relay[at].subscribe("live/cam", "video", patient())).collect();
    relay.run(MS * 200);
    assert!(subs.iter().all(|sub| relay[at].sub(*sub).end.is_none()));
    assert_eq!((relay.meter.announces_limited, relay.meter.requests_paced), (0, 0));
    let announced = relay.asks.iter().filter(|(_, ask)| matches!(ask, Ask::Announce { .. })).count();
    assert_eq!(announced, 51);
    relay.disperse();
}
