//! Shares of a turn, and budgets of sessions.

use bytes::Bytes;
use relay_model::{Hop, Path};

use super::{turns::opened, *};
use crate::{engine::share, mailbox::WorkerMessage};

/// More sessions than any part of a turn handles at least.
const MANY: usize = 24;
/// Longer than any share of a turn: each clock read finds the share used up.
const LATE: Duration = Duration::from_millis(10);

impl Bench {
    /// Creates a bench with `count` sessions that have nothing left to do.
    fn with_idle_sessions(count: usize) -> (Self, Vec<ConnKey>, Vec<SessionId>) {
        let mut bench = Self::open_to_all();
        let keys: Vec<ConnKey> = (0..count).map(|_| bench.connect()).collect();
        bench.settle();
        keys.iter().for_each(|key| bench.set_up(*key, "/"));
        let sessions = opened(&bench);
        assert_eq!(sessions.len(), count);
        bench.shares.lock().clear();
        (bench, keys, sessions)
    }

    fn index(&self, session: SessionId) -> u32 {
        self.worker.host.peers.slots.index_of(session).expect("its peer")
    }

    /// Sessions that had a share of a stage since the last call, in order.
    fn had(&self, stage: TurnStage) -> Vec<SessionId> {
        let shares = self.shares.lock();
        let had = shares.iter().filter(|(of, _)| *of == stage);
        let mut had: Vec<SessionId> = had.map(|(_, session)| *session).collect();
        // Each packet of a peer has its own share.
        had.dedup();
        had
    }

    /// Takes a turn in which each clock read finds the share used up.
    fn late_turn(&mut self) {
        self.shares.lock().clear();
        self.io.tick = LATE;
        self.turn();
        self.io.tick = Duration::ZERO;
    }

    /// Opens a stream of the client and writes `bytes` to it.
    fn write(&mut self, key: ConnKey, dir: Dir, bytes: Vec<u8>) {
        let now = self.now;
        let conn = self.client.conn(key).unwrap();
        let stream = conn.open(dir, 0).unwrap();
        conn.write(stream, &mut [bytes.into()]).unwrap();
        self.client.process_connection(key, now);
    }
}

#[test]
fn late_turn_does_the_least_work_of_each_part() {
    let (mut bench, _keys, sessions) = Bench::with_idle_sessions(MANY);
    for _ in 0..100 {
        bench.deliver(&[0x40; 30]);
    }
    for session in &sessions {
        let index = bench.index(*session);
        bench.worker.host.peers.ready.push(index);
        bench.mailbox.post(&mut vec![WorkerMessage::AsksDone(*session, 0)]);
    }
    let before = bench.worker.host.meter.datagrams_in;
    bench.late_turn();
    assert_eq!(bench.worker.host.meter.datagrams_in - before, share::RECEIVE.least as u64);
    assert_eq!(bench.had(TurnStage::Feed), sessions[..share::PROCESS.least]);
    assert_eq!(bench.had(TurnStage::Order), sessions[..share::MESSAGES.least]);
    assert_eq!(bench.had(TurnStage::Flush).len(), share::FLUSH.least);
    assert_eq!(bench.next, NextTurn::Now);
    bench.late_turn();
    assert_eq!(bench.had(TurnStage::Feed), sessions[share::PROCESS.least..2 * share::PROCESS.least]);
    assert_eq!(bench.had(TurnStage::Order), sessions[share::MESSAGES.least..]);
}

#[test]
fn part_of_a_turn_ends_with_its_share() {
    let mut bench = Bench::open_to_all();
    for _ in 0..300 {
        bench.deliver(&[0x40; 30]);
    }
    // The second clock read finds the share used up.
    bench.io.tick = share::RECEIVE.time * 3 / 5;
    bench.turn();
    assert_eq!(bench.worker.host.meter.datagrams_in, (share::RECEIVE.least + share::RECEIVE.stride) as u64);
    assert_eq!(bench.next, NextTurn::Now);
}

#[test]
fn unreached_watchers_come_first_in_the_next_turn() {
    let (mut bench, keys, _) = Bench::with_idle_sessions(MANY);
    for key in keys {
        let mut request = Vec::new();
        relay_wire::varint::put(lite::BidiType::Announce.id(), &mut request);
        lite::AnnounceRequest { prefix: Path::root(), exclude_hop: Hop::ANONYMOUS }
            .encode(lite::Version::V05, &mut request);
        bench.write(key, Dir::Bi, request);
    }
    bench.settle();
    bench.worker.changes.add(&mut Vec::new(), true);
    let mut reached = Vec::new();
    for _ in 0..MANY / share::BOARD.least {
        bench.late_turn();
        assert_eq!(bench.had(TurnStage::News).len(), share::BOARD.least);
        reached.extend(bench.had(TurnStage::News));
        // Changed again, for all watchers.
        bench.worker.changes.add(&mut Vec::new(), true);
    }
    reached.sort_unstable();
    reached.dedup();
    assert_eq!(reached.len(), MANY);
    bench.late_turn();
    assert_eq!(
        bench.had(TurnStage::News).len(),
        share::BOARD.least,
        "what changed meanwhile is not forgotten"
    );
}

