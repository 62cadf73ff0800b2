//! Order of requests to a publisher whose stream credit is scarce.

use std::time::Duration;

use relay_model::{Ask, Order, limits, transport::Dir};
use relay_session::pair::PairOptions;
use relay_wire::lite::Version;

use crate::{
    harness::{MS, Relay, guest, host},
    show::patient,
};

/// A publisher of `live/cam` that grants streams for `tracks` tracks, and no more.
fn publisher(relay: &mut Relay, names: &[&str], tracks: u64) -> usize {
    // One for the announce request, and a TRACK and a SUBSCRIBE for each.
    let theirs = PairOptions { bidi_streams: 1 + 2 * tracks, ..guest() };
    let at = relay.publisher_on(host(), theirs, "live/cam", names);
    relay[at].pair.b.hold_credit(true);
    at
}

#[test]
fn scarce_streams_are_shared_round_robin() {
    let mut relay = Relay::of(Version::V06, 1);
    let names: Vec<String> = (0..100).map(|n| format!("many-{n}")).chain(["video".to_owned()]).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let publisher = publisher(&mut relay, &all, 1);
    let (eager, modest) = (relay.subscriber(), relay.subscriber());
    for name in &all[..100] {
        relay[eager].subscribe("live/cam", name, patient());
    }
    relay.run(MS * 100);
    relay[modest].subscribe("live/cam", "video", patient());
    relay.run(MS * 50);
    assert!(relay[publisher].serving("video").is_none());
    // Streams for two more tracks: the second goes to the modest session.
    relay[publisher].pair.b.hold_credit(false);
    relay[publisher].pair.b.allow(Dir::Bi, 4);
    relay.run(MS * 50);
    assert!(relay[publisher].serving("video").is_some(), "blocked by a hundred requests of another session");
    relay.disperse();
}

/// A publisher of 50 tracks, which grants no streams, a session that requested all of them, and another session.
fn crowded() -> (Relay, usize, usize, usize) {
    let mut relay = Relay::of(Version::V06, 1);
    let names: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let publisher = publisher(&mut relay, &all, 1);
    let (eager, modest) = (relay.subscriber(), relay.subscriber());
    for name in &all {
        relay[eager].subscribe("live/cam", name, patient());
    }
    relay.run(MS * 100);
    (relay, publisher, eager, modest)
}

/// Checks that two streams suffice for the last track, which another session requested too.
fn check_last_is_served(mut relay: Relay, publisher: usize) {
    relay.run(MS * 50);
    relay[publisher].pair.b.hold_credit(false);
    relay[publisher].pair.b.allow(Dir::Bi, 4);
    relay.run(MS * 50);
    assert!(relay[publisher].serving("49").is_some());
    relay.disperse();
}

#[test]
fn request_waits_in_the_queue_of_every_requester() {
    let (mut relay, publisher, _, modest) = crowded();
    // The last track is requested by another session, too.
    relay[modest].subscribe("live/cam", "49", patient());
    let log = *relay.pulls.iter().find(|(_, pull)| pull.key.1.as_str() == "49").expect("a log").0;
    let asker = relay.seats[modest].id;
    relay.seats[publisher].orders.push_back(Order::Asked { log, asker });
    check_last_is_served(relay, publisher);
}

#[test]
fn repeated_request_takes_one_place_in_the_queue() {
    let (mut relay, publisher, eager, modest) = crowded();
    relay[modest].subscribe("live/cam", "49", patient());
    let log =
        |name: &str| *relay.pulls.iter().find(|(_, pull)| pull.key.1.as_str() == name).expect("a log").0;
    let (repeated, last) = (log("48"), log("49"));
    let [often, once] = [eager, modest].map(|at| relay.seats[at].id);
    // More often than requests may wait, which would leave no place for another session.
    for _ in 0..2 * limits::WAITING_REQUESTS {
        relay.seats[publisher].orders.push_back(Order::Asked { log: repeated, asker: often });
    }
    relay.seats[publisher].orders.push_back(Order::Asked { log: last, asker: once });
    check_last_is_served(relay, publisher);
}

