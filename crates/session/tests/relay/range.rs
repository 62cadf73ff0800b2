//! Start and end of subscriptions, and their updates.

use relay_model::{Prefs, Start, transport::Stream};
use relay_wire::lite::{SubscribeResponse, Version};

use crate::{
    harness::{MS, Relay},
    peer::{Ask, Frames},
    show::{Show, patient, version_of, versions},
};

fn body(n: u64) -> Frames {
    (0..5).map(|at| (100 * n as i64 + at, vec![n as u8 + at as u8; 200])).collect()
}

/// A log that holds groups 0 to 5, each superseded 100 ms after its arrival, and a reader without a
/// subscription.
fn held(version: Version) -> (Relay, Show, usize) {
    let mut relay = Relay::of(version, 1);
    let publisher = relay.publisher("live/cam", &["video"]);
    let first = relay.subscriber();
    relay[first].subscribe("live/cam", "video", patient());
    let mut show = Show::new(&mut relay, publisher, "video");
    show.run(&mut relay, 6, MS * 100, body);
    let reader = relay.subscriber();
    (relay, show, reader)
}

fn sequences(relay: &Relay, reader: usize, sub: Stream) -> Vec<u64> {
    let mut got: Vec<_> = relay[reader].groups_of(sub).filter_map(|group| group.sequence).collect();
    got.sort_unstable();
    got
}

/// The only stream of a group: first frame, frames, whether it is complete.
fn stream(relay: &Relay, reader: usize, sub: Stream, sequence: u64) -> (u64, Frames, bool) {
    let groups = relay[reader].group(sub, sequence);
    assert_eq!(groups.len(), 1, "group {sequence}");
    (groups[0].first_frame, groups[0].frames.clone(), groups[0].is_complete())
}

#[test]
fn subscription_without_a_start_begins_at_the_latest_group() {
    versions(|version| {
        let (mut relay, mut show, reader) = held(version);
        let start = if version.has_frame_ranges() { Start::Fresh { floor: 0 } } else { Start::Latest };
        let sub = relay[reader].subscribe("live/cam", "video", Prefs { start, ..Prefs::default() });
        relay.run(MS * 30);
        show.run(&mut relay, 1, MS * 30, body);
        assert_eq!(sequences(&relay, reader, sub), [5, 6]);
        relay.disperse();
    });
}

#[test]
fn subscription_begins_at_the_requested_group() {
    versions(|version| {
        let (mut relay, mut show, reader) = held(version);
        let start = |group| match version.has_frame_ranges() {
            true => Start::Fresh { floor: group },
            false => Start::Group(group),
        };
        let [past, ahead] = [2, 8].map(|group| {
            relay[reader].subscribe("live/cam", "video", Prefs { start: start(group), ..patient() })
        });
        relay.run(MS * 30);
        show.run(&mut relay, 4, MS * 30, body);
        assert_eq!(sequences(&relay, reader, past), (2..10).collect::<Vec<_>>());
        assert_eq!(sequences(&relay, reader, ahead), [8, 9]);
        if !version.has_subscribe_ok() {
            for (sub, group) in [(past, 2), (ahead, 8)] {
                assert_eq!(relay[reader].sub(sub).responses, [SubscribeResponse::Start { group }]);
            }
        }
        relay.disperse();
    });
}

#[test]
fn start_frame_is_served_from_a_headless_group() {
    let mut relay = Relay::of(Version::V06, 1);
    let publisher = relay.publisher("live/cam", &["video"]);
    let prefs = Prefs { start: Start::Fresh { floor: 3 }, start_frame: 2, ..patient() };
    let first = relay.subscriber();
    let before = relay[first].subscribe("live/cam", "video", prefs);
    let show = Show::new(&mut relay, publisher, "video");
    let bytes = relay[publisher].group_bytes_from(show.subscribe, 3, 2, &body(3)[2..]);
    relay[publisher].send_raw_group(bytes, true);
    relay.run(MS * 30);
    // A reader that subscribes after the group was cached gets the same.
    let second = relay.subscriber();
    let after = relay[second].subscribe("live/cam", "video", prefs);
    relay.run(MS * 30);
    for (reader, sub) in [(first, before), (second, after)] {
        assert_eq!(stream(&relay, reader, sub, 3), (2, body(3)[2..].to_vec(), true));
    }
    relay.disperse();
}

