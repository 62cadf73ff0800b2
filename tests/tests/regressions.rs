//! Promise: known defects of other relays do not occur here.
//!
//! Tests by defect:
//!
//! | what went wrong | where |
//! | --- | --- |
//! | withdrawal of an unknown path | core `tests/routes`, session `relay/routes` |
//! | reflected announce | core `tests/routes` (loops), session `relay/routes` |
//! | takeover with lower group numbers is silent for minutes | `takeover`, session `relay/resume`, the simulation |
//! | reordered groups dropped | store `tests/order`, session `relay/delivery` |
//! | stream that dies before its first byte | session `relay/control`, `relay/hostile`, `limits` |
//! | unmapped reset code | transport `quic/code`, session `relay/hostile` |
//! | data stream before SETUP | session `relay/control`, `relay/hostile` |
//! | duplicate SETUP parameter, second SETUP | session `relay/control`, `limits` |
//! | group that starts after object 0 | session `relay/range`, `relay/resume` |
//! | spliced or truncated group | session `relay/end`, `relay/hostile`, `ends`, the simulation |
//! | FIN on a request stream | session `relay/fetch`, `relay/control`, `ends` |
//! | abandoned FETCH goes on upstream | `fetch`, session `relay/fetch`, core `tests/pulls` |
//! | idle upstream subscription stays | here, core `tests/tracks` |
//! | unauthorised announce watch ends the session | `scope`, session `relay/announce` |
//! | quiet track loses its latest group | here |

#![allow(missing_docs)]

use std::time::Duration;

use relay_client::{Prefs, TrackInfo};
use relay_model::limits;
use relay_tests::{relay::TestRelay, run, within};

/// Longer than any other reason keeps a group: a track's largest age, the linger.
const LONG: Duration = Duration::from_secs(7);

#[test]
fn a_quiet_track_keeps_its_latest_group() {
    run(60, async {
        let relay = TestRelay::start(1);
        let publisher = relay.connect().await;
        let broadcast = publisher.broadcast("quiet").expect("a broadcast");
        let info = TrackInfo { max_age_ms: 1_000, ..TrackInfo::default() };
        let track = broadcast.track("t", info).expect("a track");
        broadcast.announce();
        relay.announced("quiet").await;
        let client = relay.connect().await;
        let mut first = client.subscribe("quiet", "t", Prefs::default()).await.expect("a subscription");
        within("the subscription", 10, track.wait_subscribed()).await;
        for sequence in 0..3 {
            let group = track.group(sequence);
            group.frame(0, format!("group {sequence}").into());
            group.finish();
        }
        within("a group", 10, first.next_group()).await.expect("a group");
        tokio::time::sleep(LONG).await;
        let mut late = client.subscribe("quiet", "t", Prefs::default()).await.expect("a subscription");
        let mut group = within("the latest group", 2, late.next_group()).await.expect("a group");
        assert_eq!(group.sequence(), 2);
        assert_eq!(group.frame().await.expect("a frame").expect("one").payload, "group 2");
    });
}

#[test]
fn an_upstream_subscription_that_nobody_reads_is_given_up() {
    run(60, async {
        let relay = TestRelay::start(1);
        let publisher = relay.connect().await;
        let broadcast = publisher.broadcast("idle").expect("a broadcast");
        let track = broadcast.track("t", TrackInfo::default()).expect("a track");
        broadcast.announce();
        relay.announced("idle").await;
        let client = relay.connect().await;
        let subscription = client.subscribe("idle", "t", Prefs::default()).await.expect("a subscription");
        within("the subscription", 10, track.wait_subscribed()).await;
        subscription.unsubscribe();
        let linger = limits::LINGER.as_secs() + 2;
        within("the end of the subscription", linger, track.wait_unsubscribed()).await;
    });
}
