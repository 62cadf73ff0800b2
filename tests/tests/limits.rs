//! Promise: exceeding a limit of a session, stream or message by one ends what the limit is for and nothing more; at
//! the limit everything works.

#![allow(missing_docs)]

use std::time::{Duration, Instant};

use relay_client::{Hop, Prefs, SessionCode, StreamCode};
use relay_model::limits;
use relay_tests::{
    media::Viewer,
    peer::{Peer, announcing, encoded, end_of, number, path, sized, stopped, subscribe},
    relay::TestRelay,
    run, run_alone, wait_until, within,
};
use relay_wire::lite::{AnnounceRequest, BidiType, FrameHead, SubscribeUpdate, UniType, put_frame_head};

/// A SETUP with one unknown parameter, so long that the body has `size` bytes.
fn setup_of(size: usize) -> Vec<u8> {
    let head = [&number(1)[..], &number(0x7777)].concat();
    // The parameter's length takes 4 bytes from 16 KiB on.
    let value = vec![0; size - head.len() - 4];
    let body = [&head[..], &number(value.len() as u64), &value].concat();
    assert_eq!(body.len(), size);
    [&number(UniType::Setup.id())[..], &sized(&body)].concat()
}

async fn assert_violation(peer: &Peer, what: &str) {
    let (code, reason) = peer.closed().await;
    assert_eq!(code, SessionCode::PROTOCOL_VIOLATION, "{what}: {reason}");
}

#[test]
fn control_message_over_64_kib_closes_the_session() {
    run(60, async {
        let relay = TestRelay::start(1);
        let peer = Peer::silent(&relay, &relay.raw()).await;
        peer.uni(&setup_of(limits::CONTROL_MESSAGE_BYTES), true).await;
        peer.assert_alive().await;
        let peer = Peer::silent(&relay, &relay.raw()).await;
        peer.uni(&setup_of(limits::CONTROL_MESSAGE_BYTES + 1), true).await;
        assert_violation(&peer, "SETUP").await;
        // A message size over the limit is enough.
        for kind in [BidiType::Announce, BidiType::Subscribe, BidiType::Track, BidiType::Goaway] {
            let peer = Peer::greet(&relay, &relay.web()).await;
            let size = number(limits::CONTROL_MESSAGE_BYTES as u64 + 1);
            let _streams = peer.bidi(&[&number(kind.id())[..], &size].concat()).await;
            assert_violation(&peer, "a request").await;
        }
        assert_eq!(relay.counts().panics(), 0);
    });
}

#[test]
fn name_over_its_limit_closes_the_session() {
    run(60, async {
        let relay = TestRelay::start(1);
        let deep = |parts: usize| vec!["p"; parts].join("/");
        let (long_path, long_name) = ("x".repeat(limits::PATH_BYTES), "n".repeat(limits::TRACK_NAME_BYTES));
        let prefs = encoded(&SubscribeUpdate { prefs: Prefs::default() });
        let ask = |broadcast: &str, track: &str| {
            let names = [sized(broadcast.as_bytes()), sized(track.as_bytes())].concat();
            let body = [&number(1)[..], &names, &prefs[1..]].concat();
            let subscribe = [&number(BidiType::Subscribe.id())[..], &sized(&body)].concat();
            [subscribe, [&number(BidiType::Track.id())[..], &sized(&names)].concat()]
        };
        for (broadcast, track) in
            [(long_path.as_str(), "t"), (&deep(limits::PATH_SEGMENTS), "t"), ("p", long_name.as_str())]
        {
            let peer = Peer::greet(&relay, &relay.raw()).await;
            for bytes in ask(broadcast, track) {
                let (_send, mut recv) = peer.bidi(&bytes).await;
                assert_eq!(end_of(&mut recv).await, Err(StreamCode::UNROUTABLE));
            }
            peer.assert_alive().await;
        }
        for (broadcast, track) in [
            (format!("{long_path}x"), "t".to_owned()),
            (deep(limits::PATH_SEGMENTS + 1), "t".to_owned()),
            ("p".to_owned(), format!("{long_name}n")),
        ] {
            for bytes in ask(&broadcast, &track) {
                let peer = Peer::greet(&relay, &relay.raw()).await;
                let _streams = peer.bidi(&bytes).await;
                assert_violation(&peer, "a name").await;
            }
        }
    });
}

