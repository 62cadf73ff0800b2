//! The main scenarios in every version, and features that only some versions have.

use std::time::Duration;

use relay_model::{Cost, Hop, Path, Prefs, SessionCode, Start, StreamCode, TrackInfo};
use relay_wire::{
    MessageBuf,
    lite::{Announce, AnnounceOk, AnnounceRequest, BidiType, Message, Probe, SubscribeOk, Version},
    varint,
};

use super::{SCHEMES, pair, server};
use crate::{Announcement, Client, ClientConfig, Code, Error, Event, Raw, Subscription, Track};

fn speaking(version: Version) -> ClientConfig {
    ClientConfig { version, hop: Hop(77), ..Default::default() }
}

fn path(raw: &str) -> Path {
    Path::parse(raw).unwrap()
}

/// Writes a group of one-byte frames a, b, c, ... at ticks 10, 20, 30, ...
fn write(track: &Track, sequence: u64, frames: u8) {
    let group = track.group(sequence);
    for index in 0..frames {
        group.frame(10 * (i64::from(index) + 1), vec![b'a' + index].into());
    }
    group.finish();
}

/// Reads the next group: its sequence, first frame and text.
async fn read(subscription: &mut Subscription) -> (u64, u64, String) {
    let mut group = subscription.next_group().await.unwrap();
    let frames = group.frames().await.unwrap();
    let text = frames.iter().map(|frame| String::from_utf8_lossy(&frame.payload).into_owned()).collect();
    (group.sequence(), group.first_frame(), text)
}

