use relay_model::{SessionCode, SessionId, limits, transport::TransportClosed};

use super::*;
use crate::{admission::CloseReason, engine::share, mailbox::WorkerMessage};

/// Longer than a closed connection is kept.
const DRAIN: Duration = Duration::from_secs(5);

pub(super) fn opened(bench: &Bench) -> Vec<SessionId> {
    let opened = |event: &CoreEvent| match event {
        CoreEvent::Opened { session, .. } => Some(*session),
        _ => None,
    };
    bench.heard.iter().filter_map(opened).collect()
}

pub(super) fn closed(bench: &Bench) -> Vec<SessionId> {
    let closed = |event: &CoreEvent| match event {
        CoreEvent::Closed { session, .. } => Some(*session),
        _ => None,
    };
    bench.heard.iter().filter_map(closed).collect()
}

fn assert_nothing_left(bench: &Bench) {
    assert!(bench.worker.host.peers.slots.is_empty(), "peers");
    assert!(bench.worker.host.peers.timers.is_empty(), "timers");
    assert!(bench.worker.host.peers.quic.endpoint.is_empty(), "connections");
    assert!(bench.worker.udp.packets.is_empty(), "packets");
    assert_eq!(bench.worker.host.fanout.logs(), 0);
}

#[test]
fn core_gets_one_opened_and_one_closed_event_per_session() {
    let mut bench = Bench::open_to_all();
    let key = bench.connect();
    bench.settle();
    assert_eq!(bench.phase(key), ConnPhase::Ready);
    assert!(opened(&bench).is_empty(), "not before its SETUP");
    bench.set_up(key, "/");
    let [session] = opened(&bench)[..] else { panic!("{:?}", bench.heard) };
    assert_eq!(session.worker(), WorkerId(0));
    bench.client.conn(key).unwrap().close(bench.now, SessionCode::NONE, "bye");
    bench.settle();
    assert_eq!(closed(&bench), [session]);
    assert!(matches!(bench.heard.last(), Some(CoreEvent::Closed { .. })), "its last message");
    bench.advance(DRAIN);
    assert_nothing_left(&bench);
    let meter = &bench.worker.host.meter;
    assert_eq!((meter.connections, meter.sessions_opened, meter.sessions_closed), (1, 1, 1));
}

#[test]
fn versions_without_setup_are_admitted_at_the_root() {
    let mut bench = Bench::open_to_all();
    for version in [lite::Version::V03, lite::Version::V04] {
        bench.heard.clear();
        let key = bench.connect_with(version);
        bench.settle();
        let [CoreEvent::Opened { permit, .. }] = &bench.heard[..] else { panic!("{:?}", bench.heard) };
        assert!(permit.root().is_root());
        assert_eq!(bench.phase(key), ConnPhase::Ready);
    }
}

#[test]
fn session_is_admitted_after_in_band_version_negotiation() {
    let mut bench = Bench::open_to_all();
    let key = bench.connect_with(lite::Version::V02);
    bench.settle();
    assert_eq!(bench.phase(key), ConnPhase::Ready);
    assert!(bench.heard.is_empty(), "not admitted before the version is negotiated: {:?}", bench.heard);
    let mut message = Vec::new();
    let versions = lite::legacy::code(lite::Version::V01).into_iter().collect();
    lite::legacy::ClientSetup { versions, parameters: Vec::new() }.encode(&mut message);
    let now = bench.now;
    let conn = bench.client.conn(key).unwrap();
    let stream = conn.open(Dir::Bi, 0).unwrap();
    conn.write(stream, &mut [message.into()]).unwrap();
    bench.client.process_connection(key, now);
    bench.settle();
    let [CoreEvent::Opened { permit, .. }] = &bench.heard[..] else { panic!("{:?}", bench.heard) };
    assert!(permit.root().is_root());
    let mut answer = Vec::new();
    lite::legacy::ServerSetup { version: lite::Version::V01 }.encode(&mut answer);
    let conn = bench.client.conn(key).unwrap();
    assert_eq!(conn.read(stream, 100).unwrap().as_deref(), Some(&answer[..]));
}

#[test]
fn session_without_a_version_in_time_is_closed() {
    let mut bench = Bench::open_to_all();
    let key = bench.connect_with(lite::Version::V02);
    bench.settle();
    bench.advance(limits::SETUP_TIMEOUT + Duration::from_secs(1));
    assert_ne!(bench.phase(key), ConnPhase::Ready);
    assert!(bench.heard.is_empty());
}

