//! Raw QUIC sessions.

use relay_model::{
    SessionCode, StreamCode, limits,
    transport::{DatagramError, PRIORITY_CONTROL, TransportClosed},
};

use super::*;

const RAW: &[&str] = &["moq-lite-05"];

fn ready() -> (Pair, ConnKey, ConnKey) {
    let mut pair = Pair::new();
    let (client, server) = pair.connect(RAW);
    assert_eq!(pair.client_events(client), [TransportEvent::Ready]);
    assert_eq!(pair.server_events(server), [TransportEvent::Ready]);
    (pair, client, server)
}

#[test]
fn a_session_is_ready_after_the_handshake() {
    let (mut pair, _, server) = ready();
    let conn = pair.server.conn(server);
    assert_eq!(
        (conn.phase(), conn.layer().protocol(), conn.layer().target()),
        (ConnPhase::Ready, Some("moq-lite-05"), None)
    );
    assert!(!conn.layer().is_webtransport());
    assert_eq!(conn.remote(), "10.0.0.1:1000".parse().unwrap(), "canonical");
}

#[test]
fn moq_is_preferred_to_http() {
    let mut pair = Pair::new();
    let (_, server) = pair.connect(&["h3", "moq-lite-05"]);
    assert_eq!(pair.server.conn(server).layer().protocol(), Some("moq-lite-05"));
}

#[test]
fn the_newest_version_in_common_is_spoken() {
    for (offer, spoken) in [
        (&["moql"][..], "moql"),
        (&["moql", "moq-lite-03"], "moq-lite-03"),
        (&["moq-lite-03", "moq-lite-05", "moq-lite-06"][..], "moq-lite-06"),
        (&["moq-lite-03", "moq-lite-04"], "moq-lite-04"),
        (&["moq-lite-03", "h3"], "moq-lite-03"),
    ] {
        let mut pair = Pair::new();
        let (client, server) = pair.connect(offer);
        assert_eq!(pair.server.conn(server).layer().protocol(), Some(spoken));
        assert_eq!(pair.client.conn(client).layer().protocol(), Some(spoken));
    }
}

#[test]
fn versions_that_are_not_to_be_spoken_are_not_offered() {
    let mut pair =
        Pair::speaking(&[relay_wire::lite::Version::V04.into(), relay_wire::lite::Version::V05.into()]);
    let (_, server) = pair.connect(&["moq-lite-06", "moq-lite-05", "moq-lite-04"]);
    assert_eq!(pair.server.conn(server).layer().protocol(), Some("moq-lite-05"));
    let refused = pair.dial(&["moq-lite-06", "moq-lite-03"]);
    pair.settle();
    assert!(matches!(pair.client_events(refused)[..], [TransportEvent::Closed(TransportClosed::Lost(_))]));
    let (cert, key) = identity();
    let none = QuicTuning { versions: Vec::new(), ..QuicTuning::default() };
    let made = QuicConfig::new(certificate(vec![cert], key).unwrap(), &SECRET, 1, &none);
    assert!(matches!(made.err(), Some(ConfigError::Versions)));
}

#[test]
fn codes_of_old_releases_arrive_as_present_ones() {
    let (mut pair, client, server) = ready();
    let up = pair.client.conn(client).open(Dir::Bi, 0).unwrap();
    write_all(pair.client.conn(client), up, b"x");
    pair.settle();
    pair.server_events(server);
    assert!(pair.server.conn(server).read(up, 9).is_ok());
    pair.client.conn(client).reset(up, StreamCode(31));
    pair.client.conn(client).stop(up, StreamCode(13));
    pair.settle();
    let events = pair.server_events(server);
    assert!(events.contains(&TransportEvent::Stopped(up, StreamCode::NOT_FOUND)), "{events:?}");
    let conn = pair.server.conn(server);
    assert_eq!(
        conn.write(up, &mut [Bytes::from_static(b"y")]),
        Err(WriteError::Stopped(StreamCode::NOT_FOUND))
    );
    assert_eq!(conn.read(up, 9), Err(ReadError::Reset(StreamCode::EVICTED)));
}

