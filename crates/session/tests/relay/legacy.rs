//! moq-lite-01 and 02: the version is negotiated in the session, and many features are missing.

use relay_model::{
    Prefs, SessionCode, StreamCode, limits,
    transport::{Dir, Transport, TransportClosed},
};
use relay_wire::{
    lite::{
        Announce, BidiType, SubscribeOk, SubscribeResponse, Version,
        legacy::{ClientSetup, SETUP_BYTES, ServerSetup, SessionInfo, Value, code},
    },
    varint,
};

use crate::{
    harness::{MS, Relay, guest, host},
    peer::{Frames, encoded, path},
    show::{Show, patient},
};

fn each(test: impl Fn(Version)) {
    Version::LEGACY.iter().for_each(|version| test(*version));
}

fn body(n: u64) -> Frames {
    vec![(90, vec![n as u8; 10]), (40, vec![7; 3_000]), (91, vec![])]
}

/// CLIENT_SETUP of a client that offers these versions.
fn offer(versions: &[u64]) -> Vec<u8> {
    let parameters = vec![(2, Value::Number(42_069)), (7, Value::Bytes(b"somebody".to_vec()))];
    let mut out = Vec::new();
    ClientSetup { versions: versions.to_vec(), parameters }.encode(&mut out);
    out
}

fn closed(relay: &Relay, at: usize) -> Option<SessionCode> {
    match &relay[at].closed {
        Some(TransportClosed::ByPeer(code, _)) => Some(*code),
        _ => None,
    }
}

#[test]
fn first_supported_version_of_the_client_is_chosen() {
    let (v01, v02) = (code(Version::V01).unwrap(), code(Version::V02).unwrap());
    for (offered, chosen) in [
        (&[v02, v01, 0xff00_000e][..], Version::V02),
        (&[v01, v02], Version::V01),
        (&[0xff00_000e, 0xff0d_ad03, v01], Version::V01),
    ] {
        let mut relay = Relay::of(Version::V02, 1);
        let at = relay.link(host(), guest());
        let stream = relay[at].open_bi(offer(offered));
        relay.run(MS * 50);
        let mut answer = Vec::new();
        ServerSetup { version: chosen }.encode(&mut answer);
        assert_eq!(relay[at].raw[&stream], (answer, None), "and the stream stays open");
        assert_eq!(relay.seats[at].session.as_ref().unwrap().version(), Some(chosen.into()));
        assert_eq!(relay.seats[at].authorizes, [""]);
        assert!(relay.is_alive(at));
        relay.disperse();
    }
}

#[test]
fn client_without_a_common_version_is_closed() {
    for offered in [&[][..], &[0xff00_000e, 0xff0d_ad03]] {
        let mut relay = Relay::of(Version::V02, 1);
        let at = relay.link(host(), guest());
        relay[at].open_bi(offer(offered));
        relay.until("the end", |relay| relay[at].closed.is_some());
        assert_eq!(closed(&relay, at), Some(SessionCode::VERSION));
        assert_eq!(relay.seats[at].authorizes, [""; 0], "no authorisation was requested");
        assert_eq!(relay.meter.refused_version, 1);
        relay.disperse();
    }
}

#[test]
fn invalid_setup_ends_the_session() {
    let oversize = [&[0x20][..], &(SETUP_BYTES as u16 + 1).to_be_bytes()].concat();
    let leftover = vec![0x20, 0, 3, 0, 0, 9];
    for bytes in [oversize, leftover] {
        let mut relay = Relay::of(Version::V02, 1);
        let at = relay.link(host(), guest());
        relay[at].open_bi(bytes);
        relay.until("the end", |relay| relay[at].closed.is_some());
        assert_eq!(closed(&relay, at), Some(SessionCode::PROTOCOL_VIOLATION));
        relay.disperse();
    }
    // The message is truncated.
    let mut relay = Relay::of(Version::V02, 1);
    let at = relay.link(host(), guest());
    let stream = relay[at].open_bi(offer(&[1])[..5].to_vec());
    relay[at].finish(stream);
    relay.until("the end", |relay| relay[at].closed.is_some());
    assert_eq!(closed(&relay, at), Some(SessionCode::PROTOCOL_VIOLATION));
    relay.disperse();
}