#[test]
fn hop_chain_over_its_limit_closes_the_session() {
    run(60, async {
        let relay = TestRelay::start(1);
        let hops = |count: u64| (1..=count).map(|hop| Hop(hop + 1_000)).collect::<Vec<_>>();
        let most = limits::HOPS as u64;
        // The announcing session adds one hop.
        for (count, live) in [(most - 1, 1), (most, 0)] {
            let mut peer = Peer::greet(&relay, &relay.raw()).await;
            let (mut send, _recv) = within("a request", 10, peer.raw.accept_bidi()).await.expect("a request");
            send.write(&announcing("far", &hops(count))).await.expect("a write");
            wait_until("the route", 10, || relay.counts().core.sessions > 0).await;
            peer.assert_alive().await;
            let watcher = relay.connect().await;
            if live > 0 {
                relay.announced("far").await;
            } else {
                wait_until("the count", 10, || relay.counts().tally.too_many_hops == 1).await;
            }
            assert_eq!(watcher.announced("").await.expect("a watch").initial().count(), live);
        }
        let mut peer = Peer::greet(&relay, &relay.raw()).await;
        let (mut send, _recv) = within("a request", 10, peer.raw.accept_bidi()).await.expect("a request");
        let mut bytes = announcing("far", &hops(most));
        // The count is the first byte of the chain: one more hop, and one more byte for it.
        let at = bytes.iter().rposition(|byte| *byte == most as u8).expect("the count");
        bytes[at] += 1;
        bytes.extend([0; 8]);
        send.write(&bytes).await.expect("a write");
        assert_violation(&peer, "hops").await;
    });
}

#[test]
fn a_second_setup_or_a_bad_one_ends_the_session() {
    run(60, async {
        let relay = TestRelay::start(1);
        for url in relay.schemes() {
            let peer = Peer::greet(&relay, &url).await;
            peer.assert_alive().await;
            peer.uni(&setup_of(32_000), true).await;
            assert_violation(&peer, "a second SETUP").await;
        }
        let setup = |count: usize, ids: &[u64]| {
            let parameters: Vec<u8> = ids.iter().flat_map(|id| [number(*id), sized(&[1])].concat()).collect();
            let body = [&number(count as u64)[..], &parameters].concat();
            [&number(UniType::Setup.id())[..], &sized(&body)].concat()
        };
        let ids: Vec<u64> = (0x1000..).take(limits::PARAMETERS).collect();
        let peer = Peer::silent(&relay, &relay.raw()).await;
        peer.uni(&setup(ids.len(), &ids), true).await;
        peer.assert_alive().await;
        let more: Vec<u64> = (0x1000..).take(limits::PARAMETERS + 1).collect();
        for bytes in [setup(more.len(), &more), setup(2, &[0x2000, 0x2000]), setup(2, &[0x2000])] {
            let peer = Peer::silent(&relay, &relay.raw()).await;
            peer.uni(&bytes, true).await;
            assert_violation(&peer, "a bad SETUP").await;
        }
        let peer = Peer::silent(&relay, &relay.raw()).await;
        let malformed = [&number(1)[..], &number(5), &sized(&[1, 2])].concat();
        peer.uni(&[&number(UniType::Setup.id())[..], &sized(&malformed)].concat(), true).await;
        assert_eq!(peer.closed().await.0, SessionCode::KEY_VALUE_FORMATTING);
    });
}

