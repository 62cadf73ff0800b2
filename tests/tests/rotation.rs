//! Promise: while certificates change under load, no session is dropped, no handshake fails, and new clients are shown
//! the newest certificate within two seconds of the change.
//!
//! Twelve seconds by default; `ROTATION=full` runs the promised minute.

#![allow(missing_docs)]
#![allow(clippy::print_stdout, reason = "the figures")]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use relay_client::Client;
use relay_tests::{
    certificates::{Authority, Issued, Served, Visitor},
    media::{Source, Viewer},
    run, within,
};
use tokio::{task::JoinSet, time::MissedTickBehavior};

const NAME: &str = "localhost";
const SESSIONS: usize = 100;
/// Number of sessions that subscribe.
const VIEWERS: usize = 20;
/// Handshakes per second.
const RATE: u32 = 10;
/// Largest time for which an old certificate may be shown.
const STALE: Duration = Duration::from_secs(2);

/// Every certificate, oldest first, with the time when it was written.
type History = Arc<Mutex<Vec<(Instant, Issued)>>>;

/// Outcome of one handshake.
struct Handshake {
    began: Instant,
    took: Duration,
    leaf: Result<Vec<u8>, String>,
}

/// Time between the write of a certificate's successor and a handshake that still showed it.
fn staleness(handshake: &Handshake, history: &[(Instant, Issued)]) -> Duration {
    let leaf = handshake.leaf.as_ref().expect("a handshake");
    let shown = history.iter().position(|(_, issued)| issued.der.as_ref() == leaf).expect("one of ours");
    let next = history.get(shown + 1);
    next.map_or(Duration::ZERO, |(since, _)| handshake.began.saturating_duration_since(*since))
}

/// Writes another certificate, in a different way each time.
async fn rotate(served: &Served, issued: &Issued, round: usize) {
    match round % 3 {
        0 => {
            served.write("cert0.pem", &issued.cert);
            // The files hold a mismatched pair for a while.
            tokio::time::sleep(Duration::from_millis(50)).await;
            served.write("key0.pem", &issued.key);
        }
        1 => {
            served.replace("key0.pem", &issued.key);
            served.replace("cert0.pem", &issued.cert);
        }
        _ => {
            served.turn("cert0.pem", &format!("fullchain{round}.pem"), &issued.cert);
            served.turn("key0.pem", &format!("privkey{round}.pem"), &issued.key);
        }
    }
}

/// Connects [`RATE`] new clients per second, half of which try to resume; returns the outcomes.
async fn come_and_go(served: &Served, authority: &Authority, end: Instant) -> Vec<Handshake> {
    let visitors =
        [Arc::new(Visitor::new(authority, None, false)), Arc::new(Visitor::new(authority, None, true))];
    let addr = served.addr();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut coming = JoinSet::new();
    for visitor in visitors.iter().cycle() {
        ticks.tick().await;
        if Instant::now() >= end {
            break;
        }
        let visitor = visitor.clone();
        coming.spawn(async move {
            let began = Instant::now();
            let visit = visitor.visit(addr, NAME).await;
            Handshake { began, took: began.elapsed(), leaf: visit.map(|visit| visit.leaf.to_vec()) }
        });
    }
    coming.join_all().await
}

async fn assert_alive(clients: &[Client]) {
    for client in clients {
        assert!(client.is_closed().is_none(), "dropped: {:?}", client.is_closed());
        let watch = within("an answer", 20, client.announced("")).await.expect("an answer");
        assert_eq!(watch.initial().count(), 1, "what is announced");
    }
}

#[test]
fn certificates_change_under_load_without_drops() {
    let full = std::env::var_os("ROTATION").is_some_and(|form| form == "full");
    let (period, rounds) = if full { (Duration::from_secs(5), 12) } else { (Duration::from_secs(3), 4) };
    run(180, async move {
        let authority = Arc::new(Authority::new("an authority"));
        let first = authority.issue(&[NAME]);
        let served = Arc::new(Served::start(&[&first], None));
        let publisher = served.relay.connect().await;
        let mut source = Source::announce(&publisher, "live/cam", 500);
        served.relay.announced("live/cam").await;
        let clients = served.relay.clients(SESSIONS).await;
        let mut viewers = Vec::new();
        for client in &clients[..VIEWERS] {
            viewers.push(Viewer::join(client, "live/cam").await);
        }
        served.relay.wait_readers(VIEWERS).await;
        let start = Instant::now();
        let end = start + period * rounds;
        let history: History = Arc::new(Mutex::new(vec![(start, first)]));
        let turning = tokio::spawn({
            let (served, history) = (served.clone(), history.clone());
            let authority = authority.clone();
            async move {
                for round in 1..rounds as usize {
                    tokio::time::sleep_until((start + period * round as u32).into()).await;
                    let issued = authority.issue(&[NAME]);
                    rotate(&served, &issued, round - 1).await;
                    history.lock().expect("a lock").push((Instant::now(), issued));
                }
            }
        });
        let sending = tokio::spawn(async move {
            while Instant::now() < end {
                source.group(2);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            let last = source.group(2);
            (source, last)
        });
        let handshakes = come_and_go(&served, &authority, end).await;
        turning.await.expect("all rounds");
        let (_source, last) = sending.await.expect("all groups");
        for viewer in &viewers {
            viewer.wait_group(last).await;
        }
        assert_alive(&clients).await;

        let history = history.lock().expect("a lock").clone();
        let failed: Vec<_> = handshakes.iter().filter_map(|one| one.leaf.as_ref().err()).collect();
        assert!(failed.is_empty(), "{} of {} failed: {failed:?}", failed.len(), handshakes.len());
        let stalest = handshakes.iter().map(|one| staleness(one, &history)).max().unwrap_or_default();
        let slowest = handshakes.iter().map(|one| one.took).max().unwrap_or_default();
        println!(
            "{} certificates, {SESSIONS} sessions, {} handshakes (slowest {slowest:?}); an old certificate was \
             shown for {stalest:?} at most",
            history.len(),
            handshakes.len(),
        );
        assert!(stalest < STALE, "an old certificate was shown for {stalest:?}");
        let newest = &history.last().expect("one").1;
        let seen = handshakes.iter().any(|one| one.leaf.as_deref().is_ok_and(|leaf| *leaf == *newest.der));
        assert!(seen, "the newest was never shown");
        assert!(handshakes.len() >= (period * rounds).as_secs() as usize * RATE as usize - RATE as usize);
    });
}