#[test]
fn fresh_start_begins_at_the_oldest_group_within_max_age() {
    let (mut relay, _, reader) = held(Version::V06);
    // Group 5 is the latest; 4 was superseded some 100 ms ago, 3 some 200 ms ago.
    for (max_age_ms, floor, expected) in [
        (0, 0, vec![5]),
        (150, 0, vec![4, 5]),
        (250, 0, vec![3, 4, 5]),
        (250, 4, vec![4, 5]),
        (250, 5, vec![5]),
    ] {
        let prefs = Prefs { start: Start::Fresh { floor }, max_age_ms, ..Prefs::default() };
        let sub = relay[reader].subscribe("live/cam", "video", prefs);
        relay.run(MS * 12);
        assert_eq!(sequences(&relay, reader, sub), expected, "{max_age_ms} ms, not below {floor}");
    }
    relay.disperse();
}

/// From the third frame of group `first` to the second of group `last`.
fn frames_of(first: u64, last: u64) -> Prefs {
    let start = Start::Fresh { floor: first };
    Prefs { start, start_frame: 2, end: Some(last), end_frame: Some(1), ..patient() }
}

#[test]
fn a_range_of_frames_is_cut_out_of_held_groups() {
    let (mut relay, mut show, reader) = held(Version::V06);
    let sub = relay[reader].subscribe("live/cam", "video", frames_of(2, 4));
    let one = Prefs { end: Some(3), end_frame: Some(2), ..frames_of(3, 3) };
    let one = relay[reader].subscribe("live/cam", "video", one);
    relay.run(MS * 30);
    show.run(&mut relay, 1, MS * 30, body);
    assert_eq!(sequences(&relay, reader, sub), [2, 3, 4]);
    assert_eq!(stream(&relay, reader, sub, 2), (2, body(2)[2..].to_vec(), true));
    assert_eq!(stream(&relay, reader, sub, 3), (0, body(3), true));
    assert_eq!(stream(&relay, reader, sub, 4), (0, body(4)[..2].to_vec(), true));
    assert_eq!(sequences(&relay, reader, one), [3]);
    assert_eq!(stream(&relay, reader, one, 3), (2, body(3)[2..3].to_vec(), true));
    relay.disperse();
}

#[test]
fn a_range_of_frames_is_cut_out_of_groups_that_open_later() {
    // Publishers of other versions send groups from their first frame.
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        relay.version = Version::V06;
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", frames_of(1, 2));
        let show = Show::new(&mut relay, publisher, "video");
        let asked = relay[publisher].serving("video").unwrap().1.prefs;
        let first = asked.start_frame;
        assert_eq!(first, if version.has_frame_ranges() { 2 } else { 0 });
        let bytes = relay[publisher].group_bytes_from(show.subscribe, 1, first, &body(1)[first as usize..]);
        let opened = relay[publisher].open_uni(bytes);
        relay.run(MS * 30);
        let untimed = |frames: Frames| -> Frames {
            let keep = |(tick, bytes)| (if version.has_timestamps() { tick } else { 0 }, bytes);
            frames.into_iter().map(keep).collect()
        };
        let (at, frames, complete) = stream(&relay, reader, sub, 1);
        assert_eq!((at, untimed(frames), complete), (2, untimed(body(1)[2..].to_vec()), false));
        relay[publisher].finish(opened);
        // The stream ends with the range at once, whatever follows in the group.
        let bytes = relay[publisher].group_bytes(show.subscribe, 2, &body(2)[..3]);
        relay[publisher].open_uni(bytes);
        relay.run(MS * 30);
        let (at, frames, complete) = stream(&relay, reader, sub, 2);
        assert_eq!((at, untimed(frames), complete), (0, untimed(body(2)[..2].to_vec()), true));
        assert!(relay[reader].has(sub, 1));
        relay.disperse();
    });
}

