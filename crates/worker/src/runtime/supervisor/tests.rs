mod peer;
mod streams;

use std::{
    collections::HashSet,
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicBool, Ordering},
};

use relay_auth::Policy;
use relay_client::{Client, ClientConfig, Closed, Code, Prefs, Subscription, Track};
use relay_model::{Hop, Scope, SessionId, TrackInfo};

use super::*;
use crate::TurnStage;

fn options(workers: usize) -> RelayOptions {
    let identity = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(identity.signing_key.serialize_der());
    let resolver = quic::certificate(vec![identity.cert.der().clone()], key.into()).unwrap();
    let policy = Arc::new(Policy::public(Scope::everything(), Scope::everything()));
    let bind = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);
    let mut options = RelayOptions::new(bind, resolver, [7; 32], policy);
    options.workers = workers;
    options.hop = Hop(77);
    options.linger = Duration::from_millis(200);
    options
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await }).expect("in time");
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn url(relay: &Relay, scheme: &str, host: IpAddr) -> String {
    format!("{scheme}://{}/", SocketAddr::new(host, relay.local_addr().port()))
}

async fn connect(relay: &Relay) -> Client {
    let url = url(relay, "moqt", Ipv4Addr::LOCALHOST.into());
    Client::connect(&url, ClientConfig::default()).await.unwrap()
}

fn publish(client: &Client, path: &str) -> Track {
    let broadcast = client.broadcast(path).unwrap();
    let track = broadcast.track("video", TrackInfo::default()).unwrap();
    broadcast.announce();
    // Stays announced as long as its session lives.
    std::mem::forget(broadcast);
    track
}

/// Subscribes to `path` once it is announced.
async fn subscribe(client: &Client, path: &str) -> Subscription {
    let mut announced = client.announced("").await.unwrap();
    announced.wait(path, true).await.unwrap();
    client.subscribe(path, "video", Prefs::default()).await.unwrap()
}

/// Sends one group of one frame through the relay to each reader.
async fn exchange(track: &Track, sequence: u64, readers: &mut [Subscription]) {
    let payload = format!("group {sequence}");
    let group = track.group(sequence);
    group.frame(0, payload.clone().into());
    group.finish();
    for reader in readers {
        loop {
            let mut received = reader.next_group().await.unwrap();
            if received.sequence() == sequence {
                let frame = received.frame().await.unwrap().expect("a frame");
                assert_eq!(frame.payload, payload);
                break;
            }
        }
    }
}

fn is_empty(relay: &Relay) -> bool {
    let counts = relay.counts();
    let (core, store, total) = (counts.core, counts.store, counts.total());
    core == relay_core::CoreCounts::default()
        && (store.logs, store.feeds, store.bytes, store.board_paths, store.watches) == (0, 0, 0, 0, 0)
        && (total.sessions, total.connections_now) == (0, 0)
}

#[test]
fn group_reaches_readers_on_every_worker_and_transport() {
    run(async {
        let relay = Relay::start(options(2)).unwrap();
        let publisher = connect(&relay).await;
        let track = publish(&publisher, "live/cam");
        let mut clients = Vec::new();
        for scheme in ["moqt", "https"] {
            for host in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
                for _ in 0..4 {
                    let url = url(&relay, scheme, host);
                    clients.push(Client::connect(&url, ClientConfig::default()).await.unwrap());
                }
            }
        }
        let mut readers = Vec::new();
        for client in &clients {
            readers.push(subscribe(client, "live/cam").await);
        }
        track.wait_subscribed().await;
        until("readers", || relay.counts().core.readers == readers.len()).await;
        for sequence in 0..20 {
            exchange(&track, sequence, &mut readers).await;
        }
        until("counters", || relay.counts().total().deliveries >= 20 * 16).await;
        let counts = relay.counts();
        assert!(counts.workers.iter().all(|worker| worker.sessions_opened > 0), "one worker did it all");
        assert_eq!(counts.panics(), 0);
        drop((readers, clients, track, publisher));
        until("nothing is left", || is_empty(&relay)).await;
        let total = relay.counts().total();
        assert_eq!((total.sessions_opened, total.sessions_closed), (17, 17));
    });
}

