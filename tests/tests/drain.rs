//! Promise: a draining relay sends GOAWAY to every session, keeps serving, and ends within its window.

#![allow(missing_docs)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use relay_client::{Client, ClientConfig, Closed, Code, Prefs, SessionCode, TrackInfo};
use relay_tests::{relay::TestRelay, run, wait_until, within};

const WINDOW: Duration = Duration::from_secs(3);
const SUBSCRIBERS: usize = 200;
/// Number of subscribers that follow the GOAWAY.
const OBEDIENT: usize = 100;

#[test]
fn drain_moves_two_hundred_subscribers_then_closes_them() {
    run(90, async {
        let relay = Arc::new(TestRelay::start(2));
        let publisher = relay.connect().await;
        let broadcast = publisher.broadcast("live").expect("a broadcast");
        let track = broadcast.track("t", TrackInfo::default()).expect("a track");
        broadcast.announce();
        relay.announced("live").await;
        // One session reads nothing at all.
        let deaf =
            relay.connect_to(&relay.raw(), ClientConfig { manual: true, ..ClientConfig::default() }).await;
        let told = Arc::new(AtomicUsize::new(0));
        let received = Arc::new(AtomicUsize::new(0));
        let clients = relay.clients(SUBSCRIBERS).await;
        let mut leaving = tokio::task::JoinSet::new();
        for (at, client) in clients.into_iter().enumerate() {
            let mut subscription = client.subscribe("live", "t", Prefs::default()).await.expect("one");
            let (told, received) = (told.clone(), received.clone());
            leaving.spawn(async move {
                let reading = tokio::spawn(async move {
                    while let Ok(mut group) = subscription.next_group().await {
                        if group.frames().await.is_ok_and(|frames| frames.len() == 1) {
                            received.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
                client.going_away().await.expect("a GOAWAY");
                told.fetch_add(1, Ordering::Relaxed);
                if at < OBEDIENT {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    client.close(SessionCode::NONE, "moving").await;
                    reading.abort();
                    return None;
                }
                let closed = client.closed().await;
                reading.abort();
                Some((Instant::now(), closed))
            });
        }
        within("all subscriptions", 20, track.wait_subscribed()).await;
        wait_until("all readers", 20, || relay.counts().core.readers >= SUBSCRIBERS).await;
        let writing = tokio::spawn(async move {
            for sequence in 0.. {
                let group = track.group(sequence);
                group.frame(0, vec![5; 2_000].into());
                group.finish();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        wait_until("frames", 10, || received.load(Ordering::Relaxed) > SUBSCRIBERS).await;

        let started = Instant::now();
        let draining = relay.clone();
        let drained = tokio::task::spawn_blocking(move || {
            draining.drain(WINDOW, SessionCode::GOAWAY_TIMEOUT, "goaway timeout");
        });
        wait_until("everybody to be told", 3, || told.load(Ordering::Relaxed) == SUBSCRIBERS).await;
        assert!(started.elapsed() < WINDOW / 2, "told at once");
        let before = received.load(Ordering::Relaxed);
        assert!(Client::connect(&relay.raw(), ClientConfig::default()).await.is_err(), "nobody new");
        wait_until("frames while it drains", 3, || received.load(Ordering::Relaxed) > before + OBEDIENT)
            .await;
        within("the end", 10, drained).await.expect("a drain");
        let took = started.elapsed();
        assert!(took <= WINDOW + Duration::from_millis(500), "it took {took:?} of {WINDOW:?}");

        let mut ends = Vec::new();
        while let Some(end) = leaving.join_next().await {
            ends.extend(end.expect("a client"));
        }
        let code = Code::App(SessionCode::GOAWAY_TIMEOUT.0);
        assert_eq!(ends.len(), SUBSCRIBERS - OBEDIENT);
        for (at, closed) in &ends {
            assert!(*at >= started + WINDOW / 2, "closed after {:?}", *at - started);
            assert!(matches!(closed, Closed::Peer { code: told, .. } if *told == code), "{closed:?}");
        }
        let first = ends.iter().map(|(at, _)| *at).min().expect("one");
        let last = ends.iter().map(|(at, _)| *at).max().expect("one");
        assert!(last - first > WINDOW / 20, "all within {:?}", last - first);
        writing.abort();
        drop(deaf);
    });
}
