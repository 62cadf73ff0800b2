//! Hostile and broken peers.

use relay_model::{SessionCode, StreamCode, TrackInfo, transport::TransportClosed};
use relay_wire::lite::{Setup, UniType, Version};

use crate::{
    harness::{MS, Relay, guest, host},
    peer::{encoded, frame_bytes},
    show::{Show, bytes, patient, seeds, version_of, versions},
};

#[test]
fn duplicate_parameter_closes_with_reason_duplicate() {
    for version in [Version::V06, Version::V05] {
        let mut relay = Relay::of(version, 1);
        let at = relay.link(host(), guest());
        relay[at].open_uni(vec![1, 7, 2, 4, 1, 1, 4, 1, 1]);
        relay.run(MS * 50);
        let closed = TransportClosed::ByPeer(SessionCode::PROTOCOL_VIOLATION, "duplicate".to_owned());
        assert_eq!(relay[at].closed, Some(closed));
    }
}

#[test]
fn second_setup_stream_closes_versions_with_setup() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let at = relay.subscriber();
        let setup = relay[at].request(UniType::Setup.id(), &Setup::default());
        let stream = relay[at].open_uni(setup);
        relay.run(MS * 50);
        if version.has_setup() {
            let Some(TransportClosed::ByPeer(SessionCode::PROTOCOL_VIOLATION, _)) = relay[at].closed else {
                panic!("{:?}", relay[at].closed)
            };
        } else {
            assert!(relay.is_alive(at));
            assert!(relay[at].stopped.contains_key(&stream));
        }
        relay.disperse();
    });
}

#[test]
fn group_before_setup_is_refused() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let at = relay.link(host(), guest());
        relay.seats[at].admit = false;
        let group = relay[at].group_bytes(0, 0, &[(0, vec![1; 5_000])]);
        let group = relay[at].open_uni(group);
        relay.run(MS * 100);
        assert!(relay[at].closed.is_none() && relay.store.budget().used() == 0);
        relay[at].publish("live/cam", &["video"], &[]);
        relay.seats[at].admit = true;
        if version.has_setup() {
            relay[at].setup();
            relay.run(MS * 50);
        } else {
            let permit = relay.seats[at].permit.clone();
            relay.with(at, |session, t, cx| session.authorized(t, cx, permit));
            relay.run(MS * 50);
        }
        assert_eq!(relay[at].stopped.get(&group), Some(&StreamCode::CANCEL));
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, at, "video");
        show.run(&mut relay, 2, MS * 30, |_| vec![(0, vec![1; 100])]);
        show.check_all(&relay, reader, sub, 0);
        relay.disperse();
    });
}

#[test]
fn group_stream_without_a_full_header_is_ignored() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, publisher, "video");
        relay.run(MS * 100);
        let before = relay[publisher].pair.a.live_streams();
        let header = relay[publisher].group_bytes(show.subscribe, 7, &[]);
        for cut in 0..header.len() {
            for code in [None, Some(StreamCode(77))] {
                let stream = relay[publisher].open_uni(header[..cut].to_vec());
                relay.run(MS * 10);
                match code {
                    None => relay[publisher].finish(stream),
                    Some(code) => relay[publisher].reset(stream, code),
                }
                relay.run(MS * 10);
            }
        }
        relay.run(MS * 50);
        assert_eq!(relay[reader].groups_of(sub).count(), 0);
        assert_eq!(relay[publisher].pair.a.live_streams(), before);
        show.run(&mut relay, 2, MS * 30, |_| vec![(0, vec![1; 100])]);
        show.check_all(&relay, reader, sub, 0);
        relay.disperse();
    });
}

#[test]
fn unknown_code_is_forwarded() {
    versions(|version| {
        for code in [StreamCode(0x2a), StreamCode(u32::MAX)] {
            let mut relay = Relay::of(version, 1);
            let publisher = relay.publisher("live/cam", &["video"]);
            let reader = relay.subscriber();
            let sub = relay[reader].subscribe("live/cam", "video", patient());
            let show = Show::new(&mut relay, publisher, "video");
            let bytes = relay[publisher].group_bytes(show.subscribe, 0, &[(0, vec![1; 100])]);
            let stream = relay[publisher].open_uni(bytes);
            relay.run(MS * 30);
            relay[publisher].reset(stream, code);
            relay.run(MS * 30);
            assert_eq!(relay[reader].group(sub, 0)[0].end.unwrap().code(), Some(code));
            let (request, _) = relay[publisher].serving("video").unwrap();
            relay[publisher].reset(request, code);
            relay.run(MS * 30);
            assert_eq!(relay[reader].sub(sub).end.unwrap().code(), Some(code));
            assert!(relay.is_alive(publisher) && relay.is_alive(reader));
            relay.disperse();
        }
    });
}

