//! Promise: whatever a session does within its rights, no other session loses a group or waits long for its worker.
//!
//! Sessions over each transport make as much work as they can, one pattern each, while others publish and subscribe.
//! The work of one turn is asserted in units of work by the tests of the worker; here the whole relay is tried.

#![allow(missing_docs, clippy::print_stdout)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use relay_client::{Client, Hop, Prefs, SendStream, StreamCode};
use relay_model::Cost;
use relay_tests::{
    media::{Source, Viewer},
    peer::{Peer, announcing, encoded, message, number, path, sized, subscribe},
    relay::TestRelay,
    run,
};
use relay_wire::lite::{Announce, AnnounceRequest, BidiType, SubscribeResponse, TrackRequest, Version};
use tokio::task::JoinSet;

const VIEWERS: usize = 20;
/// Time for which the sessions of one transport make work.
const SPAN: Duration = Duration::from_secs(4);
/// Time between two groups of the watched track.
const PAUSE: Duration = Duration::from_millis(30);
/// Live paths for the sessions that watch announcements.
const PATHS: usize = 500;
/// Bytes per write.
const CHUNK: usize = 64 * 1024;
/// Longest wait of a ready session. The rule is 50 ms; here clients and other tests share the cores, and a thread of
/// the relay may wait for a core as well.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Endless work that one session makes for its worker.
#[derive(Clone, Copy, Debug)]
enum Pattern {
    /// Groups of frames of one byte.
    SmallFrames,
    /// Streams that are opened and reset.
    Resets,
    /// Requests for tracks that do not exist.
    Requests,
    /// Subscriptions that are cancelled at once.
    Subscriptions,
    /// A broadcast that is announced and ended repeatedly.
    Announces,
    /// Small datagrams.
    Datagrams,
    /// The largest number of announce watches, reopened repeatedly.
    Watches,
    /// Subscription responses that report groups as dropped.
    Drops,
}

const PATTERNS: [Pattern; 8] = [
    Pattern::SmallFrames,
    Pattern::Resets,
    Pattern::Requests,
    Pattern::Subscriptions,
    Pattern::Announces,
    Pattern::Datagrams,
    Pattern::Watches,
    Pattern::Drops,
];

/// Repeats `one` as often as it fits in a chunk.
fn repeated(one: &[u8]) -> Vec<u8> {
    one.repeat(CHUNK / one.len().max(1))
}

async fn write_all(stream: &mut SendStream, bytes: &[u8]) -> Option<()> {
    stream.write(bytes).await.ok()
}

/// Makes work until it is aborted, in a new session whenever the relay has ended the last one.
async fn make_work(relay: Arc<TestRelay>, url: String, asker: Client, pattern: Pattern, name: String) {
    while make_work_once(&relay, &url, &asker, pattern, &name).await.is_some() {}
}