#[test]
fn both_ends_open_write_and_finish() {
    let (mut pair, client, server) = ready();
    for dir in [Dir::Bi, Dir::Uni] {
        let up = pair.client.conn(client).open(dir, 0).unwrap();
        write_all(pair.client.conn(client), up, b"up");
        pair.client.conn(client).finish(up);
        let down = pair.server.conn(server).open(dir, 5).unwrap();
        write_all(pair.server.conn(server), down, b"down");
        pair.server.conn(server).finish(down);
        pair.settle();
        let seen = opened(&pair.server_events(server), dir);
        assert_eq!(seen, [up]);
        assert_eq!(read_all(pair.server.conn(server), up), (b"up".to_vec(), Ok(())));
        assert_eq!(pair.server.conn(server).read(up, 9), Err(ReadError::Gone), "gone once finished");
        let seen = opened(&pair.client_events(client), dir);
        assert_eq!(seen, [down]);
        assert_eq!(read_all(pair.client.conn(client), down), (b"down".to_vec(), Ok(())));
    }
}

#[test]
fn reads_are_cut_to_the_size_asked() {
    let (mut pair, client, server) = ready();
    let up = pair.client.conn(client).open(Dir::Uni, 0).unwrap();
    write_all(pair.client.conn(client), up, b"abcdef");
    pair.settle();
    pair.server_events(server);
    let conn = pair.server.conn(server);
    assert_eq!(conn.read(up, 4), Ok(Some(Bytes::from_static(b"abcd"))));
    assert_eq!(conn.read(up, 4), Ok(Some(Bytes::from_static(b"ef"))));
    assert_eq!(conn.read(up, 4), Err(ReadError::Blocked));
    write_all(pair.client.conn(client), up, b"g");
    pair.settle();
    assert_eq!(pair.server_events(server), [TransportEvent::Readable(up)]);
}

#[test]
fn codes_of_resets_and_stops_survive() {
    let (mut pair, client, server) = ready();
    let up = pair.client.conn(client).open(Dir::Bi, 0).unwrap();
    write_all(pair.client.conn(client), up, b"x");
    pair.settle();
    pair.server_events(server);
    assert_eq!(pair.server.conn(server).read(up, 9), Ok(Some(Bytes::from_static(b"x"))));
    pair.client.conn(client).reset(up, StreamCode::OLD);
    pair.client.conn(client).stop(up, StreamCode::UNROUTABLE);
    pair.settle();
    let events = pair.server_events(server);
    assert!(events.contains(&TransportEvent::Readable(up)), "{events:?}");
    assert!(events.contains(&TransportEvent::Stopped(up, StreamCode::UNROUTABLE)), "{events:?}");
    let conn = pair.server.conn(server);
    assert_eq!(conn.read(up, 9), Err(ReadError::Reset(StreamCode::OLD)));
    assert_eq!(
        conn.write(up, &mut [Bytes::from_static(b"y")]),
        Err(WriteError::Stopped(StreamCode::UNROUTABLE))
    );
    conn.reset(up, StreamCode::CANCEL);
    assert_eq!(conn.read(up, 9), Err(ReadError::Gone));
    assert_eq!(conn.write(up, &mut [Bytes::from_static(b"y")]), Err(WriteError::Gone));
}

#[test]
fn keys_of_no_stream_are_harmless() {
    let (mut pair, client, _) = ready();
    let own_uni = pair.client.conn(client).open(Dir::Uni, 0).unwrap();
    let conn = pair.client.conn(client);
    for stream in [Stream(u64::MAX), Stream(4_000), Stream(4_003), own_uni] {
        assert_eq!(conn.read(stream, 1), Err(ReadError::Gone));
        conn.stop(stream, StreamCode::CANCEL);
    }
    for stream in [Stream(u64::MAX), Stream(4_000), Stream(3)] {
        assert_eq!(conn.write(stream, &mut [Bytes::from_static(b"x")]), Err(WriteError::Gone));
        conn.finish(stream);
        conn.reset(stream, StreamCode::CANCEL);
        conn.set_priority(stream, 1);
    }
}

