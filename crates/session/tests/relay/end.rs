//! Ends of tracks and groups: a clean end is sent as an end, any other as a reset.

use std::time::Duration;

use relay_model::{SessionCode, StreamCode};
use relay_session::pair::PairOptions;
use relay_wire::lite::SubscribeResponse;

use crate::{
    harness::{MS, Relay, guest, host},
    peer::Ended,
    show::{Show, accepted, frames, patient, rough, seeds, version_of, versions},
};

/// Ways in which a publisher breaks off.
#[derive(Clone, Copy, Debug)]
enum Break {
    ResetGroup,
    FinMidFrame,
    ResetSubscribe,
    FinWithoutEnd,
    Close,
    Cut,
}

const BREAKS: [Break; 6] = [
    Break::ResetGroup,
    Break::FinMidFrame,
    Break::ResetSubscribe,
    Break::FinWithoutEnd,
    Break::Close,
    Break::Cut,
];

#[test]
fn an_interrupted_group_never_looks_finished() {
    seeds(120, |seed, rng| {
        let how = BREAKS[(seed % BREAKS.len() as u64) as usize];
        let mut relay = Relay::of(version_of(seed / BREAKS.len() as u64), seed);
        let publisher = relay.publisher("live/cam", &["video"]);
        relay.version = version_of(seed / 24);
        let (ours, theirs) = if seed < 60 { (host(), guest()) } else { (rough(rng), rough(rng)) };
        let reader = relay.connect(ours, theirs);
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, publisher, "video");
        show.run(&mut relay, 2, MS * 20, |n| vec![(n as i64, vec![n as u8; 300])]);

        let mut body = frames(rng, 8_000);
        body.push((1, vec![1; 1_000]));
        let whole = relay[publisher].group_bytes(show.subscribe, 2, &body);
        // Never between frames: part of the last one has arrived.
        let cut = whole.len() - 1 - rng.below(900) as usize;
        show.groups.insert(2, body);
        let stream = relay[publisher].open_uni(whole[..cut].to_vec());
        relay.run(MS * rng.below(100) as u32);
        relay.until("sending", |relay| relay[publisher].is_flushed());
        let code = StreamCode(64 + rng.below(1_000) as u32);
        let (request, _) = relay[publisher].serving("video").unwrap();
        match how {
            Break::ResetGroup => relay[publisher].reset(stream, code),
            Break::FinMidFrame => relay[publisher].finish(stream),
            Break::ResetSubscribe => relay[publisher].reset(request, code),
            Break::FinWithoutEnd => relay[publisher].finish(request),
            Break::Close => relay[publisher].close(SessionCode::NONE, ""),
            Break::Cut => relay[publisher].pair.cut("idle"),
        }
        let track_ends = !matches!(how, Break::ResetGroup | Break::FinMidFrame);
        // Before moq-lite-05 a track ends like this.
        let old = relay[publisher].version.has_subscribe_ok();
        let clean = old && matches!(how, Break::FinWithoutEnd);
        relay.until("its end", |relay| {
            let group = relay[reader].group(sub, 2).first().is_none_or(|group| group.end.is_some());
            group && (!track_ends || relay[reader].sub(sub).end.is_some())
        });
        relay.run(Duration::from_secs(6));
        show.check_bytes(&relay, reader, sub);
        assert!(!relay[reader].has(sub, 2), "seed {seed}: {how:?}");
        assert!(relay.is_alive(reader), "seed {seed}: {how:?}");
        let answer = relay[reader].sub(sub);
        assert!(answer.said_end.is_none() || clean, "seed {seed}: {how:?}");
        assert_eq!(answer.end.is_some_and(|end| end.is_fin()), clean, "seed {seed}: {how:?}");
        match how {
            // Visible only if its stream was opened in time.
            Break::ResetGroup => {
                let group = relay[reader].group(sub, 2);
                assert!(group.iter().all(|group| group.end.unwrap().code() == Some(code)), "seed {seed}");
                show.run(&mut relay, 1, MS * 3_000, |_| vec![(0, vec![1])]);
                assert!(relay[reader].has(sub, 3), "seed {seed}: the track continues");
            }
            Break::ResetSubscribe => assert_eq!(answer.end.unwrap().code(), Some(code), "seed {seed}"),
            _ => {}
        }
        relay.disperse();
    });
}