#[test]
fn a_range_of_frames_is_cut_out_of_a_group_that_is_coming() {
    let (mut relay, show, reader) = held(Version::V06);
    let bytes = relay[show.publisher].group_bytes(show.subscribe, 6, &body(6));
    // Three frames, and part of the fourth.
    let opened = relay[show.publisher].open_uni(bytes[..750].to_vec());
    relay.run(MS * 30);
    let [all, part, ahead] = [(2, None), (1, Some(1)), (4, None)].map(|(start_frame, end_frame)| {
        let prefs = Prefs { start_frame, end: Some(6), end_frame, ..frames_of(6, 6) };
        relay[reader].subscribe("live/cam", "video", prefs)
    });
    relay.run(MS * 30);
    assert_eq!(stream(&relay, reader, part, 6), (1, body(6)[1..2].to_vec(), true));
    let (first, frames, complete) = stream(&relay, reader, all, 6);
    assert_eq!((first, &frames[0], complete), (2, &body(6)[2], false));
    relay[show.publisher].write(opened, bytes[750..].to_vec());
    relay[show.publisher].finish(opened);
    relay.run(MS * 30);
    assert_eq!(stream(&relay, reader, all, 6), (2, body(6)[2..].to_vec(), true));
    assert_eq!(stream(&relay, reader, ahead, 6), (4, body(6)[4..].to_vec(), true));
    relay.disperse();
}

#[test]
fn a_group_whose_head_is_missing_never_looks_whole() {
    let mut relay = Relay::of(Version::V06, 1);
    let publisher = relay.publisher("live/cam", &["video"]);
    let readers: Vec<_> = (0..4)
        .map(|n| {
            relay.version = version_of(n);
            relay.subscriber()
        })
        .collect();
    let subs: Vec<_> =
        readers.iter().map(|reader| relay[*reader].subscribe("live/cam", "video", patient())).collect();
    let mut show = Show::new(&mut relay, publisher, "video");
    show.run(&mut relay, 1, MS * 30, body);
    let bytes = relay[publisher].group_bytes_from(show.subscribe, 1, 3, &body(1)[3..]);
    let stream = relay[publisher].open_uni(bytes);
    relay[publisher].finish(stream);
    relay.run(MS * 50);
    show.run(&mut relay, 1, MS * 30, body);
    for (reader, sub) in readers.iter().zip(&subs) {
        assert!(!relay[*reader].has(*sub, 1));
        assert!(relay[*reader].group(*sub, 1).iter().all(|group| group.frames.is_empty()));
        assert!(relay[*reader].has(*sub, 0) && relay.is_alive(*reader));
    }
    relay.disperse();
}

#[test]
fn preferences_and_updates_reach_the_publisher() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let frames = version.has_frame_ranges();
        let start = |group| if frames { Start::Fresh { floor: group } } else { Start::Group(group) };
        let first = Prefs {
            priority: 7,
            ordered: !frames,
            max_age_ms: 900,
            start: start(4),
            start_frame: if frames { 2 } else { 0 },
            end: Some(9),
            end_frame: frames.then_some(3),
        };
        let sub = relay[reader].subscribe("live/cam", "video", first);
        let subscribe = relay.upstream(publisher, "video");
        assert_eq!(relay[publisher].serving("video").unwrap().1.prefs, first);
        // Before the first group, an earlier start repeats the subscription.
        relay[publisher].send_group(subscribe, 5, &vec![(0, vec![1; 10])]);
        relay.run(MS * 30);
        let changes = [
            Prefs { priority: 200, ..first },
            Prefs { ordered: false, ..first },
            Prefs { max_age_ms: 1, ..first },
            Prefs { start: start(5), ..first },
            Prefs { start_frame: 0, ..first },
            Prefs { end: Some(12), ..first },
            Prefs { end_frame: None, ..first },
            Prefs { end: None, end_frame: None, ..first },
        ];
        let mut expected = vec![];
        let mut before = first;
        for change in changes {
            relay[reader].update(sub, change);
            relay.run(MS * 30);
            if change != before {
                expected.push(change);
            }
            before = change;
        }
        let asked = relay[publisher].asked.iter().find(|asked| matches!(asked.what, Ask::Subscribe(_)));
        assert_eq!(asked.unwrap().updates, expected);
        // A second reader with a wider range: both are served by one subscription.
        let more = Prefs { priority: 9, max_age_ms: 5, start: start(2), end: Some(20), ..Prefs::default() };
        relay[reader].update(sub, first);
        relay[reader].subscribe("live/cam", "video", more);
        relay.run(MS * 50);
        let asked = relay[publisher].asked.iter().find(|asked| matches!(asked.what, Ask::Subscribe(_)));
        let union =
            Prefs { priority: 9, max_age_ms: 900, start: start(2), end: Some(20), ..Prefs::default() };
        assert_eq!(asked.unwrap().updates.last(), Some(&union));
        relay.disperse();
    });
}