#[test]
fn client_that_offers_no_version_times_out() {
    for has_url in [false, true] {
        for said in [None, Some(offer(&[1])[..4].to_vec()), Some(vec![BidiType::Announce.id() as u8])] {
            let mut relay = Relay::of(Version::V02, 1);
            relay.has_url = has_url;
            let at = relay.link(host(), guest());
            if let Some(bytes) = said {
                relay[at].open_bi(bytes);
            }
            relay.run(limits::SETUP_TIMEOUT - MS * 100);
            assert!(relay.is_alive(at));
            relay.run(MS * 200);
            assert_eq!(closed(&relay, at), Some(SessionCode::TIMEOUT));
            relay.disperse();
        }
    }
}

#[test]
fn other_streams_wait_for_the_version() {
    each(|version| {
        let mut relay = Relay::of(version, 1);
        relay.has_url = true;
        let first = relay.publisher("live/cam", &[]);
        let at = relay.link(host(), guest());
        let early = relay[at].watch("");
        let unknown = relay[at].open_bi(vec![0x33]);
        relay.run(MS * 500);
        assert!(relay[at].asked.is_empty(), "no request is sent before the version is known");
        assert!(relay[at].watches[&early].init.is_none());
        assert_eq!(relay[at].raw[&unknown].1.unwrap().code(), Some(StreamCode::CANCEL));
        relay[at].hello();
        relay.run(MS * 100);
        let init = relay[at].watches[&early].init.as_ref().unwrap();
        assert_eq!(init.suffixes, [path("live/cam")]);
        assert!(!relay[at].asked.is_empty());
        assert!(relay.is_alive(first) && relay.is_alive(at));
        // The exchange happens only once.
        let second = relay[at].open_bi(offer(&[code(version).unwrap()]));
        relay.run(MS * 100);
        assert_eq!(relay[at].raw[&second].1.unwrap().code(), Some(StreamCode::CANCEL));
        assert!(relay.is_alive(at));
        relay.disperse();
    });
}

#[test]
fn the_end_of_its_first_stream_is_the_end_of_the_session() {
    each(|version| {
        for by_reset in [false, true] {
            let mut relay = Relay::of(version, 1);
            let at = relay.subscriber();
            let stream = relay[at].hello.unwrap();
            relay[at].write(stream, encoded(version, &SessionInfo { bitrate: 1_000_000 }));
            // A peer that stops reading it has not left.
            relay[at].t().stop(stream, StreamCode::INTERNAL);
            relay.run(MS * 100);
            assert!(relay.is_alive(at));
            match by_reset {
                true => relay[at].reset(stream, StreamCode::CANCEL),
                false => relay[at].finish(stream),
            }
            relay.until("the end", |relay| relay[at].closed.is_some());
            assert_eq!(closed(&relay, at), Some(SessionCode::NONE));
            relay.disperse();
        }
    });
}

#[test]
fn live_paths_are_listed_once_and_then_announced_on_change() {
    each(|version| {
        let mut relay = Relay::of(Version::V06, 1);
        let publishers = [0; 2].map(|_| relay.subscriber());
        relay[publishers[0]].publish("live/a", &[], &[]);
        relay[publishers[0]].publish("live/b", &[], &[]);
        relay[publishers[1]].publish("other", &[], &[]);
        relay.run(MS * 50);
        relay.version = version;
        let watcher = relay.subscriber();
        let watch = relay[watcher].watch("live");
        relay.run(MS * 50);
        let heard = &relay[watcher].watches[&watch];
        assert_eq!(heard.init.as_ref().unwrap().suffixes, [path("a"), path("b")]);
        assert!(heard.heard.is_empty());

        // From another publisher: it ends before it is announced again.
        relay[publishers[1]].publish("live/a", &[], &[]);
        relay[publishers[1]].publish("live/c", &[], &[]);
        relay.run(MS * 50);
        relay[publishers[0]].withdraw("live/b");
        relay.run(MS * 50);
        let [a, b, c] = ["a", "b", "c"].map(path);
        let active = |suffix: &relay_model::Path| Announce::Active {
            suffix: suffix.clone(),
            hops: [].into(),
            cost: relay_model::Cost::UNKNOWN,
        };
        let ended = |suffix: &relay_model::Path| Announce::Ended { suffix: suffix.clone() };
        let heard = &relay[watcher].watches[&watch];
        assert_eq!(heard.heard, [ended(&a), active(&a), active(&c), ended(&b)]);
        assert_eq!(heard.live.keys().cloned().collect::<Vec<_>>(), [a, c]);
        relay.disperse();
    });
}

