//! Promise: an old group is fetched from its publisher once for any number of requests, and arrives byte for byte.

#![allow(missing_docs)]

use std::time::Duration;

use relay_client::{Broadcast, Client, ClientConfig, Error, StreamCode, Track, TrackInfo, lite::Version};
use relay_tests::{media::code_of, relay::TestRelay, run, wait_until, within};

const FRAMES: u64 = 4;

fn frame(group: u64, index: u64) -> Vec<u8> {
    format!("frame {index} of group {group} ").repeat(200).into_bytes()
}

/// Publishes a broadcast whose first groups only its publisher has.
async fn published(relay: &TestRelay, version: Version) -> (Client, Broadcast, Track) {
    let config = ClientConfig { version, ..ClientConfig::default() };
    let client = relay.connect_to(&relay.raw(), config).await;
    let broadcast = client.broadcast("old").expect("a broadcast");
    let track = broadcast.track("t", TrackInfo::default()).expect("a track");
    track.retain(64);
    for sequence in 0..8 {
        let group = track.group(sequence);
        (0..FRAMES).for_each(|index| group.frame(index as i64, frame(sequence, index).into()));
        group.finish();
    }
    broadcast.announce();
    relay.announced("old").await;
    (client, broadcast, track)
}

async fn fetch(client: &Client, group: u64, first: u64, last: Option<u64>) -> Result<Vec<Vec<u8>>, Error> {
    let mut answer = within("an answer", 10, client.fetch("old", "t", group, first, last, 0)).await?;
    let frames = within("the group", 10, answer.frames()).await?;
    Ok(frames.into_iter().map(|frame| frame.payload.to_vec()).collect())
}

fn whole(group: u64) -> Vec<Vec<u8>> {
    (0..FRAMES).map(|index| frame(group, index)).collect()
}

#[test]
fn a_group_is_asked_for_once_however_many_want_it() {
    for version in [Version::V05, Version::V06] {
        run(60, async {
            let relay = TestRelay::start(2);
            let (_publisher, _broadcast, track) = published(&relay, version).await;
            let clients = relay.clients(6).await;
            let mut asking = tokio::task::JoinSet::new();
            for client in clients.clone() {
                asking.spawn(async move { fetch(&client, 3, 0, None).await });
            }
            while let Some(answer) = asking.join_next().await {
                assert_eq!(answer.expect("a task").expect("an answer"), whole(3));
            }
            assert_eq!(track.live().fetches.asked, 1);
            // The group is in the cache now.
            assert_eq!(fetch(&clients[0], 3, 0, None).await.expect("an answer"), whole(3));
            assert_eq!(track.live().fetches.asked, 1);
            assert_eq!(fetch(&clients[1], 5, 0, None).await.expect("an answer"), whole(5));
            assert_eq!(track.live().fetches.asked, 2);
        });
    }
}

#[test]
fn missing_group_is_refused_and_requested_once() {
    run(60, async {
        let relay = TestRelay::start(1);
        let (_publisher, _broadcast, track) = published(&relay, Version::V06).await;
        let client = relay.connect().await;
        // A subscription keeps the log, with its record of missing groups.
        let _subscription = client.subscribe("old", "t", relay_client::Prefs::default()).await.expect("one");
        within("the subscription", 10, track.wait_subscribed()).await;
        for _ in 0..3 {
            let refused = fetch(&client, 77, 0, None).await.expect_err("no such group");
            assert_eq!(code_of(&refused), Some(StreamCode::NOT_FOUND));
        }
        assert_eq!(track.live().fetches.asked, 1);
        assert_eq!(fetch(&client, 2, 0, None).await.expect("an answer"), whole(2));
    });
}

#[test]
fn a_part_of_a_group_is_that_part() {
    run(60, async {
        let relay = TestRelay::start(1);
        let (_publisher, _broadcast, _track) = published(&relay, Version::V05).await;
        let config = ClientConfig { version: Version::V06, ..ClientConfig::default() };
        let client = relay.connect_to(&relay.raw(), config).await;
        for (first, last) in [(1, None), (0, Some(1)), (2, Some(2)), (1, Some(100))] {
            let end = last.map_or(FRAMES, |last| FRAMES.min(last + 1));
            let expected: Vec<_> = (first..end).map(|index| frame(4, index)).collect();
            assert_eq!(
                fetch(&client, 4, first, last).await.expect("an answer"),
                expected,
                "{first} {last:?}"
            );
        }
    });
}

#[test]
fn an_abandoned_fetch_is_cancelled_at_the_publisher() {
    run(60, async {
        let relay = TestRelay::start(1);
        let (_publisher, _broadcast, track) = published(&relay, Version::V06).await;
        // An unfinished group keeps the fetch open.
        let growing = track.group(9);
        growing.frame(0, "first".into());
        let client = relay.connect().await;
        let mut answer = client.fetch("old", "t", 9, 0, None, 0).await.expect("a request");
        let first = within("its first frame", 10, answer.frame()).await.expect("a frame").expect("one");
        assert_eq!(first.payload, "first");
        drop(answer);
        wait_until("the cancellation", 10, || track.live().fetches.cancelled == 1).await;
        drop(growing);
        tokio::time::sleep(Duration::from_millis(10)).await;
    });
}
