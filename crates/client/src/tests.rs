//! Both ends of the protocol over real loopback sockets: moq-lite is symmetric, so the server half is a session of this
//! crate on the accepted connection, behind the HTTP/3 half of a server on WebTransport.

mod reconnect;
mod server;
mod sockets;
mod versions;

use std::time::Duration;

use relay_model::{Hop, Prefs, SessionCode, Start, StreamCode, TrackInfo};

use self::server::Server;
use crate::{AckFrequency, Certs, Client, ClientConfig, Closed, Code, Error, Event, Piece, Tuning, lite};

const SCHEMES: [&str; 2] = ["moqt", "https"];

async fn pair(scheme: &str, config: ClientConfig) -> (Client, Server) {
    let listener = server::Listener::new();
    let url = listener.url(scheme);
    let (client, server) = tokio::join!(Client::connect(&url, config), listener.accept());
    (client.unwrap(), server)
}

#[tokio::test]
async fn groups_arrive_whole_in_both_directions() {
    for scheme in SCHEMES {
        let (client, server) = pair(scheme, ClientConfig::default()).await;
        let broadcast = client.broadcast("live/cam").unwrap();
        let track = broadcast.track("video", TrackInfo::default()).unwrap();
        broadcast.announce();
        let mut subscription = server.subscribe("live/cam", "video", Prefs::default()).await;
        track.wait_subscribed().await;
        let big = vec![7; 300_000];
        let group = track.group(9);
        group.frame(5, "small".into());
        group.frame(4, big.clone().into());
        group.frame(6, "".into());
        group.finish();
        let mut group = subscription.next_group().await.unwrap();
        assert_eq!(group.sequence(), 9);
        let frames = group.frames().await.unwrap();
        assert_eq!(frames.iter().map(|f| f.tick).collect::<Vec<_>>(), [Some(5), Some(4), Some(6)]);
        assert_eq!(frames[0].payload, "small");
        assert_eq!(frames[1].payload, big);
        assert!(frames[2].payload.is_empty());

        let broadcast = server.broadcast("back");
        let track = broadcast.track("audio", TrackInfo { timescale: 48_000, ..Default::default() }).unwrap();
        assert_eq!(client.track_info("back", "audio").await.unwrap().timescale, 48_000);
        let mut subscription = client.subscribe("back", "audio", Prefs::default()).await.unwrap();
        let group = track.group(0);
        group.frame(1, "x".into());
        // An unfinished group is sent as it is written, by whole or partial frames.
        let mut received = subscription.next_group().await.unwrap();
        assert_eq!(received.frame().await.unwrap().unwrap().payload, "x");
        group.begin(2, 10);
        group.payload("half".into());
        assert!(matches!(received.piece().await.unwrap(), Some(Piece::Frame { tick: Some(2), size: 10 })));
        assert_eq!(received.piece().await.unwrap(), Some(Piece::Payload("half".into())));
        group.reset(StreamCode(70));
        assert!(matches!(received.piece().await, Err(Error::Reset(Code::App(70)))));
    }
}

#[tokio::test]
async fn announcements_come_and_go_below_their_prefix() {
    for scheme in SCHEMES {
        let (client, server) = pair(scheme, ClientConfig { hop: Hop(77), ..Default::default() }).await;
        let cam = client.broadcast("live/cam").unwrap();
        cam.announce();
        let other = client.broadcast("lively").unwrap();
        other.announce();
        let mut watch = server.announced("live").await;
        let first = watch.next().await.unwrap().unwrap();
        assert_eq!((first.path.as_str(), first.active, first.hops), ("live/cam", true, vec![Hop(77)]));
        cam.announce_through(&[Hop(3)]);
        assert_eq!(watch.wait("live/cam", true).await.unwrap().hops, [Hop(3), Hop(77)]);
        drop(cam);
        assert!(!watch.next().await.unwrap().unwrap().active);
        assert_eq!(server.setup().await.hop, Some(Hop(77)));
    }
}

