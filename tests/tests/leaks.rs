//! Promise: sessions that come, announce and go leave nothing behind, however often.

#![allow(missing_docs)]

use std::time::Instant;

use relay_client::{Broadcast, Client, ClientConfig, Tuning};
use relay_tests::{memory, relay::TestRelay, run, wait_until};

const CYCLES: usize = 10;
const SESSIONS: usize = 1_000;
const PATHS: usize = 100;
/// Sessions are all there at once, in so many parts at a time.
const PART: usize = 1_000;
/// By so much may memory differ between the cycle after the first and the last, percent.
const SPREAD: u64 = 5;

fn announce(client: &Client, at: usize) -> Vec<Broadcast> {
    let announce = |path| {
        let broadcast = client.broadcast(&format!("session-{at}/path-{path}")).expect("a path");
        broadcast.announce();
        broadcast
    };
    (0..PATHS).map(announce).collect()
}

#[test]
fn a_thousand_sessions_with_a_hundred_paths_each_leave_nothing() {
    run(170, async {
        let relay = TestRelay::start(2);
        let config = ClientConfig {
            tuning: Tuning { mtu_discovery: false, ..Tuning::default() },
            ..ClientConfig::default()
        };
        let mut resident = Vec::new();
        for cycle in 1..=CYCLES {
            let since = Instant::now();
            for part in 0..SESSIONS / PART {
                let urls = relay.schemes().into_iter().cycle().take(PART).collect();
                let clients = relay.connect_all(urls, config.clone()).await;
                println!("connected {:?}", since.elapsed());
                let broadcasts: Vec<_> =
                    clients.iter().enumerate().map(|(at, client)| announce(client, part * PART + at)).collect();
                wait_until("the paths", 20, || relay.counts().store.board_paths == PART * PATHS).await;
                println!("announced {:?}", since.elapsed());
                // The end of the session withdraws them, not the client.
                drop(clients);
                drop(broadcasts);
            }
            relay.wait_empty().await;
            resident.push(memory::resident());
            println!("cycle {cycle}: {} KiB after {:?}", memory::resident() / 1024, since.elapsed());
        }
        let (second, last) = (resident[1], resident[CYCLES - 1]);
        let sessions = (CYCLES * SESSIONS) as u64;
        relay.wait_meter("all sessions", |meter| meter.sessions_closed == sessions).await;
        assert!(last <= second + second * SPREAD / 100, "{second} bytes grew to {last}: {resident:?}");
    });
}
