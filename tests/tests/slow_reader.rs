//! Promise: a reader without credit, or that does not read, loses groups and nothing else: it
//! resumes at a group boundary, its requests are answered meanwhile, and nobody else notices.

#![allow(missing_docs)]

use relay_client::{Client, ClientConfig, Error, Event, Group, Piece, Prefs, Subscription, Tuning};
use relay_tests::{
    media::{Source, Viewer, check, patient},
    relay::TestRelay,
    run, within,
};

const HEALTHY: usize = 5;
const GROUPS: u64 = 60;
const FRAMES: u64 = 10;
const FRAME: usize = 12_000;
/// All the credit the starved reader gives, bytes: half a group.
const WINDOW: u32 = 64 * 1024;

/// What a group that was left alone for long came to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Complete,
    Cut,
}

async fn outcome(group: &mut Group) -> Outcome {
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

/// The client of a subscriber that takes no media.
#[derive(Clone)]
struct Slow(Client);

impl Slow {
    /// Its requests are answered all the same.
    async fn asks(&self) {
        within("track info", 8, self.0.track_info("cam", "video")).await.expect("track info");
        let watch = within("announces", 8, self.0.announced("")).await.expect("announces");
        assert!(watch.initial().any(|live| live.path.as_str() == "cam"));
    }
}

/// A subscription whose groups are left alone until it resumes.
struct Reader {
    slow: Slow,
    subscription: Subscription,
}

impl Reader {
    async fn join(relay: &TestRelay, url: &str, tuning: Tuning) -> Self {
        let client = relay.connect_to(url, ClientConfig { tuning, ..Default::default() }).await;
        let subscription = client.subscribe("cam", "video", patient()).await.expect("subscribe");
        Self { slow: Slow(client), subscription }
    }

    /// Asks, and reads media bit by bit until the answers are there. Bytes of media read.
    async fn asks_while_reading(&mut self) -> usize {
        let slow = self.slow.clone();
        let s2=slow.clone();let mut asking = tokio::spawn(async move { s2.asks().await });
        let mut read = 0;
        loop {
            let mut group = within("a group", 10, self.subscription.next_group()).await.expect("a group");
            loop {
                tokio::select! {
                    biased;
                    _ = tokio::time::sleep(std::time::Duration::from_millis(500)) => eprintln!("idle: read {read} group {} stats {:?}", group.sequence(), slow.0.quic().stats().frame_tx),
                    answered = &mut asking => {
                        answered.expect("answers");
                        return read;
                    }
                    piece = group.piece() => match piece {
                        Ok(Some(Piece::Payload(bytes))) => read += bytes.len(),
                        Ok(Some(Piece::Frame { .. })) => {}
                        Ok(None) => { eprintln!("end {}", group.sequence()); break; }, Err(e) => {eprintln!("{} {e}", group.sequence()); break},
                    }
                }
            }
        }
    }

    /// Reads what there is until `newest` is complete. How many groups came whole, and how many were
    /// cut or named as dropped.
    async fn resume(mut self, newest: u64) -> (usize, usize) {
        let (mut complete, mut gone) = (0, 0);
        let mut count = |outcome: Outcome| match outcome {
            Outcome::Complete => complete += 1,
            Outcome::Cut => gone += 1,
        };
        let mut dropped = 0;
        let mut done = false;
        while !done {
            match within("the newest group", 20, self.subscription.next()).await {
                Event::Group(mut group) => {
                    let outcome = outcome(&mut group).await;
                    if group.sequence() == newest {
                        assert_eq!(outcome, Outcome::Complete, "the newest group");
                        done = true;
                    }
                    count(outcome);
                }
                Event::Drop { start, end, .. } => dropped += end - start + 1,
                Event::Start { .. } => {}
                other => panic!("the subscription ended: {other:?}"),
            }
        }
        assert_eq!(self.slow.0.is_closed(), None);
        (complete, gone + dropped as usize)
    }
}

#[test]
fn slow_readers_resume_at_a_group_boundary_and_nobody_else_notices() {
    run(100, async {
        let relay = TestRelay::start(2);
        let publisher = relay.connect().await;
        let mut source = Source::announce(&publisher, "cam", FRAME);
        relay.announced("cam").await;
        let mut healthy = Vec::new();
        for url in [relay.raw(), relay.web()].iter().cycle().take(HEALTHY) {
            let client = relay.connect_to(url, ClientConfig::default()).await;
            healthy.push((Viewer::join(&client, "cam").await, client));
        }
        let without_streams =
            Reader::join(&relay, &relay.raw(), Tuning { uni_streams: 2, ..Tuning::default() }).await;
        without_streams.slow.0.hold_streams(true);
        let window = Tuning { connection_window: WINDOW, stream_window: WINDOW, ..Tuning::default() };
        let mut without_credit = Reader::join(&relay, &relay.raw(), window).await;
        let window = Tuning { stream_window: 32 * 1024, ..Tuning::default() };
        let not_reading = Reader::join(&relay, &relay.web(), window).await;

        source.track.wait_subscribed().await;
        relay.wait_readers(HEALTHY + 3).await;
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
        // Without any credit an answer must wait too; the first credit there is, is the answer's.
        let read = without_credit.asks_while_reading().await;
        assert!(read < 2 * WINDOW as usize, "answered after {read} bytes of media");
        let newest = GROUPS - 1;
        relay.wait_meter("groups given up", |meter| meter.groups_expired > 0).await;

        without_streams.slow.0.hold_streams(false);
        for (who, reader) in
            [("streams", without_streams), ("credit", without_credit), ("reading", not_reading)]
        {
            let (complete, gone) = reader.resume(newest).await;
            assert!(complete > 0 && gone > 0, "without {who}: {complete} whole, {gone} gone");
        }

        // All of them are live again.
        let probe = relay.connect().await;
        let mut again = probe.subscribe("cam", "video", Prefs::default()).await.expect("subscribe");
        assert_eq!(again.next_group().await.expect("a group").sequence(), newest);
        source.end();
        for (viewer, _client) in healthy {
            viewer.finish().await.assert_lossless(0..GROUPS, "a healthy subscriber");
        }
    });
}
