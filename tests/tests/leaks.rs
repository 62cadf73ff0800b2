//! Promise: sessions that connect, announce and leave do not leak memory, however often.

#![allow(missing_docs, clippy::print_stdout)]

use std::time::Duration;

use relay_client::{Broadcast, Client, ClientConfig, Tuning};
use relay_tests::{
    process::{self, Process},
    relay::{TestRelay, connect_all},
    run, wait_until,
};

const CYCLES: usize = 10;
/// Sessions of the first cycle, which does not count. There are more of them than in later cycles: tables and the heap
/// grow in steps to the peak of a cycle, and the highest of equal peaks is random.
const WARM_UP: usize = 1_250;
const SESSIONS: usize = 1_000;
const PATHS: usize = 100;
/// Largest growth of memory between the second cycle and the last, percent.
const SPREAD: u64 = 5;

#[test]
#[ignore = "the relay of the other test, in a process of its own"]
fn the_relay() {
    // The paths of a cycle exceed the default limit of session memory.
    process::serve(&TestRelay::with(2, |options| options.state.clients = 1 << 30));
}

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
        // Each session needs a socket.
        relay_host::limits::rlimit::raise().expect("open files");
        let mut relay = Process::start("the_relay");
        let config = ClientConfig {
            tuning: Tuning { mtu_discovery: false, ..Tuning::default() },
            connect_timeout: Duration::from_secs(30),
            ..ClientConfig::default()
        };
        let mut resident = Vec::new();
        for cycle in 0..=CYCLES {
            let count = if cycle == 0 { WARM_UP } else { SESSIONS };
            let urls = relay.urls.iter().cycle().take(count).cloned().collect();
            let clients = connect_all(urls, config.clone()).await;
            let broadcasts: Vec<_> =
                clients.iter().enumerate().map(|(at, client)| announce(client, at)).collect();
            let all = (count * PATHS) as u64;
            wait_until("the paths", 20, || relay.count("paths") == all).await;
            // The end of the session withdraws the broadcasts, not the client.
            drop(clients);
            drop(broadcasts);
            wait_until("nothing left", 20, || relay.count("left") == 0).await;
            resident.push(relay.resident());
        }
        let kib: Vec<_> = resident.iter().map(|bytes| bytes / 1024).collect();
        println!("KiB after each cycle: {kib:?}");
        let sessions = (WARM_UP + CYCLES * SESSIONS) as u64;
        wait_until("all sessions", 5, || relay.count("closed") == sessions).await;
        assert_eq!(relay.count("panics"), 0);
        let (early, last) = (resident[2], resident[CYCLES]);
        assert!(last <= early + early * SPREAD / 100, "{early} bytes grew to {last}: {kib:?}");
    });
}
