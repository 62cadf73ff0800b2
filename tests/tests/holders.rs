//! Promise: a path belongs to the subject that announced it while it was free: the subject of a token, or the public as
//! one subject. No other publisher gets its subscriptions, except relays of the same cluster, or where the operator
//! allows it.

#![allow(missing_docs)]

use std::{sync::Arc, time::Duration};

use relay_auth::Policy;
use relay_client::{Client, ClientConfig, Hop, SessionCode};
use relay_tests::{
    media::{Source, Viewer},
    porter::{Porter, open},
    relay::TestRelay,
    run, wait_until, within,
};
use relay_worker::Takeover;

fn by(subject: &str) -> Policy {
    match subject {
        "" => open(),
        subject => open().with_subject(subject.to_owned()),
    }
}

/// Connects a session of `policy` that announces `live` with `hop`, whether the announce is accepted or not.
async fn publisher(relay: &TestRelay, porter: &Arc<Porter>, policy: Policy, hop: u64) -> (Client, Source) {
    porter.judge_by(policy);
    let before = porter.admitted().len();
    let config = ClientConfig { hop: Hop(hop), ..ClientConfig::default() };
    let client = relay.connect_to(&relay.raw(), config).await;
    porter.wait_admitted(before + 1).await;
    porter.judge_by(open());
    let source = Source::announce(&client, "live", 100);
    (client, source)
}

/// Asserts that the second publisher waits while the first one serves, and takes over once the first has left.
async fn waits(first: &str, second: &str) {
    let (relay, porter) = Porter::relay(2);
    let (holder, mut held) = publisher(&relay, &porter, by(first), 1).await;
    relay.announced("live").await;
    let (_other, mut kept) = publisher(&relay, &porter, by(second), 2).await;
    wait_until("it to be held", 10, || relay.counts().tally.takeover_held == 1).await;
    let client = relay.connect().await;
    let mut watch = client.announced("").await.expect("a watch");
    assert_eq!(watch.next().await.expect("a watch").expect("news").hops.first(), Some(&Hop(1)));
    let viewer = Viewer::join(&client, "live").await;
    within("the subscription", 10, held.track.wait_subscribed()).await;
    let group = held.group(2);
    viewer.wait_group(group).await;
    assert_eq!(kept.track.live().ever, 0, "{second:?} is asked for what is {first:?}'s");

    holder.close(SessionCode::NONE, "bye").await;
    viewer.wait("the end", |seen| seen.is_over()).await;
    let viewer = Viewer::join(&client, "live").await;
    within("the subscription", 10, kept.track.wait_subscribed()).await;
    let group = kept.group(2);
    viewer.wait_group(group).await;
}

/// Asserts that the second publisher is announced at once, beside the first.
async fn stands_beside(first: Policy, second: Policy, takeover: Takeover) {
    let (relay, porter) = Porter::relay_with(2, |options| options.takeover = takeover);
    let (_holder, _held) = publisher(&relay, &porter, first, 1).await;
    relay.announced("live").await;
    let client = relay.connect().await;
    let mut watch = client.announced("").await.expect("a watch");
    assert_eq!(watch.next().await.expect("a watch").expect("news").hops.first(), Some(&Hop(1)));
    let (_other, mut beside) = publisher(&relay, &porter, second, 2).await;
    // Of two equal routes the newer one is preferred.
    let update = within("the other", 5, watch.next()).await.expect("a watch").expect("news");
    assert_eq!(update.hops.first(), Some(&Hop(2)));
    let viewer = Viewer::join(&client, "live").await;
    within("the subscription", 10, beside.track.wait_subscribed()).await;
    let group = beside.group(2);
    viewer.wait_group(group).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(relay.counts().tally.takeover_held, 0);
}

#[test]
fn another_subject_waits_until_the_path_is_free() {
    run(60, waits("alice", "bob"));
}

#[test]
fn the_public_waits_for_a_subject() {
    run(60, waits("alice", ""));
}

#[test]
fn a_subject_waits_for_the_public() {
    run(60, waits("", "alice"));
}

#[test]
fn the_same_subject_may_publish_twice() {
    run(60, stands_beside(by("alice"), by("alice"), Takeover::Identity));
}

#[test]
fn the_public_is_one_subject() {
    run(60, stands_beside(by(""), by(""), Takeover::Identity));
}

#[test]
fn a_relay_of_the_cluster_stands_beside_whoever_holds_the_path() {
    run(60, stands_beside(by("alice"), open().for_peers(), Takeover::Identity));
}

#[test]
fn anybody_may_where_the_operator_says_so() {
    run(60, stands_beside(by("alice"), by("bob"), Takeover::Any));
}