#[test]
fn chunks_are_handed_over_front_first() {
    let (mut pair, client, _) = ready();
    let conn = pair.client.conn(client);
    let stream = conn.open(Dir::Uni, 0).unwrap();
    assert_eq!(conn.write(stream, &mut [Bytes::new(), Bytes::new()]), Ok(0));
    let mut chunks = [Bytes::from_static(b"ab"), Bytes::new(), Bytes::from(vec![1; 1 << 20])];
    let taken = conn.write(stream, &mut chunks).unwrap();
    assert!((3..1 << 20).contains(&taken), "{taken}");
    assert!(chunks[0].is_empty() && chunks[1].is_empty());
    assert_eq!(chunks[2].len(), (1 << 20) + 2 - taken);
}

#[test]
fn datagrams_pass_up_to_the_largest() {
    let (mut pair, client, server) = ready();
    let max = pair.client.conn(client).max_datagram();
    assert!(max >= limits::DATAGRAM_PAYLOAD - 60, "{max}");
    pair.client.conn(client).send_datagram(Bytes::from(vec![9; max])).unwrap();
    pair.client.conn(client).send_datagram(Bytes::from_static(b"small")).unwrap();
    let over = pair.client.conn(client).send_datagram(Bytes::from(vec![9; 1_500]));
    assert_eq!(over, Err(DatagramError::TooLarge));
    pair.settle();
    assert_eq!(pair.server_events(server), [TransportEvent::Datagram]);
    let conn = pair.server.conn(server);
    assert_eq!(conn.recv_datagram().map(|datagram| datagram.len()), Some(max));
    assert_eq!(conn.recv_datagram(), Some(Bytes::from_static(b"small")));
    assert_eq!(conn.recv_datagram(), None);
}

#[test]
fn the_peer_may_open_more_as_it_uses_what_it_has() {
    let (mut pair, client, server) = ready();
    for (dir, first, most) in [
        (Dir::Bi, limits::BIDI_STREAMS, limits::BIDI_STREAMS_MAX),
        (Dir::Uni, limits::UNI_STREAMS, limits::UNI_STREAMS_MAX),
    ] {
        let mut open = 0;
        let mut rounds = 0;
        while rounds < 16 {
            while let Some(stream) = pair.client.conn(client).open(dir, 0) {
                write_all(pair.client.conn(client), stream, b"x");
                open += 1;
            }
            assert!(rounds > 0 || open == first, "{open}");
            assert!(rounds < 3 || open >= 400, "{open} after {rounds} round trips");
            rounds += 1;
            pair.settle();
            pair.server_events(server);
            pair.settle();
            let events = pair.client_events(client);
            assert!(open == most || events.contains(&TransportEvent::Openable(dir)), "{events:?}");
        }
        assert_eq!(open, most, "and not one more");
    }
}

#[test]
fn the_streams_a_peer_may_open_stop_where_the_operator_says() {
    let mut pair = Pair::tuned(QuicTuning { max_streams: Some(40), ..QuicTuning::default() });
    let (client, server) = pair.connect(RAW);
    for dir in [Dir::Bi, Dir::Uni] {
        let mut open = 0;
        for _ in 0..8 {
            while let Some(stream) = pair.client.conn(client).open(dir, 0) {
                write_all(pair.client.conn(client), stream, b"x");
                open += 1;
            }
            pair.settle();
            pair.server_events(server);
            pair.settle();
            pair.client_events(client);
        }
        assert_eq!(open, 40, "{dir:?}");
    }
}

#[test]
fn a_silent_peer_is_given_up_after_the_idle_timeout_set() {
    let idle = Duration::from_secs(2);
    let mut pair = Pair::tuned(QuicTuning { idle, keep_alive: None, ..QuicTuning::default() });
    let (_, server) = pair.connect(RAW);
    pair.server_events(server);
    pair.client.endpoint = Pair::new().client.endpoint;
    pair.run(idle - Duration::from_millis(500));
    assert!(!pair.server_events(server).iter().any(|event| matches!(event, TransportEvent::Closed(_))));
    pair.run(Duration::from_secs(1));
    assert!(pair.server_events(server).iter().any(|event| matches!(event, TransportEvent::Closed(_))));
}

