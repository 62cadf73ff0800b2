//! Sessions that reconnect and move.

use std::time::Duration;

use bytes::Bytes;
use relay_model::{Cost, Hop, Prefs, SessionCode, Start, TrackInfo};
use relay_wire::lite::Version;

use super::server::Listener;
use crate::{ClientConfig, Closed, Code, Error, Reconnecting, Retry};

const SOON: Retry = Retry {
    first: Duration::from_millis(1),
    most: Duration::from_millis(8),
    overlap: Duration::from_secs(20),
};

fn start(listener: &Listener, scheme: &str, version: Version) -> Reconnecting {
    let config = ClientConfig { version, hop: Hop(77), ..Default::default() };
    Reconnecting::start(&listener.url(scheme), config, SOON)
}

async fn payload(group: &mut crate::ReceivedGroup) -> Bytes {
    group.frame().await.unwrap().unwrap().payload
}

#[tokio::test]
async fn moved_publisher_connects_before_it_disconnects() {
    for version in [Version::V04, Version::V05, Version::V06] {
        let (here, there) = (Listener::new(), Listener::new());
        let kept = start(&here, "https", version);
        let broadcast = kept.broadcast("b").unwrap();
        let track = broadcast.track("t", TrackInfo::default()).unwrap();
        broadcast.announce_with(&[], Cost { warm: 1, cold: 1 });
        let old = here.accept().await;
        let mut reader = old.subscribe("b", "t", Prefs::default()).await;
        track.wait_subscribed().await;
        let group = track.group(3);
        group.frame(1, "one".into());
        let mut received = reader.next_group().await.unwrap();
        assert_eq!(payload(&mut received).await, "one");

        old.go_away(&there.url("https")).await.unwrap();
        let new = there.accept().await;
        assert_eq!(kept.session(2).await.unwrap().quic().unwrap().remote_address(), there.addr);
        assert_eq!(new.announced("").await.wait("b", true).await.unwrap().hops, [Hop(77)]);
        // Frames written meanwhile are sent on both sessions, and the new reader resumes where the old one is.
        let resume = match version {
            Version::V06 => Prefs { start: Start::Fresh { floor: 3 }, start_frame: 1, ..Prefs::default() },
            _ => Prefs { start: Start::Group(3), ..Prefs::default() },
        };
        let mut resumed = new.subscribe("b", "t", resume).await;
        group.frame(2, "two".into());
        group.finish();
        assert_eq!(payload(&mut received).await, "two");
        let mut again = resumed.next_group().await.unwrap();
        if version != Version::V06 {
            assert_eq!(payload(&mut again).await, "one");
        }
        assert_eq!(payload(&mut again).await, "two");
        assert_eq!(old.is_closed(), None);
        // The old session is closed once it has no readers.
        reader.unsubscribe();
        let gone = Closed::Peer { code: Code::App(0), reason: "going away".into() };
        assert_eq!(old.closed().await, gone, "{version:?}");
        assert_eq!(new.is_closed(), None);
        assert_eq!(track.live().subscriptions.len(), 1);
    }
}

#[tokio::test]
async fn old_session_stays_until_new_one_has_announced() {
    let (here, there) = (Listener::new(), Listener::new());
    let kept = start(&here, "moqt", Version::V06);
    let broadcast = kept.broadcast("b").unwrap();
    broadcast.announce();
    let old = here.accept().await;
    old.go_away(&there.url("moqt")).await.unwrap();
    let new = there.accept().await;
    kept.session(2).await.unwrap();
    for _ in 0..5 {
        assert_eq!(old.announced("").await.initial().count(), 1);
    }
    assert_eq!(new.announced("").await.initial().count(), 1);
    old.closed().await;
}

#[tokio::test]
async fn refused_redirect_returns_to_the_first_relay() {
    let (here, there) = (Listener::new(), Listener::new());
    let kept = start(&here, "moqt", Version::V05);
    let old = here.accept().await;
    old.go_away(&there.url("moqt")).await.unwrap();
    there.accept().await.close(SessionCode::UNAUTHORIZED, "not here").await;
    let _home = here.accept().await;
    assert_eq!(kept.session(3).await.unwrap().quic().unwrap().remote_address(), here.addr);
}

#[tokio::test]
async fn a_reader_that_stays_does_not_keep_the_old_session_forever() {
    let (here, there) = (Listener::new(), Listener::new());
    let retry = Retry { overlap: Duration::from_millis(20), ..SOON };
    let kept = Reconnecting::start(&here.url("moqt"), ClientConfig::default(), retry);
    let broadcast = kept.broadcast("b").unwrap();
    let track = broadcast.track("t", TrackInfo::default()).unwrap();
    broadcast.announce();
    let old = here.accept().await;
    let _reader = old.subscribe("b", "t", Prefs::default()).await;
    track.wait_subscribed().await;
    old.go_away(&there.url("moqt")).await.unwrap();
    let _new = there.accept().await;
    assert!(matches!(old.closed().await, Closed::Peer { .. }));
}

#[tokio::test]
async fn a_lost_session_is_made_again_with_the_same_broadcasts() {
    for version in Version::ALL.iter().copied() {
        let listener = Listener::new();
        let kept = start(&listener, "moqt", version);
        let broadcast = kept.broadcast("b").unwrap();
        broadcast.announce();
        for count in 1..4 {
            let server = listener.accept().await;
            kept.session(count).await.unwrap();
            assert!(server.announced("").await.wait("b", true).await.unwrap().active, "{version:?}");
            server.close(SessionCode::INTERNAL, "").await;
        }
        let server = listener.accept().await;
        kept.close(SessionCode(70), "done").await;
        assert_eq!(server.closed().await, Closed::Peer { code: Code::App(70), reason: "done".into() });
    }
}

#[tokio::test]
async fn a_move_to_nowhere_comes_back() {
    let listener = Listener::new();
    let kept = start(&listener, "moqt", Version::V05);
    let server = listener.accept().await;
    server.go_away("gopher://nowhere").await.unwrap();
    let back = listener.accept().await;
    kept.session(2).await.unwrap();
    // Nothing is announced and there are no readers: the old session is closed at once.
    server.closed().await;
    assert_eq!(back.is_closed(), None);
}

#[tokio::test]
async fn unauthorized_client_does_not_reconnect() {
    let listener = Listener::new();
    let kept = start(&listener, "moqt", Version::V05);
    listener.accept().await.close(SessionCode::UNAUTHORIZED, "no").await;
    assert!(matches!(kept.stopped().await, Error::Closed(Closed::Peer { code: Code::App(2), .. })));
    assert!(kept.client().await.is_err());

    for status in [401, 403] {
        let listener = Listener::new();
        let kept = start(&listener, "https", Version::V06);
        tokio::select! {
            error = kept.stopped() => assert!(matches!(error, Error::Status(said) if said == status)),
            () = listener.refuse(status) => assert!(matches!(kept.stopped().await, Error::Status(_))),
        }
    }
    // Any other refusal is retried.
    let listener = Listener::new();
    let kept = start(&listener, "https", Version::V06);
    listener.refuse(503).await;
    let _server = listener.accept().await;
    kept.client().await.unwrap();
    assert_eq!(kept.sessions(), 1);
}
