//! Promise: a publisher that reconnects, or has a backup, continues without gap or repetition; one that takes over
//! another's path is served at once, at any group number.

#![allow(missing_docs)]

use std::time::Duration;

use relay_client::{Client, ClientConfig, Hop, SessionCode, lite::Version};
use relay_tests::{
    media::{Source, Viewer},
    relay::TestRelay,
    run, within,
};

const WHO: Hop = Hop(0xcafe);

/// Connects a publisher with this hop id.
async fn publisher(relay: &TestRelay, version: Version, hop: Hop) -> Client {
    let config = ClientConfig { version, hop, ..ClientConfig::default() };
    relay.connect_to(&relay.raw(), config).await
}

/// Announces the same broadcast on another client, from group `next` on.
fn source(client: &Client, next: u64) -> Source {
    let mut source = Source::announce(client, "live", 1_000);
    source.track.retain(16);
    source.next = next;
    source
}

#[test]
fn publisher_resumes_mid_group_after_reconnect() {
    for version in [Version::V04, Version::V05, Version::V06] {
        run(60, async {
            let relay = TestRelay::start(2);
            let before = publisher(&relay, version, WHO).await;
            let mut source_before = source(&before, 0);
            relay.announced("live").await;
            let client = relay.connect().await;
            let viewer = Viewer::join(&client, "live").await;
            within("the subscription", 10, source_before.track.wait_subscribed()).await;
            for _ in 0..4 {
                let group = source_before.group(4);
                viewer.wait_group(group).await;
            }
            let mut half = source_before.open();
            half.frame();
            half.frame();
            tokio::time::sleep(Duration::from_millis(100)).await;
            // The first session falls silent; the relay does not know yet.
            before.link().set_blackhole(true);
            let after = publisher(&relay, version, WHO).await;
            let mut source_after = source(&after, 4);
            for _ in 0..4 {
                let group = source_after.group(4);
                viewer.wait_group(group).await;
            }
            viewer.seen().assert_lossless(0..8, "the subscriber");
            assert!(!viewer.seen().is_over(), "it has not noticed: {version:?}");
            drop(half);
        });
    }
}

#[test]
fn either_of_two_publishers_may_leave_mid_group() {
    run(60, async {
        let relay = TestRelay::start(2);
        let clients =
            [publisher(&relay, Version::V05, WHO).await, publisher(&relay, Version::V06, WHO).await];
        let mut sources = clients.each_ref().map(|client| source(client, 0));
        relay.announced("live").await;
        let client = relay.connect().await;
        let viewer = Viewer::join(&client, "live").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        for _ in 0..3 {
            let numbers = sources.each_mut().map(|source| source.group(3));
            viewer.wait_group(numbers[0]).await;
        }
        let mut open = sources.each_mut().map(Source::open);
        open.iter_mut().for_each(|group| group.frame());
        tokio::time::sleep(Duration::from_millis(100)).await;
        let [first, second] = clients;
        second.close(SessionCode::NONE, "bye").await;
        let [mut group, _] = open;
        group.frame();
        group.finish();
        let [mut left, _gone] = sources;
        for _ in 0..3 {
            let number = left.group(3);
            viewer.wait_group(number).await;
        }
        viewer.seen().assert_lossless(0..7, "the subscriber");
        assert!(!viewer.seen().is_over());
        drop(first);
    });
}

#[test]
fn takeover_is_served_at_once_at_any_group_number() {
    run(60, async {
        let relay = TestRelay::start(2);
        let first = publisher(&relay, Version::V05, Hop(1)).await;
        let mut high = source(&first, 1_000);
        let client = relay.connect().await;
        let mut watch = client.announced("").await.expect("a watch");
        within("the broadcast", 10, watch.wait("live", true)).await.expect("an announce");
        let viewer = Viewer::join(&client, "live").await;
        within("the subscription", 10, high.track.wait_subscribed()).await;
        let group = high.group(2);
        viewer.wait_group(group).await;

        let second = publisher(&relay, Version::V05, Hop(2)).await;
        let mut low = source(&second, 0);
        let update = within("the other publisher", 2, watch.next()).await.expect("a watch").expect("news");
        assert!(update.active && update.hops.first() == Some(&Hop(2)), "{update:?}");
        first.close(SessionCode::NONE, "bye").await;
        // The old subscription ends, and a new one receives the new numbers.
        viewer.wait("an end", |seen| seen.is_over()).await;
        let viewer = Viewer::join(&client, "live").await;
        within("the subscription", 10, low.track.wait_subscribed()).await;
        for _ in 0..3 {
            let group = low.group(2);
            viewer.wait_group(group).await;
        }
        viewer.seen().assert_lossless(0..3, "the new subscription");
        let more = tokio::time::timeout(Duration::from_secs(1), watch.next()).await;
        assert!(more.is_err(), "one change is one update: {more:?}");
    });
}
