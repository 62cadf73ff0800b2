//! Missing tracks, blocked streams, and the request throttle.

use relay_model::limits;

use super::*;

const READER: u64 = 2;
const OTHER: u64 = 3;

/// A publisher (session 1) of "a", and two readers.
fn published() -> Bench {
    let mut bench = Bench::new();
    for session in [1, READER, OTHER] {
        bench.open(session);
    }
    bench.announce(1, "a", &[7], 1);
    bench
}

impl Bench {
    fn subscribe_to(&mut self, session: u64, sub: u64, name: &str) -> Vec<Action> {
        let (path, track) = (path("a"), track(name));
        let (prefs, want) = (Prefs::default(), Want::Live);
        self.ask(session, Ask::Subscribe { sub: SubId(sub), path, track, prefs, want })
    }

    /// Reports the log as missing; the session then unsubscribes.
    fn is_missing(&mut self, session: u64, sub: u64, log: LogId) {
        self.ask(1, Ask::Ended { log, epoch: Epoch(1), missing: true });
        self.unsubscribe(session, sub);
    }

    /// Subscribes to missing tracks until a request is queued; returns the number that were not.
    fn miss_until_throttled(&mut self, session: u64) -> u64 {
        for sub in 0.. {
            match opened(&self.subscribe_to(session, sub, &format!("missing-{session}-{sub}"))) {
                Some(log) => self.is_missing(session, sub, log),
                None => return sub,
            }
        }
        unreachable!()
    }
}

/// Log of the first open order in `actions`.
fn opened(actions: &[Action]) -> Option<LogId> {
    actions.iter().find_map(|action| match action {
        Action::Order { order: Order::Open { log, .. }, .. } => Some(*log),
        _ => None,
    })
}

fn no(code: StreamCode, session: u64, sub: u64) -> [Action; 1] {
    [refuse(session, sub, code)]
}

#[test]
fn missing_track_is_not_asked_for_again_within_a_second() {
    let mut bench = published();
    let log = opened(&bench.subscribe_to(READER, 0, "x")).unwrap();
    bench.is_missing(READER, 0, log);
    assert_eq!(bench.subscribe_to(OTHER, 0, "x"), no(StreamCode::NOT_FOUND, OTHER, 0));
    assert_eq!(bench.core.tally(), tally(|t| t.missing = 1));
    assert!(opened(&bench.subscribe_to(OTHER, 1, "y")).is_some(), "another track");
    bench.pass(limits::MISSING_TIME);
    assert!(opened(&bench.subscribe_to(OTHER, 2, "x")).is_some());
    bench.everyone_leaves();
}

#[test]
fn track_that_ended_is_asked_for_again_at_once() {
    let mut bench = published();
    let log = opened(&bench.subscribe_to(READER, 0, "x")).unwrap();
    bench.ask(1, Ask::Ended { log, epoch: Epoch(1), missing: false });
    assert!(opened(&bench.subscribe_to(OTHER, 0, "x")).is_some());
    bench.everyone_leaves();
}

#[test]
fn session_with_mostly_missing_tracks_is_throttled() {
    let mut bench = published();
    let passed = bench.miss_until_throttled(READER);
    assert_eq!(passed, u64::from(limits::BRAKE_MISSES));
    assert_eq!(bench.core.tally(), tally(|t| t.braked = 1));
    // Open tracks are attached at once, and sessions without misses are not delayed.
    let flowing = opened(&bench.subscribe_to(OTHER, 0, "real")).unwrap();
    assert_eq!(bench.subscribe_to(READER, 1_000, "real"), [attach(READER, 1_000, flowing)]);
    assert!(opened(&bench.subscribe_to(OTHER, 1, "real-2")).is_some());
    // One request per interval.
    for n in 1..4 {
        assert_eq!(bench.subscribe_to(READER, 2_000 + n, &format!("more-{n}")), []);
    }
    let mut asked = 0;
    for _ in 0..4 {
        asked += usize::from(opened(&bench.pass(limits::BRAKE_INTERVAL)).is_some());
    }
    assert_eq!(asked, 4);
    assert_eq!(bench.pass(limits::BRAKE_INTERVAL), []);
    bench.everyone_leaves();
}

