//! FETCH: old groups from the log, or from the publisher, which is asked once.

use relay_model::{Prefs, SessionCode, StreamCode, limits, transport::Stream};
use relay_wire::lite::Version;

use crate::{
    harness::{MS, Relay, guest, host},
    peer::{Ended, Frames, frame_bytes},
    show::{Show, patient},
};

const FETCHING: [Version; 2] = [Version::V06, Version::V05];

fn body(n: u64) -> Frames {
    (0..5).map(|at| (1_000 * n as i64 + at, vec![n as u8 + at as u8; 400])).collect()
}

/// A publisher of `live/cam` whose log holds groups 10, 11 and 12, and a reader of it.
fn on_air(version: Version) -> (Relay, Show, usize) {
    let mut relay = Relay::of(version, 1);
    let publisher = relay.publisher("live/cam", &["video"]);
    relay.version = if version.has_tracks() { version } else { Version::V05 };
    let reader = relay.subscriber();
    relay[reader].subscribe("live/cam", "video", patient());
    let mut show = Show::new(&mut relay, publisher, "video");
    for sequence in 10..13 {
        show.air(&mut relay, sequence, body(sequence));
        relay.run(MS * 30);
    }
    (relay, show, reader)
}

fn code(relay: &Relay, reader: usize, fetch: Stream) -> Option<StreamCode> {
    relay[reader].fetches[&fetch].end.and_then(Ended::code)
}

fn asked(relay: &Relay, show: &Show) -> usize {
    relay[show.publisher].fetched("video").count()
}

/// The relay's only open fetch.
fn fetching(relay: &mut Relay, show: &Show) -> Stream {
    relay.until("a FETCH", |relay| !relay[show.publisher].fetching("video").is_empty());
    let all = relay[show.publisher].fetching("video");
    assert_eq!(all.len(), 1, "{all:?}");
    let fetch = &all[0].1;
    assert_eq!((fetch.start_frame, fetch.end_frame), (0, None), "whole groups are requested");
    all[0].0
}

fn check(relay: &Relay, reader: usize, fetch: Stream, frames: &[(i64, Vec<u8>)]) {
    let got = &relay[reader].fetches[&fetch];
    assert!(got.is_complete(), "{:?}", got.end);
    assert_eq!(got.frames, frames);
}

#[test]
fn held_group_is_served_from_the_log() {
    for version in FETCHING {
        let (mut relay, show, reader) = on_air(version);
        let fetch = relay[reader].fetch("live/cam", "video", 11);
        relay.run(MS * 50);
        check(&relay, reader, fetch, &body(11));
        assert_eq!(asked(&relay, &show), 0);
        relay.disperse();
    }
}

#[test]
fn a_group_that_grows_is_followed_to_its_end() {
    for version in FETCHING {
        let (mut relay, show, reader) = on_air(version);
        let bytes = relay[show.publisher].group_bytes(show.subscribe, 13, &body(13));
        let stream = relay[show.publisher].open_uni(bytes[..1_000].to_vec());
        relay.run(MS * 30);
        let fetch = relay[reader].fetch("live/cam", "video", 13);
        relay.run(MS * 30);
        let got = &relay[reader].fetches[&fetch];
        assert!(got.frames.len() == 3 && got.end.is_none(), "{got:?}");
        relay[show.publisher].write(stream, bytes[1_000..].to_vec());
        relay[show.publisher].finish(stream);
        relay.run(MS * 30);
        check(&relay, reader, fetch, &body(13));
        assert_eq!(asked(&relay, &show), 0);
        relay.disperse();
    }
}

#[test]
fn absent_group_is_requested_once_and_then_refused() {
    for version in FETCHING {
        let (mut relay, show, reader) = on_air(version);
        let fetch = relay[reader].fetch("live/cam", "video", 3);
        let stream = fetching(&mut relay, &show);
        relay[show.publisher].reset(stream, StreamCode::NOT_FOUND);
        relay.run(MS * 50);
        assert_eq!(code(&relay, reader, fetch), Some(StreamCode::NOT_FOUND));
        let again = relay[reader].fetch("live/cam", "video", 3);
        relay.run(MS * 50);
        assert_eq!(code(&relay, reader, again), Some(StreamCode::NOT_FOUND));
        assert_eq!(asked(&relay, &show), 1);
        relay.disperse();
    }
}

