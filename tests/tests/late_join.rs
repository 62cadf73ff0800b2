//! Promise: a late subscription gets the latest group from its first frame, byte for byte, even while a large frame of
//! it is half received; and a large frame reaches a slow reader.

#![allow(missing_docs)]

use relay_client::{ClientConfig, Piece, Prefs, ReceivedGroup, TrackInfo, Tuning};
use relay_tests::{media::payload, relay::TestRelay, run, within};

const LARGE: usize = 5 * 1024 * 1024;
const SMALL: usize = 700;
/// Receive rate of the slow reader, bytes per second.
const SLOW: u64 = 4 * 1024 * 1024;

/// Reads pieces until `received` has this many payload bytes.
async fn read_to(group: &mut ReceivedGroup, received: &mut Vec<u8>, bytes: usize) {
    while received.len() < bytes {
        match within("a piece", 20, group.piece()).await.expect("a piece") {
            Some(Piece::Payload(piece)) => received.extend_from_slice(&piece),
            Some(Piece::Frame { .. }) => {}
            None => panic!("finished after {} of {bytes} bytes", received.len()),
        }
    }
}

#[test]
fn a_joiner_gets_the_open_group_from_its_first_frame() {
    run(60, async {
        let relay = TestRelay::start(2);
        let publisher = relay.connect().await;
        let broadcast = publisher.broadcast("cam").expect("a path");
        let track = broadcast.track("video", TrackInfo::default()).expect("a name");
        broadcast.announce();
        relay.announced("cam").await;
        let (first, large) = (payload(7, 0, false, SMALL), payload(7, 1, true, LARGE));
        let whole = [&first[..], &large[..]].concat();

        let early = relay.connect().await;
        let mut early = early.subscribe("cam", "video", Prefs::default()).await.expect("subscribe");
        within("the subscription", 10, track.wait_subscribed()).await;
        track.group(6).finish();
        let group = track.group(7);
        group.frame(3, first.clone());
        group.begin(4, LARGE as u64);
        group.payload(large.slice(..LARGE / 2));
        // The first reader proves that the relay has received half of the frame.
        let mut early = loop {
            let group = within("group 7", 10, early.next_group()).await.expect("a group");
            if group.sequence() == 7 {
                break group;
            }
        };
        let mut to_early = Vec::new();
        read_to(&mut early, &mut to_early, SMALL + LARGE / 2).await;

        let mut joiners = Vec::new();
        for url in [relay.raw(), relay.web()] {
            let client = relay.connect_to(&url, ClientConfig::default()).await;
            let mut joiner = client.subscribe("cam", "video", Prefs::default()).await.expect("subscribe");
            let mut joined = within("the open group", 10, joiner.next_group()).await.expect("a group");
            assert_eq!(joined.sequence(), 7);
            let mut received = Vec::new();
            read_to(&mut joined, &mut received, SMALL + LARGE / 2).await;
            assert!(received == whole[..SMALL + LARGE / 2]);
            joiners.push((client, joiner, joined, received));
        }
        group.payload(large.slice(LARGE / 2..));
        group.finish();
        read_to(&mut early, &mut to_early, whole.len()).await;
        assert!(to_early == whole);
        for (_client, _joiner, mut joined, mut received) in joiners {
            read_to(&mut joined, &mut received, whole.len()).await;
            assert!(received == whole);
            assert!(within("the end", 10, joined.piece()).await.expect("a clean end").is_none());
        }

        // A complete group is served in the same way.
        let late = relay.connect().await;
        let mut late = late.subscribe("cam", "video", Prefs::default()).await.expect("subscribe");
        let mut group = within("the latest group", 10, late.next_group()).await.expect("a group");
        let frames = within("its frames", 20, group.frames()).await.expect("frames");
        assert_eq!(frames.iter().map(|frame| frame.tick).collect::<Vec<_>>(), [Some(3), Some(4)]);
        assert!(frames[0].payload == first && frames[1].payload == large);
    });
}

#[test]
fn a_large_frame_reaches_a_slow_reader() {
    run(60, async {
        let relay = TestRelay::start(1);
        let publisher = relay.connect().await;
        let broadcast = publisher.broadcast("cam").expect("a path");
        let track = broadcast.track("video", TrackInfo::default()).expect("a name");
        broadcast.announce();
        relay.announced("cam").await;
        let tuning = Tuning { stream_window: 128 * 1024, connection_window: 256 * 1024, ..Tuning::default() };
        let slow = relay.connect_to(&relay.raw(), ClientConfig { tuning, ..Default::default() }).await;
        slow.link().set_receive_rate(Some(SLOW));
        let mut subscription = slow.subscribe("cam", "video", Prefs::default()).await.expect("subscribe");
        within("the subscription", 10, track.wait_subscribed()).await;
        let large = payload(0, 0, true, LARGE);
        let group = track.group(0);
        group.frame(0, large.clone());
        group.finish();
        let mut group = within("the group", 10, subscription.next_group()).await.expect("a group");
        let frames = within("the frame", 40, group.frames()).await.expect("frames");
        assert!(frames.len() == 1 && frames[0].payload == large);
    });
}
