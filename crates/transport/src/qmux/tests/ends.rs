//! A client and a server connected to each other.

use std::collections::BTreeMap;

use relay_model::{
    SessionCode, StreamCode, limits as model,
    transport::{DatagramError, Dir, PRIORITY_CONTROL, TransportClosed},
};

use super::*;
use crate::qmux::{ConnPhase, limits, stream_limits::Theirs};

/// Data that one end sends on many streams, and the data received by the other.
#[derive(Default)]
struct Load {
    /// Not yet written, by stream.
    left: BTreeMap<Stream, Bytes>,
    bodies: Vec<Vec<u8>>,
    live: BTreeMap<Stream, Vec<u8>>,
    got: Vec<Vec<u8>>,
}

impl Load {
    fn new(rng: &mut Rng) -> Self {
        let body = |n: u64, rng: &mut Rng| {
            let size = 1 + if n.is_multiple_of(5) { rng.below(3_000_000) } else { rng.below(3_000) };
            (0..size).map(|at| (at as u8).wrapping_mul(31) ^ n as u8).collect()
        };
        Self { bodies: (0..20).map(|n| body(n, rng)).collect(), ..Self::default() }
    }

    fn pump(&mut self, from: &mut QmuxConnection, stream: Stream) {
        let Some(rest) = self.left.get_mut(&stream) else { return };
        while !rest.is_empty() {
            let mut chunks = [rest.split_to(rest.len().min(900)), rest.split_to(rest.len().min(70_000))];
            let wrote = from.write(stream, &mut chunks);
            if chunks.iter().any(|chunk| !chunk.is_empty()) {
                *rest = [&chunks.concat()[..], rest].concat().into();
            }
            match wrote {
                Ok(0) | Err(WriteError::Blocked) => return,
                Ok(_) if chunks.iter().any(|chunk| !chunk.is_empty()) => return,
                Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
        from.finish(stream);
        self.left.remove(&stream);
    }

    fn send(&mut self, from: &mut QmuxConnection) {
        while let Some(body) = self.bodies.last() {
            let dir = if body.len().is_multiple_of(2) { Dir::Uni } else { Dir::Bi };
            let Some(stream) = from.open(dir, (body.len() % 3) as i32) else { break };
            self.left.insert(stream, self.bodies.pop().unwrap().into());
            self.pump(from, stream);
        }
        for event in events(from) {
            match event {
                TransportEvent::Writable(stream) => self.pump(from, stream),
                TransportEvent::Room => {
                    for stream in self.left.keys().copied().collect::<Vec<_>>() {
                        self.pump(from, stream);
                    }
                }
                TransportEvent::Openable(_) | TransportEvent::Ready => {}
                TransportEvent::Readable(stream) => assert!(take(from, stream).0.is_empty()),
                other => panic!("{other:?}"),
            }
        }
    }

    fn receive(&mut self, to: &mut QmuxConnection, rng: &mut Rng) {
        for event in events(to) {
            let stream = match event {
                TransportEvent::Opened(stream, _) => {
                    assert!(self.live.insert(stream, Vec::new()).is_none());
                    stream
                }
                TransportEvent::Readable(stream) => stream,
                TransportEvent::Ready | TransportEvent::Writable(_) | TransportEvent::Room => continue,
                other => panic!("{other:?}"),
            };
            let (more, end) = take(to, stream);
            self.live.get_mut(&stream).unwrap().extend(more);
            if end == Ok(()) {
                self.got.push(self.live.remove(&stream).unwrap());
                // End the other half of the peer's stream.
                if rng.below(2) == 0 {
                    to.finish(stream);
                } else {
                    to.finish(stream);
                    to.reset(stream, StreamCode::CANCEL);
                }
            } else {
                assert_eq!(end, Err(ReadError::Blocked));
            }
        }
    }
}

fn transfer(framing: QmuxFraming, over: QmuxCarrier, seed: u64) {
    let mut ends = Ends::new(framing, over, seed);
    let mut load = Load::new(&mut ends.rng);
    let mut expected = load.bodies.clone();
    let is_up = seed.is_multiple_of(2);
    let mut idle = 0;
    while load.got.len() < expected.len() {
        let moved = ends.step();
        let (from, to) =
            if is_up { (&mut ends.client, &mut ends.server) } else { (&mut ends.server, &mut ends.client) };
        load.send(from);
        load.receive(to, &mut ends.rng);
        idle = if moved { 0 } else { idle + 1 };
        assert!(idle < 100, "{framing:?} {over:?} seed {seed}: stuck with {} streams", load.left.len());
    }
    expected.sort();
    load.got.sort();
    assert!(load.got == expected, "{framing:?} {over:?} seed {seed}");
    for _ in 0..3 {
        ends.settle();
        for end in [&mut ends.client, &mut ends.server] {
            for event in events(end) {
                if let TransportEvent::Readable(stream) = event {
                    let _ = take(end, stream);
                }
            }
        }
    }
    assert_eq!(ends.client.streams.live(), (0, 0), "{framing:?} {over:?} seed {seed}");
    assert_eq!(ends.server.streams.live(), (0, 0), "{framing:?} {over:?} seed {seed}");
    assert_eq!(ends.client.traffic().bytes_out, ends.server.traffic().bytes_in);
    assert_eq!(ends.server.traffic().bytes_out, ends.client.traffic().bytes_in);
}

#[test]
fn every_byte_arrives_once_and_in_order_however_it_is_cut() {
    for (framing, over) in KINDS {
        for seed in 0..4 {
            transfer(framing, over, seed);
        }
    }
}

#[test]
fn readable_is_raised_only_after_a_blocked_read() {
    for (framing, over) in KINDS {
        let mut ends = Ends::ready(framing, over);
        let stream = ends.client.open(Dir::Uni, 1).unwrap();
        put(&mut ends.client, stream, b"one").unwrap();
        ends.settle();
        put(&mut ends.client, stream, b"two").unwrap();
        ends.settle();
        assert_eq!(events(&mut ends.server), [TransportEvent::Opened(stream, Dir::Uni)]);
        assert_eq!(take(&mut ends.server, stream), (b"onetwo".to_vec(), Err(ReadError::Blocked)));
        put(&mut ends.client, stream, b"three").unwrap();
        ends.client.finish(stream);
        assert_eq!(put(&mut ends.client, stream, b"x"), Err(WriteError::Gone));
        ends.settle();
        assert_eq!(events(&mut ends.server), [TransportEvent::Readable(stream)]);
        assert_eq!(take(&mut ends.server, stream), (b"three".to_vec(), Ok(())));
        assert_eq!(take(&mut ends.server, stream), (vec![], Err(ReadError::Gone)));
    }
}

#[test]
fn the_valve_holds_media_back_but_not_control_which_goes_first() {
    for (framing, over) in KINDS {
        let mut ends = Ends::ready(framing, over);
        let media = ends.server.open(Dir::Uni, 5).unwrap();
        let control = ends.server.open(Dir::Bi, PRIORITY_CONTROL).unwrap();
        let valve = limits::UNSENT_MEDIA as usize;
        assert_eq!(put(&mut ends.server, media, &vec![1; valve + 1]), Ok(valve));
        assert_eq!(put(&mut ends.server, control, b"x"), Err(WriteError::Blocked));
        ends.server.exempt(true);
        assert_eq!(put(&mut ends.server, control, b"urgent"), Ok(6));
        ends.server.exempt(false);
        assert!(!ends.server.has_event());
        let mut out = Vec::new();
        ends.server.transmit(ends.now, 1, &mut out);
        ends.client.receive(ends.now, &out.concat());
        assert_eq!(events(&mut ends.client), [TransportEvent::Opened(control, Dir::Bi)]);
        assert_eq!(take(&mut ends.client, control).0, b"urgent");
        ends.settle();
        assert!(ends.server.has_event());
        assert_eq!(events(&mut ends.server), [TransportEvent::Writable(control), TransportEvent::Room]);
        assert_eq!(put(&mut ends.server, media, &vec![1; valve]), Ok(valve));
    }
}

#[test]
fn control_has_a_bound_of_its_own() {
    let mut ends = Ends::ready(QmuxFraming::Legacy, QmuxCarrier::WebSocket);
    let stream = ends.server.open(Dir::Bi, PRIORITY_CONTROL).unwrap();
    let bound = limits::UNSENT_CONTROL as usize;
    ends.server.exempt(true);
    assert_eq!(put(&mut ends.server, stream, &vec![0; bound + 1]), Ok(bound));
    assert_eq!(put(&mut ends.server, stream, b"x"), Err(WriteError::Blocked));
    ends.server.exempt(false);
    let mut out = Vec::new();
    ends.server.transmit(ends.now, 1, &mut out);
    assert_eq!(events(&mut ends.server), [TransportEvent::Writable(stream), TransportEvent::Room]);
}

#[test]
fn flow_control_blocks_writes_and_reading_returns_credit() {
    for (framing, over) in KINDS.into_iter().filter(|(framing, _)| *framing != QmuxFraming::Legacy) {
        let mut ends = Ends::ready(framing, over);
        ends.client.exempt(true);
        let mut streams = Vec::new();
        let mut total = 0;
        while total < model::CONNECTION_WINDOW {
            let stream = ends.client.open(Dir::Uni, 1).unwrap();
            let mut sent = 0;
            while sent < model::STREAM_WINDOW {
                sent += put(&mut ends.client, stream, &vec![0; 1 << 20]).unwrap() as u64;
                ends.settle();
            }
            assert_eq!(sent, model::STREAM_WINDOW);
            assert_eq!(put(&mut ends.client, stream, b"x"), Err(WriteError::Blocked));
            streams.push(stream);
            total += sent;
        }
        let extra = ends.client.open(Dir::Uni, 1).unwrap();
        assert_eq!(put(&mut ends.client, extra, b"x"), Err(WriteError::Blocked));
        ends.settle();
        assert_eq!(ends.server.phase(), ConnPhase::Ready);
        events(&mut ends.client);
        // Read up to the growth that is worth a frame: no output before.
        let worth = model::STREAM_WINDOW / limits::CREDIT_SHARE;
        let mut read = 0;
        while read < worth {
            assert!(!ends.server.has_output());
            let max = usize::try_from(worth - read).unwrap();
            read += ends.server.read(streams[0], max).unwrap().unwrap().len() as u64;
        }
        assert!(ends.server.has_output());
        // The connection's credit is still held by another stream.
        ends.settle();
        assert!(!events(&mut ends.client).contains(&TransportEvent::Writable(extra)));
        let _ = take(&mut ends.server, streams[1]);
        ends.settle();
        assert!(events(&mut ends.client).contains(&TransportEvent::Writable(extra)));
        assert_eq!(put(&mut ends.client, streams[0], &vec![0; 1 << 20]), Ok(worth as usize));
    }
}

#[test]
fn streams_are_allowed_in_growing_numbers_up_to_the_most() {
    for (framing, over) in KINDS.into_iter().filter(|(framing, _)| *framing != QmuxFraming::Legacy) {
        for (dir, first, most) in [
            (Dir::Bi, model::BIDI_STREAMS, model::BIDI_STREAMS_MAX),
            (Dir::Uni, model::UNI_STREAMS, model::UNI_STREAMS_MAX),
        ] {
            let mut ends = Ends::ready(framing, over);
            let mut open = Vec::new();
            while let Some(stream) = ends.client.open(dir, 1) {
                open.push(stream);
            }
            assert_eq!(open.len() as u64, first);
            loop {
                for stream in &open {
                    let _ = put(&mut ends.client, *stream, b"x");
                }
                ends.settle();
                let may = events(&mut ends.client).contains(&TransportEvent::Openable(dir));
                if !may {
                    break;
                }
                while let Some(stream) = ends.client.open(dir, 1) {
                    open.push(stream);
                }
            }
            assert_eq!(open.len() as u64, most);
            // Every closed stream allows a new one.
            events(&mut ends.server);
            for stream in open.drain(..most as usize / 4) {
                ends.client.reset(stream, StreamCode::CANCEL);
                ends.settle();
                assert!(take(&mut ends.server, stream).1.is_err());
                ends.server.reset(stream, StreamCode::CANCEL);
            }
            ends.settle();
            assert!(events(&mut ends.client).contains(&TransportEvent::Openable(dir)));
            assert!(ends.client.open(dir, 1).is_some());
        }
    }
}

#[test]
fn four_hundred_streams_need_three_round_trips_of_credit() {
    for (framing, over) in KINDS.into_iter().filter(|(framing, _)| *framing != QmuxFraming::Legacy) {
        for dir in [Dir::Bi, Dir::Uni] {
            let mut ends = Ends::ready(framing, over);
            let (mut open, mut waits) = (0, 0);
            while open < 400 {
                while let Some(stream) = ends.client.open(dir, 1) {
                    put(&mut ends.client, stream, b"x").unwrap();
                    open += 1;
                }
                // No time passes: credit is sent together with other output.
                ends.settle();
                let events = events(&mut ends.client);
                assert!(
                    open >= 400 || events.contains(&TransportEvent::Openable(dir)),
                    "{framing:?} {over:?} {open}"
                );
                waits += usize::from(open < 400);
            }
            assert!(waits <= 3, "{framing:?} {over:?} {dir:?}: {waits}");
        }
    }
}

#[test]
fn blocked_peer_is_granted_what_it_may_have_at_once() {
    let most = 64;
    let mut theirs = Theirs::new(64, most);
    (0..most).for_each(|number| assert_eq!(theirs.meet(number), Ok(true)));
    theirs.retire();
    assert_eq!(theirs.credit(), None, "not worth a frame");
    theirs.blocked(most);
    assert!(theirs.is_due());
    assert_eq!(theirs.credit(), Some(most + 1));
    assert!(!theirs.is_due());
    // Blocked at an older limit: newer credit is in flight.
    theirs.blocked(most);
    assert!(!theirs.is_due());
}

#[test]
fn blocked_peer_makes_the_limit_grow() {
    let mut theirs = Theirs::new(16, 1_024);
    theirs.blocked(16);
    assert_eq!(theirs.credit(), Some(32));
    (0..100).for_each(|_| {
        theirs.blocked(u64::MAX);
        theirs.credit();
    });
    assert_eq!(theirs.meet(1_023), Ok(true));
    assert!(theirs.meet(1_024).is_err());
}

#[test]
fn a_reset_takes_back_what_was_not_sent_and_its_credit() {
    for (framing, over) in KINDS {
        let mut ends = Ends::ready(framing, over);
        let stream = ends.server.open(Dir::Uni, 1).unwrap();
        put(&mut ends.server, stream, b"sent").unwrap();
        ends.settle();
        let valve = limits::UNSENT_MEDIA as usize;
        assert_eq!(put(&mut ends.server, stream, &vec![0; valve]), Ok(valve));
        ends.server.reset(stream, StreamCode::OLD);
        let before = ends.server.traffic().bytes_out;
        ends.settle();
        assert!(ends.server.traffic().bytes_out - before < 50);
        assert_eq!(events(&mut ends.client), [TransportEvent::Opened(stream, Dir::Uni)]);
        assert_eq!(take(&mut ends.client, stream), (vec![], Err(ReadError::Reset(StreamCode::OLD))));
        let stream = ends.server.open(Dir::Uni, 1).unwrap();
        assert_eq!(put(&mut ends.server, stream, &vec![0; valve]), Ok(valve));
    }
}

#[test]
fn a_stop_reaches_the_writer_once_and_is_answered_by_a_reset() {
    for (framing, over) in KINDS {
        let mut ends = Ends::ready(framing, over);
        let stream = ends.client.open(Dir::Bi, 1).unwrap();
        put(&mut ends.client, stream, b"x").unwrap();
        ends.settle();
        ends.server.stop(stream, StreamCode::NOT_FOUND);
        ends.server.stop(stream, StreamCode::CANCEL);
        assert_eq!(ends.server.read(stream, 1), Err(ReadError::Gone));
        ends.settle();
        assert_eq!(events(&mut ends.client), [TransportEvent::Stopped(stream, StreamCode::NOT_FOUND)]);
        let refused = WriteError::Stopped(StreamCode::NOT_FOUND);
        assert_eq!(put(&mut ends.client, stream, b"y"), Err(refused));
        ends.client.reset(stream, StreamCode::CANCEL);
        ends.server.finish(stream);
        ends.settle();
        assert_eq!(take(&mut ends.client, stream), (vec![], Ok(())));
        assert_eq!((ends.client.streams.live(), ends.server.streams.live()), ((0, 0), (0, 0)));
        // Calls on a closed stream have no effect.
        ends.server.stop(stream, StreamCode::CANCEL);
        ends.server.reset(stream, StreamCode::CANCEL);
        assert!(!ends.server.has_output());
    }
}

#[test]
fn a_close_is_heard_after_what_came_before_it() {
    for (framing, over) in KINDS {
        let mut ends = Ends::ready(framing, over);
        let stream = ends.client.open(Dir::Uni, 1).unwrap();
        put(&mut ends.client, stream, b"last words").unwrap();
        ends.settle();
        ends.client.close(ends.now, SessionCode::UNAUTHORIZED, "no");
        ends.client.close(ends.now, SessionCode::NONE, "again");
        assert_eq!(events(&mut ends.client), [TransportEvent::Closed(TransportClosed::ByUs)]);
        assert_eq!(ends.client.phase(), ConnPhase::Closed);
        assert_eq!(ends.client.open(Dir::Bi, 1), None);
        ends.settle();
        assert_eq!(ends.server.poll(), Some(TransportEvent::Opened(stream, Dir::Uni)));
        assert_eq!(take(&mut ends.server, stream).0, b"last words");
        let why = TransportClosed::ByPeer(SessionCode::UNAUTHORIZED, "no".to_owned());
        assert_eq!(events(&mut ends.server), [TransportEvent::Closed(why)]);
        assert_eq!(ends.server.phase(), ConnPhase::Drained);
        // Over a WebSocket the peer's close completes it; otherwise the end of the socket or a timeout.
        if over == QmuxCarrier::Bytes {
            assert_eq!(ends.client.phase(), ConnPhase::Closed);
            ends.client.end_of_input("end");
        }
        assert_eq!(ends.client.phase(), ConnPhase::Drained);
        assert_eq!(events(&mut ends.client), []);
    }
}

#[test]
fn a_farewell_waits_for_a_second() {
    let mut ends = Ends::ready(QmuxFraming::Qmux01, QmuxCarrier::Bytes);
    ends.client.close(ends.now, SessionCode::NONE, "");
    let start = ends.now;
    assert_eq!(ends.client.timeout(), Some(start + limits::FAREWELL));
    ends.client.handle_timeout(start + limits::FAREWELL - MS);
    assert_eq!(ends.client.phase(), ConnPhase::Closed);
    ends.client.handle_timeout(start + limits::FAREWELL);
    assert_eq!((ends.client.phase(), ends.client.timeout()), (ConnPhase::Drained, None));
    assert!(!ends.client.has_output());
}

#[test]
fn the_end_of_the_socket_ends_the_session() {
    for (framing, over) in KINDS {
        let mut ends = Ends::ready(framing, over);
        ends.server.end_of_input("connection reset");
        let why = TransportClosed::Lost("connection reset".to_owned());
        assert_eq!(events(&mut ends.server), [TransportEvent::Closed(why)]);
        assert_eq!(ends.server.phase(), ConnPhase::Drained);
        assert_eq!(output(&mut ends.server, ends.now), b"");
    }
}

#[test]
fn who_says_nothing_is_given_up() {
    // Before the transport parameters.
    let start = Instant::now();
    let mut alone = QmuxConnection::new(QmuxConfig::new(QmuxFraming::Qmux01, QmuxCarrier::WebSocket), start);
    let at = start + model::SETUP_TIMEOUT;
    assert!(alone.timeout().unwrap() <= at);
    alone.handle_timeout(at - MS);
    assert_eq!(alone.phase(), ConnPhase::Opening);
    alone.handle_timeout(at);
    let why = TransportClosed::Lost("timeout waiting for transport parameters".to_owned());
    assert_eq!((alone.phase(), events(&mut alone)), (ConnPhase::Closed, vec![TransportEvent::Closed(why)]));
    // After them.
    for (framing, over) in KINDS {
        let mut ends = Ends::ready(framing, over);
        let start = ends.now;
        ends.now += limits::IDLE - MS;
        ends.server.handle_timeout(ends.now);
        assert_eq!(ends.server.phase(), ConnPhase::Ready);
        ends.server.handle_timeout(start + limits::IDLE);
        let why = TransportClosed::Lost("idle timeout".to_owned());
        assert_eq!(events(&mut ends.server), [TransportEvent::Closed(why)], "{framing:?} {over:?}");
    }
}

#[test]
fn the_shorter_idle_time_of_both_counts() {
    let server = QmuxConfig::new(QmuxFraming::Qmux01, QmuxCarrier::Bytes);
    let client = QmuxConfig { is_client: true, idle: MS * 700, ..server.clone() };
    let mut ends = Ends::of(client, server, 1);
    ends.settle();
    assert_eq!(ends.server.timeout(), Some(ends.now + MS * 700));
}

#[test]
fn pings_keep_it_alive_and_measure() {
    for (framing, over) in KINDS.into_iter().filter(|kind| *kind != (QmuxFraming::Qmux00, QmuxCarrier::Bytes))
    {
        let mut ends = Ends::ready(framing, over);
        for _ in 0..90 {
            ends.pass(MS * 1_000);
            let up = output(&mut ends.client, ends.now);
            let down = output(&mut ends.server, ends.now);
            ends.now += MS * 20;
            ends.server.receive(ends.now, &up);
            ends.client.receive(ends.now, &down);
            let up = output(&mut ends.client, ends.now);
            let down = output(&mut ends.server, ends.now);
            ends.now += MS * 20;
            ends.server.receive(ends.now, &up);
            ends.client.receive(ends.now, &down);
        }
        assert_eq!((ends.client.phase(), ends.server.phase()), (ConnPhase::Ready, ConnPhase::Ready));
        let rtt = (framing == QmuxFraming::Qmux01).then_some(MS * 40);
        assert_eq!(ends.server.stats().rtt, rtt);
    }
}

#[test]
fn the_round_trip_time_is_there_from_the_start() {
    let config =
        QmuxConfig { rtt: Some(MS * 30), ..QmuxConfig::new(QmuxFraming::Qmux01, QmuxCarrier::WebSocket) };
    let mut end = QmuxConnection::new(config, Instant::now());
    assert_eq!(end.stats().rtt, Some(MS * 30));
    end.set_path(relay_model::transport::PathStats { rtt: None, bitrate: Some(7) });
    assert_eq!((end.stats().rtt, end.stats().bitrate), (Some(MS * 30), Some(7)));
    end.set_path(relay_model::transport::PathStats { rtt: Some(MS), bitrate: None });
    assert_eq!(end.stats().rtt, Some(MS));
}

#[test]
fn datagram_queue_drops_the_oldest_and_needs_qmux_01() {
    for (framing, over) in KINDS {
        let mut ends = Ends::ready(framing, over);
        let max = ends.client.max_datagram();
        if framing != QmuxFraming::Qmux01 {
            assert_eq!(max, 0);
            assert_eq!(ends.client.send_datagram(Bytes::new()), Err(DatagramError::Unsupported));
            continue;
        }
        assert_eq!(ends.client.send_datagram(vec![0; max + 1].into()), Err(DatagramError::TooLarge));
        for n in 0..10 {
            ends.client.send_datagram(vec![n; max].into()).unwrap();
        }
        ends.settle();
        assert_eq!(events(&mut ends.server), [TransportEvent::Datagram]);
        let got: Vec<_> = std::iter::from_fn(|| ends.server.recv_datagram()).collect();
        assert_eq!(got.iter().map(|datagram| datagram[0]).collect::<Vec<_>>(), [7, 8, 9]);
        assert!(got.iter().all(|datagram| datagram.len() == max));
    }
}

#[test]
fn the_servers_first_protocol_that_the_client_has_is_spoken() {
    let of = |client, server| {
        let server =
            QmuxConfig { protocols: server, ..QmuxConfig::new(QmuxFraming::Qmux01, QmuxCarrier::Bytes) };
        let client = QmuxConfig { is_client: true, protocols: client, ..server.clone() };
        let mut ends = Ends::of(client, server, 3);
        ends.settle();
        assert_eq!(ends.client.protocol(), ends.server.protocol());
        (ends.server.protocol(), events(&mut ends.server))
    };
    assert_eq!(of(&["a", "b", "c"], &["x", "c", "b"]), (Some("c"), vec![TransportEvent::Ready]));
    // A peer without a protocol list: the legacy SETUP negotiates.
    assert_eq!(of(&[], &["x"]), (None, vec![TransportEvent::Ready]));
    let (protocol, events) = of(&["a"], &["x"]);
    assert_eq!(protocol, None);
    assert!(matches!(events[..], [TransportEvent::Closed(_)]), "{events:?}");
}

#[test]
fn without_credit_what_is_not_read_holds_the_carrier() {
    let mut ends = Ends::ready(QmuxFraming::Legacy, QmuxCarrier::WebSocket);
    let stream = ends.client.open(Dir::Uni, 1).unwrap();
    ends.client.exempt(true);
    for _ in 0..3 {
        put(&mut ends.client, stream, &vec![0; 1 << 20]).unwrap();
        ends.settle();
    }
    assert!(!ends.server.wants_input());
    let held = ends.server.traffic().bytes_in;
    assert!(held < limits::LEGACY_UNREAD + 100_000, "{held}");
    ends.server.poll();
    let _ = take(&mut ends.server, stream);
    assert!(ends.server.wants_input());
}