#[test]
fn lost_session_has_vanished_and_closed_one_has_not() {
    let vanished = |bench: &Bench| match bench.heard.last() {
        Some(CoreEvent::Closed { vanished, .. }) => *vanished,
        other => panic!("{other:?}"),
    };
    let mut bench = Bench::open_to_all();
    let [leaves, dies] = [bench.connect(), bench.connect()];
    bench.settle();
    bench.set_up(leaves, "/");
    bench.client.conn(leaves).unwrap().close(bench.now, SessionCode::NONE, "bye");
    bench.settle();
    assert!(!vanished(&bench));
    bench.set_up(dies, "/");
    bench.client.remove(dies);
    bench.advance(Duration::from_secs(30));
    assert_eq!(closed(&bench).len(), 2);
    assert!(vanished(&bench));
    let panicked = bench.connect();
    bench.settle();
    bench.set_up(panicked, "/");
    let index = bench.worker.host.peers.slots.indices().last().unwrap();
    bench.worker.host.drop_panicked(index, TurnStage::News);
    bench.turn();
    assert!(vanished(&bench), "a panic of ours, so it may come back");
}

#[test]
fn session_without_setup_in_time_is_closed() {
    let mut bench = Bench::open_to_all();
    let key = bench.connect();
    bench.settle();
    bench.advance(limits::SETUP_TIMEOUT - Duration::from_millis(1));
    assert_eq!(bench.phase(key), ConnPhase::Ready);
    bench.advance(Duration::from_millis(2));
    assert_eq!(
        bench.end(key),
        TransportClosed::ByPeer(SessionCode::TIMEOUT, "not set up in time".to_owned())
    );
    bench.advance(DRAIN);
    assert_nothing_left(&bench);
    assert_eq!(bench.worker.host.meter.refused_setup_timeout, 1);
    assert!(bench.heard.is_empty(), "no event for core: {:?}", bench.heard);
}

#[test]
fn session_without_permissions_is_refused_without_core_events() {
    let mut bench = Bench::new(Policy::public(Scope::nothing(), Scope::nothing()));
    let key = bench.connect();
    bench.settle();
    bench.set_up(key, "/room");
    assert!(matches!(bench.end(key), TransportClosed::ByPeer(SessionCode::UNAUTHORIZED, _)));
    bench.advance(DRAIN);
    assert_nothing_left(&bench);
    assert_eq!(
        (bench.worker.host.meter.refused_unauthorized, bench.worker.host.meter.sessions_abandoned),
        (1, 0)
    );
    assert!(bench.heard.is_empty());
}

#[test]
fn datagrams_past_the_share_are_received_next_turn() {
    let mut bench = Bench::open_to_all();
    for _ in 0..150 {
        bench.deliver(&[0x40; 30]);
    }
    bench.io.tick = share::RECEIVE.time;
    for expected in [64, 128, 150] {
        bench.turn();
        assert_eq!(bench.worker.host.meter.datagrams_in, expected);
    }
    assert_ne!(bench.next, NextTurn::Now);
    assert_eq!(bench.worker.host.meter.turns_cut, 2);
}

#[test]
fn a_full_socket_stops_the_flush_until_there_is_room() {
    let mut bench = Bench::open_to_all();
    let key = bench.connect();
    bench.io.room = 0;
    bench.client_turn();
    bench.turn();
    assert_eq!(bench.next, NextTurn::At(bench.now + crate::engine::udp_port::RETRY_FULL), "it does not spin");
    let polled = bench.worker.udp.packets.is_empty();
    assert!(!polled && bench.io.sent.is_empty(), "what was made is kept");
    let calls = bench.worker.host.meter.send_calls;
    bench.turn();
    assert_eq!(bench.worker.host.meter.send_calls, calls, "no call before there may be room");
    bench.io.room = usize::MAX;
    bench.worker.writable();
    bench.next = NextTurn::Now;
    bench.settle();
    assert_eq!(bench.phase(key), ConnPhase::Ready);
    assert_eq!(bench.worker.host.meter.socket_full, 1);
    assert!(bench.client.conn(key).is_some());
}

#[test]
fn full_socket_is_retried_without_a_writable_event() {
    let mut bench = Bench::open_to_all();
    let key = bench.connect();
    bench.io.room = 0;
    bench.client_turn();
    bench.turn();
    bench.io.room = usize::MAX;
    bench.advance(crate::engine::udp_port::RETRY_FULL);
    assert_eq!(bench.phase(key), ConnPhase::Ready);
}

#[test]
fn path_without_gso_costs_one_failure_and_no_datagram() {
    let mut bench = Bench::open_to_all();
    let with = bench.connect();
    bench.settle();
    assert_eq!(bench.phase(with), ConnPhase::Ready);
    assert!(bench.io.trains > 0, "the handshake had trains");
    let before = bench.io.trains;
    bench.io.no_trains = true;
    let without = bench.connect();
    let start = bench.now;
    bench.settle();
    assert_eq!(bench.phase(without), ConnPhase::Ready);
    assert_eq!(bench.now, start, "no retransmission was waited for");
    assert_eq!(bench.worker.host.meter.gso_failures, 1, "from then on it sends datagrams one by one");
    assert_eq!(bench.io.trains, before);
}

