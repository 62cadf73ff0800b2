//! Promise: a relay that drains ends within its window, and at once on a second signal. These tests bound durations and
//! run one by one.

#![allow(missing_docs)]

mod common;

use std::time::{Duration, Instant};

use relay_client::{Client, ClientConfig, Closed, Code};
use relay_model::SessionCode;
use rustix::process::Signal;

use common::{PATIENCE, run_alone, with_client};

#[test]
fn drain_sends_goaway_and_ends_once_clients_left() {
    run_alone(async {
        let window = PATIENCE;
        let (_folder, relay, url, client) = with_client(window).await;
        relay.signal(Signal::TERM);
        let started = Instant::now();
        client.going_away().await.unwrap();
        // Every worker, also one without sessions, rejects at once.
        for _ in 0..8 {
            assert!(
                Client::connect(&url, ClientConfig::default()).await.is_err(),
                "no new session is admitted"
            );
        }
        assert!(started.elapsed() < window / 4, "a rejection does not time out");
        assert!(client.is_closed().is_none(), "it is not closed early");
        client.close(SessionCode::NONE, "moving").await;
        assert_eq!(relay.end().code(), Some(0));
        assert!(started.elapsed() < window / 2, "the relay ends before its window");
    });
}

#[test]
fn a_client_that_does_not_move_is_closed_within_the_window() {
    run_alone(async {
        let window = Duration::from_secs(3);
        let (_folder, relay, _, client) = with_client(window).await;
        relay.signal(Signal::INT);
        let started = Instant::now();
        client.going_away().await.unwrap();
        let Closed::Peer { code, reason } = client.closed().await else { panic!("not closed by the relay") };
        let told = Code::App(SessionCode::GOAWAY_TIMEOUT.0);
        assert_eq!((code, reason.as_str()), (told, "goaway timeout"));
        assert!(started.elapsed() >= window / 2, "not closed early");
        assert_eq!(relay.end().code(), Some(0));
        assert!(started.elapsed() < window + PATIENCE / 2);
    });
}

#[test]
fn a_second_signal_ends_a_relay_at_once() {
    run_alone(async {
        let (_folder, relay, _, client) = with_client(PATIENCE * 2).await;
        relay.signal(Signal::TERM);
        client.going_away().await.unwrap();
        let started = Instant::now();
        relay.signal(Signal::INT);
        assert_eq!(relay.end().code(), Some(128 + 2));
        assert!(started.elapsed() < PATIENCE);
    });
}