#[tokio::test]
async fn subscriptions_are_counted_updated_and_ended() {
    let (client, server) = pair("moqt", ClientConfig::default()).await;
    let broadcast = client.broadcast("b").unwrap();
    let track = broadcast.track("t", TrackInfo::default()).unwrap();
    let mut one = server.subscribe("b", "t", Prefs::default()).await;
    let two = server.subscribe("b", "t", Prefs { start: Start::Group(3), ..Prefs::default() }).await;
    track.wait_live(|live| live.subscriptions.len() == 2).await;
    one.update(Prefs { priority: 9, ..Prefs::default() }).await.unwrap();
    track.wait_live(|live| live.updates == 1).await;
    assert_eq!(track.live().subscriptions[0].1.priority, 9);
    track.group(2).finish();
    track.dropped(4, 6, 0x34);
    two.unsubscribe();
    track.wait_live(|live| live.subscriptions.len() == 1).await;
    track.end(7);
    let mut rest = Vec::new();
    loop {
        match one.next().await {
            Event::Finished { clean } => break assert!(clean),
            event => rest.push(event),
        }
    }
    assert!(rest.iter().any(|e| matches!(e, Event::Start { group: 2 })));
    assert!(rest.iter().any(|e| matches!(e, Event::Group(g) if g.sequence() == 2)));
    assert!(rest.iter().any(|e| matches!(e, Event::Drop { start: 4, end: 6, code: 0x34 })));
    assert!(rest.iter().any(|e| matches!(e, Event::End { group: 7 })));
    track.wait_unsubscribed().await;
    assert_eq!((track.live().ever, track.live().peak), (2, 2));
}

#[tokio::test]
async fn what_is_not_there_is_refused_with_its_code() {
    let (client, server) = pair("https", ClientConfig::default()).await;
    let not_found =
        |error: &Error| matches!(error, Error::Reset(code) if code.stream() == Some(StreamCode::NOT_FOUND));
    let mut subscription = server.subscribe("no", "such", Prefs::default()).await;
    assert!(matches!(subscription.next().await, Event::Failed(ref error) if not_found(error)));
    assert!(not_found(&server.track_info("no", "such").await.unwrap_err()));
    let broadcast = client.broadcast("b").unwrap();
    let track = broadcast.track("t", TrackInfo::default()).unwrap();
    let group = track.group(5);
    group.frame(1, "kept".into());
    group.finish();
    let mut fetched = server.fetch(5, (0, None)).await.unwrap();
    assert_eq!(fetched.frames().await.unwrap()[0].payload, "kept");
    let mut missing = server.fetch(6, (0, None)).await.unwrap();
    assert!(not_found(&missing.frame().await.unwrap_err()));
    track.abort(StreamCode::NOT_FOUND);
}

