//! GOAWAY from either side.

use relay_model::{SessionCode, StreamCode};
use relay_session::pair::PairOptions;
use relay_wire::lite::{BidiType, Goaway, SubscribeResponse, Version};

use crate::{
    harness::{MS, Relay, guest, host},
    peer::{Ask, Ended},
    show::{Show, patient, versions},
};

fn goaways(relay: &Relay, at: usize) -> Vec<(Goaway, Option<Ended>)> {
    let asked = relay[at].asked.iter();
    asked
        .filter_map(|asked| match &asked.what {
            Ask::Goaway(goaway) => Some((goaway.clone(), asked.end)),
            _ => None,
        })
        .collect()
}

fn is_quiet(relay: &Relay, at: usize) -> bool {
    relay.seats[at].session.as_ref().unwrap().is_quiet()
}

#[test]
fn goaway_is_sent_once_in_versions_that_have_it() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, publisher, "video");
        for _ in 0..2 {
            for at in [publisher, reader] {
                relay.with(at, |session, t, cx| session.go_away(t, cx));
            }
            relay.run(MS * 50);
        }
        for at in [publisher, reader] {
            let told = goaways(&relay, at);
            assert_eq!(told.len(), usize::from(version.has_goaway()));
            for (goaway, end) in told {
                assert_eq!(goaway.uri, "");
                assert!(end.unwrap().is_fin());
            }
        }
        // The peer is served until it leaves.
        show.run(&mut relay, 2, MS * 30, |_| vec![(0, vec![1; 100])]);
        show.check_all(&relay, reader, sub, 0);
        relay.disperse();
    });
}

#[test]
fn peer_that_sent_goaway_is_last_choice_and_still_served() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, publisher, "video");
        for uri in ["", "https://elsewhere/"] {
            let bytes = relay[publisher].request(BidiType::Goaway.id(), &Goaway { uri: uri.to_owned() });
            let stream = relay[publisher].open_bi(bytes);
            relay[publisher].finish(stream);
            relay.run(MS * 50);
            assert_eq!(relay[publisher].raw[&stream].1.unwrap().is_fin(), version.has_goaway());
        }
        let draining =
            relay.asks.iter().filter(|(at, ask)| (*at, ask) == (publisher, &relay_model::Ask::Draining));
        assert_eq!(draining.count(), usize::from(version.has_goaway()), "reported once");
        show.run(&mut relay, 2, MS * 30, |_| vec![(0, vec![1; 100])]);
        show.check_all(&relay, reader, sub, 0);
        assert!(relay.is_alive(publisher));
        relay.disperse();
    });
}

#[test]
fn winding_down_finishes_open_groups_and_starts_none() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, publisher, "video");
        show.run(&mut relay, 1, MS * 30, |_| vec![(0, vec![1; 100])]);
        let body = vec![(1, vec![5; 1_000]), (2, vec![6; 1_000])];
        let bytes = relay[publisher].group_bytes(show.subscribe, 1, &body);
        let begun = relay[publisher].open_uni(bytes[..700].to_vec());
        show.groups.insert(1, body);
        relay.run(MS * 30);
        assert!(!is_quiet(&relay, reader));
        relay.with(reader, |session, t, cx| session.wind_down(t, cx));
        show.run(&mut relay, 2, MS * 30, |_| vec![(0, vec![1; 100])]);
        assert!(!is_quiet(&relay, reader));
        assert_eq!(relay[reader].group(sub, 1)[0].end, None);
        relay[publisher].write(begun, bytes[700..].to_vec());
        relay[publisher].finish(begun);
        relay.run(MS * 30);
        assert!(is_quiet(&relay, reader));
        assert!(relay[reader].has(sub, 1));
        assert_eq!(relay[reader].groups_of(sub).count(), 2);
        show.check_bytes(&relay, reader, sub);
        relay.disperse();
    });
}

#[test]
fn winding_down_refuses_new_requests() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        relay.with(reader, |session, t, cx| session.wind_down(t, cx));
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let info = version.has_tracks().then(|| relay[reader].ask_track("live/cam", "video"));
        let fetch = version.has_tracks().then(|| relay[reader].fetch("live/cam", "video", 0));
        relay.run(MS * 50);
        let ends = [
            Some(relay[reader].sub(sub).end),
            info.map(|info| relay[reader].track_answers[&info].end),
            fetch.map(|fetch| relay[reader].fetches[&fetch].end),
        ];
        for end in ends.into_iter().flatten() {
            assert_eq!(end.unwrap().code(), Some(StreamCode::GOING_AWAY));
        }
        assert!(relay[publisher].serving("video").is_none());
        assert!(relay.is_alive(reader));
        relay.disperse();
    });
}

#[test]
fn winding_down_drops_groups_waiting_for_a_stream() {
    for version in [Version::V06, Version::V05] {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        // Streams for two groups: the one of SETUP becomes free again.
        let reader = relay.connect(host(), PairOptions { uni_streams: 2, ..guest() });
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, publisher, "video");
        let bytes = relay[publisher].group_bytes(show.subscribe, 0, &[(0, vec![5; 1_000])]);
        relay[publisher].open_uni(bytes[..500].to_vec());
        relay.run(MS * 50);
        relay[reader].pair.b.hold_credit(true);
        show.groups.insert(0, vec![]);
        show.run(&mut relay, 2, MS * 30, |_| vec![(0, vec![1; 100])]);
        relay.with(reader, |session, t, cx| session.wind_down(t, cx));
        relay[reader].pair.b.hold_credit(false);
        relay.run(MS * 100);
        let begun: Vec<_> = relay[reader].groups_of(sub).filter_map(|group| group.sequence).collect();
        assert_eq!(begun, [0, 1]);
        let code = u64::from(StreamCode::GOING_AWAY.0);
        let named = SubscribeResponse::Drop { start: 2, end: 2, code };
        assert_eq!(relay[reader].sub(sub).responses.last(), Some(&named));
        relay[publisher].close(SessionCode::NONE, "");
        relay.disperse();
    }
}

#[test]
fn wound_down_publisher_finishes_its_group_and_starts_none() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, publisher, "video");
        show.run(&mut relay, 1, MS * 30, |_| vec![(0, vec![1; 100])]);
        let body = vec![(1, vec![5; 1_000])];
        let bytes = relay[publisher].group_bytes(show.subscribe, 1, &body);
        let begun = relay[publisher].open_uni(bytes[..700].to_vec());
        relay.run(MS * 30);
        relay.with(publisher, |session, t, cx| session.wind_down(t, cx));
        assert!(!is_quiet(&relay, publisher), "a group is in flight");
        relay[publisher].send_group(show.subscribe, 2, &vec![(2, vec![6; 100])]);
        relay[publisher].write(begun, bytes[700..].to_vec());
        relay[publisher].finish(begun);
        relay.run(MS * 60);
        assert!(is_quiet(&relay, publisher));
        assert!(relay[reader].has(sub, 1), "it was finished");
        assert!(relay[reader].group(sub, 2).is_empty(), "no further group was started");
        relay.disperse();
    });
}
