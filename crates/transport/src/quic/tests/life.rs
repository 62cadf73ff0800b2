//! Life cycle of connections.

use relay_model::{SessionCode, limits, transport::TransportClosed};

use super::*;

#[test]
fn an_unknown_alpn_is_refused() {
    let mut pair = Pair::new();
    let client = pair.dial(&["moq-lite-99"]);
    pair.settle();
    let events = pair.client_events(client);
    assert!(matches!(events[..], [TransportEvent::Closed(TransportClosed::Lost(_))]), "{events:?}");
    for key in pair.server.accepted.clone() {
        assert_ne!(pair.server.conn(key).phase(), ConnPhase::Ready);
    }
}

#[test]
fn new_connections_are_refused_on_demand_and_old_ones_live_on() {
    let mut pair = Pair::new();
    let (old, server) = pair.connect(&["moq-lite-05"]);
    pair.server.endpoint.refuse_new(true);
    let refused = pair.dial(&["moq-lite-05"]);
    pair.settle();
    let events = pair.client_events(refused);
    assert!(matches!(events[..], [TransportEvent::Closed(TransportClosed::Lost(_))]), "{events:?}");
    assert_eq!((pair.server.endpoint.len(), pair.server.endpoint.stats().refused), (1, 1));
    assert_eq!(pair.server.conn(server).phase(), ConnPhase::Ready);
    assert_eq!(pair.client_events(old), [TransportEvent::Ready]);
    pair.server.endpoint.refuse_new(false);
    let (_, next) = pair.connect(&["moq-lite-05"]);
    assert_eq!(pair.server.conn(next).phase(), ConnPhase::Ready);
}

#[test]
fn stale_keys_find_nothing() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect(&["moq-lite-05"]);
    assert_eq!(ConnKey::from_u64(server.to_u64()), server);
    let now = pair.now;
    pair.client.conn(client).close(now, SessionCode::NONE, "");
    pair.run(Duration::from_secs(3));
    assert_eq!(pair.server.conn(server).phase(), ConnPhase::Drained);
    pair.server.endpoint.remove(server);
    pair.server.endpoint.remove(server);
    assert!(pair.server.endpoint.is_empty());
    assert_eq!(pair.server.endpoint.process_connection(server, now), ConnPhase::Drained);
    let (_, next) = pair.connect(&["moq-lite-05"]);
    assert_eq!(next.slot(), server.slot());
    assert_ne!(next, server);
    assert!(pair.server.endpoint.conn(server).is_none());
    assert!(pair.server.endpoint.conn(next).is_some());
}

#[test]
fn a_slot_is_not_reused_before_its_connection_is_removed() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect(&["moq-lite-05"]);
    let now = pair.now;
    pair.client.conn(client).close(now, SessionCode::NONE, "");
    pair.run(Duration::from_secs(3));
    let (_, next) = pair.connect(&["moq-lite-05"]);
    assert_ne!(next.slot(), server.slot());
    assert!(
        pair.server_events(server)
            .contains(&TransportEvent::Closed(TransportClosed::ByPeer(SessionCode::NONE, String::new())))
    );
}

#[test]
fn a_connection_dropped_after_a_panic_leaves_the_endpoint_whole() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect(&["moq-lite-05"]);
    pair.server.endpoint.remove(server);
    pair.run(Duration::from_secs(11));
    let events = pair.client_events(client);
    assert!(matches!(events.last(), Some(TransportEvent::Closed(TransportClosed::Lost(_)))), "{events:?}");
    let (_, next) = pair.connect(&["moq-lite-05"]);
    assert_eq!(pair.server.conn(next).phase(), ConnPhase::Ready);
}

