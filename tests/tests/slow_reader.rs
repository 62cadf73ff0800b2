//! Promise: a reader without credit, or that does not read, loses groups and nothing else: it resumes at a group
//! boundary, its requests are answered meanwhile, and no other session is affected.

#![allow(missing_docs)]

use std::{net::SocketAddr, time::Duration};

use relay_client::{Client, ClientConfig, Error, Event, Piece, Prefs, ReceivedGroup, Subscription, Tuning};
use relay_tests::{
    media::{Source, Viewer, check, patient},
    relay::TestRelay,
    run, within,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    sync::watch,
    task::JoinSet,
};

const HEALTHY: usize = 6;
const GROUPS: u64 = 60;
const FRAMES: u64 = 10;
const FRAME: usize = 12_000;
/// Flow control window of the starved reader, bytes: half a group.
const WINDOW: u32 = 64 * 1024;
/// Kernel buffer of a slow link, bytes.
const LINK: u32 = 32 * 1024;
/// Time limit of one read attempt.
const SIP: Duration = Duration::from_millis(2);

/// Outcome of a group that was not read for long.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Complete,
    Cut,
}

async fn outcome(group: &mut ReceivedGroup) -> Outcome {
    let (sequence, mut index, mut last) = (group.sequence(), 0, false);
    loop {
        match within("a frame", 20, group.frame()).await {
            Ok(Some(frame)) => {
                last = check(sequence, index, &frame).expect("the frame that was sent");
                index += 1;
            }
            Ok(None) => {
                assert!(last, "group {sequence} looks finished after {index} frames");
                return Outcome::Complete;
            }
            Err(Error::Reset(_)) => return Outcome::Cut,
            Err(other) => panic!("group {sequence}: {other}"),
        }
    }
}

/// Client of a subscriber that reads no media.
#[derive(Clone)]
struct Slow(Client);

impl Slow {
    /// Asserts that requests are answered.
    async fn asks(&self) {
        within("track info", 8, self.0.track_info("cam", "video")).await.expect("track info");
        let watch = within("announces", 8, self.0.announced("")).await.expect("announces");
        assert!(watch.initial().any(|live| live.path.as_str() == "cam"));
    }
}

/// A subscription whose groups are not read until it resumes.
struct Reader {
    slow: Slow,
    subscription: Subscription,
    /// Groups that were not received completely.
    gone: usize,
}

impl Reader {
    async fn join(relay: &TestRelay, url: &str, tuning: Tuning) -> Self {
        let client = relay.connect_to(url, ClientConfig { tuning, ..Default::default() }).await;
        let subscription = client.subscribe("cam", "video", patient()).await.expect("subscribe");
        Self { slow: Slow(client), subscription, gone: 0 }
    }

    /// Sends requests, and reads media piece by piece until they are answered. Returns the media bytes read.
    async fn asks_while_reading(&mut self) -> usize {
        let slow = self.slow.clone();
        let asking = tokio::spawn(async move { slow.asks().await });
        let (mut read, mut open) = (0, Vec::new());
        while !asking.is_finished() {
            if let Ok(event) = tokio::time::timeout(SIP, self.subscription.next()).await {
                match event {
                    Event::Group(group) => open.push(group),
                    Event::Drop { start, end, .. } => self.gone += (end - start + 1) as usize,
                    Event::Start { .. } => {}
                    other => panic!("the subscription ended: {other:?}"),
                }
                continue;
            }
            // One piece of one group at a time, which frees little credit.
            let mut at = 0;
            while let Some(group) = open.get_mut(at) {
                match tokio::time::timeout(SIP, group.piece()).await {
                    Ok(Ok(Some(Piece::Payload(bytes)))) => {
                        read += bytes.len();
                        break;
                    }
                    Ok(Ok(Some(Piece::Frame { .. }))) => {}
                    Ok(Err(Error::Reset(_))) => {
                        self.gone += 1;
                        open.remove(at);
                    }
                    Ok(other) => panic!("group {}: {other:?}", group.sequence()),
                    Err(_) => at += 1,
                }
            }
        }
        asking.await.expect("answers");
        read
    }

