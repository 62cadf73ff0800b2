//! Promise: a clean end is received as a clean end, and an interruption never is.

#![allow(missing_docs)]

use std::time::Duration;

use relay_client::{ClientConfig, Prefs, SessionCode, StreamCode, Tuning, quinn};
use relay_tests::{
    media::{Source, Viewer, code_of},
    relay::TestRelay,
    run, within,
};

/// Short, so that the linger of a lost publisher does not delay the test.
const LINGER: Duration = Duration::from_millis(300);

fn relay() -> TestRelay {
    TestRelay::with(2, |options| options.linger = LINGER)
}

#[test]
fn a_clean_end_is_said_and_then_finished() {
    run(30, async {
        let relay = relay();
        let publisher = relay.connect().await;
        let mut source = Source::announce(&publisher, "cam", 4_000);
        relay.announced("cam").await;
        let clients = relay.clients(4).await;
        let mut viewers = Vec::new();
        for client in &clients {
            viewers.push(Viewer::join(client, "cam").await);
        }
        within("the subscription", 10, source.track.wait_subscribed()).await;
        relay.wait_readers(viewers.len()).await;
        for _ in 0..3 {
            source.group(5);
        }
        source.end();
        for viewer in viewers {
            let seen = viewer.finish().await;
            seen.assert_lossless(seen.start.unwrap_or(0)..3, "a subscriber");
            assert_eq!((seen.end, seen.finished, seen.failed), (Some(3), Some(true), None));
        }
    });
}

#[test]
fn an_empty_track_ends_cleanly() {
    run(30, async {
        let relay = relay();
        let publisher = relay.connect().await;
        let source = Source::announce(&publisher, "cam", 100);
        relay.announced("cam").await;
        let client = relay.connect().await;
        let viewer = Viewer::join(&client, "cam").await;
        within("the subscription", 10, source.track.wait_subscribed()).await;
        source.end();
        let seen = viewer.finish().await;
        assert_eq!((seen.end, seen.finished), (Some(0), Some(true)));
    });
}

/// Ends the publisher by `kill` when half a group was received.
async fn publisher_ends(kill: impl AsyncFnOnce(relay_client::Client)) {
    let relay = relay();
    let tuning = Tuning { idle: Duration::from_millis(500), keep_alive: None, ..Tuning::default() };
    let publisher = relay.connect_to(&relay.raw(), ClientConfig { tuning, ..Default::default() }).await;
    let mut source = Source::announce(&publisher, "cam", 20_000);
    relay.announced("cam").await;
    let clients = relay.clients(4).await;
    let mut viewers = Vec::new();
    for client in &clients {
        viewers.push(Viewer::join(client, "cam").await);
    }
    within("the subscription", 10, source.track.wait_subscribed()).await;
    relay.wait_readers(viewers.len()).await;
    let mut open = source.open();
    open.frame();
    for viewer in &viewers {
        viewer.wait("half a group", |seen| seen.frames.get(&0) == Some(&1)).await;
    }
    kill(publisher).await;
    for viewer in viewers {
        let seen = viewer.finish().await;
        assert_eq!((seen.finished, seen.end), (None, None), "the track looks finished");
        assert!(seen.failed.is_some() && seen.broken.is_empty() && seen.complete.is_empty(), "{seen:?}");
        assert_eq!(seen.cut.len(), 1, "{seen:?}");
    }
}

#[test]
fn a_publisher_that_vanishes_in_a_group_leaves_it_unfinished() {
    run(30, publisher_ends(async |publisher| publisher.link().set_blackhole(true)));
}

#[test]
fn a_publisher_that_leaves_in_a_group_leaves_it_unfinished() {
    run(30, publisher_ends(async |publisher| publisher.close(SessionCode::NONE, "bye").await));
}

#[test]
fn a_publisher_that_breaks_off_leaves_its_group_unfinished() {
    run(
        30,
        publisher_ends(async |publisher| {
            publisher.quic().expect("quic").close(quinn::VarInt::from_u32(9), b"")
        }),
    );
}

