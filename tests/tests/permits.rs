//! Promise: the rights of a session can change while it lives, with immediate effect in both directions; and no session
//! outlives its permit by a second, whatever the clock does.

#![allow(missing_docs)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use relay_auth::{Permit, Policy};
use relay_client::{Announced, Client, ClientConfig, Closed, SessionCode, StreamCode, lite::Version};
use relay_model::{Path, Scope};
use relay_tests::{
    media::{Source, Viewer, code_of},
    porter::{Porter, open},
    relay::TestRelay,
    run, run_alone, wait_until, within,
};
use relay_worker::EndedBy;

const VERSIONS: [Version; 4] = [Version::V03, Version::V04, Version::V05, Version::V06];

fn only(prefix: &str) -> Scope {
    Scope::of([Path::parse(prefix).expect("a path")])
}

fn permit(publish: Scope, subscribe: Scope) -> Permit {
    Policy::public(publish, subscribe).admit("/", std::time::SystemTime::now()).expect("a permit")
}

/// Runs `test` with every version over QUIC and over WebTransport.
fn through_all<F: Future<Output = ()>>(test: impl Fn(TestRelay, Arc<Porter>, String, ClientConfig) -> F) {
    for version in VERSIONS {
        for is_web in [false, true] {
            run(60, async {
                let (relay, porter) = Porter::relay(2);
                let url = if is_web { relay.web() } else { relay.raw() };
                let config = ClientConfig { version, ..ClientConfig::default() };
                test(relay, porter, url, config).await;
            });
        }
    }
}

async fn shows(watch: &mut Announced, path: &str, active: bool) {
    within(path, 10, watch.wait(path, active)).await.expect("an announcement");
}

async fn closed(client: &Client) -> (SessionCode, String) {
    match within("the close", 10, client.closed()).await {
        Closed::Peer { code, reason } => (code.session().expect("a code of ours"), reason),
        other => panic!("{other}"),
    }
}

#[test]
fn revoked_publish_right_withdraws_until_restored() {
    through_all(|relay, porter, url, config| async move {
        let publisher = relay.connect_to(&url, config).await;
        let session = porter.wait_admitted(1).await;
        let mut a = Source::announce(&publisher, "a/cam", 100);
        let mut b = Source::announce(&publisher, "b/cam", 100);
        let viewer = relay.connect().await;
        let mut watch = viewer.announced("").await.expect("a watch");
        shows(&mut watch, "a/cam", true).await;
        relay.announced("b/cam").await;
        let (of_a, of_b) = (Viewer::join(&viewer, "a/cam").await, Viewer::join(&viewer, "b/cam").await);
        for (source, viewer) in [(&mut a, &of_a), (&mut b, &of_b)] {
            within("the subscription", 10, source.track.wait_subscribed()).await;
            let group = source.group(2);
            viewer.wait_group(group).await;
        }

        porter.sessions().revise(session, permit(only("b"), Scope::everything()));
        shows(&mut watch, "a/cam", false).await;
        of_a.wait("the end", |seen| seen.code == Some(StreamCode::UNROUTABLE)).await;
        within("the end upstream", 10, a.track.wait_live(|live| live.subscriptions.is_empty())).await;
        // A path announced anew is refused as well; other broadcasts continue.
        let more = Source::announce(&publisher, "a/more", 100);
        let group = b.group(2);
        of_b.wait_group(group).await;
        let refused = Viewer::join(&viewer, "a/cam").await;
        refused.wait("the refusal", |seen| seen.code == Some(StreamCode::UNROUTABLE)).await;
        assert!(publisher.is_closed().is_none());

        porter.sessions().revise(session, permit(Scope::everything(), Scope::everything()));
        shows(&mut watch, "a/cam", true).await;
        relay.announced("a/more").await;
        let again = Viewer::join(&viewer, "a/cam").await;
        within("the subscription", 10, a.track.wait_subscribed()).await;
        let group = a.group(2);
        again.wait_group(group).await;
        drop(a);
        shows(&mut watch, "a/cam", false).await;
        drop(more);
        let group = b.group(2);
        of_b.wait_group(group).await;
        assert!(!of_b.seen().is_over());
    });
}

