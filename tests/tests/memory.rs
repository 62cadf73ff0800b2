//! Promise: the memory of sessions has a limit. Above three quarters of it the largest session is closed with a code of
//! its own, and no other session is affected.

#![allow(missing_docs)]

use relay_client::{Broadcast, Client, ClientConfig, Closed, SessionCode, Tuning};
use relay_tests::{
    media::{Source, Viewer, patient},
    relay::TestRelay,
    run, wait_until, within,
};
use relay_worker::StateLimits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

const MIB: u64 = 1 << 20;
const PATHS: usize = 1_000;
const GROUPS: u64 = 40;

/// Starts a relay with a session memory limit of `mib` MiB.
fn relay_with(mib: u64) -> TestRelay {
    TestRelay::with(2, |options| options.state = StateLimits { clients: mib * MIB, peers: mib * MIB })
}

/// Announces as many broadcasts as a session may have, with paths of nearly the largest length.
fn announce(client: &Client, name: &str) -> Vec<Broadcast> {
    let long = vec!["x".repeat(60); 15].join("/");
    let broadcast = |at| {
        let broadcast = client.broadcast(&format!("{name}/{at:04}/{long}")).expect("a path");
        broadcast.announce();
        broadcast
    };
    (0..PATHS).map(broadcast).collect()
}

async fn connect(relay: &TestRelay) -> Client {
    let tuning = Tuning { mtu_discovery: false, ..Tuning::default() };
    relay.connect_to(&relay.raw(), ClientConfig { tuning, ..ClientConfig::default() }).await
}

#[test]
fn largest_session_is_closed_and_viewers_lose_nothing() {
    run(60, async {
        let relay = relay_with(7);
        let publisher = connect(&relay).await;
        let mut source = Source::announce(&publisher, "cam", 500);
        relay.announced("cam").await;
        let reader = connect(&relay).await;
        let viewer = Viewer::join(&reader, "cam").await;
        source.group(4);
        viewer.wait_group(0).await;
        // Two of them fit, the third one does not.
        let clients = [connect(&relay).await, connect(&relay).await, connect(&relay).await];
        let _held: Vec<_> =
            clients.iter().enumerate().map(|(at, client)| announce(client, &format!("s{at}"))).collect();
        wait_until("a close", 30, || relay.counts().state.closed == 1).await;
        for _ in 1..GROUPS {
            source.group(4);
        }
        viewer.wait_group(GROUPS - 1).await;
        let mut ends = JoinSet::new();
        for client in clients.clone() {
            ends.spawn(async move { client.closed().await });
        }
        let end = within("an end", 10, ends.join_next()).await.expect("a client").expect("no panic");
        let Closed::Peer { code, reason } = end else { panic!("{end:?}") };
        assert_eq!(code.session(), Some(SessionCode::MEMORY_SHARE));
        assert_eq!(reason, "memory share exceeded");
        source.end();
        viewer.finish().await.assert_lossless(0..GROUPS, "the viewer");
        wait_until("the counter", 5, || relay.counts().total().sessions_closed_memory == 1).await;
        wait_until("the others", 5, || relay.counts().total().sessions == 4).await;
        assert_eq!(relay.counts().refused(), 0);
    });
}

#[test]
fn state_returns_to_zero_when_everybody_has_left() {
    run(60, async {
        let relay = relay_with(64);
        let client = connect(&relay).await;
        let held = announce(&client, "s");
        wait_until("the paths", 20, || relay.counts().store.board_paths == PATHS).await;
        wait_until("the charge", 5, || relay.counts().state.clients > 1_900 * PATHS as u64).await;
        let state = relay.counts().state;
        assert!(state.clients < 3_000 * PATHS as u64, "{state:?}");
        wait_until("equal sums", 5, || {
            let state = relay.counts().state;
            state.classes.iter().sum::<u64>() == state.clients
        })
        .await;
        drop((held, client));
        wait_until("nothing left", 30, || {
            let state = relay.counts().state;
            state.clients == 0 && state.stale_bytes == 0 && state.classes == [0; 6]
        })
        .await;
    });
}

#[test]
fn event_stream_readers_are_charged() {
    let relay = relay_with(64);
    let (server, url) = relay.websocket();
    let address = url.trim_start_matches("ws://").trim_end_matches('/').to_owned();
    run(60, async {
        let publisher = connect(&relay).await;
        let _source = Source::announce(&publisher, "cam", 500);
        relay.announced("cam").await;
        wait_until("one session", 10, || relay.counts().total().sessions == 1).await;
        let before = relay.counts().state.clients;
        let mut reader = TcpStream::connect(&address).await.expect("a connection");
        let ask = format!("GET /announced HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\r\n");
        reader.write_all(ask.as_bytes()).await.expect("a write");
        let mut seen = String::new();
        while !seen.contains("\"cam\"") {
            let mut part = [0; 1_024];
            let count = within("an event", 10, reader.read(&mut part)).await.expect("a read");
            assert!(count > 0, "{seen}");
            seen += &String::from_utf8_lossy(&part[..count]);
        }
        wait_until("the charge", 5, || relay.counts().state.clients >= before + 20_000).await;
        drop(reader);
        wait_until("its release", 20, || relay.counts().state.clients < before + 20_000).await;
    });
    drop(server);
}

#[test]
fn a_patient_viewer_is_charged_little() {
    run(60, async {
        let relay = relay_with(64);
        let publisher = connect(&relay).await;
        let mut source = Source::announce(&publisher, "cam", 1_000);
        relay.announced("cam").await;
        let reader = connect(&relay).await;
        let subscription = reader.subscribe("cam", "video", patient()).await.expect("a subscription");
        let viewer = Viewer::of(subscription);
        for _ in 0..100 {
            source.group(10);
        }
        viewer.wait_group(99).await;
        // Data that was read in order does not accumulate.
        wait_until("two sessions", 10, || relay.counts().total().sessions == 2).await;
        let state = relay.counts().state;
        assert!(state.clients < 256 * 1_024, "{state:?}");
    });
}
