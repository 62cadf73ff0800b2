//! Relaying between versions with different features.

use relay_model::{Prefs, TrackInfo};
use relay_wire::lite::{SubscribeResponse, Version};

use crate::{
    harness::{MS, Relay},
    peer::Frames,
    record::UNTIMED,
    show::{Show, patient, versions},
};

fn body(n: u64) -> Frames {
    vec![(90 * n as i64, vec![n as u8; 10]), (40, vec![7; 3_000]), (90 * n as i64 + 1, vec![])]
}

#[test]
fn payloads_and_timestamps_survive_every_version_pair() {
    versions(|publishing| {
        let mut relay = Relay::of(publishing, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let readers: Vec<_> = Version::ALL
            .iter()
            .map(|version| {
                relay.version = *version;
                let reader = relay.subscriber();
                (reader, relay[reader].subscribe("live/cam", "video", patient()))
            })
            .collect();
        let mut show = Show::new(&mut relay, publisher, "video");
        show.run(&mut relay, 4, MS * 20, body);
        show.end(&mut relay, "video");
        relay.run(MS * 2_000);
        for (reader, sub) in readers {
            show.check_all(&relay, reader, sub, 0);
            assert!(relay[reader].sub(sub).end.unwrap().is_fin());
            let ticks: Vec<_> = relay[reader].group(sub, 1)[0].frames.iter().map(|frame| frame.0).collect();
            if !relay[reader].version.has_timestamps() {
                assert_eq!(ticks, [UNTIMED; 3]);
            } else if publishing.has_timestamps() {
                assert_eq!(ticks, [90, 40, 91]);
            }
        }
        relay.disperse();
    });
}

#[test]
fn frames_without_timestamps_get_the_relay_clock() {
    for publishing in [Version::V04, Version::V03] {
        let mut relay = Relay::of(publishing, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        relay.version = Version::V06;
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let show = Show::new(&mut relay, publisher, "video");
        relay.run(MS * 1_234);
        let bytes = relay[publisher].group_bytes(show.subscribe, 0, &[(0, vec![1; 20])]);
        let stream = relay[publisher].open_uni(bytes);
        let mut sent = vec![(relay.now - relay.started).as_millis() as i64];
        relay.run(MS * 700);
        relay[publisher].write(stream, vec![2, 8, 8]);
        sent.push((relay.now - relay.started).as_millis() as i64);
        relay.run(MS * 30);
        let ticks: Vec<_> = relay[reader].group(sub, 0)[0].frames.iter().map(|frame| frame.0).collect();
        assert_eq!(ticks.len(), 2);
        for (tick, sent) in ticks.iter().zip(sent) {
            assert!((sent..sent + 10).contains(tick), "sent at {sent}, stamped {tick}");
        }
        // In the timescale of the track's properties.
        let info = relay[reader].ask_track("live/cam", "video");
        relay.run(MS * 30);
        assert_eq!(relay[reader].track_answers[&info].info, Some(TrackInfo::default()));
        assert_eq!(TrackInfo::default().timescale, 1_000);
        relay.disperse();
    }
}

#[test]
fn track_info_is_served_for_publishers_without_it() {
    for publishing in [Version::V04, Version::V03] {
        let mut relay = Relay::of(publishing, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        for version in [Version::V06, Version::V05] {
            relay.version = version;
            let reader = relay.subscriber();
            let info = relay[reader].ask_track("live/cam", "video");
            relay.run(MS * 30);
            let answer = &relay[reader].track_answers[&info];
            assert_eq!(answer.info, Some(TrackInfo::default()));
            assert!(answer.end.unwrap().is_fin());
        }
        assert!(relay[publisher].serving("video").is_none(), "no groups were requested");
        relay.disperse();
    }
}

#[test]
fn fin_ends_a_track_before_05_after_its_last_groups() {
    for publishing in [Version::V04, Version::V03] {
        let mut relay = Relay::of(publishing, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let readers: Vec<_> = Version::ALL
            .iter()
            .map(|version| {
                relay.version = *version;
                let reader = relay.subscriber();
                (reader, relay[reader].subscribe("live/cam", "video", patient()))
            })
            .collect();
        let mut show = Show::new(&mut relay, publisher, "video");
        show.run(&mut relay, 2, MS * 20, body);
        show.end(&mut relay, "video");
        relay.run(MS * 400);
        // A group in flight when the end was sent.
        let bytes = relay[publisher].group_bytes(show.subscribe, 2, &body(2));
        let late = relay[publisher].open_uni(bytes[..1_000].to_vec());
        show.groups.insert(2, body(2));
        relay.run(MS * 1_500);
        for (reader, sub) in &readers {
            assert!(relay[*reader].sub(*sub).end.is_none(), "its last group is still arriving");
        }
        relay[publisher].write(late, bytes[1_000..].to_vec());
        relay[publisher].finish(late);
        relay.run(MS * 100);
        for (reader, sub) in readers {
            show.check_all(&relay, reader, sub, 0);
            let answer = relay[reader].sub(sub);
            assert!(answer.end.unwrap().is_fin());
            if !relay[reader].version.has_subscribe_ok() {
                assert_eq!(answer.responses.last(), Some(&SubscribeResponse::End { group: 3 }));
            }
        }
        relay.disperse();
    }
}

#[test]
fn first_response_is_subscribe_ok_or_start() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", Prefs { priority: 9, ..patient() });
        relay.upstream(publisher, "video");
        relay.run(MS * 50);
        let said = &relay[reader].sub(sub).responses;
        if version.has_subscribe_ok() {
            let ok = relay_wire::lite::SubscribeOk { priority: 9, ..Default::default() };
            assert_eq!(*said, [SubscribeResponse::Ok(ok)], "at once");
        } else {
            assert_eq!(*said, [], "nothing is known yet");
        }
        relay.disperse();
    });
}