#[test]
fn stop_sending_on_relay_requests_has_no_effect() {
    use relay_model::transport::Transport;
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, publisher, "video");
        // Some peers send STOP_SENDING for a request they have read: the request stays in force.
        let (request, _) = relay[publisher].serving("video").unwrap();
        relay[publisher].t().stop(request, StreamCode::INTERNAL);
        let announces = relay[publisher].asked[0].stream;
        relay[publisher].t().stop(announces, StreamCode::INTERNAL);
        show.run(&mut relay, 2, MS * 30, |_| vec![(0, vec![1; 100])]);
        show.check_all(&relay, reader, sub, 0);
        relay[publisher].publish("live/two", &[], &[]);
        relay.run(MS * 30);
        assert!(relay.asks.iter().any(
            |(_, ask)| matches!(ask, relay_model::Ask::Announce { path, .. } if path.as_str() == "live/two")
        ));
        relay.disperse();
    });
}

#[test]
fn pieces_of_different_groups_are_never_joined() {
    seeds(120, |seed, rng| {
        let version = version_of(seed);
        let mut relay = Relay::of(version, seed);
        let publisher = relay.publisher("live/cam", &["video"]);
        let readers: Vec<_> = (0..2)
            .map(|n| {
                relay.version = version_of(seed / 4 + n);
                let reader = relay.subscriber();
                (reader, relay[reader].subscribe("live/cam", "video", patient()))
            })
            .collect();
        let mut show = Show::new(&mut relay, publisher, "video");
        let frames: Vec<_> = (0..4)
            .map(|at| {
                let len = 20 + rng.below(900) as usize;
                (at, bytes(rng, len))
            })
            .collect();
        show.groups.insert(0, frames.clone());
        for _ in 0..1 + rng.below(4) {
            let first = if version.has_frame_ranges() { rng.below(4) } else { 0 };
            let rest = &frames[first as usize..];
            let whole = relay[publisher].group_bytes_from(show.subscribe, 0, first, rest);
            // In the middle of a frame, or at the end of the last one.
            let cut = if rng.chance(0.3) {
                whole.len()
            } else {
                let before = rng.below(rest.len() as u64) as usize;
                let tail = frame_bytes(version, &rest[before..]).len();
                whole.len() - tail + 10 + rng.below(8) as usize
            };
            let stream = relay[publisher].open_uni(whole[..cut].to_vec());
            relay.run(MS * rng.below(12) as u32);
            match rng.below(3) {
                0 => relay[publisher].finish(stream),
                1 => relay[publisher].reset(stream, StreamCode(70)),
                _ => {}
            }
            relay.run(MS * rng.below(12) as u32);
        }
        relay.run(MS * 30);
        relay.version = Version::V06;
        let late = relay.subscriber();
        let sub = relay[late].subscribe("live/cam", "video", patient());
        let fetch = relay[late].fetch("live/cam", "video", 0);
        relay.run(MS * 50);
        for (reader, sub) in readers.into_iter().chain([(late, sub)]) {
            if relay[reader].groups_of(sub).count() > 0 {
                show.check_bytes(&relay, reader, sub);
            }
        }
        let fetched = &relay[late].fetches[&fetch];
        if fetched.is_complete() {
            let payloads =
                |frames: &[(i64, Vec<u8>)]| frames.iter().map(|frame| frame.1.clone()).collect::<Vec<_>>();
            assert_eq!(payloads(&fetched.frames), payloads(&frames), "seed {seed}");
        }
        relay.disperse();
    });
}

#[test]
fn setup_may_come_in_pieces_and_after_everything_else() {
    for version in [Version::V06, Version::V05] {
        let mut relay = Relay::of(version, 1);
        relay.publisher("live/cam", &["video"]);
        let at = relay.link(host(), guest());
        let watch = relay[at].watch("");
        let info = relay[at].ask_track("live/cam", "video");
        relay.run(MS * 50);
        let mut setup = vec![UniType::Setup.id() as u8];
        setup.extend(encoded(version, &Setup { path: Some("/".to_owned()), ..Setup::default() }));
        let stream = relay[at].open_uni(vec![]);
        for byte in setup {
            relay[at].write(stream, vec![byte]);
            relay.run(MS * 10);
        }
        relay.run(MS * 50);
        assert_eq!(relay[at].watches[&watch].live.len(), 1);
        assert_eq!(relay[at].track_answers[&info].info, Some(TrackInfo::default()));
        relay.disperse();
    }
}
