//! Slow readers: they lose groups, never their session, and do not affect others.

use std::time::Duration;

use relay_model::{Prefs, transport::Stream};
use relay_session::pair::{PairOptions, Rng};

use crate::{
    harness::{MS, Relay, guest, host},
    peer::Frames,
    show::{Show, bytes, patient, seeds, version_of},
};

/// Cause of a reader's slowness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slow {
    /// It grants no stream credit.
    Streams,
    /// It reads its control streams only, until the connection credit is used up.
    Credit,
    /// Its link carries a fraction of the track.
    Link,
}

fn body(rng: &mut Rng) -> Frames {
    (0..3).map(|n| (n, bytes(rng, 2_000 + rng.clone().below(1_500) as usize))).collect()
}

/// A request with a response on a control stream: for track properties, or else for announces.
fn ask(relay: &mut Relay, reader: usize) -> Stream {
    if relay[reader].version.has_tracks() {
        return relay[reader].ask_track("live/cam", "video");
    }
    relay[reader].watch("live")
}

fn is_answered(relay: &Relay, reader: usize, asked: Stream) -> bool {
    match relay[reader].track_answers.get(&asked) {
        Some(answer) => answer.info.is_some(),
        None => !relay[reader].watches[&asked].live.is_empty(),
    }
}

fn stalls_and_resumes(slow: Slow, seed: u64, rng: &mut Rng) {
    let mut relay = Relay::of(version_of(seed), seed);
    let publisher = relay.publisher("live/cam", &["video"]);
    let healthy = relay.subscriber();
    let all = relay[healthy].subscribe("live/cam", "video", patient());
    let ours = PairOptions { send_window: 32 * 1024, partial: 0.2, ..host() };
    let window = if slow == Slow::Credit { 50_000 } else { 1 << 24 };
    let theirs = PairOptions { uni_streams: 3, connection_window: window, ..guest() };
    let reader = relay.connect(ours, theirs);
    let prefs = Prefs { max_age_ms: 300, ..Prefs::default() };
    let sub = relay[reader].subscribe("live/cam", "video", prefs);
    let mut show = Show::new(&mut relay, publisher, "video");
    for _ in 0..5 {
        let next = show.next();
        show.air(&mut relay, next, body(rng));
        relay.run(MS * 50);
    }

    // About 150 kB a second for three seconds.
    match slow {
        Slow::Streams => relay[reader].t().hold_credit(true),
        Slow::Credit => relay[reader].reads_groups = false,
        Slow::Link => relay[reader].pair.a.tune(|options| options.rate = Some(20_000)),
    }
    let mut asked = None;
    for n in 0..60 {
        let next = show.next();
        show.air(&mut relay, next, body(rng));
        relay.run(MS * 50);
        if n == 40 {
            asked = Some(ask(&mut relay, reader));
        }
    }
    let asked = asked.unwrap();
    let answered = |relay: &Relay| is_answered(relay, reader, asked);
    assert!(relay.is_alive(reader), "seed {seed}");
    if slow != Slow::Credit {
        assert!(answered(&relay), "seed {seed}: control waits behind media");
    }
    assert!(
        relay[reader].groups_of(sub).filter(|group| group.is_complete()).count() < 40,
        "seed {seed}: not slow"
    );

    match slow {
        Slow::Streams => relay[reader].t().hold_credit(false),
        Slow::Credit => relay[reader].reads_groups = true,
        Slow::Link => relay[reader].pair.a.tune(|options| options.rate = None),
    }
    let newest = show.next() - 1;
    relay.run(MS * 500);
    assert!(relay[reader].has(sub, newest), "seed {seed}: the newest group was dropped");
    assert!(answered(&relay), "seed {seed}");
    for _ in 0..20 {
        let next = show.next();
        show.air(&mut relay, next, body(rng));
        relay.run(MS * 50);
    }
    relay.run(MS * 200);
    show.check_accounted(&relay, reader, sub);
    show.check_resets(&relay, reader, sub);
    show.check_all(&relay, reader, sub, newest);
    show.check_all(&relay, healthy, all, 0);
    assert!(relay.meter.groups_expired > 0, "seed {seed}: counted");

    show.end(&mut relay, "video");
    relay.until_within(Duration::from_secs(3), "end", |relay| relay[reader].sub(sub).end.is_some());
    assert!(relay[reader].sub(sub).end.unwrap().is_fin());
    relay.disperse();
}

#[test]
fn a_reader_without_stream_credit_resumes_at_a_group() {
    seeds(12, |seed, rng| stalls_and_resumes(Slow::Streams, seed, rng));
}

#[test]
fn a_reader_without_connection_credit_resumes_at_a_group() {
    seeds(12, |seed, rng| stalls_and_resumes(Slow::Credit, seed, rng));
}

#[test]
fn a_reader_on_a_slow_link_resumes_at_a_group() {
    seeds(12, |seed, rng| stalls_and_resumes(Slow::Link, seed, rng));
}

