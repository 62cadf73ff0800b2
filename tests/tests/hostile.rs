//! Promise: whatever a peer sends, in whatever state, it costs at most its own session.
//!
//! Valid messages are corrupted field by field and sent in real sessions, as subscriber and as publisher, while other
//! sessions are served. `HOSTILE_SEED` repeats a run.

#![allow(missing_docs, clippy::print_stdout)]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use relay_client::{Client, Prefs, RecvStream, SendStream, StreamCode, quinn};
use relay_meter::Worker as Meter;
use relay_tests::{
    hostile::{Field, bytes, good, spoil},
    media::{Source, Viewer},
    peer::Peer,
    random::Random,
    relay::TestRelay,
    run,
};
use relay_wire::lite::BidiType;

const SEED: u64 = 20_261_122;
/// Every kind of message is processed more often than this.
const REACHED: u64 = 100;
const HEALTHY: usize = 20;
const ATTACKERS: u64 = 3;
/// Corrupted messages per session, unless it ends before.
const MESSAGES: usize = 25;
/// Subscriptions to a hostile publisher.
const TRACKS: usize = 6;

/// Kinds of messages and actions that are corrupted.
const KINDS: [&str; 18] = [
    "setup",
    "announce request",
    "subscribe",
    "subscribe update",
    "track",
    "fetch",
    "probe",
    "goaway",
    "announce",
    "track info",
    "subscribe response",
    "group",
    "datagram",
    "http/3",
    "unknown stream",
    "reset",
    "stop",
    "close",
];