    /// Reads everything until `newest` is complete. Returns the number of complete groups, and of groups that were cut
    /// or dropped.
    async fn resume(mut self, newest: u64) -> (usize, usize) {
        let (mut complete, mut gone, mut done) = (0, self.gone, false);
        let mut reading = JoinSet::new();
        while !done {
            let event = tokio::select! {
                event = within("the newest group", 20, self.subscription.next()) => event,
                Some(read) = reading.join_next() => {
                    let (sequence, outcome) = read.expect("a group that is what was sent");
                    match outcome {
                        Outcome::Complete => complete += 1,
                        Outcome::Cut => gone += 1,
                    }
                    if sequence == newest {
                        assert_eq!(outcome, Outcome::Complete, "the newest group");
                        done = true;
                    }
                    continue;
                }
            };
            match event {
                Event::Group(mut group) => {
                    reading.spawn(async move { (group.sequence(), outcome(&mut group).await) });
                }
                Event::Drop { start, end, .. } => gone += (end - start + 1) as usize,
                Event::Start { .. } => {}
                other => panic!("the subscription ended: {other:?}"),
            }
        }
        assert_eq!(self.slow.0.is_closed(), None);
        (complete, gone)
    }
}

/// Serves the WebSockets at `url` under another address, over a link that delivers nothing from the relay while it is
/// not open.
async fn link(url: &str) -> (String, watch::Sender<bool>) {
    let there: SocketAddr =
        url.trim_start_matches("ws://").trim_end_matches('/').parse().expect("an address");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
    let here = listener.local_addr().expect("an address");
    let (open, mut is_open) = watch::channel(true);
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.expect("the client");
        let socket = TcpSocket::new_v4().expect("a socket");
        // Keeps the kernel's buffer small.
        socket.set_recv_buffer_size(LINK).expect("a small buffer");
        let relay = socket.connect(there).await.expect("the relay");
        let ((mut from_client, mut to_client), (mut from_relay, mut to_relay)) =
            (client.into_split(), relay.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_relay).await });
        let mut piece = vec![0; LINK as usize];
        while is_open.wait_for(|open| *open).await.is_ok() {
            match from_relay.read(&mut piece).await {
                Ok(count) if count > 0 => {
                    if to_client.write_all(&piece[..count]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    });
    (format!("ws://{here}/"), open)
}

#[test]
fn slow_readers_resume_at_a_group_boundary() {
    let relay = TestRelay::start(2);
    let (_server, websocket) = relay.websocket();
    run(100, async {
        let publisher = relay.connect().await;
        let mut source = Source::announce(&publisher, "cam", FRAME);
        relay.announced("cam").await;
        let mut healthy = Vec::new();
        for url in [relay.raw(), relay.web(), websocket.clone()].iter().cycle().take(HEALTHY) {
            let client = relay.connect_to(url, ClientConfig::default()).await;
            healthy.push((Viewer::join(&client, "cam").await, client));
        }
        let without_streams =
            Reader::join(&relay, &relay.raw(), Tuning { uni_streams: 2, ..Tuning::default() }).await;
        without_streams.slow.0.pause_streams(true);
        let window = Tuning { connection_window: WINDOW, stream_window: WINDOW, ..Tuning::default() };
        let mut without_credit = Reader::join(&relay, &relay.raw(), window).await;
        let window = Tuning { stream_window: 32 * 1024, ..Tuning::default() };
        let not_reading = Reader::join(&relay, &relay.web(), window).await;
        let (slow_link, is_open) = link(&websocket).await;
        let over_websocket = Reader::join(&relay, &slow_link, Tuning::default()).await;
        is_open.send_replace(false);

        source.track.wait_subscribed().await;
        relay.wait_readers(HEALTHY + 4).await;
        for at in 0..GROUPS {
            let group = source.group(FRAMES);
            for (viewer, _) in &healthy {
                viewer.wait_group(group).await;
            }
            if at == GROUPS / 2 {
                without_streams.slow.asks().await;
                not_reading.slow.asks().await;
            }
        }
        // Without any credit an answer must wait too; the first credit goes to the answer.
        let read = without_credit.asks_while_reading().await;
        assert!(read < 2 * WINDOW as usize, "answered after {read} bytes of media");
        relay.wait_meter("groups given up", |meter| meter.groups_expired > 0).await;

        without_streams.slow.0.pause_streams(false);
        is_open.send_replace(true);
        let mut newest = 0;
        for (who, reader) in [
            ("streams", without_streams),
            ("credit", without_credit),
            ("reading", not_reading),
            ("reading a WebSocket", over_websocket),
        ] {
            newest = source.group(FRAMES);
            let (complete, gone) = reader.resume(newest).await;
            assert!(complete > 0 && gone > 0, "without {who}: {complete} whole, {gone} gone");
        }

        // All subscriptions are live again.
        let probe = relay.connect().await;
        let mut again = probe.subscribe("cam", "video", Prefs::default()).await.expect("subscribe");
        assert_eq!(again.next_group().await.expect("a group").sequence(), newest);
        source.end();
        for (viewer, _client) in healthy {
            viewer.finish().await.assert_lossless(0..newest + 1, "a healthy subscriber");
        }
    });
}