#[test]
fn retry_is_asked_past_the_limit_and_lets_clients_in() {
    let mut pair = Pair::new();
    let now = pair.now;
    let mut out = Vec::new();
    let mut first_flight = |pair: &mut Pair| {
        let key = pair.dial(&["moq-lite-05"]);
        let transmit = pair.client.conn(key).poll_transmit(now, 1, &mut Vec::new());
        assert!(transmit.is_some());
        let mut data = Vec::new();
        // A second packet of the same connection would be a retransmission: start a new one.
        pair.client.endpoint.remove(key);
        let key = pair.dial(&["moq-lite-05"]);
        pair.client.conn(key).poll_transmit(now, 1, &mut data).unwrap();
        let fed = pair.server.endpoint.handle(now, pair.client.addr, None, None, data[..].into(), &mut out);
        (key, fed)
    };
    for _ in 0..limits::UNVALIDATED_HANDSHAKES {
        let (key, fed) = first_flight(&mut pair);
        assert!(matches!(fed, FeedOutcome::New(_)), "{fed:?}");
        pair.client.endpoint.remove(key);
    }
    let (key, fed) = first_flight(&mut pair);
    let FeedOutcome::Respond(_) = fed else { panic!("{fed:?}") };
    assert_eq!(pair.server.endpoint.stats().retries, 1);
    let from = pair.server.addr;
    pair.client.endpoint.handle(now, from, None, None, out[..].into(), &mut Vec::new());
    pair.settle();
    assert_eq!(pair.client_events(key), [TransportEvent::Ready]);
    // The other handshakes time out.
    pair.run(limits::SETUP_TIMEOUT * 2);
    let (_, fed) = {
        let key = pair.dial(&["moq-lite-05"]);
        pair.settle();
        (key, pair.client_events(key))
    };
    assert_eq!(fed, [TransportEvent::Ready]);
    assert_eq!(pair.server.endpoint.stats().retries, 1);
}

#[test]
fn a_restarted_endpoint_resets_its_old_clients() {
    let mut pair = Pair::new();
    let (client, _) = pair.connect(&["moq-lite-05"]);
    pair.server = Node::new("10.0.0.2:443", 9, pair.now);
    let up = pair.client.conn(client).open(Dir::Uni, 0).unwrap();
    write_all(pair.client.conn(client), up, &[1; 500]);
    pair.settle();
    let events = pair.client_events(client);
    assert!(
        events.contains(&TransportEvent::Closed(TransportClosed::Lost("reset by peer".into()))),
        "{events:?}"
    );
}

#[test]
fn a_packet_at_the_wrong_worker_is_dropped() {
    let mut pair = Pair::new();
    let (client, _) = pair.connect(&["moq-lite-05"]);
    let mut other = Endpoint::new(&server_config(), WorkerId(2), true, Some([5; 32]));
    let up = pair.client.conn(client).open(Dir::Uni, 0).unwrap();
    write_all(pair.client.conn(client), up, &[1; 500]);
    let (mut data, mut out, now) = (Vec::new(), Vec::new(), pair.now);
    pair.client.conn(client).poll_transmit(now, 1, &mut data).unwrap();
    assert_eq!(
        other.handle(now, pair.client.addr, None, None, data[..].into(), &mut out),
        FeedOutcome::Nothing
    );
    assert!(out.is_empty());
}

#[test]
fn a_peer_that_moves_is_followed() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect(&["moq-lite-05"]);
    pair.server_events(server);
    // The canonical form of the same address is not a migration.
    pair.client.addr = "10.0.0.1:1000".parse().unwrap();
    let up = pair.client.conn(client).open(Dir::Uni, 0).unwrap();
    write_all(pair.client.conn(client), up, b"x");
    pair.settle();
    assert_eq!(pair.server_events(server), [TransportEvent::Opened(up, Dir::Uni)]);
    pair.client.addr = "[::ffff:10.0.0.9]:77".parse().unwrap();
    write_all(pair.client.conn(client), up, b"y");
    pair.settle();
    let moved = "10.0.0.9:77".parse().unwrap();
    assert!(pair.server_events(server).contains(&TransportEvent::Moved(moved)));
    assert_eq!(pair.server.conn(server).remote(), moved);
    assert_eq!(read_all(pair.server.conn(server), up).0, b"xy");
}

#[test]
fn silence_ends_a_connection_and_keep_alives_prevent_it() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect(&["moq-lite-05"]);
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.server.conn(server).phase(), ConnPhase::Ready);
    pair.client.endpoint.remove(client);
    pair.run(Duration::from_secs(21));
    let events = pair.server_events(server);
    assert!(matches!(events.last(), Some(TransportEvent::Closed(TransportClosed::Lost(_)))), "{events:?}");
}

#[test]
fn our_own_share_of_an_idle_connection_is_small() {
    let ours = size_of::<QuicConnection>() - size_of::<quinn_proto::Connection>();
    assert!(ours < 512, "{ours} bytes");
}
