//! Announces that are not routed: over the session's limit, or with a refused name. The session and its other
//! announces continue.

use relay_model::{Ask, Scope, StreamCode, limits::SessionLimits};
use relay_session::Session;
use relay_wire::lite::Version;

use crate::{
    harness::{MS, Relay, cluster_peer, everything, guest, host, permit},
    peer::{Ended, path},
    show::{patient, versions},
};

const MOST: usize = 5;

fn limited(version: Version) -> Relay {
    let mut relay = Relay::of(version, 1);
    relay.limits = SessionLimits { announces: MOST, ..SessionLimits::default() };
    relay
}

/// Paths that core was asked to route and not asked to withdraw, in order.
fn routed(relay: &Relay, at: usize) -> Vec<String> {
    let mut routed: Vec<String> = Vec::new();
    for (_, ask) in relay.asks.iter().filter(|(from, _)| *from == at) {
        match ask {
            Ask::Announce { path, .. } => {
                routed.retain(|known| known != path.as_str());
                routed.push(path.as_str().to_owned());
            }
            Ask::Unannounce { path } => routed.retain(|known| known != path.as_str()),
            _ => {}
        }
    }
    routed
}

fn session(relay: &Relay, at: usize) -> &Session {
    relay.seats[at].session.as_ref().expect("a live session")
}

#[test]
fn oldest_surplus_announce_is_routed_when_one_ends() {
    versions(|version| {
        let mut relay = limited(version);
        let at = relay.subscriber();
        for n in 0..MOST + 3 {
            relay[at].publish(&n.to_string(), &[], &[]);
            relay.run(MS * 5);
        }
        relay.run(MS * 50);
        assert_eq!(routed(&relay, at), ["0", "1", "2", "3", "4"], "{version:?}");
        assert_eq!((session(&relay, at).surplus(), session(&relay, at).unrouted()), (3, 3));
        assert_eq!(relay.meter.announces_limited, 3);
        relay[at].withdraw("2");
        relay.run(MS * 50);
        assert_eq!(routed(&relay, at), ["0", "1", "3", "4", "5"], "{version:?}");
        // A waiting announce may end, too.
        relay[at].withdraw("6");
        relay.run(MS * 50);
        relay[at].withdraw("0");
        relay.run(MS * 50);
        assert_eq!(routed(&relay, at), ["1", "3", "4", "5", "7"], "{version:?}");
        assert_eq!(session(&relay, at).surplus(), 0);
        assert!(relay.is_alive(at));
        relay.disperse();
    });
}

#[test]
fn surplus_beyond_the_stored_is_only_counted() {
    versions(|version| {
        let mut relay = limited(version);
        let at = relay.subscriber();
        let count = 4 * MOST;
        for n in 0..count {
            relay[at].publish(&format!("{n:02}"), &[], &[]);
        }
        relay.run(MS * 100);
        assert_eq!(routed(&relay, at).len(), MOST, "{version:?}");
        let seen = session(&relay, at);
        assert_eq!((seen.surplus(), seen.unrouted()), (MOST, (count - MOST) as u64), "{version:?}");
        // All end, including those not stored.
        for n in 0..count {
            relay[at].withdraw(&format!("{n:02}"));
        }
        relay.run(MS * 100);
        assert!(routed(&relay, at).is_empty(), "{version:?}: {:?}", routed(&relay, at));
        assert_eq!((session(&relay, at).surplus(), session(&relay, at).publishes()), (0, 0));
        relay[at].publish("again", &[], &[]);
        relay.run(MS * 50);
        assert_eq!(routed(&relay, at), ["again"], "{version:?}");
        assert!(relay.is_alive(at));
        relay.disperse();
    });
}

#[test]
fn wider_permit_routes_no_more_than_the_limit() {
    let mut relay = limited(Version::V05);
    let at = relay.link(host(), guest());
    relay.seats[at].permit = permit("", Scope::of([path("a")]), Scope::everything());
    relay.let_in(at);
    for n in 0..MOST + 1 {
        relay[at].publish(&format!("a/{n}"), &[], &[]);
    }
    relay.run(MS * 50);
    assert_eq!((routed(&relay, at).len(), session(&relay, at).surplus()), (MOST, 1));
    relay.revise(at, &Scope::everything(), &Scope::everything());
    relay[at].publish("b/1", &[], &[]);
    relay.run(MS * 50);
    assert_eq!((routed(&relay, at).len(), session(&relay, at).surplus()), (MOST, 2));
    assert!(relay.is_alive(at));
    relay.disperse();
}

#[test]
fn announces_with_refused_names_are_not_routed_and_the_rest_is() {
    let bad = [
        "line\nbreak",
        "esc\u{1b}[31m",
        "nul\0",
        "del\u{7f}",
        "c1\u{9b}",
        "a/../b",
        "a/./b",
        "bidi\u{202e}x",
    ];
    versions(|version| {
        for is_peer in [false, true] {
            let mut relay = Relay::of(version, 1);
            let at = relay.link(host(), guest());
            relay.seats[at].permit = if is_peer { cluster_peer() } else { everything() };
            relay.let_in(at);
            for (n, name) in bad.iter().enumerate() {
                relay[at].publish(&format!("bad/{name}"), &[], &[]);
                relay[at].publish(&format!("good/{n}"), &[], &[]);
            }
            relay.run(MS * 100);
            let expected: Vec<String> = (0..bad.len()).map(|n| format!("good/{n}")).collect();
            let mut found = routed(&relay, at);
            found.sort();
            assert_eq!(found, expected, "{version:?}");
            assert_eq!(relay.meter.announce_names_refused, bad.len() as u64);
            assert_eq!(session(&relay, at).unrouted(), bad.len() as u64);
            // They end like any other, and announce ids stay aligned.
            relay[at].withdraw("bad/nul\0");
            relay[at].withdraw("good/3");
            relay.run(MS * 50);
            assert_eq!(routed(&relay, at).len(), bad.len() - 1, "{version:?}");
            assert!(relay.is_alive(at), "{version:?}");
            relay.disperse();
        }
    });
}

#[test]
fn requests_with_refused_track_names_end_alone() {
    let mut relay = Relay::of(Version::V06, 1);
    relay.publisher("live/cam", &["video"]);
    let at = relay.subscriber();
    let video = relay[at].subscribe("live/cam", "video", patient());
    relay.run(MS * 50);
    let asks = relay.asks.len();
    for name in ["a\nb", "..", "x/../y", "\u{1b}[2J", "a\u{2028}b"] {
        let sub = relay[at].subscribe("live/cam", name, patient());
        let info = relay[at].ask_track("live/cam", name);
        let fetch = relay[at].fetch("live/cam", name, 0);
        relay.run(MS * 50);
        let not_found = Some(StreamCode::NOT_FOUND);
        assert_eq!(relay[at].sub(sub).end.and_then(Ended::code), not_found, "{name:?}");
        assert_eq!(relay[at].track_answers[&info].end.and_then(Ended::code), not_found, "{name:?}");
        assert_eq!(relay[at].fetches[&fetch].end.and_then(Ended::code), not_found, "{name:?}");
    }
    assert_eq!((relay.asks.len(), relay.meter.track_names_refused), (asks, 15));
    assert_eq!(relay[at].sub(video).end, None);
    assert!(relay.is_alive(at));
    relay.disperse();
}