#[test]
fn a_peer_that_does_not_set_up_is_closed() {
    run(60, async {
        let relay = TestRelay::start(1);
        let since = Instant::now();
        let peer = Peer::silent(&relay, &relay.raw()).await;
        let half = Peer::silent(&relay, &relay.raw()).await;
        half.uni(&[1, 40, 3], false).await;
        assert_eq!(peer.closed().await.0, SessionCode::TIMEOUT);
        assert_eq!(half.closed().await.0, SessionCode::TIMEOUT);
        assert!(since.elapsed() >= limits::SETUP_TIMEOUT - Duration::from_secs(1), "{:?}", since.elapsed());
        relay.wait_meter("both", |meter| meter.refused_setup_timeout == 2).await;
    });
}

#[test]
fn a_stream_without_a_header_is_ended_and_its_session_lives() {
    run(60, async {
        let relay = TestRelay::start(1);
        let peer = Peer::greet(&relay, &relay.raw()).await;
        let since = Instant::now();
        // Incomplete headers: half a stream type; a type and half a message.
        let mut uni = peer.uni(&[0x40], false).await;
        let (mut send, mut recv) = peer.bidi(&[0x40]).await;
        let (mut half, mut answer) = peer.bidi(&[BidiType::Subscribe as u8, 20, 1]).await;
        assert_eq!(stopped(&mut uni).await, Some(StreamCode::CONTROL_TIMEOUT));
        for (send, recv) in [(&mut send, &mut recv), (&mut half, &mut answer)] {
            assert_eq!(stopped(send).await, Some(StreamCode::CONTROL_TIMEOUT));
            assert_eq!(end_of(recv).await, Err(StreamCode::CONTROL_TIMEOUT));
        }
        assert!(since.elapsed() >= limits::STREAM_HEADER_TIMEOUT - Duration::from_millis(500));
        peer.assert_alive().await;
    });
}

#[test]
fn a_thousand_subscriptions_are_served_and_one_more_is_refused() {
    run(60, async {
        let relay = TestRelay::start(1);
        let mut publisher = Peer::greet(&relay, &relay.raw()).await;
        let reader = Peer::greet(&relay, &relay.raw()).await;
        let publishing = tokio::spawn(async move { (publisher.publish("cam").await, publisher) });
        relay.announced("cam").await;
        let mut streams = Vec::new();
        for id in 0..limits::SUBSCRIPTIONS as u64 {
            streams.push(reader.ask(BidiType::Subscribe, &subscribe(id, "cam", "video")).await);
        }
        relay.wait_readers(limits::SUBSCRIPTIONS).await;
        let (_upstream, _publisher) = publishing.await.expect("a subscription");
        let id = limits::SUBSCRIPTIONS as u64;
        let (_send, mut recv) = reader.ask(BidiType::Subscribe, &subscribe(id, "cam", "video")).await;
        assert_eq!(end_of(&mut recv).await, Err(StreamCode::EXCESSIVE_LOAD));
        reader.assert_alive().await;
        // A cancelled subscription makes room for another.
        let (mut send, mut recv) = streams.pop().expect("a subscription");
        send.finish();
        assert_eq!(end_of(&mut recv).await, Ok(Vec::new()));
        let _again = reader.ask(BidiType::Subscribe, &subscribe(id, "cam", "video")).await;
        relay.wait_readers(limits::SUBSCRIPTIONS).await;
        // A subscribe id in use is a protocol violation.
        let _twice = reader.ask(BidiType::Subscribe, &subscribe(1, "cam", "video")).await;
        assert_violation(&reader, "an id in use").await;
    });
}

#[test]
fn watches_have_a_limit() {
    run(60, async {
        let relay = TestRelay::start(1);
        let peer = Peer::greet(&relay, &relay.raw()).await;
        let request = AnnounceRequest { prefix: path("x"), exclude_hop: Hop::ANONYMOUS };
        let mut streams = Vec::new();
        for _ in 0..limits::ANNOUNCE_REQUESTS {
            streams.push(peer.ask(BidiType::Announce, &request).await);
        }
        wait_until("the watches", 10, || relay.counts().store.watches == limits::ANNOUNCE_REQUESTS).await;
        assert_eq!(peer.client.is_closed(), None);
        let (_send, mut recv) = peer.ask(BidiType::Announce, &request).await;
        assert_eq!(end_of(&mut recv).await, Err(StreamCode::EXCESSIVE_LOAD));
        // The session lives, and another watch can replace one that ended.
        drop(streams.pop());
        wait_until("one watch less", 10, || relay.counts().store.watches < limits::ANNOUNCE_REQUESTS).await;
        peer.assert_alive().await;
    });
}

