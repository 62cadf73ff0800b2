//! Promise: no session publishes, watches or subscribes outside of its scope.

#![allow(missing_docs)]

use std::sync::Arc;

use relay_auth::Policy;
use relay_client::{Client, ClientConfig, Closed, Error, SessionCode, StreamCode};
use relay_model::{Path, Scope};
use relay_tests::{
    media::{Source, Viewer, code_of},
    relay::TestRelay,
    run, within,
};

fn only(prefix: &str) -> Scope {
    Scope::of([Path::parse(prefix).expect("a path")])
}

fn relay(publish: Scope, subscribe: Scope) -> TestRelay {
    TestRelay::with(2, |options| options.gate = Arc::new(Policy::public(publish, subscribe)))
}

#[test]
fn what_is_published_outside_is_seen_by_nobody() {
    run(30, async {
        let relay = relay(only("anon"), Scope::everything());
        let publisher = relay.connect().await;
        let _outside = Source::announce(&publisher, "secret/cam", 100);
        let mut inside = Source::announce(&publisher, "anon/cam", 100);
        relay.announced("anon/cam").await;
        let viewer = relay.connect().await;
        let mut watch = viewer.announced("").await.expect("a watch");
        let all: Vec<_> = watch.initial().map(|found| found.path.as_str().to_owned()).collect();
        assert_eq!(all, ["anon/cam"]);
        let refused = Viewer::join(&viewer, "secret/cam").await;
        refused.wait("the refusal", |seen| seen.code == Some(StreamCode::UNROUTABLE)).await;
        let served = Viewer::join(&viewer, "anon/cam").await;
        within("the subscription", 10, inside.track.wait_subscribed()).await;
        let group = inside.group(2);
        served.wait_group(group).await;
        drop(inside);
        let last = within("its end", 10, watch.wait("anon/cam", false)).await;
        assert!(last.is_ok(), "{last:?}");
    });
}

#[test]
fn what_lies_outside_is_neither_announced_nor_served() {
    run(30, async {
        let relay = relay(Scope::everything(), only("anon"));
        let publisher = relay.connect().await;
        let mut outside = Source::announce(&publisher, "secret/cam", 100);
        let mut inside = Source::announce(&publisher, "anon/cam", 100);
        relay.announced("anon/cam").await;
        for url in relay.schemes() {
            let viewer = relay.connect_to(&url, ClientConfig::default()).await;
            // The watch is empty and stays open: nothing is sent, and it does not end.
            let mut empty = within("a watch", 10, viewer.announced("secret")).await.expect("a watch");
            assert_eq!(empty.initial().count(), 0);
            let mut all = viewer.announced("").await.expect("a watch");
            assert_eq!(all.initial().map(|found| found.path.as_str()).collect::<Vec<_>>(), ["anon/cam"]);
            let refused = Viewer::join(&viewer, "secret/cam").await;
            refused.wait("the refusal", |seen| seen.code == Some(StreamCode::UNROUTABLE)).await;
            let info = within("the answer", 10, viewer.track_info("secret/cam", "video")).await;
            assert_eq!(info.as_ref().err().and_then(code_of), Some(StreamCode::UNROUTABLE), "{info:?}");
            assert_eq!(outside.track.live().ever, 0);

            let more = Source::announce(&publisher, "secret/more", 100);
            let seen = Source::announce(&publisher, "anon/more", 100);
            within("anon/more", 10, all.wait("anon/more", true)).await.expect("an announcement");
            let silence = tokio::time::timeout(std::time::Duration::from_millis(100), empty.next()).await;
            assert!(silence.is_err(), "{silence:?}");
            drop((more, seen));
            within("anon/more", 10, all.wait("anon/more", false)).await.expect("an announcement");

            let served = Viewer::join(&viewer, "anon/cam").await;
            within("the subscription", 10, inside.track.wait_subscribed()).await;
            let group = inside.group(2);
            served.wait_group(group).await;
        }
        outside.group(1);
    });
}

#[test]
fn a_session_is_relative_to_its_root() {
    run(30, async {
        let relay = relay(only("anon"), only("anon"));
        for url in relay.schemes() {
            let publisher = relay.connect_to(&format!("{url}anon/room"), ClientConfig::default()).await;
            let mut source = Source::announce(&publisher, "cam", 100);
            let viewer = relay.connect_to(&url, ClientConfig::default()).await;
            let mut watch = viewer.announced("anon").await.expect("a watch");
            within("the path", 10, watch.wait("anon/room/cam", true)).await.expect("an announcement");
            let viewer = Viewer::join(&viewer, "anon/room/cam").await;
            within("the subscription", 10, source.track.wait_subscribed()).await;
            let group = source.group(2);
            viewer.wait_group(group).await;
            drop(source);
            within("its end", 10, watch.wait("anon/room/cam", false)).await.expect("an announcement");
        }
    });
}

#[test]
fn a_root_outside_is_refused() {
    run(30, async {
        let relay = relay(only("anon"), only("anon"));
        for url in relay.schemes() {
            for path in ["other", "anon/../other", "anon%2f..%2fother", "anonymous", "anon?jwt=x.y.z"] {
                let url = format!("{url}{path}");
                let closed =
                    match within("an answer", 10, Client::connect(&url, ClientConfig::default())).await {
                        Ok(client) => within("the close", 10, client.closed()).await,
                        Err(Error::Closed(closed)) => closed,
                        // WebTransport may refuse the request itself.
                        Err(Error::WebTransport(_)) => continue,
                        Err(other) => panic!("{url}: {other}"),
                    };
                let Closed::Peer { code, .. } = &closed else { panic!("{url}: {closed:?}") };
                let expected = [Some(SessionCode::UNAUTHORIZED), Some(SessionCode::PROTOCOL_VIOLATION)];
                assert!(expected.contains(&code.session()), "{url}: {closed:?}");
            }
        }
        relay.wait_meter("nobody", |meter| meter.sessions_opened == 0 && meter.sessions == 0).await;
    });
}