#[test]
fn a_list_that_does_not_fit_goes_on_in_announces() {
    let mut relay = Relay::of(Version::V06, 1);
    let publishers = [0; 3].map(|_| relay.subscriber());
    let long = "x".repeat(60);
    for (at, publisher) in publishers.into_iter().enumerate() {
        for n in 0..300 {
            relay[publisher].publish(&format!("{long}/{at}/{n}"), &[], &[]);
        }
    }
    relay.run(MS * 3_000);
    relay.version = Version::V02;
    let watcher = relay.subscriber();
    let watch = relay[watcher].watch("");
    relay.run(MS * 1_000);
    let heard = &relay[watcher].watches[&watch];
    assert_eq!(heard.live.len(), 900);
    let listed = heard.init.as_ref().unwrap().suffixes.len();
    assert!(listed > 100 && listed < 900, "{listed}");
    assert_eq!(heard.heard.len(), 900 - listed);
    relay.disperse();
}

#[test]
fn initial_list_of_a_publisher_is_routed() {
    each(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.link(host(), guest());
        for name in ["a", "b"] {
            relay[publisher].publish(name, &["video"], &[]);
        }
        relay.let_in(publisher);
        relay.version = Version::V06;
        let watcher = relay.subscriber();
        let watch = relay[watcher].watch("");
        relay.run(MS * 100);
        let told = |relay: &Relay| relay[watcher].watches[&watch].live.clone();
        assert_eq!(told(&relay).keys().cloned().collect::<Vec<_>>(), ["a", "b"].map(path));
        // The original publisher is unknown: a stamp replaces its hop, so that two of them differ.
        let stamp = relay_model::Hop(9_000 + publisher as u64);
        assert_eq!(told(&relay)[&path("a")].to_vec(), [stamp, relay_model::Hop::ANONYMOUS]);
        relay[publisher].withdraw("a");
        relay.run(MS * 100);
        assert_eq!(told(&relay).keys().cloned().collect::<Vec<_>>(), [path("b")]);
        relay.disperse();
    });
}

#[test]
fn a_list_of_more_than_may_be_announced_ends_the_session() {
    let mut relay = Relay::of(Version::V02, 1);
    let at = relay.link(host(), guest());
    relay[at].answers = false;
    relay.let_in(at);
    let stream = relay[at].asked[0].stream;
    let suffixes = (0..relay_wire::lite::AnnounceInit::MOST + 1).map(|n| path(&n.to_string())).collect();
    relay[at].write(stream, encoded(Version::V02, &relay_wire::lite::AnnounceInit { suffixes }));
    relay.until("the end", |relay| relay[at].closed.is_some());
    assert_eq!(closed(&relay, at), Some(SessionCode::PROTOCOL_VIOLATION));
    relay.disperse();
}