#[test]
fn a_group_that_is_reset_passes_its_code_and_costs_only_itself() {
    run(30, async {
        let relay = relay();
        let publisher = relay.connect().await;
        let mut source = Source::announce(&publisher, "cam", 2_000);
        relay.announced("cam").await;
        let client = relay.connect().await;
        let viewer = Viewer::join(&client, "cam").await;
        within("the subscription", 10, source.track.wait_subscribed()).await;
        let first = source.group(3);
        viewer.wait_group(first).await;
        let mut open = source.open();
        open.frame();
        viewer.wait("half a group", |seen| seen.frames.get(&1) == Some(&1)).await;
        open.writer.reset(StreamCode(64 + 9));
        viewer.wait("the reset", |seen| seen.cut == [(1, Some(StreamCode(64 + 9)))]).await;
        let next = source.group(3);
        viewer.wait_group(next).await;
        source.end();
        let seen = viewer.finish().await;
        assert_eq!((seen.lost(0..3), seen.finished), (vec![1], Some(true)));
    });
}

#[test]
fn the_code_of_an_aborted_track_passes() {
    run(30, async {
        let relay = relay();
        for url in relay.schemes() {
            let publisher = relay.connect_to(&url, ClientConfig::default()).await;
            let mut source = Source::announce(&publisher, "cam", 2_000);
            relay.announced("cam").await;
            let client = relay.connect().await;
            let viewer = Viewer::join(&client, "cam").await;
            within("the subscription", 10, source.track.wait_subscribed()).await;
            let group = source.group(3);
            viewer.wait_group(group).await;
            source.track.abort(StreamCode(64 + 33));
            let seen = viewer.finish().await;
            assert_eq!((seen.code, seen.finished), (Some(StreamCode(64 + 33)), None), "{seen:?}");
            assert_eq!((seen.complete.len(), seen.broken.len()), (1, 0), "{seen:?}");
            drop(source);
            publisher.close(SessionCode::NONE, "").await;
            let mut watch = client.announced("").await.expect("a watch");
            if watch.initial().count() > 0 {
                within("the withdrawal", 10, watch.wait("cam", false)).await.expect("an announcement");
            }
        }
    });
}

#[test]
fn what_is_missing_is_refused() {
    run(30, async {
        let relay = relay();
        let publisher = relay.connect().await;
        let source = Source::announce(&publisher, "cam", 2_000);
        relay.announced("cam").await;
        for url in relay.schemes() {
            let client = relay.connect_to(&url, ClientConfig::default()).await;
            for (path, track, code) in
                [("cam", "audio", StreamCode::NOT_FOUND), ("nobody", "video", StreamCode::UNROUTABLE)]
            {
                let info = within("the answer", 10, client.track_info(path, track)).await;
                assert_eq!(info.as_ref().err().and_then(code_of), Some(code), "{path} {track}: {info:?}");
                let subscription = client.subscribe(path, track, Prefs::default()).await.expect("subscribe");
                let seen = Viewer::of(subscription).finish().await;
                assert_eq!((seen.code, seen.finished), (Some(code), None), "{path} {track}: {seen:?}");
            }
            // The session is unaffected.
            assert!(within("the answer", 10, client.track_info("cam", "video")).await.is_ok());
            assert_eq!(client.is_closed(), None);
        }
        assert_eq!(source.track.live().ever, 0);
    });
}

#[test]
fn a_relay_that_stops_says_so() {
    run(30, async {
        let relay = relay();
        let clients = relay.clients(4).await;
        tokio::task::spawn_blocking(move || relay.stop(SessionCode::NONE, "going away"))
            .await
            .expect("a stop");
        for client in clients {
            let closed = within("the close", 10, client.closed()).await;
            let relay_client::Closed::Peer { code, reason } = closed else { panic!("{closed:?}") };
            assert_eq!((code.session(), reason.as_str()), (Some(SessionCode::NONE), "going away"));
        }
    });
}