#[test]
fn revoked_subscribe_right_ends_its_tracks_until_restored() {
    through_all(|relay, porter, url, config| async move {
        let publisher = relay.connect().await;
        let mut a = Source::announce(&publisher, "a/cam", 100);
        let mut b = Source::announce(&publisher, "b/cam", 100);
        relay.announced("a/cam").await;
        relay.announced("b/cam").await;
        let other = relay.connect().await;
        let of_other = Viewer::join(&other, "a/cam").await;
        relay.wait_readers(1).await;
        let before = porter.admitted().len();
        let client = relay.connect_to(&url, config).await;
        let session = porter.wait_admitted(before + 1).await;
        let mut watch = client.announced("").await.expect("a watch");
        shows(&mut watch, "a/cam", true).await;
        let (of_a, of_b) = (Viewer::join(&client, "a/cam").await, Viewer::join(&client, "b/cam").await);
        relay.wait_readers(3).await;
        let group = a.group(2);
        of_a.wait_group(group).await;

        porter.sessions().revise(session, permit(Scope::everything(), only("b")));
        shows(&mut watch, "a/cam", false).await;
        of_a.wait("the end", |seen| seen.code == Some(StreamCode::UNROUTABLE)).await;
        let refused = Viewer::join(&client, "a/cam").await;
        refused.wait("the refusal", |seen| seen.code == Some(StreamCode::UNROUTABLE)).await;
        if client.version().has_tracks() {
            let info = within("the answer", 10, client.track_info("a/cam", "video")).await;
            assert_eq!(info.as_ref().err().and_then(code_of), Some(StreamCode::UNROUTABLE), "{info:?}");
        }
        let group = a.group(2);
        of_other.wait_group(group).await;
        let group = b.group(2);
        of_b.wait_group(group).await;
        let hidden = Source::announce(&publisher, "a/more", 100);
        relay.announced("a/more").await;

        porter.sessions().revise(session, permit(Scope::everything(), Scope::everything()));
        shows(&mut watch, "a/cam", true).await;
        shows(&mut watch, "a/more", true).await;
        drop(hidden);
        let again = Viewer::join(&client, "a/cam").await;
        relay.wait_readers(3).await;
        let group = a.group(2);
        again.wait_group(group).await;
        assert!(!of_b.seen().is_over() && !of_other.seen().is_over());
    });
}

#[test]
fn announce_request_ends_without_rights_and_may_reopen() {
    through_all(|relay, porter, url, config| async move {
        porter.judge_by(Policy::public(only("a"), Scope::everything()));
        let publisher = relay.connect_to(&url, config).await;
        let session = porter.wait_admitted(1).await;
        porter.judge_by(open());
        let _a = Source::announce(&publisher, "a/cam", 100);
        let _b = Source::announce(&publisher, "b/cam", 100);
        relay.announced("a/cam").await;
        let board = relay.store().board();
        for (prefix, path) in [("b", "b/cam"), ("a", "a/cam"), ("b", "b/cam")] {
            porter.sessions().revise(session, permit(only(prefix), Scope::everything()));
            relay.announced(path).await;
            wait_until("the other to go", 10, || board.paths() == 1).await;
        }
        // Rights that grow and shrink again cause no second announce request, and the watch stays open.
        porter.sessions().revise(session, permit(Scope::everything(), Scope::everything()));
        relay.announced("a/cam").await;
        let viewer = relay.connect().await;
        let mut watch = viewer.announced("b").await.expect("a watch");
        shows(&mut watch, "b/cam", true).await;
        porter.sessions().revise(session, permit(only("b"), Scope::everything()));
        wait_until("the other to go", 10, || board.paths() == 1).await;
        let flap = tokio::time::timeout(Duration::from_millis(100), watch.next()).await;
        assert!(flap.is_err(), "{flap:?}");
        assert!(publisher.is_closed().is_none());
    });
}

#[test]
fn revoked_session_closes_with_its_code_and_is_reported() {
    through_all(|relay, porter, url, config| async move {
        let client = relay.connect_to(&url, config).await;
        let session = porter.wait_admitted(1).await;
        let mut source = Source::announce(&client, "a", 10_000);
        let viewer = relay.connect().await;
        relay.announced("a").await;
        let read = Viewer::join(&viewer, "a").await;
        within("the subscription", 10, source.track.wait_subscribed()).await;
        let group = source.group(10);
        read.wait_group(group).await;
        porter.sessions().end(session, SessionCode::UNAUTHORIZED, "revoked");
        assert_eq!(closed(&client).await, (SessionCode::UNAUTHORIZED, "revoked".to_owned()));
        wait_until("its path to go", 10, || relay.store().board().paths() == 0).await;
        let refused = Viewer::join(&viewer, "a").await;
        refused.wait("the refusal", |seen| seen.code == Some(StreamCode::UNROUTABLE)).await;
        let ended = || porter.farewells().into_iter().find(|farewell| farewell.session == session);
        wait_until("the farewell", 10, || ended().is_some()).await;
        let farewell = ended().expect("it came");
        assert!(farewell.admitted && farewell.by == EndedBy::Relay);
        assert_eq!(farewell.code, Some(relay_model::SessionCode::UNAUTHORIZED));
        assert!(farewell.bytes.0 > 100_000 && farewell.bytes.1 > 1_200, "{farewell:?}");
        assert!(viewer.is_closed().is_none());
    });
}