#[test]
fn group_fetched_by_several_is_requested_once_and_cached() {
    for version in FETCHING {
        let (mut relay, show, first) = on_air(version);
        relay.version = if version == Version::V05 { Version::V06 } else { Version::V05 };
        let second = relay.subscriber();
        let fetches = [
            (first, relay[first].fetch("live/cam", "video", 3)),
            (second, relay[second].fetch("live/cam", "video", 3)),
        ];
        let stream = fetching(&mut relay, &show);
        let bytes = frame_bytes(version, &body(3));
        for byte in &bytes[..600] {
            relay[show.publisher].write(stream, vec![*byte]);
        }
        relay.run(MS * 50);
        // Received frames are relayed before the rest arrives.
        for (reader, fetch) in fetches {
            assert_eq!(relay[reader].fetches[&fetch].frames.len(), 2);
        }
        relay[show.publisher].write(stream, bytes[600..].to_vec());
        relay[show.publisher].finish(stream);
        relay.run(MS * 50);
        let later = (second, relay[second].fetch("live/cam", "video", 3));
        relay.run(MS * 50);
        for (reader, fetch) in fetches.into_iter().chain([later]) {
            check(&relay, reader, fetch, &body(3));
        }
        assert_eq!(asked(&relay, &show), 1);
        // Live readers do not get it.
        assert!(relay[first].groups.iter().all(|group| group.sequence != Some(3)));
        relay.disperse();
    }
}

#[test]
fn group_of_an_unsubscribed_track_can_be_fetched() {
    for version in FETCHING {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let fetch = relay[reader].fetch("live/cam", "video", 3);
        let absent = relay[reader].fetch("live/cam", "absent", 3);
        relay.run(MS * 50);
        let (stream, _) = relay[publisher].fetching("video")[0];
        relay[publisher].answer_fetch(stream, &body(3));
        relay.run(MS * 50);
        check(&relay, reader, fetch, &body(3));
        assert_eq!(code(&relay, reader, absent), Some(StreamCode::NOT_FOUND));
        assert!(relay[publisher].serving("video").is_none(), "no live groups are requested");
        relay.disperse();
    }
}

#[test]
fn an_empty_group_is_fetched_as_such() {
    let (mut relay, show, reader) = on_air(Version::V06);
    let fetch = relay[reader].fetch("live/cam", "video", 3);
    let stream = fetching(&mut relay, &show);
    relay[show.publisher].answer_fetch(stream, &vec![]);
    relay.run(MS * 50);
    check(&relay, reader, fetch, &[]);
    relay.disperse();
}

#[test]
fn refusal_is_forwarded_and_not_cached() {
    for version in FETCHING {
        let (mut relay, show, reader) = on_air(version);
        for time in 1..3 {
            let fetch = relay[reader].fetch("live/cam", "video", 3);
            let stream = fetching(&mut relay, &show);
            relay[show.publisher].reset(stream, StreamCode::EVICTED);
            relay.run(MS * 50);
            assert_eq!(code(&relay, reader, fetch), Some(StreamCode::EVICTED));
            assert_eq!(asked(&relay, &show), time);
        }
        relay.disperse();
    }
}

#[test]
fn frame_range_is_served_from_held_and_fetched_groups() {
    let (mut relay, show, reader) = on_air(Version::V06);
    for group in [11, 3] {
        let ranges = [(1, Some(2)), (0, Some(0)), (3, None), (4, Some(9)), (5, None), (9, Some(9))];
        let fetches =
            ranges.map(|(first, last)| relay[reader].fetch_frames("live/cam", "video", group, first, last));
        if group == 3 {
            let stream = fetching(&mut relay, &show);
            relay.run(MS * 30);
            relay[show.publisher].answer_fetch(stream, &body(3));
        }
        relay.run(MS * 50);
        for ((first, last), fetch) in ranges.into_iter().zip(fetches) {
            let frames: Frames = body(group).into_iter().skip(first as usize).collect();
            let count = last.map_or(usize::MAX, |last: u64| (last - first + 1) as usize);
            check(&relay, reader, fetch, &frames[..frames.len().min(count)]);
        }
    }
    assert_eq!(asked(&relay, &show), 1);
    relay.disperse();
}