/// Number of processed messages by kind: the session answered a later request, or was ended.
#[derive(Clone, Debug, Default)]
struct Tally(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Tally {
    fn count(&self, kind: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }

    fn of(&self, kind: &'static str) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(kind).copied().unwrap_or_default()
    }

    fn is_enough(&self, kinds: &[&'static str]) -> bool {
        kinds.iter().all(|kind| self.of(kind) > REACHED)
    }

    /// Picks one of `kinds` that was not processed often enough yet, or any of them.
    fn wanted(&self, kinds: &[&'static str], random: &mut Random) -> &'static str {
        let missing: Vec<_> = kinds.iter().copied().filter(|kind| self.of(kind) <= REACHED).collect();
        random.pick::<&'static str>(if missing.is_empty() { kinds } else { &missing })
    }
}

/// One hostile session.
struct Attack<'a> {
    peer: Peer,
    random: &'a mut Random,
    tally: &'a Tally,
    /// Streams left open.
    kept: Vec<(SendStream, Option<RecvStream>)>,
}

impl Attack<'_> {
    /// Whether the session still answers; if not, it has been closed.
    async fn survives(&mut self) -> bool {
        let request = bytes(&good::track("nobody", "nothing"));
        let answer = async {
            let (mut send, mut recv) = self.peer.raw.open_bidi().await?;
            send.write(&request).await?;
            send.finish();
            recv.read_all(100).await
        };
        tokio::select! {
            _ = answer => {}
            _ = self.peer.client.closed() => {}
            () = tokio::time::sleep(Duration::from_secs(10)) => panic!("neither served nor closed"),
        }
        self.peer.client.is_closed().is_none()
    }

    /// Corrupts a message and sends it on a new stream, in pieces, with a random end of the stream. `false`: the
    /// session has ended.
    async fn send(&mut self, kind: &'static str, fields: Vec<Field>, bidi: bool) -> bool {
        let spoilt = spoil(fields, self.random);
        let raw = &self.peer.raw;
        let opened = async {
            if bidi {
                let (send, recv) = raw.open_bidi().await?;
                return Ok((send, Some(recv)));
            }
            Ok::<_, relay_client::Error>((raw.open_uni().await?, None))
        };
        let Ok(Ok((send, recv))) = tokio::time::timeout(Duration::from_secs(5), opened).await else {
            return self.survives().await;
        };
        self.answer(kind, send, recv, &spoilt).await
    }

    /// Writes bytes in pieces, and ends the stream in a random way. `false`: the session has ended.
    async fn answer(
        &mut self,
        kind: &'static str,
        mut send: SendStream,
        recv: Option<RecvStream>,
        bytes: &[u8],
    ) -> bool {
        let cut = self.random.below(bytes.len() + 1);
        let whole = self.random.one_in(2);
        let pieces = if whole { [bytes, &[][..]] } else { [&bytes[..cut], &bytes[cut..]] };
        for piece in pieces {
            // The stream may be stopped, or the session closed, in between.
            let _ = tokio::time::timeout(Duration::from_millis(500), send.write(piece)).await;
        }
        let mut ending = None;
        match self.random.below(6) {
            0 => {
                send.reset_raw(self.random.draw() >> 2 >> self.random.below(62));
                ending = Some("reset");
            }
            1 | 2 => self.kept.push((send, recv)),
            3 if recv.is_some() => {
                let code = self.random.draw() >> 2 >> self.random.below(62);
                recv.into_iter().for_each(|mut recv| recv.stop_raw(code));
                self.kept.push((send, None));
                ending = Some("stop");
            }
            _ => {
                send.finish();
                self.kept.push((send, recv));
            }
        }
        let survives = self.survives().await;
        self.tally.count(kind);
        ending.into_iter().for_each(|ending| self.tally.count(ending));
        survives
    }

    /// Sends a valid SUBSCRIBE and a corrupted SUBSCRIBE_UPDATE. `false`: the session has ended.
    async fn update(&mut self, id: u64) -> bool {
        let opened = tokio::time::timeout(Duration::from_secs(5), self.peer.raw.open_bidi()).await;
        let Ok(Ok((mut send, recv))) = opened else { return self.survives().await };
        let _ = send.write(&bytes(&good::subscribe(id, "cam", "video"))).await;
        let _ = send.write(&bytes(&good::update())).await;
        let spoilt = spoil(good::update(), self.random);
        self.answer("subscribe update", send, Some(recv), &spoilt).await
    }

    /// Sends a corrupted HTTP/3 stream. `false`: the session has ended.
    async fn http(&mut self) -> bool {
        let bidi = self.random.one_in(2);
        let spoilt = spoil(good::http(bidi), self.random);
        let quic = self.peer.raw.quic().expect("quic");
        let opened = async {
            if bidi {
                let (mut send, recv) = quic.open_bi().await?;
                let _ = send.write_all(&spoilt).await;
                return Ok((send, Some(recv)));
            }
            let mut send = quic.open_uni().await?;
            let _ = send.write_all(&spoilt).await;
            Ok::<_, quinn::ConnectionError>((send, None))
        };
        // Kept open until the session has answered.
        let _opened = tokio::time::timeout(Duration::from_secs(5), opened).await;
        let survives = self.survives().await;
        self.tally.count("http/3");
        survives
    }

    /// Sends a corrupted datagram. `false`: the session has ended.
    async fn datagram(&mut self, subscribe: u64, sequence: u64) -> bool {
        let spoilt = spoil(good::datagram(subscribe, sequence), self.random);
        let _ = self.peer.raw.datagram(&spoilt);
        let survives = self.survives().await;
        self.tally.count("datagram");
        survives
    }

    /// Ends a session that is still open, half of the time by a random code and reason.
    async fn end(self) {
        if self.random.one_in(2) {
            let code = self.random.draw() >> 2 >> self.random.below(62);
            let reason = self.random.bytes(20);
            self.peer
                .client
                .quic()
                .expect("quic")
                .close(quinn::VarInt::from_u64(code).expect("62 bits"), &reason);
            self.tally.count("close");
        }
    }
}

/// Runs a session with a corrupted SETUP.
async fn spoil_setup(relay: &TestRelay, random: &mut Random, tally: &Tally) {
    let url = random.pick(&relay.schemes()).clone();
    let peer = Peer::silent(relay, &url).await;
    let attack = Attack { peer, random, tally, kept: Vec::new() };
    let bytes = spoil(good::setup(), &mut *attack.random);
    let Ok(mut send) = attack.peer.raw.open_uni().await else { return };
    let _ = send.write(&bytes).await;
    match attack.random.below(3) {
        0 => send.reset(StreamCode(3)),
        1 => send.finish(),
        _ => {}
    }
    // The session is closed, admitted, or waits for the rest: either is certain once its bytes were read.
    let known = async {
        tokio::select! {
            _ = send.stopped() => {}
            _ = attack.peer.client.closed() => {}
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(100), known).await;
    tally.count("setup");
    attack.end().await;
}

/// Runs a session with corrupted requests.
async fn ask_nonsense(relay: &TestRelay, random: &mut Random, tally: &Tally) {
    const ASKS: [&str; 10] = [
        "http/3",
        "announce request",
        "subscribe",
        "subscribe update",
        "track",
        "fetch",
        "probe",
        "goaway",
        "unknown stream",
        "datagram",
    ];
    let url = random.pick(&relay.schemes()).clone();
    let peer = Peer::greet(relay, &url).await;
    let mut attack = Attack { peer, random, tally, kept: Vec::new() };
    for id in 0..MESSAGES as u64 {
        // Raw QUIC has no HTTP/3 streams.
        let known = if url.starts_with("https") { &ASKS[..] } else { &ASKS[1..] };
        let kind = tally.wanted(known, attack.random);
        let lives = match kind {
            "announce request" => attack.send(kind, good::announce_request(), true).await,
            "subscribe" => attack.send(kind, good::subscribe(id, "cam", "video"), true).await,
            "subscribe update" => attack.update(1_000 + id).await,
            "track" => attack.send(kind, good::track("cam", "video"), true).await,
            "fetch" => attack.send(kind, good::fetch("cam", "video"), true).await,
            "probe" => attack.send(kind, good::probe(), true).await,
            "goaway" => attack.send(kind, good::goaway(), true).await,
            "http/3" => attack.http().await,
            "datagram" => attack.datagram(id, id).await,
            _ => {
                let (len, bidi) = (attack.random.below(50), attack.random.one_in(2));
                let noise = attack.random.bytes(len);
                attack.send(kind, vec![Field::Raw(noise)], bidi).await
            }
        };
        if !lives {
            return;
        }
    }
    attack.end().await;
}

/// Runs a session that publishes corrupted data to a subscriber.
async fn publish_nonsense(relay: &TestRelay, asker: &Client, path: &str, random: &mut Random, tally: &Tally) {
    const TELLS: [&str; 5] = ["announce", "track info", "subscribe response", "group", "datagram"];
    let url = random.pick(&relay.schemes()).clone();
    let peer = Peer::greet(relay, &url).await;
    let mut attack = Attack { peer, random, tally, kept: Vec::new() };
    let Some((mut send, recv)) = attack.peer.raw.accept_bidi().await else { return };
    if tally.wanted(&TELLS, attack.random) == "announce" {
        let spoilt = spoil(good::announce_ok(path), attack.random);
        attack.answer("announce", send, Some(recv), &spoilt).await;
        return attack.end().await;
    }
    if send.write(&bytes(&good::announce_ok(path))).await.is_err() {
        return;
    }
    attack.kept.push((send, Some(recv)));
    let mut watch = asker.announced("evil").await.expect("a watch");
    let announced = tokio::time::timeout(Duration::from_secs(10), watch.wait(path, true)).await;
    announced.expect("an announcement in time").expect("an announcement");
    let mut asked = Vec::new();
    for track in 0..TRACKS {
        let prefs = Prefs { max_age_ms: 1_000, ..Prefs::default() };
        asked.push(asker.subscribe(path, &format!("t{track}"), prefs).await.expect("subscribe"));
    }
    // Each subscription leads to TRACK and SUBSCRIBE, unless the first answer has ended it already.
    for _ in 0..2 * TRACKS {
        let next = tokio::time::timeout(Duration::from_secs(1), attack.peer.raw.accept_bidi()).await;
        let Ok(Some((send, mut recv))) = next else { break };
        let Ok(Some(kind)) = recv.varint().await else { break };
        let lives = if kind == BidiType::Track.id() {
            let spoilt = if attack.random.one_in(2) {
                bytes(&good::track_info())
            } else {
                spoil(good::track_info(), attack.random)
            };
            attack.answer("track info", send, Some(recv), &spoilt).await
        } else {
            serve_nonsense(&mut attack, send, recv).await
        };
        if !lives {
            return;
        }
    }
    drop(asked);
    attack.end().await;
}

/// Answers one SUBSCRIBE with corrupted groups, datagrams and responses. `false`: the session has ended.
async fn serve_nonsense(attack: &mut Attack<'_>, send: SendStream, recv: RecvStream) -> bool {
    let mut recv = recv;
    // Message size, then subscribe id.
    let (Ok(Some(_)), Ok(Some(id))) = (recv.varint().await, recv.varint().await) else { return true };
    for sequence in 0..4 {
        if !attack.send("group", good::group(id, sequence), false).await {
            return false;
        }
        if !attack.datagram(id, 100 + sequence).await {
            return false;
        }
    }
    let spoilt = spoil(good::responses(), attack.random);
    attack.answer("subscribe response", send, Some(recv), &spoilt).await
}

/// Runs hostile sessions one after another, until every kind was processed often enough.
async fn attack(relay: Arc<TestRelay>, tally: Tally, seed: u64, attacker: u64) {
    let mut random = Random::new(seed.wrapping_add(attacker.wrapping_mul(0x9e37_79b9)));
    let asker = relay.connect().await;
    for number in 0.. {
        if tally.is_enough(&KINDS) {
            break;
        }
        match random.below(4) {
            0 => spoil_setup(&relay, &mut random, &tally).await,
            1 => ask_nonsense(&relay, &mut random, &tally).await,
            _ => {
                let path = format!("evil/{attacker}/{number}");
                publish_nonsense(&relay, &asker, &path, &mut random, &tally).await;
            }
        }
    }
    assert_eq!(asker.is_closed(), None, "the subscriber of a hostile publisher stays connected");
}

/// Asserts that the relay has processed the messages, by our counts and by its own.
fn assert_reached(tally: &Tally, meter: &Meter, healthy_groups: u64) {
    for kind in KINDS {
        println!("{kind}: {}", tally.of(kind));
        assert!(tally.of(kind) > REACHED, "{kind}: {}", tally.of(kind));
    }
    let counted = [
        ("sessions opened", meter.sessions_opened),
        ("requests refused", meter.requests_refused),
        ("violations", meter.violations),
        ("hostile groups", meter.groups_in - healthy_groups),
        ("hostile datagrams", meter.media_datagrams_in),
    ];
    println!("{counted:?}");
    for (what, count) in counted {
        assert!(count > REACHED, "{what}: {count}");
    }
}

#[test]
fn hostile_peers_cost_the_others_nothing() {
    run(120, async {
        let seed = std::env::var("HOSTILE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
        println!("seed {seed}");
        let relay = Arc::new(TestRelay::with(2, |options| options.linger = Duration::from_millis(500)));
        let publisher = relay.connect().await;
        let mut source = Source::announce(&publisher, "cam", 1_000);
        relay.announced("cam").await;
        let clients = relay.clients(HEALTHY).await;
        let mut viewers = Vec::new();
        for client in &clients {
            viewers.push(Viewer::join(client, "cam").await);
        }
        source.track.wait_subscribed().await;
        let first = source.group(3);
        for viewer in &viewers {
            viewer.wait_group(first).await;
        }

        let tally = Tally::default();
        let attackers: Vec<_> =
            (0..ATTACKERS).map(|at| tokio::spawn(attack(relay.clone(), tally.clone(), seed, at))).collect();
        // Healthy sessions are served meanwhile.
        while !attackers.iter().all(|attacker| attacker.is_finished()) {
            let group = source.group(3);
            for viewer in &viewers {
                viewer.wait_group(group).await;
            }
        }
        for attacker in attackers {
            attacker.await.expect("an attack that runs through");
        }
        source.end();
        for viewer in viewers {
            viewer.finish().await.assert_lossless(first..source.next, "a healthy subscriber");
        }

        assert_reached(&tally, &relay.meter(), source.next);
        assert_eq!(relay.counts().panics(), 0);
        drop((clients, publisher, source));
        relay.wait_empty().await;
    });
}