#[test]
fn panic_of_one_session_keeps_the_others() {
    let armed = Arc::new(AtomicBool::new(false));
    let seen: Arc<Mutex<HashSet<SessionId>>> = Arc::default();
    let mut options = options(1);
    options.fault = Some(Arc::new({
        let (armed, seen) = (armed.clone(), seen.clone());
        let bystanders = Mutex::new(HashSet::new());
        move |stage, session| {
            seen.lock().insert(session);
            if !armed.load(Ordering::Relaxed) {
                bystanders.lock().insert(session);
            } else if stage == TurnStage::News && !bystanders.lock().contains(&session) {
                panic!("injected");
            }
        }
    }));
    run(async {
        let relay = Relay::start(options).unwrap();
        let publisher = connect(&relay).await;
        let track = publish(&publisher, "live/cam");
        let healthy = connect(&relay).await;
        let mut readers = [subscribe(&healthy, "live/cam").await];
        track.wait_subscribed().await;
        exchange(&track, 0, &mut readers).await;
        armed.store(true, Ordering::Relaxed);
        let victim = connect(&relay).await;
        let _asked = victim.announced("").await;
        let _reading = victim.subscribe("live/cam", "video", Prefs::default()).await;
        until("the panic", || {
            relay.counts().total().panics_news == 1 || {
                exchange_now(&track);
                false
            }
        })
        .await;
        exchange(&track, 1_000_000, &mut readers).await;
        assert_eq!(relay.counts().panics(), 1);
        assert_eq!(seen.lock().len(), 3);
    });
}

/// Publishes a new group.
fn exchange_now(track: &Track) {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let group = track.group(NEXT.fetch_add(1, Ordering::Relaxed));
    group.frame(0, "x".into());
    group.finish();
}

#[test]
fn shutdown_closes_the_sessions_and_frees_the_port() {
    run(async {
        let relay = Arc::new(Relay::start(options(2)).unwrap());
        let mut clients = Vec::new();
        for scheme in ["moqt", "https"] {
            let url = url(&relay, scheme, Ipv4Addr::LOCALHOST.into());
            clients.push(Client::connect(&url, ClientConfig::default()).await.unwrap());
        }
        for client in &clients {
            client.peer_setup().await.unwrap();
        }
        let ending = relay.clone();
        let ended = tokio::task::spawn_blocking(move || ending.shutdown(SessionCode::GOAWAY_TIMEOUT, "bye"));
        for client in &clients {
            let Closed::Peer { code, reason } = client.closed().await else {
                panic!("not closed by the relay")
            };
            assert_eq!((code, reason.as_str()), (Code::App(SessionCode::GOAWAY_TIMEOUT.0), "bye"));
        }
        ended.await.unwrap();
        relay.join().unwrap();
        let again = RelayOptions { bind: relay.local_addr(), ..options(2) };
        Relay::start(again).unwrap();
    });
}

#[test]
fn a_drain_lets_readers_finish_the_groups_they_have_begun() {
    run(async {
        let relay = Arc::new(Relay::start(options(2)).unwrap());
        let (publisher, viewer) = (connect(&relay).await, connect(&relay).await);
        let track = publish(&publisher, "live/cam");
        let mut reader = subscribe(&viewer, "live/cam").await;
        track.wait_subscribed().await;
        let group = track.group(3);
        group.frame(0, "begun".into());
        let mut received = reader.next_group().await.unwrap();
        assert_eq!(received.frame().await.unwrap().expect("a frame").payload, "begun");
        assert!(relay.is_ready());
        let draining = relay.clone();
        let window = Duration::from_secs(6);
        let drained = tokio::task::spawn_blocking(move || {
            draining.drain(window, SessionCode::GOAWAY_TIMEOUT, "goaway timeout");
        });
        viewer.going_away().await.unwrap();
        publisher.going_away().await.unwrap();
        assert!(!relay.is_ready());
        // Its requests are refused once its turn to wind down has come.
        while viewer.track_info("live/cam", "video").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(viewer.is_closed().is_none(), "a group is not finished");
        group.frame(1, "finished".into());
        group.finish();
        assert_eq!(received.frame().await.unwrap().expect("a frame").payload, "finished");
        assert!(received.frame().await.unwrap().is_none(), "a clean end");
        for client in [&viewer, &publisher] {
            let Closed::Peer { code, .. } = client.closed().await else { panic!("not closed by the relay") };
            assert_eq!(code, Code::App(SessionCode::GOAWAY_TIMEOUT.0));
        }
        drained.await.unwrap();
        relay.join().unwrap();
        assert_eq!(relay.counts().total().sessions_sent_away, 2);
    });
}

#[test]
fn port_in_use_is_reported() {
    let relay = Relay::start(options(1)).unwrap();
    let error = Relay::start(RelayOptions { bind: relay.local_addr(), ..options(1) }).unwrap_err();
    assert!(error.to_string().contains("already in use by another process"), "{error}");
}