#[test]
fn datagrams_are_sent_singly_without_gso() {
    let everybody = || relay_model::Scope::everything();
    let policy = Policy::public(everybody(), everybody());
    let mut bench = Bench::tuned(policy, &QuicTuning { segmentation: false, ..QuicTuning::default() });
    let key = bench.connect();
    bench.settle();
    assert_eq!(bench.phase(key), ConnPhase::Ready);
    assert_eq!((bench.io.trains, bench.worker.host.meter.gso_failures), (0, 0));
}

#[test]
fn rebuilt_endpoint_ends_sessions_and_accepts_new_ones() {
    let mut bench = Bench::open_to_all();
    let old = bench.connect();
    bench.settle();
    bench.set_up(old, "/");
    let sessions = opened(&bench);
    bench.worker.rebuild(bench.now);
    bench.turn();
    assert_eq!(closed(&bench), sessions);
    assert_nothing_left(&bench);
    let new = bench.connect();
    bench.settle();
    bench.set_up(new, "/");
    let all = opened(&bench);
    assert_eq!(all.len(), 2);
    assert_ne!(all.first(), all.last(), "ids are never used again");
    assert_eq!(bench.worker.host.meter.panics_endpoint, 1);
}

#[test]
fn shutdown_closes_every_session_and_refuses_new_ones() {
    let mut bench = Bench::open_to_all();
    let keys: Vec<ConnKey> = (0..3).map(|_| bench.connect()).collect();
    bench.settle();
    bench.set_up(keys[0], "/");
    let until = bench.now + Duration::from_secs(10);
    let letter = WorkerMessage::Shutdown {
        close: CloseReason::new(SessionCode::GOAWAY_TIMEOUT, "maintenance"),
        until,
    };
    bench.mailbox.post(&mut vec![letter]);
    bench.next = NextTurn::Now;
    bench.settle();
    let told = TransportClosed::ByPeer(SessionCode::GOAWAY_TIMEOUT, "maintenance".to_owned());
    for key in keys {
        assert_eq!(bench.end(key), told);
    }
    assert_eq!(closed(&bench).len(), 1);
    let late = bench.connect();
    bench.settle();
    assert_ne!(bench.phase(late), ConnPhase::Ready);
    assert_eq!(bench.worker.host.meter.refused_draining, 1);
    bench.advance(DRAIN);
    assert_nothing_left(&bench);
    assert!(bench.worker.is_done(bench.now));
}

#[test]
fn shutdown_ends_in_time_with_a_full_socket() {
    let mut bench = Bench::open_to_all();
    bench.connect();
    bench.settle();
    bench.io.room = 0;
    let until = bench.now + Duration::from_secs(1);
    let letter = WorkerMessage::Shutdown { close: CloseReason::new(SessionCode::NONE, ""), until };
    bench.mailbox.post(&mut vec![letter]);
    bench.turn();
    assert!(!bench.worker.is_done(bench.now));
    assert!(bench.worker.is_done(until));
}

#[test]
fn idle_worker_publishes_its_counters_and_sleeps() {
    let mut bench = Bench::open_to_all();
    bench.deliver(&[0x40; 30]);
    bench.turn();
    let NextTurn::At(at) = bench.next else { panic!("{:?}", bench.next) };
    assert!(at > bench.now);
    bench.now = at;
    bench.turn();
    assert_eq!(bench.next, NextTurn::Idle);
    assert_eq!(bench.worker.host.shared.board.total(), bench.worker.host.meter);
}

#[test]
fn events_wait_for_a_busy_core_and_keep_their_order() {
    let mut bench = Bench::open_to_all();
    let keys: Vec<ConnKey> = (0..2).map(|_| bench.connect()).collect();
    bench.settle();
    // Core takes nothing, and its channel holds one batch.
    let core = std::mem::replace(&mut bench.core, crossbeam_channel::bounded(0).1);
    for key in &keys {
        bench.set_up(*key, "/");
        bench.client.conn(*key).unwrap().close(bench.now, SessionCode::NONE, "");
        bench.settle();
    }
    assert!(matches!(bench.next, NextTurn::At(at) if at <= bench.now + crate::engine::worker::RETRY_CORE));
    bench.core = core;
    bench.advance(Duration::from_millis(10));
    assert_eq!(opened(&bench).len(), 2);
    assert_eq!(opened(&bench), closed(&bench));
}