#[test]
fn tracks_go_from_and_to_every_version() {
    for publishing in Version::every() {
        let mut relay = Relay::of(publishing, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let readers: Vec<_> = Version::every()
            .filter(|reading| publishing.has_legacy_setup() || reading.has_legacy_setup())
            .map(|version| {
                relay.version = version;
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
            let answer = relay[reader].sub(sub);
            assert!(answer.end.unwrap().is_fin());
            match relay[reader].version {
                Version::V01 => {
                    let ok = SubscribeOk { priority: 127, ..SubscribeOk::default() };
                    assert_eq!(answer.responses, [SubscribeResponse::Ok(ok)]);
                }
                Version::V02 => {
                    assert_eq!(answer.responses, [SubscribeResponse::Ok(SubscribeOk::default())]);
                }
                version if !version.has_subscribe_ok() => {
                    assert_eq!(answer.responses.last(), Some(&SubscribeResponse::End { group: 4 }));
                }
                _ => {}
            }
        }
        let updates = relay[publisher].asked.iter().map(|asked| asked.updates.len()).sum::<usize>();
        assert!(!publishing.has_legacy_setup() || updates == 0, "these versions have no update message");
        relay.disperse();
    }
}

#[test]
fn missing_track_is_refused_and_drops_are_not_reported() {
    each(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let missing = relay[reader].subscribe("nobody", "video", Prefs::default());
        let sub = relay[reader].subscribe("live/cam", "video", Prefs::default());
        let show = Show::new(&mut relay, publisher, "video");
        relay.run(MS * 50);
        assert_eq!(relay[reader].sub(missing).end.unwrap().code(), Some(StreamCode::UNROUTABLE));
        // A group that is cut short.
        let bytes = relay[publisher].group_bytes(show.subscribe, 0, &body(0));
        let broken = relay[publisher].open_uni(bytes);
        relay.run(MS * 50);
        relay[publisher].reset(broken, StreamCode(71));
        relay.run(MS * 50);
        assert_eq!(relay[reader].group(sub, 0)[0].end.unwrap().code(), Some(StreamCode(71)));
        assert_eq!(relay[reader].sub(sub).responses.len(), 1, "the acceptance and nothing else");
        relay.disperse();
    });
}

#[test]
fn requests_unknown_to_the_version_are_refused() {
    each(|version| {
        let mut relay = Relay::of(version, 1);
        let at = relay.subscriber();
        for kind in [0, 3, 4, 5, 6] {
            let mut bytes = Vec::new();
            varint::put(kind, &mut bytes);
            let stream = relay[at].open_bi(bytes);
            relay.run(MS * 50);
            assert_eq!(relay[at].raw[&stream].1.unwrap().code(), Some(StreamCode::CANCEL), "{kind}");
        }
        let stream = relay[at].t().open(Dir::Uni, 0).unwrap();
        relay[at].write(stream, vec![1, 1, 0]);
        relay.run(MS * 50);
        assert!(relay[at].stopped.contains_key(&stream), "there is no SETUP stream");
        relay.with(at, |session, t, cx| session.go_away(t, cx));
        relay.run(MS * 50);
        assert!(relay.is_alive(at), "there is no GOAWAY either");
        relay.disperse();
    });
}

#[test]
fn bare_priority_update_is_applied() {
    each(|version| {
        let mut relay = Relay::of(version, 1);
        relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", Prefs::default());
        relay.run(MS * 50);
        relay[reader].write(sub, vec![3]);
        relay.run(MS * 50);
        let updates = relay.asks.iter().filter_map(|(at, ask)| match ask {
            relay_model::Ask::Update { prefs, .. } if *at == reader => Some(prefs.priority),
            _ => None,
        });
        assert_eq!(updates.collect::<Vec<_>>(), [3]);
        assert!(relay[reader].sub(sub).end.is_none());
        relay.disperse();
    });
}

#[test]
fn returning_publisher_resumes_its_track() {
    each(|version| {
        let mut relay = Relay::of(version, 1);
        relay.lingers = true;
        let publisher = relay.publisher("live/cam", &["video"]);
        relay.version = Version::V05;
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, publisher, "video");
        show.run(&mut relay, 2, MS * 20, body);
        relay.run(MS * 50);
        relay[publisher].close(SessionCode::NONE, "");
        relay.run(MS * 50);
        relay.version = version;
        let again = relay.publisher("live/cam", &["video"]);
        relay.resume("video", again);
        let subscribe = relay.upstream(again, "video");
        relay[again].send_group(subscribe, 2, &body(2));
        show.groups.insert(2, body(2));
        relay.run(MS * 100);
        show.check_all(&relay, reader, sub, 0);
        relay.disperse();
    });
}