#[test]
fn a_range_ends_before_its_group_does() {
    let (mut relay, show, reader) = on_air(Version::V06);
    let fetch = relay[reader].fetch_frames("live/cam", "video", 3, 1, Some(2));
    let stream = fetching(&mut relay, &show);
    let bytes = frame_bytes(Version::V06, &body(3)[..4]);
    relay[show.publisher].write(stream, bytes);
    relay.run(MS * 50);
    check(&relay, reader, fetch, &body(3)[1..3]);
    // The rest is not requested.
    assert!(relay[show.publisher].fetching("video").is_empty());
    relay.disperse();
}

#[test]
fn fetch_abandoned_by_all_is_cancelled() {
    for (version, by_stop) in FETCHING.into_iter().flat_map(|version| [(version, false), (version, true)]) {
        let (mut relay, show, reader) = on_air(version);
        let other = relay.subscriber();
        let fetch = relay[reader].fetch("live/cam", "video", 3);
        let stream = fetching(&mut relay, &show);
        let bytes = frame_bytes(version, &body(3));
        relay[show.publisher].write(stream, bytes[..600].to_vec());
        relay.run(MS * 30);
        // It is already growing in the log: this fetch follows it.
        let followed = relay[other].fetch("live/cam", "video", 3);
        relay.run(MS * 30);
        relay[reader].give_up(fetch, by_stop);
        relay.run(MS * 50);
        assert_eq!(relay[show.publisher].stopped.get(&stream), None, "another fetch waits");
        relay[show.publisher].write(stream, bytes[600..1_000].to_vec());
        relay.run(MS * 30);
        assert!(
            relay[other].fetches[&followed].frames.len() >= 3
                && relay[other].fetches[&followed].end.is_none()
        );
        relay[other].give_up(followed, by_stop);
        relay.run(MS * 50);
        assert_eq!(relay[show.publisher].stopped.get(&stream), Some(&StreamCode::CANCEL));
        let (_, _, end) = relay[show.publisher].fetched("video").next().unwrap();
        assert_eq!(end.and_then(Ended::code), Some(StreamCode::CANCEL));
        // It can be fetched again.
        let again = relay[reader].fetch("live/cam", "video", 3);
        let stream = fetching(&mut relay, &show);
        relay[show.publisher].answer_fetch(stream, &body(3));
        relay.run(MS * 50);
        check(&relay, reader, again, &body(3));
        relay.disperse();
    }
}

#[test]
fn a_fetch_cut_short_upstream_is_reset_and_never_finished() {
    for (version, fin) in FETCHING.into_iter().flat_map(|version| [(version, false), (version, true)]) {
        let (mut relay, show, reader) = on_air(version);
        let fetch = relay[reader].fetch("live/cam", "video", 3);
        let stream = fetching(&mut relay, &show);
        let bytes = frame_bytes(version, &body(3));
        relay[show.publisher].write(stream, bytes[..1_000].to_vec());
        relay.run(MS * 30);
        let ended = if fin { StreamCode::WRONG_SIZE } else { StreamCode(70) };
        if fin {
            relay[show.publisher].finish(stream)
        } else {
            relay[show.publisher].reset(stream, ended)
        }
        relay.run(MS * 50);
        assert_eq!(code(&relay, reader, fetch), Some(ended));
        // Only the publisher can repair it.
        let again = relay[reader].fetch("live/cam", "video", 3);
        let stream = fetching(&mut relay, &show);
        relay[show.publisher].answer_fetch(stream, &body(3));
        relay.run(MS * 50);
        check(&relay, reader, again, &body(3));
        relay.disperse();
    }
}