#[test]
fn sessions_of_a_revoked_token_close_within_a_second() {
    run_alone(60, async {
        let (relay, porter) = Porter::relay(2);
        porter.judge_by(open().with_subject("alice"));
        let alice = relay.connect().await;
        porter.wait_admitted(1).await;
        porter.judge_by(open().with_subject("bob"));
        let bobs = relay.clients(6).await;
        porter.wait_admitted(7).await;
        let start = Instant::now();
        porter
            .sessions()
            .end_where(SessionCode::UNAUTHORIZED, "revoked", |permit| permit.subject() == Some("bob"));
        for bob in &bobs {
            assert_eq!(closed(bob).await.0, SessionCode::UNAUTHORIZED);
        }
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        assert!(alice.is_closed().is_none());
        relay.wait_meter("the count", |meter| meter.sessions_revoked == 6).await;
    });
}

#[test]
fn an_answer_may_come_late_and_nothing_is_lost_meanwhile() {
    through_all(|relay, porter, url, config| async move {
        let publisher = relay.connect().await;
        let mut source = Source::announce(&publisher, "a", 100);
        relay.announced("a").await;
        let group = source.group(2);
        porter.be_slow(true);
        // A WebTransport session is accepted before the gate is asked.
        let client = relay.connect_to(&url, config).await;
        let viewer = Viewer::join(&client, "a").await;
        wait_until("the question", 10, || porter.owes() == 1).await;
        assert!(viewer.seen().start.is_none() && !viewer.seen().is_over());
        porter.answer();
        viewer.wait_group(group).await;
    });
}

#[test]
fn session_ends_within_a_second_of_its_permit() {
    for is_web in [false, true] {
        run_alone(60, async move {
            // Offset of the wall clock, seconds.
            let step = Arc::new(AtomicI64::new(0));
            let clock = step.clone();
            let (relay, porter) = Porter::relay_with(2, |options| {
                options.wall = Arc::new(move || {
                    let step = clock.load(Ordering::Relaxed);
                    let by = Duration::from_secs(step.unsigned_abs());
                    if step < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
                });
            });
            let url = if is_web { relay.web() } else { relay.raw() };
            let connect = |seconds: u64| {
                porter.judge_by(open().until(SystemTime::now() + Duration::from_secs(seconds)));
                relay.connect_to(&url, ClientConfig::default())
            };
            let hour = connect(3_600).await;
            porter.wait_admitted(1).await;
            let start = Instant::now();
            let soon = connect(2).await;
            porter.wait_admitted(2).await;
            assert_eq!(closed(&soon).await, (SessionCode::UNAUTHORIZED, "expired".to_owned()));
            let lasted = start.elapsed();
            assert!((Duration::from_millis(1_900)..Duration::from_secs(3)).contains(&lasted), "{lasted:?}");
            let back = connect(1).await;
            porter.wait_admitted(3).await;
            step.store(-60, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            assert!(hour.is_closed().is_none() && back.is_closed().is_none());
            let start = Instant::now();
            step.store(3_600, Ordering::Relaxed);
            assert_eq!(closed(&hour).await, (SessionCode::UNAUTHORIZED, "expired".to_owned()));
            assert_eq!(closed(&back).await.0, SessionCode::UNAUTHORIZED);
            assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        });
    }
}

#[test]
fn session_without_its_only_right_is_refused() {
    use relay_client::lite::Role;
    for version in [Version::V05, Version::V06] {
        for is_web in [false, true] {
            run(60, async move {
                let (relay, porter) = Porter::relay(1);
                let url = if is_web { relay.web() } else { relay.raw() };
                for (role, allowed, refused) in [
                    (Role::Publisher, (Scope::everything(), Scope::nothing()), "may not publish"),
                    (Role::Subscriber, (Scope::nothing(), Scope::everything()), "may not subscribe"),
                ] {
                    let config = ClientConfig { version, role: Some(role), ..ClientConfig::default() };
                    let (publish, subscribe) = allowed;
                    porter.judge_by(Policy::public(subscribe.clone(), publish.clone()));
                    let client = Client::connect(&url, config.clone()).await.expect("a session");
                    assert_eq!(closed(&client).await, (SessionCode::UNAUTHORIZED, refused.to_owned()));
                    porter.judge_by(Policy::public(publish, subscribe));
                    let client = relay.connect_to(&url, config).await;
                    within("its SETUP", 10, client.peer_setup()).await.expect("a SETUP");
                    assert!(client.is_closed().is_none());
                }
            });
        }
    }
}
