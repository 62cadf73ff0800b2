//! Status places, on a relay without sessions.

use std::{
    future::poll_fn,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::atomic::AtomicUsize,
};

use axum::body::HttpBody;
use relay_auth::Policy;
use relay_model::Scope;
use relay_transport::quic::certificate;
use relay_worker::RelayOptions;

use super::*;

fn relay() -> Arc<Relay> {
    let identity = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(identity.signing_key.serialize_der());
    let resolver = certificate(vec![identity.cert.der().clone()], key.into()).unwrap();
    let policy = Arc::new(Policy::public(Scope::everything(), Scope::everything()));
    let mut options =
        RelayOptions::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), resolver, [7; 32], policy);
    options.workers = 1;
    Arc::new(Relay::start(options).unwrap())
}

/// A status that samples often, and the number of samples.
fn status(places: usize, slow: Duration) -> (Status, Arc<AtomicUsize>) {
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = looks.clone();
    let about = RelayFacts {
        version: "1".to_owned(),
        name: "test".to_owned(),
        fingerprint: Arc::new(|| None),
        memory: Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Memory::default()
        }),
        figures: Arc::new(Vec::new),
        drain: Arc::new(|| {}),
    };
    let pace = WatchLimits { every: Duration::from_millis(10), slow, places };
    (Status::with_pace(relay(), about, pace), looks)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn watcher_is_refused_when_all_places_are_taken() {
    let (status, _) = status(2, Duration::from_secs(60));
    let first = watch::add_watcher(&status, None).unwrap();
    let _second = watch::add_watcher(&status, Some(Path::parse("a").unwrap())).unwrap();
    assert!(watch::add_watcher(&status, None).is_none());
    drop(first);
    assert!(watch::add_watcher(&status, None).is_some());
}

#[tokio::test]
async fn stalled_watcher_loses_its_place_and_stream() {
    let (status, looks) = status(1, Duration::from_millis(50));
    let response = stream::response(watch::add_watcher(&status, None).unwrap());
    assert_eq!(status.watchers(), 1);
    // Nothing polls the body, as when the client's receive window is full.
    until("the place is free", || status.watchers() == 0).await;
    let mut body = response.into_body();
    let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
    assert!(matches!(frame, Some(Err(_))), "cut, not finished");
    // Without watchers nothing is sampled.
    drop(body);
    until("the task is over", || Arc::strong_count(&status.0) == 1).await;
    let seen = looks.load(Ordering::Relaxed);
    assert!(seen > 0, "sampled while there was a watcher");
}

#[tokio::test]
async fn a_stream_whose_events_are_taken_goes_on() {
    let (status, _) = status(1, Duration::from_secs(5));
    let mut body = stream::response(watch::add_watcher(&status, None).unwrap()).into_body();
    for _ in 0..20 {
        let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        let event = frame.unwrap().unwrap().into_data().unwrap();
        assert!(event.starts_with(EVENT.as_bytes()) && event.ends_with(b"}\n\n"), "{event:?}");
    }
    assert_eq!(status.watchers(), 1);
}

#[tokio::test]
async fn an_event_is_one_json_object() {
    let (status, _) = status(1, Duration::from_secs(5));
    let event = watch::add_watcher(&status, None).unwrap().next().await.unwrap();
    let text = std::str::from_utf8(&event).unwrap();
    let json = text.strip_prefix(EVENT).unwrap().strip_suffix(EVENT_END).unwrap();
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    assert!(!json.contains('\n'));
    for name in ["relay", "load", "traffic", "sessions", "broadcasts", "silent"] {
        assert!(!value[name].is_null(), "{name} in {value}");
    }
    assert_eq!((&value["sessions_total"], &value["broadcasts_total"]), (&0.into(), &0.into()));
}
