//! Promise: timestamps, track properties and datagrams arrive as they were sent, over any pair of transports.

#![allow(missing_docs)]

use std::time::Duration;

use bytes::Bytes;
use relay_client::{Client, ClientConfig, Event, Frame, Prefs, Track, TrackInfo};
use relay_tests::{media::payload, relay::TestRelay, run, within};

const INFO: TrackInfo = TrackInfo { priority: 9, ordered: true, max_age_ms: 1_234, timescale: 90_000 };

async fn check(client: &Client, path: &str, track: &Track) {
    let info = within("track info", 10, client.track_info(path, "data")).await.expect("track info");
    assert_eq!(info, INFO);
    let mut subscription = client.subscribe(path, "data", Prefs::default()).await.expect("subscribe");
    within("the subscription", 10, track.wait_subscribed()).await;

    let sent: Vec<Frame> = [(0, 1), (5, 0), (3, 1_200), (1_000_000_007, 1_201), (1, 70_000), (1 << 40, 17)]
        .into_iter()
        .map(|(tick, size)| Frame { tick: Some(tick), payload: payload(1, 2, false, 70_000).slice(..size) })
        .collect();
    let group = track.group(1 << 33);
    sent.iter().for_each(|frame| group.frame(frame.tick.expect("a time"), frame.payload.clone()));
    group.finish();
    let mut group = within("the group", 10, subscription.next_group()).await.expect("a group");
    assert_eq!(group.sequence(), 1 << 33);
    assert!(within("its frames", 10, group.frames()).await.expect("frames") == sent);

    // Datagrams may be lost; those that arrive are unchanged.
    let body = |sequence: u64| Bytes::from(vec![sequence as u8; sequence as usize % 1_100]);
    let first = (1 << 33) + 1;
    let mut next = first;
    let mut arrived = 0;
    within("datagrams", 10, async {
        while arrived < 20 {
            track.datagram(next, next * 3, body(next)).expect("a datagram");
            next += 1;
            let event = tokio::time::timeout(Duration::from_millis(20), subscription.next()).await;
            if let Ok(Event::Datagram { sequence, tick, payload }) = event {
                assert!((first..next).contains(&sequence));
                assert_eq!((tick, payload), (sequence * 3, body(sequence)));
                arrived += 1;
            }
        }
    })
    .await;
}

#[test]
fn everything_passes_between_raw_quic_and_webtransport() {
    run(60, async {
        let relay = TestRelay::start(2);
        let mut number = 0;
        for publish in relay.schemes() {
            for subscribe in relay.schemes() {
                let path = format!("data/{number}");
                number += 1;
                let publisher = relay.connect_to(&publish, ClientConfig::default()).await;
                let broadcast = publisher.broadcast(&path).expect("a path");
                let track = broadcast.track("data", INFO).expect("a name");
                broadcast.announce();
                relay.announced(&path).await;
                let client = relay.connect_to(&subscribe, ClientConfig::default()).await;
                check(&client, &path, &track).await;
            }
        }
    });
}