#[test]
fn a_finished_stream_gives_its_place_back() {
    let (mut pair, client, server) = ready();
    for round in 0..limits::UNI_STREAMS * 4 {
        let stream = pair.client.conn(client).open(Dir::Uni, 0).expect("credit");
        write_all(pair.client.conn(client), stream, b"x");
        pair.client.conn(client).finish(stream);
        pair.settle();
        assert_eq!(opened(&pair.server_events(server), Dir::Uni), [stream], "round {round}");
        read_all(pair.server.conn(server), stream).1.unwrap();
    }
    let allowed = pair.server.conn(server).link.quic.max_concurrent_streams(quinn_proto::Dir::Uni);
    assert_eq!(allowed, limits::UNI_STREAMS, "no growth for a peer that uses one");
}

#[test]
fn a_blocked_stream_becomes_writable_when_the_peer_reads() {
    let (mut pair, client, server) = ready();
    let down = pair.server.conn(server).open(Dir::Uni, 0).unwrap();
    let mut taken = 0;
    // Until the stream's credit is exhausted, as the peer does not read.
    for _ in 0..2_000 {
        taken += fill(pair.server.conn(server), down, usize::MAX).0;
        pair.run(Duration::from_millis(20));
        pair.server_events(server);
        if taken as u64 == limits::STREAM_WINDOW {
            break;
        }
    }
    assert_eq!(taken as u64, limits::STREAM_WINDOW);
    pair.client_events(client);
    assert_eq!(fill(pair.server.conn(server), down, 1).1, Some(WriteError::Blocked));
    pair.settle();
    assert_eq!(pair.server_events(server), [], "nothing came: there is no room");
    let (got, _) = read_all(pair.client.conn(client), down);
    assert_eq!(got.len(), taken);
    pair.settle();
    let events = pair.server_events(server);
    assert!(events.contains(&TransportEvent::Writable(down)), "{events:?}");
    assert!(fill(pair.server.conn(server), down, 1).0 > 0);
}

#[test]
fn room_is_told_after_a_short_write_only() {
    let (mut pair, client, server) = ready();
    let down = pair.server.conn(server).open(Dir::Uni, 0).unwrap();
    write_all(pair.server.conn(server), down, b"little");
    pair.settle();
    assert!(!pair.server_events(server).contains(&TransportEvent::Room));
    let mut chunk = [Bytes::from(vec![1; 1 << 20])];
    let taken = pair.server.conn(server).write(down, &mut chunk).unwrap();
    assert!(taken < 1 << 20, "the valve is nearly shut");
    pair.settle();
    assert!(pair.server_events(server).contains(&TransportEvent::Room));
    assert!(pair.server.conn(server).write(down, &mut chunk).unwrap() > 0);
    drop(pair.client_events(client));
}

#[test]
fn the_valve_keeps_little_unsent_and_control_passes() {
    let (mut pair, client, server) = ready();
    pair.rate = Some(125_000);
    pair.latency = Duration::from_millis(20);
    let media = pair.server.conn(server).open(Dir::Uni, 1).unwrap();
    let (mut written, mut read, mut peak) = (0, 0, 0);
    for _ in 0..300 {
        written += fill(pair.server.conn(server), media, usize::MAX).0;
        // The window may have shrunk since the bytes were accepted.
        peak = peak.max(pair.server.conn(server).link.quic.congestion_state().window() as usize);
        let bound = peak + peak / 4 + 32 * 1024;
        assert!(written - read <= bound, "{} held, {bound} allowed", written - read);
        pair.run(Duration::from_millis(20));
        pair.server_events(server);
        pair.client_events(client);
        read += read_all(pair.client.conn(client), media).0.len();
    }
    // Six seconds at one megabit per second: the valve did not starve the link.
    assert!(read > 600_000, "{read}");
    fill(pair.server.conn(server), media, usize::MAX);
    let control = pair.server.conn(server).open(Dir::Bi, PRIORITY_CONTROL).unwrap();
    let conn = pair.server.conn(server);
    assert_eq!(conn.write(control, &mut [Bytes::from_static(b"now")]), Err(WriteError::Blocked));
    conn.exempt(true);
    write_all(conn, control, b"now");
    conn.exempt(false);
    assert_eq!(fill(conn, media, 1).0, 0, "the valve is back");
    let started = pair.now;
    while read_all(pair.client.conn(client), control).0 != b"now" {
        pair.run(Duration::from_millis(5));
        pair.client_events(client);
        // Control is queued only behind data already in flight.
        assert!(pair.now - started < QUEUE + Duration::from_millis(150), "control waits for media");
    }
}