#[test]
fn a_group_that_was_cut_short_live_can_be_fetched_whole() {
    for version in FETCHING {
        for newer in [false, true] {
            let (mut relay, mut show, reader) = on_air(version);
            let bytes = relay[show.publisher].group_bytes(show.subscribe, 13, &body(13));
            let stream = relay[show.publisher].open_uni(bytes[..1_000].to_vec());
            relay.run(MS * 30);
            relay[show.publisher].reset(stream, StreamCode(70));
            relay.run(MS * 30);
            if newer {
                show.air(&mut relay, 14, body(14));
                relay.run(MS * 30);
            }
            let fetch = relay[reader].fetch("live/cam", "video", 13);
            let stream = fetching(&mut relay, &show);
            relay[show.publisher].answer_fetch(stream, &body(13));
            relay.run(MS * 50);
            check(&relay, reader, fetch, &body(13));
            relay.disperse();
        }
    }
}

#[test]
fn pending_fetch_is_reset_when_the_track_ends() {
    for version in FETCHING {
        for clean in [false, true] {
            let (mut relay, show, reader) = on_air(version);
            let fetch = relay[reader].fetch("live/cam", "video", 3);
            fetching(&mut relay, &show);
            if clean {
                show.end(&mut relay, "video");
            } else {
                relay[show.publisher].close(SessionCode::NONE, "");
            }
            relay.run(MS * 1_500);
            let expected = if clean { StreamCode::NOT_FOUND } else { StreamCode::SESSION_CLOSED };
            assert_eq!(code(&relay, reader, fetch), Some(expected), "clean {clean}");
            assert!(relay.is_alive(reader));
            relay.disperse();
        }
    }
}

#[test]
fn publishers_without_fetch_get_no_request() {
    for version in [Version::V04, Version::V03] {
        let (mut relay, show, reader) = on_air(version);
        let [held, unknown] = [11, 3].map(|group| relay[reader].fetch("live/cam", "video", group));
        relay.run(MS * 50);
        assert!(relay[reader].fetches[&held].is_complete());
        assert_eq!(code(&relay, reader, unknown), Some(StreamCode::NOT_FOUND));
        assert!(relay.is_alive(show.publisher));
        relay.disperse();
    }
}

#[test]
fn fetches_wait_up_to_the_limit_and_one_past_it_is_refused() {
    for version in FETCHING {
        let (mut relay, show, reader) = on_air(version);
        let mut fetches: Vec<_> =
            (0..limits::FETCHES).map(|_| relay[reader].fetch("live/cam", "video", 3)).collect();
        relay.run(MS * 100);
        let past = relay[reader].fetch("live/cam", "video", 3);
        relay.run(MS * 50);
        assert!(fetches.iter().all(|fetch| relay[reader].fetches[fetch].end.is_none()));
        assert_eq!(code(&relay, reader, past), Some(StreamCode::EXCESSIVE_LOAD));
        assert_eq!(relay.meter.fetches_limited, 1);
        let first = fetches.remove(0);
        relay[reader].give_up(first, false);
        relay.run(MS * 50);
        fetches.push(relay[reader].fetch("live/cam", "video", 3));
        relay.run(MS * 50);
        let stream = fetching(&mut relay, &show);
        relay[show.publisher].answer_fetch(stream, &body(3));
        relay.run(MS * 100);
        fetches.iter().for_each(|fetch| check(&relay, reader, *fetch, &body(3)));
        relay.disperse();
    }
}

#[test]
fn surplus_fetches_never_end_the_session() {
    let (mut relay, _, other) = on_air(Version::V06);
    let eager = relay.connect(host(), guest());
    for at in 0..limits::FETCHES + 400 {
        relay[eager].fetch("live/cam", "video", 3);
        if at % 20 == 0 {
            relay.run(MS * 20);
        }
    }
    relay.run(MS * 100);
    assert_eq!(relay.meter.fetches_limited, 400);
    assert!(relay.is_alive(eager) && relay.is_alive(other));
    relay.disperse();
}

#[test]
fn a_live_subscription_goes_on_beside_fetches() {
    let (mut relay, mut show, reader) = on_air(Version::V06);
    let fetch = relay[reader].fetch("live/cam", "video", 3);
    let stream = fetching(&mut relay, &show);
    let sub = relay[reader].subscribe("live/cam", "video", Prefs::default());
    relay.run(MS * 30);
    show.run(&mut relay, 3, MS * 20, body);
    relay[show.publisher].answer_fetch(stream, &body(3));
    relay.run(MS * 50);
    check(&relay, reader, fetch, &body(3));
    show.check_all(&relay, reader, sub, 12);
    relay.disperse();
}