#[test]
fn clean_end_is_sent_after_all_groups_and_before_the_fin() {
    seeds(48, |seed, rng| {
        let mut relay = Relay::of(version_of(seed), seed);
        // The publisher's link is lossy: its END overtakes its last groups.
        let theirs = PairOptions { loss: 0.3, ..guest() };
        let publisher = relay.publisher_on(host(), theirs, "live/cam", &["video"]);
        relay.version = version_of(seed / 4);
        let reader = relay.connect(host(), guest());
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, publisher, "video");
        for sequence in 0..5 {
            let body = frames(rng, 3_000);
            show.air(&mut relay, sequence, body);
        }
        show.end(&mut relay, "video");
        relay.until("end", |relay| relay[reader].sub(sub).end.is_some());
        let answer = relay[reader].sub(sub);
        assert!(answer.end.unwrap().is_fin(), "seed {seed}: {answer:?}");
        let old = relay[reader].version.has_subscribe_ok();
        let last = if old { accepted() } else { SubscribeResponse::End { group: 5 } };
        assert_eq!(answer.responses.last(), Some(&last), "seed {seed}");
        relay.run(MS * 50);
        let first = relay[reader].groups_of(sub).filter_map(|group| group.sequence).min().unwrap();
        let group = match relay[reader].sub(sub).responses.first() {
            Some(SubscribeResponse::Start { group }) => *group,
            Some(SubscribeResponse::Ok(_)) => first,
            other => panic!("seed {seed}: {other:?} first"),
        };
        assert!(group <= first, "seed {seed}: START {group}, then group {first}");
        show.check_all(&relay, reader, sub, group);
        let answer = relay[reader].sub(sub);
        let said = if old { answer.end.map(Ended::at) } else { answer.said_end }.unwrap();
        for group in relay[reader].groups_of(sub) {
            assert!(group.end.unwrap().at() <= said, "seed {seed}: END before group {:?}", group.sequence);
        }
        relay.disperse();
    });
}

#[test]
fn track_that_ends_without_a_group_sends_end_zero() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let show = Show::new(&mut relay, publisher, "video");
        show.end(&mut relay, "video");
        relay.until("end", |relay| relay[reader].sub(sub).end.is_some());
        let old = version.has_subscribe_ok();
        let said = if old { accepted() } else { SubscribeResponse::End { group: 0 } };
        assert_eq!(relay[reader].sub(sub).responses, [said]);
        assert!(relay[reader].sub(sub).end.unwrap().is_fin());
        relay.disperse();
    });
}

#[test]
fn groups_dropped_by_the_publisher_are_reported_to_readers() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, publisher, "video");
        show.run(&mut relay, 1, MS * 30, |_| vec![(0, vec![1])]);
        let (stream, _) = relay[publisher].serving("video").unwrap();
        relay[publisher].respond(stream, SubscribeResponse::Drop { start: 1, end: 4, code: 0x34 });
        relay.run(MS * 30);
        show.air(&mut relay, 5, vec![(0, vec![1])]);
        show.end(&mut relay, "video");
        relay.until("end", |relay| relay[reader].sub(sub).end.is_some());
        let said = [
            SubscribeResponse::Start { group: 0 },
            SubscribeResponse::Drop { start: 1, end: 4, code: 0x34 },
            SubscribeResponse::End { group: 6 },
        ];
        let old = [accepted(), said[1]];
        let expected: &[_] = if version.has_subscribe_ok() { &old } else { &said };
        assert_eq!(relay[reader].sub(sub).responses, expected);
        relay.disperse();
    });
}

#[test]
fn leaving_reader_is_answered_and_ends_the_upstream() {
    versions(|version| {
        for reset in [false, true] {
            let mut relay = Relay::of(version, 1);
            let publisher = relay.publisher("live/cam", &["video"]);
            let reader = relay.subscriber();
            let sub = relay[reader].subscribe("live/cam", "video", patient());
            let mut show = Show::new(&mut relay, publisher, "video");
            let bytes = relay[publisher].group_bytes(show.subscribe, 0, &[(0, vec![1; 10])]);
            let stream = relay[publisher].open_uni(bytes);
            relay.run(MS * 30);
            assert_eq!(relay[reader].group(sub, 0).len(), 1);
            if reset {
                relay[reader].reset(sub, StreamCode::CANCEL);
            } else {
                relay[reader].finish(sub);
            }
            relay.run(MS * 60);
            let end = relay[reader].sub(sub).end.expect("an answer");
            assert_eq!(end.is_fin(), !reset);
            assert!(
                relay[reader].group(sub, 0)[0].end.is_some_and(|end| !end.is_fin()),
                "an open group is reset"
            );
            assert!(relay[publisher].serving("video").is_none(), "the relay unsubscribed");
            // Data that still arrives for it is refused, without further effect.
            relay[publisher].write(stream, vec![0, 1, 1, 1]);
            show.run(&mut relay, 1, MS * 60, |_| vec![(0, vec![1])]);
            assert!(relay.is_alive(publisher));
            assert!(relay[publisher].stopped.contains_key(&stream));
            relay.disperse();
        }
    });
}