#[test]
fn throttled_request_past_the_limit_is_refused() {
    let mut bench = published();
    let first = bench.miss_until_throttled(READER);
    let most = limits::BRAKE_WAITING as u64;
    for n in 1..most {
        assert_eq!(bench.subscribe_to(READER, first + n, &format!("more-{n}")), []);
    }
    let past = first + most;
    assert_eq!(bench.subscribe_to(READER, past, "past"), no(StreamCode::EXCESSIVE_LOAD, READER, past));
    // A cancelled request frees its place; the rest is dropped with the session.
    assert_eq!(bench.unsubscribe(READER, first + 1), []);
    assert_eq!(bench.subscribe_to(READER, past + 1, "more"), []);
    assert_eq!(bench.core.tally(), tally(|t| (t.braked, t.brake_refused) = (most + 1, 1)));
    bench.close(READER);
    bench.everyone_leaves();
}

#[test]
fn throttle_ends_once_its_session_asks_less() {
    let mut bench = published();
    let first = bench.miss_until_throttled(READER);
    bench.unsubscribe(READER, first);
    bench.pass(limits::BRAKE_HALF_LIFE * 2);
    assert!(opened(&bench.subscribe_to(READER, 5_000, "a-1")).is_some());
    assert!(opened(&bench.subscribe_to(READER, 5_001, "a-2")).is_some());
    bench.everyone_leaves();
}

#[test]
fn relay_of_the_cluster_is_not_throttled() {
    let mut bench = published();
    bench.open_with(9, policy("", "").for_peers().admit("/", SystemTime::UNIX_EPOCH).unwrap());
    for sub in 0..200 {
        let log = opened(&bench.subscribe_to(9, sub, &format!("missing-{sub}"))).expect("asked at once");
        bench.is_missing(9, sub, log);
    }
    bench.everyone_leaves();
}

#[test]
fn session_with_mostly_found_tracks_is_not_throttled() {
    let mut bench = published();
    for sub in 0..400 {
        let log = opened(&bench.subscribe_to(READER, sub, &format!("{sub}"))).expect("asked at once");
        if sub % 3 == 0 {
            bench.is_missing(READER, sub, log);
        }
    }
    bench.everyone_leaves();
}

#[test]
fn unread_log_keeps_no_stream_that_others_wait_for() {
    let mut bench = published();
    let unread = opened(&bench.subscribe_to(READER, 0, "x")).unwrap();
    let read = opened(&bench.subscribe_to(READER, 1, "y")).unwrap();
    assert_eq!(bench.unsubscribe(READER, 0), [], "it lingers");
    let close = |log| [to(1, Order::Close { log }), Action::Retire { log }];
    assert_eq!(bench.ask(1, Ask::StreamsBlocked { blocked: true }), close(unread));
    // A session that joins while the request is queued gets its own place in the queue.
    let asked = to(1, Order::Asked { log: read, asker: SessionId(OTHER) });
    assert_eq!(bench.subscribe_to(OTHER, 0, "y"), [asked, attach(OTHER, 0, read)]);
    bench.unsubscribe(OTHER, 0);
    assert_eq!(bench.unsubscribe(READER, 1), close(read));
    let log = opened(&bench.subscribe_to(READER, 2, "z")).unwrap();
    assert_eq!(bench.ask(1, Ask::StreamsBlocked { blocked: false }), []);
    assert_eq!(bench.unsubscribe(READER, 2), [], "it lingers again");
    assert_eq!(bench.subscribe_to(OTHER, 1, "z"), [attach(OTHER, 1, log)]);
    bench.everyone_leaves();
}

#[test]
fn open_order_names_the_reading_session() {
    let mut core = Core::new(CoreConfig::new(Hop(SELF)));
    let now = Instant::now();
    for session in [1, READER] {
        core.handle(CoreEvent::Opened { session: SessionId(session), permit: permit("", "") }, now);
    }
    let (prefs, want) = (Prefs::default(), Want::Live);
    let announce = Ask::Announce { path: path("a"), hops: hops(&[7]), cost: cost(1) };
    core.handle(CoreEvent::Ask { session: SessionId(1), ask: announce }, now);
    let subscribe = Ask::Subscribe { sub: SubId(0), path: path("a"), track: track("x"), prefs, want };
    core.handle(CoreEvent::Ask { session: SessionId(READER), ask: subscribe }, now);
    let asker = std::iter::from_fn(|| core.poll_action()).find_map(|action| match action {
        Action::Order { order: Order::Open { asker, .. }, .. } => Some(asker),
        _ => None,
    });
    assert_eq!(asker, Some(SessionId(READER)));
}