#[test]
fn a_stream_without_credit_holds_back_no_other() {
    let mut relay = Relay::new(1);
    let publisher = relay.publisher("live/cam", &["video"]);
    let theirs = PairOptions { stream_window: 4_000, ..guest() };
    let reader = relay.connect(host(), theirs);
    let sub = relay[reader].subscribe("live/cam", "video", patient());
    let mut show = Show::new(&mut relay, publisher, "video");
    relay[reader].reads_groups = false;
    show.air(&mut relay, 0, vec![(0, vec![1; 50_000])]);
    relay.run(MS * 50);
    show.run(&mut relay, 3, MS * 30, |_| vec![(0, vec![1; 1_000])]);
    // Every group but the first has arrived whole in the reader's buffers.
    relay[reader].t().hold_credit(true);
    relay[reader].reads_groups = true;
    relay.run(MS * 2);
    assert!((1..4).all(|sequence| relay[reader].has(sub, sequence)));
    assert!(!relay[reader].has(sub, 0));
    relay[reader].t().hold_credit(false);
    relay.run(MS * 500);
    show.check_all(&relay, reader, sub, 0);
    relay.disperse();
}

#[test]
fn blocked_superseded_group_expires_by_timer() {
    let mut relay = Relay::new(1);
    let publisher = relay.publisher("live/cam", &["video"]);
    let theirs = PairOptions { stream_window: 4_000, ..guest() };
    let reader = relay.connect(host(), theirs);
    let prefs = Prefs { max_age_ms: 300, ..Prefs::default() };
    let sub = relay[reader].subscribe("live/cam", "video", prefs);
    let mut show = Show::new(&mut relay, publisher, "video");
    relay[reader].reads_groups = false;
    show.air(&mut relay, 0, vec![(0, vec![1; 50_000])]);
    relay.run(MS * 50);
    show.air(&mut relay, 1, vec![(0, vec![1; 1_000])]);
    relay.run(MS * 150);
    assert_eq!(relay.meter.groups_expired, 0, "too early");
    // Nothing is published any more: only the timer can drop the group.
    relay.run(MS * 500);
    assert_eq!(relay.meter.groups_expired, 1);
    relay[reader].reads_groups = true;
    relay.run(MS * 50);
    assert!(relay[reader].has(sub, 1) && !relay[reader].has(sub, 0));
    relay.disperse();
}

#[test]
fn control_does_not_wait_for_the_valve() {
    let mut relay = Relay::new(1);
    let publisher = relay.publisher("live/cam", &["video"]);
    let ours = PairOptions { latency: MS * 500, send_window: 10_000, ..host() };
    let reader = relay.connect(ours, guest());
    relay[reader].subscribe("live/cam", "video", patient());
    let mut show = Show::new(&mut relay, publisher, "video");
    relay.run(MS * 2_000);
    show.air(&mut relay, 0, vec![(0, vec![1; 100_000])]);
    relay.until("a full valve", |relay| relay[reader].pair.a.outstanding() >= 10_000);
    let asked = relay[reader].ask_track("live/cam", "video");
    // One round trip; waiting for an acknowledgement would take another.
    relay.run(MS * 600);
    assert!(relay[reader].track_answers[&asked].info.is_some());
    relay.disperse();
}

#[test]
fn higher_priority_is_served_first_and_equals_share() {
    let mut relay = Relay::new(1);
    let names = ["high", "low", "equal"];
    let publisher = relay.publisher("live/cam", &names);
    let ours = PairOptions { rate: Some(100_000), send_window: 16 * 1024, ..host() };
    let reader = relay.connect(ours, guest());
    let subs: Vec<_> = names
        .iter()
        .map(|name| {
            let priority = if *name == "high" { 200 } else { 100 };
            relay[reader].subscribe("live/cam", name, Prefs { priority, ..patient() })
        })
        .collect();
    relay.run(MS * 100);
    let mut shows: Vec<_> = names.iter().map(|name| Show::new(&mut relay, publisher, name)).collect();
    for at in [1, 2, 0] {
        shows[at].air(&mut relay, 0, vec![(0, vec![1; 100_000])]);
    }
    let bytes = |relay: &Relay, at: usize| -> usize {
        relay[reader].groups_of(subs[at]).flat_map(|group| &group.frames).map(|frame| frame.1.len()).sum()
    };
    relay.until("the high one", |relay| relay[reader].has(subs[0], 0));
    assert!(bytes(&relay, 1) + bytes(&relay, 2) < 60_000, "{} {}", bytes(&relay, 1), bytes(&relay, 2));
    relay.until("half", |relay| bytes(relay, 1) >= 60_000);
    assert!(bytes(&relay, 2) >= 25_000, "{}", bytes(&relay, 2));
    relay.until("all", |relay| relay[reader].has(subs[1], 0) && relay[reader].has(subs[2], 0));
    relay.disperse();
}
