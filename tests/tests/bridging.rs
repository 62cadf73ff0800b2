//! Promise: between a publisher and a subscriber of different versions exactly those features are lost that
//! `docs/versions.md` lists.

#![allow(missing_docs)]

use std::{collections::BTreeSet, time::Duration};

use relay_client::{Client, ClientConfig, Cost, Event, Hop, Prefs, Start, TrackInfo, lite::Version};
use relay_tests::{relay::TestRelay, run, within};
use relay_wire::lite::carries::{Feature, FeatureScope, lost};

/// Properties of the track, none of which is a default.
const INFO: TrackInfo = TrackInfo { priority: 9, ordered: false, max_age_ms: 3_000, timescale: 90_000 };
/// Group that the subscription starts at, from its second frame on; older ones are only fetched.
const FIRST: u64 = 5;
/// First of the groups that the publisher reports as dropped.
const GIVEN_UP: u64 = FIRST + 9;
const TICKS: [i64; 3] = [10, 20, 50];
const PRICE: Cost = Cost { warm: 7, cold: 9 };

#[test]
fn each_pair_of_versions_loses_what_the_table_says() {
    run(60, async {
        let relay = TestRelay::start(2);
        let url = relay.raw();
        let mut pairs = tokio::task::JoinSet::new();
        for publisher in Version::ALL.iter().copied() {
            for subscriber in Version::ALL.iter().copied() {
                let url = url.clone();
                pairs.spawn(
                    async move { (publisher, subscriber, measure(&url, publisher, subscriber).await) },
                );
            }
        }
        let mut wrong = Vec::new();
        while let Some(pair) = pairs.join_next().await {
            let (publisher, subscriber, kept) = pair.expect("a measurement");
            let said: BTreeSet<Feature> = lost(publisher, subscriber).collect();
            let of_broadcasts =
                Feature::ALL.iter().filter(|feature| feature.reach() != FeatureScope::Connection);
            let lost: BTreeSet<Feature> = of_broadcasts.copied().filter(|f| !kept.contains(f)).collect();
            if lost != said {
                wrong.push(format!("{publisher:?} to {subscriber:?}: lost {lost:?}, the table has {said:?}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

/// Measures the features that survive from `publisher` to `subscriber`.
async fn measure(url: &str, publisher: Version, subscriber: Version) -> BTreeSet<Feature> {
    let name = format!("{}/{}", publisher.alpn(), subscriber.alpn());
    let mut kept = BTreeSet::new();
    let mut keep = |feature: Feature, arrived: bool| {
        if arrived {
            kept.insert(feature);
        }
    };
    let hop = Hop(4_711);
    let config = ClientConfig { version: publisher, hop, ..ClientConfig::default() };
    let source = Client::connect(url, config).await.expect("a publisher");
    let broadcast = source.broadcast(&name).expect("a broadcast");
    let track = broadcast.track("t", INFO).expect("a track");
    track.retain(16);
    for sequence in 0..3 {
        let group = track.group(sequence);
        TICKS.iter().for_each(|tick| group.frame(*tick, format!("old {sequence}").into()));
        group.finish();
    }
    broadcast.announce_with(&[], PRICE);

    let config = ClientConfig { version: subscriber, ..ClientConfig::default() };
    let viewer = Client::connect(url, config).await.expect("a subscriber");
    let mut watch = viewer.announced("").await.expect("a watch");
    let announced = within("an announce", 15, watch.wait(&name, true)).await.expect("an announce");
    keep(Feature::HopIds, announced.hops.contains(&hop));
    keep(Feature::Prices, announced.cost == Some(PRICE.plus(1)));
    let info = within("properties", 15, viewer.track_info(&name, "t")).await;
    keep(Feature::TrackProperties, info.is_ok_and(|info| info == INFO));
    keep(Feature::Fetch, fetched(&viewer, &name).await);

    let start = match subscriber.has_frame_ranges() {
        true => Start::Fresh { floor: FIRST },
        false => Start::Group(FIRST),
    };
    let wishes = Prefs { ordered: true, max_age_ms: 3_000, start, start_frame: 1, ..Prefs::default() };
    let mut subscription = viewer.subscribe(&name, "t", wishes).await.expect("a subscription");
    within("the subscription", 15, track.wait_subscribed()).await;
    keep(Feature::OrderHint, track.live().subscriptions.iter().any(|(_, prefs)| prefs.ordered));
    let group = track.group(FIRST);
    TICKS.iter().for_each(|tick| group.frame(*tick, "live".into()));
    group.finish();

    let mut datagrams = FIRST + 1;
    let mut ended = false;
    loop {
        let event = tokio::time::timeout(Duration::from_millis(300), subscription.next()).await;
        match event {
            Ok(Event::Start { group }) => keep(Feature::FirstGroup, group == FIRST),
            Ok(Event::End { group }) => keep(Feature::CleanEnd, group == FIRST + 1),
            Ok(Event::Group(mut group)) => {
                let first = group.first_frame();
                let frames = within("a group", 15, group.frames()).await.expect("a whole group");
                keep(Feature::FrameRanges, first == 1 && frames.len() == TICKS.len() - 1);
                let ticks: Vec<_> = frames.iter().map(|frame| frame.tick).collect();
                let sent: Vec<_> = TICKS[first as usize..].iter().map(|tick| Some(*tick)).collect();
                keep(Feature::Timestamps, ticks == sent);
            }
            Ok(Event::Datagram { payload, .. }) => keep(Feature::Datagrams, payload == "small"),
            Ok(Event::Finished { .. }) => break,
            Ok(Event::Drop { start, end, .. }) => keep(Feature::Drops, start == end && start >= GIVEN_UP),
            Ok(Event::Ok(_)) => {}
            Ok(Event::Failed(error)) => panic!("{name}: {error}"),
            Err(_) if datagrams < FIRST + 4 => {
                // Datagrams may be lost, but hardly three of them here.
                let _ = track.datagram(datagrams, 60, "small".into());
                let given_up = GIVEN_UP + datagrams;
                track.dropped(given_up, given_up, 0x34);
                datagrams += 1;
            }
            Err(_) if !ended => {
                ended = true;
                track.end(FIRST + 1);
            }
            Err(_) => {}
        }
    }
    kept
}

/// Whether a group can be fetched that only its publisher has.
async fn fetched(viewer: &Client, broadcast: &str) -> bool {
    let Ok(mut group) = within("an answer", 15, viewer.fetch(broadcast, "t", 1, 0, None, 0)).await else {
        return false;
    };
    let frames = within("an old group", 15, group.frames()).await;
    frames.is_ok_and(|frames| frames.len() == 3 && frames.iter().all(|frame| frame.payload == "old 1"))
}