#[test]
fn stream_limits_grow_with_use_up_to_their_cap() {
    run_alone(60, async {
        let relay = TestRelay::start(1);
        let peer = Peer::greet(&relay, &relay.raw()).await;
        peer.assert_alive().await;
        let since = Instant::now();
        let mut bidi = Vec::new();
        let mut uni = Vec::new();
        // Half a stream type keeps a stream open until the header times out.
        while let Ok(Ok((mut send, recv))) =
            tokio::time::timeout(Duration::from_millis(300), peer.raw.open_bidi()).await
        {
            send.write(&[0x40]).await.expect("a write");
            bidi.push((send, recv));
        }
        while let Ok(Ok(mut send)) =
            tokio::time::timeout(Duration::from_millis(300), peer.raw.open_uni()).await
        {
            send.write(&[0x40]).await.expect("a write");
            uni.push(send);
        }
        assert!(since.elapsed() < limits::STREAM_HEADER_TIMEOUT, "too slow to tell: {:?}", since.elapsed());
        // The watch of `assert_alive` may still be open.
        let most = limits::BIDI_STREAMS_MAX as usize;
        assert!((most - 1..=most).contains(&bidi.len()), "{} bidirectional streams", bidi.len());
        let most = limits::UNI_STREAMS_MAX as usize;
        assert!((most - 1..=most).contains(&uni.len()), "{} unidirectional streams", uni.len());
        assert_eq!(peer.client.is_closed(), None);
    });
}

#[test]
fn a_frame_over_its_limit_ends_its_stream_alone() {
    run(60, async {
        let relay = TestRelay::start(2);
        let mut publisher = Peer::greet(&relay, &relay.raw()).await;
        let client = relay.connect().await;
        let upstream = tokio::spawn(async move { (publisher.publish("cam").await, publisher) });
        relay.announced("cam").await;
        let viewer = Viewer::join(&client, "cam").await;
        let (upstream, publisher) = upstream.await.expect("a subscription");
        let group = |sequence: u64, size: u64| {
            let mut bytes = upstream.group_header(sequence);
            put_frame_head(relay_tests::peer::VERSION, 0, FrameHead { tick: Some(0), size }, &mut bytes);
            bytes
        };
        let fits = publisher.uni(&group(0, limits::FRAME_BYTES), false).await;
        let mut large = publisher.uni(&group(1, limits::FRAME_BYTES + 1), false).await;
        assert_eq!(stopped(&mut large).await, Some(StreamCode::FRAME_TOO_LARGE));
        // No part of the group was delivered: it is reported as dropped.
        let code = StreamCode::FRAME_TOO_LARGE.0.into();
        viewer.wait("SUBSCRIBE_DROP", |seen| seen.dropped == [(1, 1, code)]).await;
        assert!(!viewer.seen().is_over());
        publisher.assert_alive().await;
        drop(fits);
        let payload = relay_tests::media::payload(2, 0, true, 100);
        let bytes = [&group(2, 100)[..], &payload].concat();
        let _good = publisher.uni(&bytes, true).await;
        viewer.wait_group(2).await;
    });
}

#[test]
fn streams_of_unknown_types_cost_nothing_but_themselves() {
    run(60, async {
        let relay = TestRelay::start(1);
        let peer = Peer::greet(&relay, &relay.web()).await;
        let mut uni = peer.uni(&[0x3f, 1, 2, 3], false).await;
        assert_eq!(stopped(&mut uni).await, Some(StreamCode(0)));
        let (_send, mut recv) = peer.bidi(&[0x3f, 1, 2, 3]).await;
        assert_eq!(end_of(&mut recv).await, Err(StreamCode::CANCEL));
        peer.assert_alive().await;
    });
}