#[tokio::test]
async fn datagrams_carry_groups() {
    for scheme in SCHEMES {
        let (client, server) = pair(scheme, ClientConfig::default()).await;
        let broadcast = client.broadcast("b").unwrap();
        let track = broadcast.track("t", TrackInfo::default()).unwrap();
        let mut subscription = server.subscribe("b", "t", Prefs::default()).await;
        track.wait_subscribed().await;
        assert_eq!(track.datagram(3, 44, "d".into()).unwrap(), 1);
        match subscription.next().await {
            Event::Datagram { sequence, tick, payload } => {
                assert_eq!((sequence, tick, &payload[..]), (3, 44, &b"d"[..]))
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn close_codes_reach_both_sides() {
    for scheme in SCHEMES {
        let (client, server) = pair(scheme, ClientConfig::default()).await;
        server.close(SessionCode::UNAUTHORIZED, "no").await;
        let expected = Closed::Peer { code: Code::App(2), reason: "no".into() };
        assert_eq!(client.closed().await, expected, "{scheme}");

        let (client, server) = pair(scheme, ClientConfig::default()).await;
        client.close(SessionCode(0x10), "bye").await;
        assert_eq!(server.closed().await, Closed::Peer { code: Code::App(0x10), reason: "bye".into() });
        assert_eq!(client.closed().await, Closed::Local);
    }
}

#[tokio::test]
async fn a_rebind_moves_the_connection() {
    let (client, server) = pair("https", ClientConfig::default()).await;
    let broadcast = client.broadcast("b").unwrap();
    let track = broadcast.track("t", TrackInfo::default()).unwrap();
    let mut subscription = server.subscribe("b", "t", Prefs::default()).await;
    track.wait_subscribed().await;
    let before = server.remote();
    client.rebind().unwrap();
    assert_ne!(client.local_addr().unwrap().port(), before.port());
    let group = track.group(0);
    group.frame(0, "after".into());
    group.finish();
    assert_eq!(subscription.next_group().await.unwrap().frames().await.unwrap().len(), 1);
    assert_eq!(server.remote().port(), client.local_addr().unwrap().port());
}

#[tokio::test]
async fn groups_resume_when_stream_credit_returns() {
    let tuning = Tuning { uni_streams: 1, ..Default::default() };
    let (client, server) = pair("moqt", ClientConfig { tuning, ..Default::default() }).await;
    let broadcast = server.broadcast("b");
    let track = broadcast.track("t", TrackInfo::default()).unwrap();
    let mut subscription = client.subscribe("b", "t", Prefs::default()).await.unwrap();
    track.wait_subscribed().await;
    for sequence in 0..3 {
        let group = track.group(sequence);
        group.frame(0, "x".into());
        group.finish();
    }
    let mut first = subscription.next_group().await.unwrap();
    let starved = tokio::time::timeout(Duration::from_millis(50), subscription.next_group()).await;
    assert!(starved.is_err());
    first.frames().await.unwrap();
    drop(first);
    assert_eq!(subscription.next_group().await.unwrap().sequence(), 1);
}

#[tokio::test]
async fn manual_sessions_see_every_stream_and_send_any_bytes() {
    for (scheme, version) in SCHEMES.into_iter().flat_map(|s| lite::Version::ALL.iter().map(move |v| (s, *v)))
    {
        let (client, server) =
            pair(scheme, ClientConfig { version, manual: true, ..Default::default() }).await;
        let mut raw = client.raw();
        let mut stream = raw.open_uni().await.unwrap();
        stream.write(&[0x3f, 1, 2, 3]).await.unwrap();
        // An unknown type is stopped with 0.
        assert_eq!(stream.stopped().await.unwrap(), Some(Code::App(0)));
        let _subscription = server.subscribe("b", "t", Prefs::default()).await;
        let (_send, mut recv) = raw.accept_bidi().await.unwrap();
        assert_eq!(recv.varint().await.unwrap(), Some(2));
        raw.quic().unwrap().close(9u32.into(), b"rude");
        assert_eq!(server.closed().await, Closed::Peer { code: Code::Foreign(9), reason: "rude".into() });
        assert!(!server.has_setup());
    }
}

#[tokio::test]
async fn a_muted_link_is_a_dead_peer() {
    let tuning = Tuning { idle: Duration::from_millis(300), keep_alive: None, ..Default::default() };
    let (client, _server) = pair("moqt", ClientConfig { tuning, ..Default::default() }).await;
    client.link().set_blackhole(true);
    assert!(matches!(client.closed().await, Closed::Lost(_)));
}

#[tokio::test]
async fn pins_decide_who_is_believed() {
    let listener = server::Listener::new();
    let url = format!("https://{}/", listener.addr);
    let wrong = ClientConfig { certs: Certs::Pinned(vec![[0; 32]]), ..Default::default() };
    let refused = tokio::select! {
        refused = Client::connect(&url, wrong) => refused,
        _ = listener.accept() => panic!("the handshake went through"),
    };
    assert!(matches!(refused, Err(Error::Closed(Closed::Lost(_)))));
    let right = ClientConfig { certs: Certs::Pinned(vec![listener.fingerprint]), ..Default::default() };
    let ack_frequency = Some(AckFrequency { threshold: 10, max_delay: None });
    let right = ClientConfig { tuning: Tuning { ack_frequency, ..Default::default() }, ..right };
    let (client, _server) = tokio::join!(Client::connect(&url, right), listener.accept());
    assert_eq!(client.unwrap().quic().unwrap().remote_address(), listener.addr);
}
