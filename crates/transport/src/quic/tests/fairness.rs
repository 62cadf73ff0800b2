//! Limits on the work that one peer can cause at a time.

use relay_model::{SessionCode, limits, transport::TransportClosed};

use super::{
    connection::{DATAGRAMS, WAITING},
    *,
};

/// Returns the first packet of a client that offers `alpn` and is then removed.
fn first_flight(pair: &mut Pair, alpn: &str) -> Vec<u8> {
    let key = pair.dial(&[alpn]);
    let mut data = Vec::new();
    pair.client.conn(key).poll_transmit(pair.now, 1, &mut data).unwrap();
    pair.client.endpoint.remove(key);
    data
}

fn handle(pair: &mut Pair, data: &[u8]) -> FeedOutcome {
    let (now, from) = (pair.now, pair.client.addr);
    pair.server.endpoint.handle(now, from, None, None, data.into(), &mut Vec::new())
}

/// Sends `count` handshakes that fail in their first packet; returns the number of Retry responses.
fn failing_handshakes(pair: &mut Pair, count: u32) -> u64 {
    let before = pair.server.endpoint.stats().retries;
    for _ in 0..count {
        let data = first_flight(pair, "spoken by nobody");
        let fed = handle(pair, &data);
        assert!(matches!(fed, FeedOutcome::Respond(_)), "{fed:?}");
    }
    assert!(pair.server.endpoint.is_empty(), "none of them is in progress");
    pair.server.endpoint.stats().retries - before
}

#[test]
fn handshakes_that_fail_at_once_bring_retry() {
    let mut pair = Pair::new();
    assert_eq!(failing_handshakes(&mut pair, limits::HANDSHAKE_BURST), 0);
    assert_eq!(failing_handshakes(&mut pair, 100), 100);
    pair.now += Duration::from_millis(500);
    let refilled = limits::HANDSHAKE_RATE / 2;
    assert_eq!(failing_handshakes(&mut pair, refilled), 0);
    assert_eq!(failing_handshakes(&mut pair, 100), 100);
}

#[test]
fn newcomers_get_in_while_handshakes_fail() {
    let mut pair = Pair::new();
    failing_handshakes(&mut pair, limits::HANDSHAKE_BURST);
    // Too short for the bucket to allow a handshake without Retry.
    pair.latency = Duration::from_millis(1);
    let key = pair.dial(&["moq-lite-05"]);
    pair.settle();
    assert_eq!(pair.client_events(key), [TransportEvent::Ready]);
    assert_eq!(pair.server.endpoint.stats().retries, 1);
    pair.now += Duration::from_secs(2);
    let key = pair.dial(&["moq-lite-05"]);
    pair.settle();
    assert_eq!(pair.client_events(key), [TransportEvent::Ready]);
    assert_eq!(pair.server.endpoint.stats().retries, 1, "the rate has fallen");
}

/// Returns `count` datagrams of the client, each with one byte of a stream.
fn small_datagrams(pair: &mut Pair, client: ConnKey, stream: Stream, count: usize) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    while datagrams.len() < count {
        write_all(pair.client.conn(client), stream, &[7]);
        let mut data = Vec::new();
        pair.client.conn(client).poll_transmit(pair.now, 1, &mut data).expect("room in the window");
        datagrams.push(data);
    }
    datagrams
}

#[test]
fn one_connection_feeds_a_share_of_datagrams() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect(&["moq-lite-05"]);
    pair.server_events(server);
    let stream = pair.client.conn(client).open(Dir::Uni, 0).unwrap();
    let datagrams = small_datagrams(&mut pair, client, stream, DATAGRAMS + 8);
    for data in &datagrams {
        assert_eq!(handle(&mut pair, data), FeedOutcome::Conn(server));
    }
    let now = pair.now;
    let read = |pair: &mut Pair| {
        pair.server_events(server);
        read_all(pair.server.conn(server), stream).0.len()
    };
    assert_eq!(read(&mut pair), DATAGRAMS);
    assert!(pair.server.conn(server).has_input());
    pair.server.endpoint.process_connection(server, now);
    assert_eq!(read(&mut pair), 8, "in order, and none is lost");
    assert!(!pair.server.conn(server).has_input());
}

#[test]
fn a_flooded_connection_loses_datagrams_and_others_do_not() {
    const SENT: usize = DATAGRAMS + WAITING + 100;
    let mut pair = Pair::new();
    let (flooding, flooded) = pair.connect(&["moq-lite-05"]);
    let (quiet, other) = pair.connect(&["moq-lite-05"]);
    let stream = pair.client.conn(flooding).open(Dir::Uni, 0).unwrap();
    let datagrams = small_datagrams(&mut pair, flooding, stream, 20);
    let fed: Vec<FeedOutcome> =
        datagrams.iter().cycle().take(SENT).map(|data| handle(&mut pair, data)).collect();
    let dropped = fed.iter().filter(|fed| **fed == FeedOutcome::Dropped(flooded)).count();
    assert_eq!(dropped, SENT - DATAGRAMS - WAITING);
    assert_eq!(pair.server.endpoint.stats().dropped, dropped as u64);
    let stream = pair.client.conn(quiet).open(Dir::Uni, 0).unwrap();
    let datagrams = small_datagrams(&mut pair, quiet, stream, 1);
    assert_eq!(handle(&mut pair, &datagrams[0]), FeedOutcome::Conn(other));
    pair.server_events(other);
    assert_eq!(read_all(pair.server.conn(other), stream).0.len(), 1);
}

#[test]
fn input_waits_while_the_session_has_events_to_take() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect(&["moq-lite-05"]);
    let now = pair.now;
    assert_eq!(pair.server.conn(server).poll(), Some(TransportEvent::Ready));
    pair.server.conn(server).hold_input();
    let stream = pair.client.conn(client).open(Dir::Uni, 0).unwrap();
    let datagrams = small_datagrams(&mut pair, client, stream, 1);
    assert_eq!(handle(&mut pair, &datagrams[0]), FeedOutcome::Conn(server));
    pair.server.endpoint.process_connection(server, now);
    assert!(!pair.server.conn(server).has_input());
    assert!(opened(&pair.server_events(server), Dir::Uni).is_empty(), "nothing new came");
    assert!(pair.server.conn(server).has_input(), "the session has taken all events");
    pair.server.endpoint.process_connection(server, now);
    assert_eq!(opened(&pair.server_events(server), Dir::Uni), [stream]);
}

#[test]
fn what_came_before_a_close_can_be_read() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect(&["moq-lite-05"]);
    let stream = pair.client.conn(client).open(Dir::Uni, 0).unwrap();
    write_all(pair.client.conn(client), stream, &[7; 3_000]);
    pair.client.conn(client).finish(stream);
    pair.settle();
    let now = pair.now;
    pair.client.conn(client).close(now, SessionCode::NONE, "done");
    pair.settle();
    // The session has not polled since.
    let conn = pair.server.conn(server);
    assert_eq!((conn.phase(), conn.poll()), (ConnPhase::Closed, Some(TransportEvent::Ready)));
    assert_eq!(conn.poll(), Some(TransportEvent::Opened(stream, Dir::Uni)));
    assert_eq!(read_all(conn, stream), (vec![7; 3_000], Ok(())));
    let closed = TransportClosed::ByPeer(SessionCode::NONE, "done".to_owned());
    assert_eq!(drain(conn).pop(), Some(TransportEvent::Closed(closed)));
}
