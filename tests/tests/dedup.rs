//! Promise: for any number of subscriptions at any time, the publisher receives one.

#![allow(missing_docs)]

use std::sync::Arc;

use relay_client::Prefs;
use relay_model::Start;
use relay_tests::{
    media::{Source, Viewer},
    relay::TestRelay,
    run, wait_until, within,
};
use tokio::{sync::Barrier, task::JoinSet};

const SUBSCRIBERS: usize = 50;
const HANDOVERS: usize = 20;

#[test]
fn fifty_at_once_are_one_upstream_subscription() {
    run(60, async {
        let relay = TestRelay::start(4);
        let publisher = relay.connect().await;
        let mut source = Source::announce(&publisher, "room/cam", 500);
        relay.announced("room/cam").await;
        let barrier = Arc::new(Barrier::new(SUBSCRIBERS));
        let mut joining = JoinSet::new();
        for client in relay.clients(SUBSCRIBERS).await {
            let barrier = barrier.clone();
            joining.spawn(async move {
                barrier.wait().await;
                let viewer = Viewer::join(&client, "room/cam").await;
                (client, viewer)
            });
        }
        let viewers = joining.join_all().await;
        wait_until("sessions on several workers", 5, || relay.busy_workers() > 1).await;
        within("the subscription", 10, source.track.wait_subscribed()).await;
        let first = source.group(3);
        for (_, viewer) in &viewers {
            viewer.wait_group(first).await;
        }
        let live = source.track.live();
        assert_eq!((live.subscriptions.len(), live.peak, live.ever), (1, 1, 1));
    });
}

#[test]
fn join_as_last_leaves_keeps_one_upstream_subscription() {
    run(60, async {
        let relay = TestRelay::start(4);
        let publisher = relay.connect().await;
        let mut source = Source::announce(&publisher, "room/cam", 500);
        relay.announced("room/cam").await;
        let clients = relay.clients(4).await;
        let mut last = Viewer::join(&clients[0], "room/cam").await;
        for round in 1..=HANDOVERS {
            within("the subscription", 10, source.track.wait_subscribed()).await;
            let group = source.group(2);
            last.wait_group(group).await;
            let barrier = Arc::new(Barrier::new(2));
            let (client, theirs) = (clients[round % clients.len()].clone(), barrier.clone());
            let joiner = tokio::spawn(async move {
                theirs.wait().await;
                Viewer::join(&client, "room/cam").await
            });
            barrier.wait().await;
            last.leave();
            last = joiner.await.expect("a viewer");
            let group = source.group(2);
            last.wait_group(group).await;
            assert_eq!(source.track.live_subscriptions(), 1, "round {round}");
        }
        assert_eq!(source.track.live().peak, 1);
    });
}

#[test]
fn what_one_asks_for_takes_nothing_from_another() {
    run(60, async {
        let relay = TestRelay::start(2);
        let publisher = relay.connect().await;
        let mut source = Source::announce(&publisher, "room/cam", 500);
        relay.announced("room/cam").await;
        let clients = relay.clients(3).await;
        let viewer = Viewer::join(&clients[0], "room/cam").await;
        within("the subscription", 10, source.track.wait_subscribed()).await;
        let first = source.group(2);
        viewer.wait_group(first).await;
        // Others want groups that will never be, no longer want any, or want little.
        let odd = [
            Prefs { start: Start::Group(1 << 60), ..Prefs::default() },
            Prefs { start: Start::Group(0), end: Some(0), ..Prefs::default() },
            Prefs { priority: 0, ordered: true, ..Prefs::default() },
        ];
        for prefs in odd {
            let plain = Prefs::default();
            let mut asked = Vec::new();
            for first in [prefs, plain] {
                asked.push(clients[1].subscribe("room/cam", "video", first).await.expect("subscribe"));
            }
            relay.wait_readers(3).await;
            asked[1].update(prefs).await.expect("an update");
            let latest = source.next - 1;
            let late = Viewer::join(&clients[2], "room/cam").await;
            late.wait_group(latest).await;
            for _ in 0..3 {
                let group = source.group(2);
                viewer.wait_group(group).await;
                late.wait_group(group).await;
            }
            drop(asked);
            late.leave();
            relay.wait_readers(1).await;
        }
        assert_eq!(source.track.live_subscriptions(), 1);
    });
}
