//! Promise: a session may subscribe to many tracks at once, over any transport, even if their publisher grants fewer
//! streams than there are tracks: ended subscriptions make room for waiting ones.

#![allow(missing_docs)]

use relay_client::{Client, ClientConfig, Prefs, TrackInfo, Tuning};
use relay_tests::{relay::TestRelay, run, within};
use tokio::task::JoinSet;

const TRACKS: usize = 400;
/// Bidirectional streams that released clients grant over WebSocket.
const GRANTED: u32 = 100;

/// Subscribes to all tracks at once, reads one group of each, and unsubscribes.
async fn read_all(url: &str, path: &'static str) {
    let tuning = Tuning { bidi_streams: GRANTED, ..Tuning::default() };
    let publisher =
        Client::connect(url, ClientConfig { tuning, ..ClientConfig::default() }).await.expect("one");
    let broadcast = publisher.broadcast(path).expect("a broadcast");
    let tracks: Vec<_> = (0..TRACKS)
        .map(|n| {
            let track = broadcast.track(&n.to_string(), TrackInfo::default()).expect("a track");
            let group = track.group(0);
            group.frame(0, format!("of {n}").into());
            group.finish();
            track
        })
        .collect();
    broadcast.announce();
    let viewer = Client::connect(url, ClientConfig::default()).await.expect("a viewer");
    let mut watch = viewer.announced("").await.expect("a watch");
    within("the broadcast", 15, watch.wait(path, true)).await.expect("an announce");
    let mut reading = JoinSet::new();
    for n in 0..TRACKS {
        let viewer = viewer.clone();
        reading.spawn(async move {
            let mut sub =
                viewer.subscribe(path, &n.to_string(), Prefs::default()).await.expect("a subscription");
            let mut group = sub.next_group().await.unwrap_or_else(|error| panic!("track {n}: {error}"));
            let frames = group.frames().await.expect("frames");
            assert_eq!(frames.len(), 1);
        });
    }
    let all = async { while reading.join_next().await.transpose().expect("a reader").is_some() {} };
    within("a group of each track", 30, all).await;
    assert_eq!((publisher.is_closed(), viewer.is_closed()), (None, None));
    drop(tracks);
}

#[test]
fn four_hundred_tracks_are_read_over_quic() {
    run(60, async {
        let relay = TestRelay::start(2);
        read_all(&relay.raw(), "quic").await;
        assert_eq!(relay.counts().total().requests_starved, 0);
    });
}

#[test]
fn four_hundred_tracks_are_read_over_websocket() {
    let relay = TestRelay::start(2);
    let (_server, websocket) = relay.websocket();
    run(60, async {
        read_all(&websocket, "websocket").await;
        assert_eq!(relay.counts().total().requests_starved, 0);
    });
}