/// Makes work in one session until it ends. `None`: there is no more work to make.
async fn make_work_once(
    relay: &TestRelay,
    url: &str,
    asker: &Client,
    pattern: Pattern,
    name: &str,
) -> Option<()> {
    let mut peer = Peer::greet(relay, url).await;
    match pattern {
        Pattern::SmallFrames | Pattern::Drops => {
            let asked = asker.clone();
            let wanted = name.to_owned();
            let asking = tokio::spawn(async move {
                let mut watch = asked.announced("").await.ok()?;
                watch.wait(&wanted, true).await.ok()?;
                asked.subscribe(&wanted, "video", Prefs::default()).await.ok()
            });
            let mut upstream = peer.publish(name).await;
            let _subscription = asking.await.ok()?;
            if matches!(pattern, Pattern::Drops) {
                let mut drop = Vec::new();
                SubscribeResponse::Drop { start: 1, end: 1, code: 0 }.encode(Version::V05, &mut drop);
                let drops = repeated(&drop);
                while write_all(&mut upstream.send, &drops).await.is_some() {}
                return Some(());
            }
            let frames = repeated(&[0, 1, 7]);
            for sequence in 0.. {
                let mut group = peer.raw.open_uni().await.ok()?;
                let header = upstream.group_header(sequence);
                let mut is_open = write_all(&mut group, &header).await.is_some();
                for _ in 0..8 {
                    is_open = is_open && write_all(&mut group, &frames).await.is_some();
                }
                group.finish();
            }
        }
        Pattern::Resets => loop {
            let mut stream = peer.raw.open_uni().await.ok()?;
            let _ = stream.write(&number(0)).await;
            stream.reset(StreamCode::CANCEL);
        },
        Pattern::Requests => loop {
            let request = TrackRequest {
                broadcast: path("nobody"),
                track: relay_model::TrackName::parse("nothing").expect("a name"),
            };
            let (mut send, mut recv) = peer.raw.open_bidi().await.ok()?;
            let _ = send.write(&[number(BidiType::Track.id()), encoded(&request)].concat()).await;
            send.finish();
            recv.stop(StreamCode::CANCEL);
        },
        Pattern::Subscriptions => {
            for id in 0.. {
                let (mut send, mut recv) = peer.raw.open_bidi().await.ok()?;
                let request = encoded(&subscribe(id, "cam", "video"));
                let _ = send.write(&[number(BidiType::Subscribe.id()), request].concat()).await;
                send.reset(StreamCode::CANCEL);
                recv.stop(StreamCode::CANCEL);
            }
        }
        Pattern::Announces => {
            let (mut send, mut recv) = peer.raw.accept_bidi().await?;
            recv.varint().await.ok()??;
            let _: AnnounceRequest = message(&mut recv).await;
            let mut churn = Vec::new();
            for announce in [
                Announce::Active { suffix: path(name), hops: [Hop(7)].into(), cost: Cost::UNKNOWN },
                Announce::Ended { suffix: path(name) },
            ] {
                announce.encode(Version::V05, &mut churn);
            }
            write_all(&mut send, &announcing(&format!("{name}/first"), &[])).await?;
            let churn = repeated(&churn);
            while write_all(&mut send, &churn).await.is_some() {}
        }
        Pattern::Datagrams => {
            let datagram = [number(0), number(1), number(2), sized(b"x")].concat();
            loop {
                for _ in 0..100 {
                    peer.raw.datagram(&datagram).ok()?;
                }
                tokio::task::yield_now().await;
            }
        }
        Pattern::Watches => {
            let request = AnnounceRequest { prefix: path("many"), exclude_hop: Hop::ANONYMOUS };
            let mut watches = Vec::new();
            for _ in 0..relay_model::limits::ANNOUNCE_REQUESTS {
                watches.push(peer.ask(BidiType::Announce, &request).await);
            }
            for (_, recv) in &mut watches {
                recv.read().await.ok()??;
            }
            peer.client.close(relay_model::SessionCode::NONE, "").await;
        }
    }
    Some(())
}

#[test]
fn sessions_that_make_work_cost_the_others_nothing() {
    let relay = Arc::new(TestRelay::start(2));
    let (_server, websocket) = relay.websocket();
    run(120, async {
        let many = relay.connect().await;
        let _paths: Vec<_> = (0..PATHS)
            .map(|at| {
                let broadcast = many.broadcast(&format!("many/{at}")).expect("a path");
                broadcast.announce();
                broadcast
            })
            .collect();
        let publisher = relay.connect().await;
        let mut source = Source::announce(&publisher, "cam", 1_000);
        relay.announced("cam").await;
        let clients = relay.clients(VIEWERS).await;
        let mut viewers = Vec::new();
        for client in &clients {
            viewers.push(Viewer::join(client, "cam").await);
        }
        source.track.wait_subscribed().await;
        let first = source.group(3);
        for viewer in &viewers {
            viewer.wait_group(first).await;
        }

        let asker = relay.connect().await;
        for url in [relay.raw(), relay.web(), websocket] {
            let mut working = JoinSet::new();
            for pattern in PATTERNS {
                let name = format!("work/{pattern:?}").to_lowercase();
                working.spawn(make_work(relay.clone(), url.clone(), asker.clone(), pattern, name));
            }
            let until = Instant::now() + SPAN;
            while Instant::now() < until {
                source.group(3);
                tokio::time::sleep(PAUSE).await;
            }
            let last = source.group(3);
            for viewer in &viewers {
                viewer.wait_group(last).await;
            }
            working.shutdown().await;
            let meter = relay.meter();
            println!("{url}: {} us, turns {:?}", meter.ready_wait_peak_us, meter.turn_us.quantile(1.0));
        }
        source.end();
        for viewer in viewers {
            viewer.finish().await.assert_lossless(first..source.next, "a bystander");
        }
        let meter = relay.meter();
        assert!(meter.frames_in > 100_000, "frames of one byte were sent: {}", meter.frames_in);
        let waited = Duration::from_micros(meter.ready_wait_peak_us);
        assert!(waited < LONGEST_WAIT, "a ready session waited {waited:?}");
        assert_eq!(relay.counts().panics(), 0);
    });
}
