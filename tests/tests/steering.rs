//! Promise: a peer whose address changes repeatedly, in the middle of a group, stays on its worker and loses nothing;
//! without steering it does lose groups.

#![allow(missing_docs)]

use std::time::{Duration, Instant};

use relay_client::{Client, ClientConfig};
use relay_tests::{
    media::{Source, Viewer},
    relay::{Host, Steering, TestRelay, connect_all},
    run, wait_until,
};

const WORKERS: usize = 4;
const CONNECTIONS: usize = 200;
const MOVES: usize = 5;
/// Enough that some of them change workers without steering.
const UNSTEERED: usize = 24;
/// Time to wait for lost groups.
const GRACE: Duration = Duration::from_secs(1);

async fn connect(relay: &TestRelay, hosts: &[Host], count: usize) -> Vec<Client> {
    let urls: Vec<_> = hosts.iter().flat_map(|host| [relay.raw_at(*host), relay.web_at(*host)]).collect();
    let urls = (0..count).map(|at| urls[at % urls.len()].clone()).collect();
    connect_all(urls, ClientConfig::default()).await
}

#[test]
fn moving_peers_lose_no_group() {
    run(100, async {
        let relay = TestRelay::start(WORKERS);
        let mut clients = connect(&relay, &[Host::V4, Host::V6], CONNECTIONS).await;
        let publisher = clients.remove(0);
        let mut source = Source::announce(&publisher, "cam", 1_500);
        relay.announced("cam").await;
        let mut viewers = Vec::new();
        for client in &clients {
            viewers.push(Viewer::join(client, "cam").await);
        }
        source.track.wait_subscribed().await;
        for _ in 0..MOVES {
            let group = source.next;
            let mut open = source.open();
            open.frame();
            for viewer in &viewers {
                viewer.wait("half a group", |seen| seen.frames.get(&group) == Some(&1)).await;
            }
            let before = publisher.local_addr().expect("an address");
            for client in clients.iter().chain([&publisher]) {
                client.rebind().expect("a new socket");
            }
            assert_ne!(publisher.local_addr().expect("an address"), before);
            open.frame();
            open.finish();
            for viewer in &viewers {
                viewer.wait_group(group).await;
            }
        }
        source.end();
        for viewer in viewers {
            viewer.finish().await.assert_lossless(0..MOVES as u64, "a moving subscriber");
        }
        wait_until("sessions on several workers", 5, || relay.busy_workers() > 1).await;

        // The same without steering, with a publisher whose address does not change.
        let relay = TestRelay::with(WORKERS, |options| options.steering = Steering::Off);
        let publisher = relay.connect().await;
        let mut source = Source::announce(&publisher, "cam", 1_500);
        relay.announced("cam").await;
        let clients = connect(&relay, &[Host::V4, Host::V6], UNSTEERED).await;
        let mut viewers = Vec::new();
        for client in &clients {
            viewers.push(Viewer::join(client, "cam").await);
        }
        source.track.wait_subscribed().await;
        let mut open = source.open();
        open.frame();
        for viewer in &viewers {
            viewer.wait("half a group", |seen| seen.frames.get(&0) == Some(&1)).await;
        }
        // A client still receives at its last address, but not at the one before.
        for _ in 0..2 {
            clients.iter().for_each(|client| client.rebind().expect("a new socket"));
        }
        open.finish();
        let last = source.group(2);
        let deadline = Instant::now() + GRACE;
        let mut lost = 0;
        for viewer in &viewers {
            let left = deadline.saturating_duration_since(Instant::now());
            viewer.reaches(left, |seen| seen.complete.contains(&last)).await;
            lost += viewer.seen().lost(0..last + 1).len();
        }
        assert!(lost > 0, "nothing was lost without steering: the test does not see what it should");
    });
}