#[test]
fn session_over_its_budget_waits_behind_ready_ones() {
    let (mut bench, _keys, sessions) = Bench::with_idle_sessions(MANY);
    let (hogs, others) = sessions.split_at(2);
    for hog in hogs {
        let index = bench.index(*hog);
        bench.worker.host.peers.ready.push_behind(index, bench.now);
    }
    for session in others {
        let index = bench.index(*session);
        bench.worker.host.peers.ready.push(index);
    }
    bench.turn();
    let order: Vec<SessionId> = others.iter().chain(hogs).copied().collect();
    assert_eq!(bench.had(TurnStage::Feed), order);
    for hog in hogs {
        let index = bench.index(*hog);
        bench.worker.host.peers.ready.push_behind(index, bench.now);
    }
    for session in others {
        let index = bench.index(*session);
        bench.worker.host.peers.ready.push(index);
    }
    bench.late_turn();
    let first = others[..share::PROCESS.least].iter().chain(&hogs[..1]).copied();
    assert_eq!(
        bench.had(TurnStage::Feed),
        first.collect::<Vec<_>>(),
        "one session over its budget has a turn too"
    );
}

#[test]
fn clock_is_read_after_a_session_that_spent_its_budget() {
    let (mut bench, keys, sessions) = Bench::with_idle_sessions(MANY);
    for _ in 0..4_000 {
        bench.client.conn(keys[0]).unwrap().send_datagram(Bytes::from_static(&[7])).unwrap();
    }
    bench.client_turn();
    bench.turn();
    // More than a budget is left; the session becomes ready as if it had new input.
    let hog = bench.worker.host.peers.ready.pop_behind().expect("a session over its budget");
    bench.worker.host.peers.ready.begin(hog);
    bench.worker.host.peers.ready.push(hog);
    for session in &sessions[1..] {
        let index = bench.index(*session);
        bench.worker.host.peers.ready.push(index);
    }
    bench.late_turn();
    assert_eq!(bench.had(TurnStage::Feed), sessions[..1], "the others wait for the next turn");
}

#[test]
fn a_flood_of_datagrams_costs_a_budget_a_turn() {
    let (mut bench, keys, sessions) = Bench::with_idle_sessions(2);
    let (flood, quiet) = (keys[0], keys[1]);
    let (flooded, asking) = (sessions[0], sessions[1]);
    for _ in 0..4_000 {
        bench.client.conn(flood).unwrap().send_datagram(Bytes::from_static(&[7])).unwrap();
    }
    bench.client_turn();
    bench.turn();
    let mut turns = 0;
    while bench.worker.host.peers.ready.len_behind() > 0 {
        turns += 1;
        assert!(turns < 100, "it ends");
        let mut request = Vec::new();
        relay_wire::varint::put(0x3f, &mut request);
        bench.write(quiet, Dir::Uni, request);
        bench.client_turn();
        bench.shares.lock().clear();
        bench.turn();
        let had = bench.had(TurnStage::Input);
        assert_eq!(had.first(), Some(&asking), "ready sessions go first");
        assert_eq!(had.iter().filter(|session| **session == flooded).count(), 1, "one budget a turn");
    }
    assert!(turns >= 2, "more than a budget came: {turns}");
    assert_eq!(bench.phase(flood), ConnPhase::Ready);
}

#[test]
fn peak_wait_of_ready_sessions_is_published() {
    let (mut bench, _keys, sessions) = Bench::with_idle_sessions(MANY);
    for session in &sessions {
        let index = bench.index(*session);
        bench.worker.host.peers.ready.push(index);
    }
    let before = bench.worker.host.peers.ready.peak_us(bench.now);
    for _ in 0..MANY / share::PROCESS.least {
        bench.late_turn();
        bench.now += LATE;
    }
    let waited = bench.worker.host.peers.ready.peak_us(bench.now);
    assert!(waited > before && waited >= 2 * LATE.as_micros() as u64, "{waited}");
    let host = &mut bench.worker.host;
    host.peers.gauge(bench.now, &mut host.meter);
    assert_eq!(bench.worker.host.meter.ready_wait_peak_us, waited);
    assert!(bench.worker.host.meter.ready_wait_us.count() > 0);
    bench.advance(Duration::from_secs(120));
    assert!(bench.worker.host.peers.ready.peak_us(bench.now) < waited, "it is of the last minute");
}