#[test]
fn closes_reach_the_peer_with_code_and_reason() {
    for from_server in [true, false] {
        let (mut pair, client, server) = ready();
        let now = pair.now;
        let (ours, theirs) = if from_server {
            pair.server.conn(server).close(now, SessionCode::UNAUTHORIZED, "no");
            pair.settle();
            (pair.server_events(server), pair.client_events(client))
        } else {
            pair.client.conn(client).close(now, SessionCode::UNAUTHORIZED, "no");
            pair.settle();
            (pair.client_events(client), pair.server_events(server))
        };
        assert_eq!(ours, [TransportEvent::Closed(TransportClosed::ByUs)]);
        assert_eq!(
            theirs,
            [TransportEvent::Closed(TransportClosed::ByPeer(SessionCode::UNAUTHORIZED, "no".into()))]
        );
        assert_eq!(pair.server.conn(server).open(Dir::Uni, 0), None);
        pair.run(Duration::from_secs(5));
        assert_eq!(pair.server.conn(server).phase(), ConnPhase::Drained);
        assert_eq!(pair.server_events(server), []);
    }
}

#[test]
fn large_sends_leave_in_trains_unless_told_otherwise() {
    for segments in [64, 1] {
        let (mut pair, _, server) = ready();
        pair.segments = segments;
        pair.run(Duration::from_secs(1));
        pair.server.train = 0;
        let down = pair.server.conn(server).open(Dir::Uni, 0).unwrap();
        for _ in 0..20 {
            fill(pair.server.conn(server), down, usize::MAX);
            pair.run(Duration::from_millis(20));
            pair.server_events(server);
        }
        if segments == 1 {
            assert_eq!(pair.server.train, 1);
        } else {
            assert!(pair.server.train > 4, "{}", pair.server.train);
            let mtu = usize::from(pair.server.conn(server).link.quic.current_mtu());
            assert_eq!(mtu, 1_452, "found by probing");
            assert!(pair.server.train * mtu <= 65_507);
        }
    }
}

#[test]
fn a_full_link_is_measured_and_an_idle_one_is_not_guessed_at() {
    for (rate, bits) in [(125_000, 1_000_000), (625_000, 5_000_000)] {
        let (mut pair, client, server) = ready();
        assert_eq!(pair.server.conn(server).stats().bitrate, None, "nothing measured yet");
        pair.rate = Some(rate);
        let down = pair.server.conn(server).open(Dir::Uni, 0).unwrap();
        for round in 0..500 {
            fill(pair.server.conn(server), down, usize::MAX);
            pair.run(Duration::from_millis(20));
            pair.server_events(server);
            pair.client_events(client);
            let _ = read_all(pair.client.conn(client), down);
            let told = pair.server.conn(server).stats().bitrate.unwrap_or_default();
            // From the third second on, regardless of queueing and losses.
            assert!(round < 150 || (bits * 7 / 10..bits * 13 / 10).contains(&told), "{told} of {bits}");
        }
        let stats = pair.server.conn(server).stats();
        assert!(stats.rtt.unwrap() >= Duration::from_millis(10));
        pair.run(Duration::from_secs(15));
        assert_eq!(pair.server.conn(server).stats().bitrate, None, "idle");
    }
}