#[test]
fn raised_end_continues_the_subscription() {
    versions(|version| {
        let (mut relay, mut show, reader) = held(version);
        let start = if version.has_frame_ranges() { Start::Fresh { floor: 1 } } else { Start::Group(1) };
        let sub = relay[reader].subscribe("live/cam", "video", Prefs { start, end: Some(2), ..patient() });
        relay.run(MS * 30);
        show.run(&mut relay, 1, MS * 30, body);
        assert_eq!(sequences(&relay, reader, sub), [1, 2]);
        relay[reader].update(sub, Prefs { start, end: Some(7), ..patient() });
        relay.run(MS * 30);
        assert_eq!(sequences(&relay, reader, sub), [1, 2, 3, 4, 5, 6], "held groups are sent at once");
        show.run(&mut relay, 3, MS * 30, body);
        assert_eq!(sequences(&relay, reader, sub), [1, 2, 3, 4, 5, 6, 7]);
        show.check_bytes(&relay, reader, sub);
        assert_eq!(relay[reader].sub(sub).end, None);
        relay.disperse();
    });
}

#[test]
fn raised_start_and_lowered_end_exclude_later_groups() {
    versions(|version| {
        let (mut relay, mut show, reader) = held(version);
        let start = |group| match version.has_frame_ranges() {
            true => Start::Fresh { floor: group },
            false => Start::Group(group),
        };
        let [raised, lowered] = [0; 2]
            .map(|_| relay[reader].subscribe("live/cam", "video", Prefs { start: start(5), ..patient() }));
        relay.run(MS * 30);
        relay[reader].update(raised, Prefs { start: start(8), ..patient() });
        relay[reader].update(lowered, Prefs { start: start(5), end: Some(6), ..patient() });
        relay.run(MS * 30);
        show.run(&mut relay, 4, MS * 30, body);
        assert_eq!(sequences(&relay, reader, raised), [5, 8, 9]);
        assert_eq!(sequences(&relay, reader, lowered), [5, 6]);
        relay.disperse();
    });
}

#[test]
fn new_priority_applies_to_groups_in_flight() {
    let mut relay = Relay::new(1);
    let names = ["one", "two"];
    let publisher = relay.publisher("live/cam", &names);
    let ours = relay_session::pair::PairOptions {
        rate: Some(100_000),
        send_window: 16 * 1024,
        ..crate::harness::host()
    };
    let reader = relay.connect(ours, crate::harness::guest());
    let subs = names.map(|name| relay[reader].subscribe("live/cam", name, patient()));
    relay.run(MS * 100);
    for name in names {
        let mut show = Show::new(&mut relay, publisher, name);
        show.air(&mut relay, 0, vec![(0, vec![1; 100_000])]);
    }
    relay.run(MS * 300);
    relay[reader].update(subs[1], Prefs { priority: 200, ..patient() });
    relay.until("the other", |relay| relay[reader].has(subs[1], 0));
    let got: usize = relay[reader].group(subs[0], 0)[0].frames[0].1.len();
    assert!(got < 60_000, "{got}");
    relay.disperse();
}
