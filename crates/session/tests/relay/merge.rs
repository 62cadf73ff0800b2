//! Merge of two logs of a track without effect on readers.

use relay_model::LogId;
use relay_session::pair::Rng;

use crate::{
    harness::{MS, Relay},
    show::{Show, frames, patient, seeds, version_of},
};

/// Two logs with group 0 whole and part of group 1, each with its own reader.
struct Apart {
    relay: Relay,
    /// Data sent to the log that is closed.
    going: Show,
    /// Data sent to the log that stays.
    staying: Show,
    logs: [LogId; 2],
}

impl Apart {
    fn new(seed: u64) -> (Self, [(usize, relay_model::transport::Stream); 2]) {
        let mut relay = Relay::of(version_of(seed), seed);
        let publisher = relay.publisher("live/cam", &["video"]);
        let read = |relay: &mut Relay| {
            let reader = relay.subscriber();
            let sub = relay[reader].subscribe("live/cam", "video", patient());
            let show = Show::new(relay, publisher, "video");
            (show, (reader, sub))
        };
        let (going, first) = read(&mut relay);
        relay.apart = true;
        let before = going.subscribe;
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        relay.until("a second ask", |relay| {
            relay[publisher].serving("video").is_some_and(|(_, asked)| asked.id != before)
        });
        let staying = Show::new(&mut relay, publisher, "video");
        let logs: Vec<LogId> = relay.pulls.keys().copied().collect();
        let logs = [logs[0], logs[1]];
        (Self { relay, going, staying, logs }, [first, (reader, sub)])
    }
}

/// A random cut position in `bytes`.
fn cut(rng: &mut Rng, bytes: &[u8]) -> usize {
    1 + rng.below(bytes.len() as u64 - 1) as usize
}

#[test]
fn reader_moved_midway_through_a_group_gets_every_byte_once() {
    seeds(60, |seed, rng| {
        let (mut apart, readers) = Apart::new(seed);
        let Apart { relay, going, staying, logs } = &mut apart;
        let publisher = going.publisher;
        let bodies: Vec<_> = (0..3).map(|_| frames(rng, 3_000)).collect();
        for show in [&mut *going, &mut *staying] {
            show.air(relay, 0, bodies[0].clone());
        }
        relay.run(MS * 30);
        let open = |relay: &mut Relay, show: &mut Show, rng: &mut Rng| {
            let bytes = relay[publisher].group_bytes(show.subscribe, 1, &bodies[1]);
            let at = cut(rng, &bytes);
            let stream = relay[publisher].open_uni(bytes[..at].to_vec());
            show.groups.insert(1, bodies[1].clone());
            (stream, bytes[at..].to_vec())
        };
        open(relay, going, rng);
        let (stream, rest) = open(relay, staying, rng);
        relay.run(MS * rng.below(30) as u32);
        relay.merge(logs[0], logs[1]);
        relay.run(MS * rng.below(30) as u32);
        relay[publisher].write(stream, rest);
        relay[publisher].finish(stream);
        relay.run(MS * rng.below(30) as u32);
        staying.air(relay, 2, bodies[2].clone());
        relay.run(MS * 200);
        for (reader, sub) in readers {
            staying.check_all(relay, reader, sub, 0);
        }
        staying.end(relay, "video");
        for (reader, sub) in readers {
            relay.until("end", |relay| relay[reader].sub(sub).end.is_some());
            assert!(relay[reader].sub(sub).end.unwrap().is_fin(), "seed {seed}");
        }
        apart.relay.disperse();
    });
}

#[test]
fn group_held_only_by_the_closed_log_is_reset() {
    let (mut apart, [(reader, sub), _]) = Apart::new(0);
    let Apart { relay, going, staying, logs } = &mut apart;
    let body = vec![(1, vec![7; 900]), (2, vec![8; 900])];
    let bytes = relay[going.publisher].group_bytes(going.subscribe, 0, &body);
    relay[going.publisher].open_uni(bytes[..1_200].to_vec());
    relay.run(MS * 30);
    relay.merge(logs[0], logs[1]);
    relay.until("a reset", |relay| relay[reader].group(sub, 0)[0].end.is_some());
    assert!(!relay[reader].group(sub, 0)[0].is_complete());
    staying.air(relay, 1, body);
    relay.until("the next group", |relay| relay[reader].group(sub, 1).len() == 1);
    apart.relay.disperse();
}

#[test]
fn pending_fetch_is_served_by_the_remaining_log() {
    let (mut apart, [(reader, _), _]) = Apart::new(0);
    let Apart { relay, going, staying, logs } = &mut apart;
    let old = vec![(1, vec![5; 300]), (2, vec![6; 300])];
    let publisher = going.publisher;
    for show in [&mut *going, &mut *staying] {
        show.air(relay, 4, vec![(9, vec![9; 20])]);
    }
    relay.run(MS * 30);
    let fetch = relay[reader].fetch("live/cam", "video", 2);
    relay.until("a FETCH", |relay| !relay[publisher].fetching("video").is_empty());
    relay.merge(logs[0], logs[1]);
    relay.run(MS * 30);
    let asked = relay[publisher].fetching("video");
    assert_eq!(asked.len(), 1, "the first is cancelled, another one is sent");
    relay[publisher].answer_fetch(asked[0].0, &old);
    relay.until("the group", |relay| relay[reader].fetches[&fetch].end.is_some());
    assert_eq!(relay[reader].fetches[&fetch].frames, old);
    apart.relay.disperse();
}
