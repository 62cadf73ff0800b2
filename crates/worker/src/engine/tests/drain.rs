//! Draining of a worker, and refused sessions when memory is short.

use relay_model::{SessionCode, transport::TransportClosed};
use relay_wire::lite::BidiType;

use super::{turns::closed, *};
use crate::mailbox::{Drain, WorkerMessage};

const WINDOW: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(50);

impl Bench {
    /// Creates a bench with `count` admitted sessions.
    fn with_sessions(count: usize) -> (Self, Vec<ConnKey>) {
        let mut bench = Self::open_to_all();
        let keys: Vec<ConnKey> = (0..count).map(|_| bench.connect()).collect();
        bench.settle();
        keys.iter().for_each(|key| bench.set_up(*key, "/"));
        (bench, keys)
    }

    /// Begins a drain; returns its latest end.
    fn drain(&mut self, window: Duration) -> Instant {
        let drain = Drain::new(1, SessionCode::GOAWAY_TIMEOUT, "goaway timeout", self.now, window);
        let until = drain.until;
        self.mailbox.post(&mut vec![WorkerMessage::Drain(drain)]);
        self.next = NextTurn::Now;
        self.turn();
        self.settle();
        until
    }

    /// Whether the client received GOAWAY.
    fn was_told_to_go(&mut self, key: ConnKey) -> bool {
        let conn = self.client.conn(key).unwrap();
        let opened: Vec<_> = std::iter::from_fn(|| conn.poll())
            .filter_map(|event| match event {
                Heard::Opened(stream, Dir::Bi) => Some(stream),
                _ => None,
            })
            .collect();
        opened.into_iter().any(|stream| {
            let first = conn.read(stream, 1).ok().flatten();
            first.is_some_and(|byte| u64::from(byte[0]) == BidiType::Goaway.id())
        })
    }
}

#[test]
fn drain_sends_goaway_and_ends_with_the_last_session() {
    let (mut bench, keys) = Bench::with_sessions(2);
    let waiting = bench.connect();
    bench.settle();
    let (start, until) = (bench.now, bench.drain(WINDOW));
    assert_eq!(bench.worker.host.meter.goaways_out, 2);
    assert!(keys.iter().all(|key| bench.was_told_to_go(*key)));
    assert!(
        matches!(bench.end(waiting), TransportClosed::ByPeer(SessionCode::GOAWAY_TIMEOUT, _)),
        "not let in"
    );
    bench.advance(Duration::from_secs(2));
    assert!(keys.iter().all(|key| bench.phase(*key) == ConnPhase::Ready), "they have time");
    for key in keys {
        bench.client.conn(key).unwrap().close(bench.now, SessionCode::NONE, "");
    }
    bench.next = NextTurn::Now;
    bench.settle();
    bench.advance(Duration::from_secs(1));
    assert_eq!(closed(&bench).len(), 2);
    assert!(
        bench.worker.is_done(bench.now) && bench.now < start + Duration::from_secs(4) && bench.now < until
    );
    assert_eq!(bench.worker.host.meter.sessions_sent_away, 0);
}

#[test]
fn draining_worker_refuses_connections_before_their_handshake() {
    let (mut bench, _) = Bench::with_sessions(1);
    bench.drain(WINDOW);
    let late = bench.connect();
    bench.settle();
    assert!(matches!(bench.end(late), TransportClosed::Lost(_)));
    assert_eq!((bench.worker.host.meter.refused_draining, bench.worker.host.meter.connections), (1, 1));
    // A rebuilt endpoint refuses connections too.
    bench.worker.rebuild(bench.now);
    let later = bench.connect();
    bench.settle();
    assert_ne!(bench.phase(later), ConnPhase::Ready);
    assert_eq!(bench.worker.host.meter.refused_draining, 2);
}

#[test]
fn remaining_sessions_are_closed_one_by_one_late_in_the_window() {
    let (mut bench, keys) = Bench::with_sessions(5);
    let (start, until) = (bench.now, bench.drain(WINDOW));
    let mut ends: Vec<(ConnKey, Duration)> = Vec::new();
    while bench.now < until {
        bench.advance(STEP);
        for key in &keys {
            if bench.phase(*key) != ConnPhase::Ready && ends.iter().all(|(ended, _)| ended != key) {
                ends.push((*key, bench.now - start));
            }
        }
    }
    let times: Vec<Duration> = ends.iter().map(|(_, at)| *at).collect();
    assert_eq!(times.len(), 5);
    assert!(times.iter().all(|at| (WINDOW * 7 / 10..WINDOW * 9 / 10).contains(at)), "{times:?}");
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= STEP * 4), "not at once: {times:?}");
    for key in keys {
        let told = TransportClosed::ByPeer(SessionCode::GOAWAY_TIMEOUT, "goaway timeout".to_owned());
        assert_eq!(bench.end(key), told);
    }
    assert_eq!(bench.worker.host.meter.sessions_sent_away, 5);
    assert!(bench.heard.iter().all(|event| !matches!(event, CoreEvent::Closed { vanished: true, .. })));
}

#[test]
fn drain_ends_in_time_with_a_full_socket() {
    let (mut bench, _) = Bench::with_sessions(1);
    let until = bench.drain(WINDOW);
    bench.io.room = 0;
    while bench.now < until {
        assert!(!bench.worker.is_done(bench.now));
        bench.now += STEP;
        bench.turn();
        bench.heard.clear();
    }
    assert!(bench.worker.is_done(until));
}

#[test]
fn a_drain_without_a_window_is_a_shutdown() {
    let (mut bench, keys) = Bench::with_sessions(1);
    let until = bench.drain(Duration::ZERO);
    assert!(matches!(bench.end(keys[0]), TransportClosed::ByPeer(SessionCode::GOAWAY_TIMEOUT, _)));
    assert!(bench.worker.is_done(until));
}

#[test]
fn wind_down_is_spread_and_leaves_time_to_finish() {
    let start = Instant::now();
    let drain = Drain::new(1, SessionCode::NONE, "", start, WINDOW);
    let turns: Vec<Instant> = (0..100).map(|place| drain.turn_of(place, 100, false)).collect();
    assert_eq!(turns.first(), Some(&(start + WINDOW * 7 / 10)));
    assert!(turns.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(turns.last().is_some_and(|last| *last + Duration::from_secs(1) < drain.close));
    assert!(drain.close < drain.until);
    let publishers: Vec<Instant> = (0..100).map(|place| drain.turn_of(place, 100, true)).collect();
    assert!(publishers.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(turns.last() < publishers.first(), "who sends to the others goes last");
    assert!(publishers.last().is_some_and(|last| *last + Duration::from_millis(500) < drain.close));
    assert_eq!(drain.turn_of(7, 0, false), drain.turn_of(1, 1, false), "never past its span");
}

#[test]
fn memory_ceiling_refuses_new_sessions_and_keeps_open_ones() {
    let (mut bench, keys) = Bench::with_sessions(1);
    let store = bench.worker.host.shared.store.clone();
    store.budget().set_limits(0, 0);
    let refused = bench.connect();
    bench.settle();
    assert!(matches!(bench.end(refused), TransportClosed::Lost(_)));
    assert_eq!((bench.worker.host.meter.refused_memory, bench.worker.host.meter.connections), (1, 1));
    bench.advance(Duration::from_secs(1));
    assert_eq!(bench.phase(keys[0]), ConnPhase::Ready);
    store.budget().set_limits(1 << 20, 1 << 20);
    let welcome = bench.connect();
    bench.settle();
    assert_eq!(bench.phase(welcome), ConnPhase::Ready);
}