/// Waits for SUBSCRIBE_START and returns its group.
async fn start(subscription: &mut Subscription) -> u64 {
    loop {
        match subscription.next().await {
            Event::Start { group } => return group,
            Event::Group(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn rest(subscription: &mut Subscription) -> (Vec<Event>, bool) {
    let mut events = Vec::new();
    loop {
        match subscription.next().await {
            Event::Finished { clean } => return (events, clean),
            event => events.push(event),
        }
    }
}

#[tokio::test]
async fn every_version_carries_groups_and_ends_a_track() {
    for (scheme, version) in SCHEMES.into_iter().flat_map(|s| Version::ALL.iter().map(move |v| (s, *v))) {
        let (client, server) = pair(scheme, speaking(version)).await;
        assert_eq!(client.version(), version);
        let broadcast = client.broadcast("b").unwrap();
        let track = broadcast.track("t", TrackInfo::default()).unwrap();
        let prefs = Prefs { priority: 9, ..Prefs::default() };
        let mut subscription = server.subscribe("b", "t", prefs).await;
        track.wait_subscribed().await;
        write(&track, 4, 2);
        // The two streams may arrive in either order.
        let (mut group, mut answer) = (None, None);
        while group.is_none() || answer.is_none() {
            match subscription.next().await {
                Event::Group(it) => group = Some(it),
                it => answer = Some(it),
            }
        }
        let ok = SubscribeOk { priority: 9, ..SubscribeOk::default() };
        match answer.unwrap() {
            Event::Ok(said) if version.has_subscribe_ok() => assert_eq!(said, ok),
            Event::Start { group: 4 } if !version.has_subscribe_ok() => {}
            other => panic!("{version:?}: {other:?}"),
        }
        let mut group = group.unwrap();
        let frames = group.frames().await.unwrap();
        let ticks = [Some(10), Some(20)].map(|tick| tick.filter(|_| version.has_timestamps()));
        assert_eq!(frames.iter().map(|frame| frame.tick).collect::<Vec<_>>(), ticks);
        assert_eq!((&frames[0].payload[..], &frames[1].payload[..]), (&b"a"[..], &b"b"[..]));
        track.dropped(5, 6, 0x34);
        track.end(7);
        let (events, clean) = rest(&mut subscription).await;
        assert!(clean);
        assert!(events.iter().any(|e| matches!(e, Event::Drop { start: 5, end: 6, code: 0x34 })));
        let ended = events.iter().any(|e| matches!(e, Event::End { group: 7 }));
        assert_eq!(ended, !version.has_subscribe_ok(), "{version:?}");
    }
}

#[tokio::test]
async fn a_setup_is_sent_only_where_there_is_one() {
    for version in Version::ALL.iter().copied() {
        let listener = server::Listener::new();
        let url = listener.url("moqt");
        let (client, (_server, mut raw)) =
            tokio::join!(Client::connect(&url, speaking(version)), listener.accept_manual());
        let broadcast = client.as_ref().unwrap().broadcast("b").unwrap();
        broadcast.announce();
        let mut watch = Watch::open(&raw, version).await;
        // Everything the client sends unasked was sent before this answer.
        while watch.inbox.is_empty() {
            watch.inbox.push(&watch.recv.read().await.unwrap().unwrap());
        }
        if version.has_setup() {
            assert_eq!(raw.accept_uni().await.unwrap().varint().await.unwrap(), Some(1));
        } else {
            assert!(raw.incoming.as_mut().unwrap().uni.try_recv().is_err(), "{version:?}");
        }
    }
}

#[tokio::test]
async fn a_fin_of_what_was_never_accepted_or_ended_is_unclean() {
    for version in Version::ALL.iter().copied() {
        let listener = server::Listener::new();
        let url = listener.url("moqt");
        let (client, (_server, mut raw)) =
            tokio::join!(Client::connect(&url, speaking(version)), listener.accept_manual());
        let client = client.unwrap();
        let mut subscription = client.subscribe("b", "t", Prefs::default()).await.unwrap();
        let (mut send, _recv) = raw.accept_bidi().await.unwrap();
        send.finish();
        assert!(matches!(subscription.next().await, Event::Finished { clean: false }), "{version:?}");
    }
}

#[tokio::test]
async fn what_a_subscriber_asks_is_seen_and_an_abort_reaches_it() {
    for version in Version::ALL.iter().copied() {
        let (client, server) = pair("moqt", speaking(version)).await;
        let broadcast = client.broadcast("b").unwrap();
        let track = broadcast.track("t", TrackInfo::default()).unwrap();
        let mut subscription = server.subscribe("b", "t", Prefs::default()).await;
        track.wait_subscribed().await;
        let start = if version.has_frame_ranges() { Start::Fresh { floor: 3 } } else { Start::Group(3) };
        let mut asked = Prefs { priority: 1, max_age_ms: 700, start, end: Some(8), ..Prefs::default() };
        if version.has_frame_ranges() {
            asked = Prefs { start_frame: 2, end_frame: Some(4), ..asked };
        } else {
            asked.ordered = true;
        }
        subscription.update(asked).await.unwrap();
        track.wait_live(|live| live.updates == 1).await;
        assert_eq!(track.live().subscriptions[0].1, asked, "{version:?}");
        track.abort(StreamCode(70));
        let failed = loop {
            if let Event::Failed(error) = subscription.next().await {
                break error;
            }
        };
        assert!(matches!(failed, Error::Reset(Code::App(70))), "{version:?}: {failed}");
        track.wait_unsubscribed().await;
    }
}

/// Announce stream of a publisher, read message by message.
struct Watch {
    recv: crate::RecvStream,
    _send: crate::SendStream,
    inbox: MessageBuf,
    version: Version,
}

impl Watch {
    async fn open(raw: &Raw, version: Version) -> Self {
        let (mut send, recv) = raw.open_bidi().await.unwrap();
        let mut out = vec![BidiType::Announce.id() as u8];
        AnnounceRequest { prefix: Path::root(), exclude_hop: Hop(1) }.encode(version, &mut out);
        send.write(&out).await.unwrap();
        Self { recv, _send: send, inbox: MessageBuf::new(), version }
    }

    async fn take<T>(
        &mut self,
        take: impl Fn(&mut MessageBuf, Version) -> Result<Option<T>, relay_wire::DecodeError>,
    ) -> T {
        loop {
            if let Some(message) = take(&mut self.inbox, self.version).unwrap() {
                return message;
            }
            self.inbox.push(&self.recv.read().await.unwrap().unwrap());
        }
    }
}

#[tokio::test]
async fn announce_change_and_withdraw_work_in_every_version() {
    for version in Version::ALL.iter().copied() {
        let (client, server) = pair("moqt", speaking(version)).await;
        let gone = client.broadcast("gone").unwrap();
        gone.announce();
        drop(gone);
        let broadcast = client.broadcast("b").unwrap();
        let (one, two) = (Cost { warm: 1, cold: 2 }, Cost { warm: 3, cold: 4 });
        broadcast.announce_with(&[Hop(5)], one);
        let mut watch = Watch::open(&server.raw(), version).await;
        if version.has_announce_ok() {
            assert_eq!(
                watch.take(MessageBuf::next::<AnnounceOk>).await,
                AnnounceOk { hop: Hop(77), count: 1 }
            );
        }
        let active = |hop: u64, cost| {
            let (hops, cost) = match version {
                Version::V01 | Version::V02 => unreachable!("not dialled"),
                Version::V03 => (vec![Hop(0), Hop(0)], Cost::UNKNOWN),
                Version::V04 => (vec![Hop(hop), Hop(77)], Cost::UNKNOWN),
                Version::V05 => (vec![Hop(hop)], Cost::UNKNOWN),
                Version::V06 => (vec![Hop(hop)], cost),
            };
            Announce::Active { suffix: path("b"), hops: hops.into(), cost }
        };
        let ended = || match version {
            Version::V06 => Announce::EndedId { id: 0 },
            _ => Announce::Ended { suffix: path("b") },
        };
        assert_eq!(watch.take(Announce::next).await, active(5, one));
        broadcast.announce_with(&[Hop(6)], two);
        match version {
            Version::V01 | Version::V02 => unreachable!("not dialled"),
            Version::V03 | Version::V04 => assert_eq!(watch.take(Announce::next).await, ended()),
            Version::V05 | Version::V06 => {}
        }
        let changed = match version {
            Version::V06 => Announce::Restart { id: 0, hops: [Hop(6)].into(), cost: two },
            _ => active(6, two),
        };
        assert_eq!(watch.take(Announce::next).await, changed, "{version:?}");
        broadcast.withdraw();
        assert_eq!(watch.take(Announce::next).await, ended());
        broadcast.announce_with(&[Hop(7)], one);
        assert_eq!(watch.take(Announce::next).await, active(7, one));
        drop(broadcast);
        let ended = if version == Version::V06 { Announce::EndedId { id: 1 } } else { ended() };
        assert_eq!(watch.take(Announce::next).await, ended);
    }
}

#[tokio::test]
async fn a_watch_follows_a_broadcast_in_each_version() {
    for (scheme, version) in SCHEMES.into_iter().flat_map(|s| Version::ALL.iter().map(move |v| (s, *v))) {
        let (client, server) = pair(scheme, speaking(version)).await;
        let broadcast = server.broadcast("p/b");
        let (one, two) = (Cost { warm: 1, cold: 2 }, Cost { warm: 3, cold: 4 });
        broadcast.announce_with(&[Hop(5)], one);
        let mut watch = client.announced("p").await.unwrap();
        assert_eq!(watch.initial().count(), usize::from(version.has_announce_ok()));
        let expected = |hop, cost, update| {
            let hops = if version.has_hop_ids() { vec![Hop(hop), Hop(1)] } else { vec![Hop(0), Hop(0)] };
            let cost = Some(cost).filter(|_| version.has_announce_ids());
            Announcement { path: path("p/b"), active: true, update, hops, cost }
        };
        assert_eq!(watch.next().await.unwrap().unwrap(), expected(5, one, false));
        broadcast.announce_with(&[Hop(6)], two);
        if !version.replaces_announces() {
            assert!(!watch.next().await.unwrap().unwrap().active);
        }
        let update = version.replaces_announces();
        assert_eq!(watch.next().await.unwrap().unwrap(), expected(6, two, update), "{version:?}");
        broadcast.withdraw();
        let ended = watch.next().await.unwrap().unwrap();
        assert_eq!((ended.active, ended.hops.len(), ended.cost), (false, 0, None));
    }
}

#[tokio::test]
async fn a_chain_too_long_for_the_wire_is_not_announced() {
    for version in Version::ALL.iter().copied() {
        let (client, server) = pair("moqt", speaking(version)).await;
        let hops: Vec<Hop> = (100..133).map(Hop).collect();
        let (long, fits) = (client.broadcast("long").unwrap(), client.broadcast("fits").unwrap());
        long.announce_through(&hops);
        fits.announce_through(&hops[..31]);
        let mut watch = server.announced("").await;
        assert_eq!(watch.next().await.unwrap().unwrap().path.as_str(), "fits");
        fits.announce_through(&hops);
        assert!(!watch.next().await.unwrap().unwrap().active, "{version:?}");
    }
}

#[tokio::test]
async fn subscription_starts_fresh_and_not_below_its_floor() {
    let (client, server) = pair("moqt", speaking(Version::V06)).await;
    let broadcast = client.broadcast("b").unwrap();
    let track = broadcast.track("t", TrackInfo::default()).unwrap();
    for sequence in 0..4 {
        write(&track, sequence, 1);
    }
    let fresh = |floor, max_age_ms| Prefs { start: Start::Fresh { floor }, max_age_ms, ..Prefs::default() };
    let mut all = server.subscribe("b", "t", fresh(0, 60_000)).await;
    assert_eq!(start(&mut all).await, 0);
    let mut floored = server.subscribe("b", "t", fresh(2, 60_000)).await;
    assert_eq!(start(&mut floored).await, 2);
    // Every group but the latest has exceeded an age of 0 by then.
    tokio::time::sleep(Duration::from_millis(2)).await;
    let mut latest = server.subscribe("b", "t", fresh(0, 0)).await;
    assert_eq!(start(&mut latest).await, 3);
    // The publisher's largest age is a bound too.
    let info = TrackInfo { max_age_ms: 0, ..TrackInfo::default() };
    let short = broadcast.track("short", info).unwrap();
    write(&short, 0, 1);
    write(&short, 1, 1);
    tokio::time::sleep(Duration::from_millis(2)).await;
    let mut short = server.subscribe("b", "short", fresh(0, 60_000)).await;
    assert_eq!(start(&mut short).await, 1);
}

#[tokio::test]
async fn a_subscription_resumes_and_ends_within_a_group() {
    let (client, server) = pair("moqt", speaking(Version::V06)).await;
    let broadcast = client.broadcast("b").unwrap();
    let track = broadcast.track("t", TrackInfo::default()).unwrap();
    write(&track, 4, 5);
    let start = Start::Fresh { floor: 4 };
    let prefs = Prefs { start, start_frame: 1, end: Some(4), end_frame: Some(2), ..Prefs::default() };
    let mut subscription = server.subscribe("b", "t", prefs).await;
    assert_eq!(read(&mut subscription).await, (4, 1, "bc".into()));
    subscription.update(Prefs { end_frame: None, ..prefs }).await.unwrap();
    assert_eq!(read(&mut subscription).await, (4, 3, "de".into()));
    write(&track, 5, 3);
    subscription.update(Prefs { end: Some(5), end_frame: Some(0), ..prefs }).await.unwrap();
    assert_eq!(read(&mut subscription).await, (5, 0, "a".into()));
    // A group that is still written ends for this reader after its last frame.
    let prefs = Prefs { start: Start::Fresh { floor: 6 }, start_frame: 1, end: Some(6), ..prefs };
    let mut subscription = server.subscribe("b", "t", Prefs { end_frame: Some(1), ..prefs }).await;
    track.wait_live(|live| live.subscriptions.len() == 2).await;
    let open = track.group(6);
    open.frame(0, "x".into());
    open.begin(1, 2);
    open.payload("y".into());
    open.payload("z".into());
    assert_eq!(read(&mut subscription).await, (6, 1, "yz".into()));
}

#[tokio::test]
async fn an_end_that_is_raised_lets_held_groups_go_out() {
    for version in Version::ALL.iter().copied() {
        let (client, server) = pair("moqt", speaking(version)).await;
        let broadcast = client.broadcast("b").unwrap();
        let track = broadcast.track("t", TrackInfo::default()).unwrap();
        let prefs = Prefs { start: Start::Group(0), end: Some(0), max_age_ms: 60_000, ..Prefs::default() };
        let mut subscription = server.subscribe("b", "t", prefs).await;
        track.wait_subscribed().await;
        write(&track, 0, 1);
        write(&track, 1, 2);
        assert_eq!(read(&mut subscription).await, (0, 0, "a".into()));
        subscription.update(Prefs { end: Some(2), ..prefs }).await.unwrap();
        assert_eq!(read(&mut subscription).await, (1, 0, "ab".into()), "{version:?}");
        write(&track, 2, 1);
        assert_eq!(read(&mut subscription).await, (2, 0, "a".into()));
    }
}

#[tokio::test]
async fn fetches_are_answered_and_counted_by_how_they_went() {
    for version in [Version::V05, Version::V06] {
        let (client, server) = pair("https", speaking(version)).await;
        let broadcast = client.broadcast("b").unwrap();
        let track = broadcast.track("t", TrackInfo::default()).unwrap();
        write(&track, 3, 4);
        let some = server.fetch(3, (1, Some(2))).await;
        if version.has_frame_ranges() {
            let mut some = some.unwrap();
            let frames = some.frames().await.unwrap();
            assert_eq!(frames.iter().map(|f| f.tick).collect::<Vec<_>>(), [Some(20), Some(30)]);
            assert_eq!((some.first_frame(), &frames[1].payload[..]), (1, &b"c"[..]));
        } else {
            assert!(matches!(some, Err(Error::Unsupported(..))));
            assert_eq!(server.fetch(3, (0, None)).await.unwrap().frames().await.unwrap().len(), 4);
        }
        let refused = server.fetch(9, (0, None)).await.unwrap().frame().await.unwrap_err();
        assert!(matches!(refused, Error::Reset(code) if code.stream() == Some(StreamCode::NOT_FOUND)));
        let open = track.group(4);
        open.frame(0, "first".into());
        let mut abandoned = server.fetch(4, (0, None)).await.unwrap();
        assert!(abandoned.frame().await.unwrap().is_some());
        drop(abandoned);
        track.wait_live(|live| live.fetches.cancelled == 1).await;
        let fetches = track.live().fetches;
        assert_eq!((fetches.asked, fetches.served, fetches.refused), (3, 1, 1), "{version:?}");
        server.track_info("b", "t").await.unwrap();
        assert_eq!(track.live().info_requests, 1);
    }
}

#[tokio::test]
async fn what_a_version_lacks_is_not_asked_and_not_answered() {
    for version in [Version::V03, Version::V04] {
        let (client, server) = pair("moqt", speaking(version)).await;
        let broadcast = client.broadcast("b").unwrap();
        let track = broadcast.track("t", TrackInfo::default()).unwrap();
        write(&track, 0, 1);
        assert!(matches!(client.track_info("b", "t").await, Err(Error::Unsupported(..))));
        assert!(matches!(client.fetch("b", "t", 0, 0, None, 1).await, Err(Error::Unsupported(..))));
        assert!(matches!(client.peer_setup().await, Err(Error::Unsupported(..))));
        for kind in [BidiType::Fetch, BidiType::Track, BidiType::Probe] {
            let (mut send, mut recv) = server.raw().open_bidi().await.unwrap();
            let mut out = Vec::new();
            varint::put(kind.id(), &mut out);
            send.write(&out).await.unwrap();
            let refused = recv.read().await.unwrap_err();
            assert!(matches!(refused, Error::Reset(Code::App(1))), "{version:?}, {kind:?}: {refused}");
        }
        let _subscription = server.subscribe("b", "t", Prefs::default()).await;
        track.wait_subscribed().await;
        assert_eq!(track.datagram(5, 0, "nowhere".into()).unwrap(), 0);
    }
}

#[tokio::test]
async fn measurements_come_for_as_long_as_they_are_wanted() {
    for version in Version::ALL.iter().copied() {
        let listener = server::Listener::new();
        let url = listener.url("moqt");
        let (client, (_server, mut raw)) =
            tokio::join!(Client::connect(&url, speaking(version)), listener.accept_manual());
        let client = client.unwrap();
        let mut probes = client.probe().await.unwrap();
        let (mut send, mut recv) = raw.accept_bidi().await.unwrap();
        assert_eq!(recv.varint().await.unwrap(), Some(BidiType::Probe.id()));
        for bitrate in [1_000, 2_000] {
            let mut out = Vec::new();
            Probe { bitrate, rtt_ms: 7 }.encode(version, &mut out);
            send.write(&out).await.unwrap();
            let rtt_ms = if version == Version::V03 { 0 } else { 7 };
            assert_eq!(probes.next().await.unwrap(), Some(Probe { bitrate, rtt_ms }), "{version:?}");
        }
        drop(probes);
        assert_eq!(send.stopped().await.unwrap(), Some(Code::App(0)));
        assert_eq!(recv.varint().await.unwrap(), None);
    }
}

#[tokio::test]
async fn either_side_may_ask_the_other_to_move() {
    for version in Version::ALL.iter().copied() {
        let (client, server) = pair("https", speaking(version)).await;
        if !version.has_goaway() {
            assert!(matches!(client.go_away("").await, Err(Error::Unsupported(..))));
            continue;
        }
        client.go_away("").await.unwrap();
        assert_eq!(server.goaway().await, "");
        server.go_away("https://elsewhere/").await.unwrap();
        assert_eq!(client.going_away().await.unwrap(), "https://elsewhere/", "{version:?}");
        server.close(SessionCode::NONE, "").await;
        client.closed().await;
    }
}
