//! A session works one budget per call and continues in the next: nothing is lost or reordered by that.

use relay_model::{StreamCode, limits, transport::Transport};
use relay_wire::lite::{BidiType, Datagram, TrackRequest, Version};

use crate::{
    harness::{MS, Relay, guest, host},
    peer::{frame_bytes, path, track},
    show::{Show, patient, versions},
};

/// A relay whose sessions do at most `units` of work in a turn.
fn strict(mut relay: Relay, units: u32) -> Relay {
    (relay.budget, relay.is_strict) = (units, true);
    relay
}

#[test]
fn small_frames_are_read_a_budget_at_a_time() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let show = Show::new(&mut relay, publisher, "video");
        let mut relay = strict(relay, 100);
        let frames: Vec<_> = (0..3_000).map(|n| (0, vec![n as u8])).collect();
        relay[publisher].send_group(show.subscribe, 0, &frames);
        while !relay[reader].has(sub, 0) {
            let before = relay.meter.frames_in;
            relay.turn();
            // A frame counts twice: header and payload.
            assert!(relay.meter.frames_in - before <= 50, "{}", relay.meter.frames_in - before);
        }
        let [group] = relay[reader].group(sub, 0)[..] else { panic!("one stream") };
        assert_eq!(group.frames.len(), frames.len());
        relay.is_strict = false;
        relay.disperse();
    });
}

#[test]
fn watches_take_turns_within_a_budget() {
    let mut relay = Relay::new(1);
    let publisher = relay.publisher("live/0", &["video"]);
    for n in 1..400 {
        relay[publisher].publish(&format!("live/{n}"), &["video"], &[]);
    }
    relay.run(MS * 200);
    let reader = relay.subscriber();
    let mut relay = strict(relay, 1_024);
    let watches: Vec<_> = (0..limits::ANNOUNCE_REQUESTS).map(|_| relay[reader].watch("live")).collect();
    let told = |relay: &Relay| -> Vec<usize> {
        watches.iter().map(|watch| relay[reader].watches[watch].live.len()).collect()
    };
    let mut before = 0;
    relay.until("all of it", |relay| {
        let told: Vec<usize> = told(relay);
        let all: usize = told.iter().sum();
        let step = all - before;
        before = all;
        // Upper bound per turn: the calls of one session in it, each with a budget.
        assert!(step <= 3 * 1_024 / 4 + 3 * 16, "{step}");
        told.iter().all(|told| *told == 400)
    });
    relay.is_strict = false;
    relay.disperse();
}

#[test]
fn junk_behind_a_track_request_is_dropped() {
    versions(|version| {
        if !version.has_tracks() {
            return;
        }
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let message = TrackRequest { broadcast: path("live/cam"), track: track("video") };
        let mut bytes = relay[reader].request(BidiType::Track.id(), &message);
        // More than is read from a control stream at a time.
        bytes.resize(bytes.len() + 4 * limits::CONTROL_MESSAGE_BYTES, 7);
        let stream = relay[reader].open_bi(bytes);
        relay.until("an answer", |relay| relay[reader].raw[&stream].1.is_some());
        assert!(relay.is_alive(reader) && relay.is_alive(publisher));
        relay.disperse();
    });
}

#[test]
fn a_run_of_datagrams_is_read_a_budget_at_a_time() {
    let mut relay = Relay::new(1);
    let publisher = relay.publisher("live/cam", &["audio"]);
    let reader = relay.subscriber();
    relay[reader].subscribe("live/cam", "audio", patient());
    let show = Show::new(&mut relay, publisher, "audio");
    let mut relay = strict(relay, 20);
    for sequence in 0..200 {
        let datagram =
            Datagram { subscribe: show.subscribe, sequence, tick: sequence, payload: vec![1].into() };
        let mut out = Vec::new();
        datagram.encode(Version::V05, &mut out);
        relay[publisher].t().send_datagram(out.into()).unwrap();
    }
    while relay.meter.media_datagrams_in < 200 {
        let before = relay.meter.media_datagrams_in;
        relay.turn();
        assert!(relay.meter.media_datagrams_in - before <= 10);
        assert!(relay.is_alive(publisher));
    }
    relay.is_strict = false;
    relay.disperse();
}

#[test]
fn streams_opened_and_reset_leave_nothing_behind() {
    let mut relay = Relay::new(1);
    let at = relay.link(host(), guest());
    relay[at].setup();
    let mut relay = strict(relay, 64);
    for _ in 0..2_000 {
        let stream = relay[at].open_uni(vec![]);
        relay[at].reset(stream, StreamCode::CANCEL);
        relay.turn();
    }
    relay.until("the end of all streams", |relay| relay[at].is_flushed());
    assert!(relay.is_alive(at));
    assert_eq!(relay[at].closed, None);
    relay.is_strict = false;
    relay.disperse();
}

#[test]
fn a_late_reader_of_many_frames_gets_them_in_pages() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let first = relay.subscriber();
        relay[first].subscribe("live/cam", "video", patient());
        let show = Show::new(&mut relay, publisher, "video");
        let frames: Vec<_> = (0..3_000).map(|n| (0, vec![n as u8])).collect();
        let bytes = relay[publisher].group_bytes(show.subscribe, 0, &frames);
        let stream = relay[publisher].open_uni(bytes);
        relay.until("all frames", |relay| relay.meter.frames_in == 3_000);
        let late = relay.subscriber();
        let sub = relay[late].subscribe("live/cam", "video", patient());
        // The group grows while it is read.
        for n in 0..100 {
            let frame = frame_bytes(version, &[(0, vec![n])]);
            relay[publisher].write(stream, frame);
            relay.turn();
        }
        relay[publisher].finish(stream);
        relay.until("the group", |relay| relay[late].has(sub, 0));
        let [group] = relay[late].group(sub, 0)[..] else { panic!("one stream") };
        let payloads: Vec<u8> = group.frames.iter().map(|(_, payload)| payload[0]).collect();
        let expected: Vec<u8> = (0..3_000).map(|n| n as u8).chain(0..100).collect();
        assert_eq!(payloads, expected);
        assert!(!relay.fanout.is_due());
        relay.disperse();
    });
}