#[test]
fn core_is_informed_of_blocked_and_unblocked_streams() {
    let mut relay = Relay::of(Version::V06, 1);
    let publisher = publisher(&mut relay, &["a", "b"], 1);
    let reader = relay.subscriber();
    let told = |relay: &Relay| -> Vec<bool> {
        let blocked = relay.asks.iter().filter_map(|(_, ask)| match ask {
            Ask::StreamsBlocked { blocked } => Some(*blocked),
            _ => None,
        });
        blocked.collect()
    };
    relay[reader].subscribe("live/cam", "a", patient());
    relay.run(MS * 50);
    assert!(told(&relay).is_empty());
    relay[reader].subscribe("live/cam", "b", patient());
    relay.run(MS * 50);
    assert_eq!(told(&relay), [true]);
    relay[publisher].pair.b.hold_credit(false);
    relay[publisher].pair.b.allow(Dir::Bi, 4);
    relay.run(MS * 50);
    assert_eq!(told(&relay), [true, false]);
    assert!(relay[publisher].serving("b").is_some());
    relay.disperse();
}

#[test]
fn unanswered_requests_of_one_session_leave_room_for_others() {
    let mut relay = Relay::of(Version::V06, 1);
    let publisher = relay.publisher("live/cam", &["video"]);
    relay[publisher].pair.b.allow(Dir::Bi, 4_000);
    // The publisher accepts requests and answers none.
    relay[publisher].answers = false;
    let (eager, modest) = (relay.subscriber(), relay.subscriber());
    for n in 0..limits::UNANSWERED_REQUESTS + 200 {
        relay[eager].ask_track("live/cam", &n.to_string());
    }
    relay.run(MS * 200);
    let tracks = |relay: &Relay| relay[publisher].asked.iter().filter(|asked| asked.is_track()).count();
    assert_eq!(tracks(&relay), limits::UNANSWERED_REQUESTS);
    relay[modest].ask_track("live/cam", "video");
    relay.run(MS * 50);
    assert_eq!(tracks(&relay), limits::UNANSWERED_REQUESTS + 1);
    relay.disperse();
}

/// A flood of requests for missing tracks in batches of 100, on a publisher that grants 100 streams. A track of
/// another session is requested once that request has arrived (5 ms), streams for its TRACK and its SUBSCRIBE
/// are free (a round trip each, at most), and the request has reached the publisher (5 ms).
#[test]
fn flood_of_missing_tracks_delays_no_other_session() {
    let mut relay = Relay::of(Version::V06, 1);
    // The flood is not throttled here: round-robin alone must suffice.
    relay.limits.requests = 100_000;
    let names: Vec<String> = (0..20).map(|n| format!("real-{n}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let publisher = relay.publisher("live/cam", &all);
    let flood = relay.subscriber();
    let (mut sent, mut worst) = (0, Duration::ZERO);
    for name in &all {
        let reader = relay.subscriber();
        let mut since = None;
        for round in 0..50 {
            for n in 0..100 {
                relay[flood].ask_track("live/cam", &format!("missing-{}", sent + n));
            }
            sent += 100;
            if round == 25 {
                relay[reader].subscribe("live/cam", name, patient());
                since = Some(relay.now);
            }
            relay.run(MS * 4);
            if let Some(at) = since.filter(|_| relay[publisher].serving(name).is_some()) {
                worst = worst.max(relay.now - at);
                since = None;
            }
        }
        assert_eq!(since, None, "{name} was not requested");
    }
    assert_eq!(sent, 100_000);
    assert!(worst <= MS * 40, "{worst:?}");
    assert!(relay.is_alive(publisher) && relay.is_alive(flood));
    relay.disperse();
}
