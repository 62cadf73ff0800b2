use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use relay_model::{Cost, SessionId, WorkerId};
use relay_store::{Store, StoreConfig, WakeSet};
use relay_wire::MessageBuf;

use super::*;

struct Fixture {
    store: Arc<Store>,
    now: Instant,
}

impl Fixture {
    /// A board with paths `p/00000` and so on.
    fn with_paths(count: u64) -> Self {
        let store = Store::new(StoreConfig {
            workers: 1,
            capacity: 1 << 20,
            ceiling: 1 << 21,
            max_age: Duration::from_secs(30),
        });
        let mut fixture = Self { store, now: Instant::now() };
        (0..count).for_each(|at| fixture.set(at, &[route(&[1, 2], 5)]));
        fixture
    }

    /// Sets the routes of a path, one second after the last change so that it is not delayed.
    fn set(&mut self, at: u64, routes: &[Route]) {
        self.now += Duration::from_secs(1);
        let path = Path::parse(&format!("p/{at:05}")).unwrap();
        self.store.board().set(path, routes.to_vec(), self.now, &mut WakeSet::new());
    }

    fn watch(&self, version: Version, is_relay: bool) -> AnnounceStream {
        let viewer = AdvertisePolicy {
            session: SessionId(7),
            hop: Hop(1_000),
            scope: Scope::everything(),
            prefix: Path::root(),
            exclude: Hop::ANONYMOUS,
            is_relay,
            is_peer: is_relay,
        };
        let watch = self.store.board().watch(WorkerId(0), Path::root());
        AnnounceStream::new(viewer, watch, version)
    }
}

fn route(hops: &[u64], cost: u64) -> Route {
    let hops = hops.iter().copied().map(Hop).collect();
    Route { session: SessionId(1), hops, cost: Cost { warm: 0, cold: cost }, stale: false }
}

/// Fills until nothing is pending. Returns the bytes.
fn drain(watching: &mut AnnounceStream, max: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while watching.is_pending() {
        let mut out = Vec::new();
        let filled = watching.fill(max, &mut out);
        assert!(!filled.is_broken && filled.entries <= max, "{filled:?}");
        all.extend(out);
    }
    all
}

/// The promised count, and the announcements after it.
fn parse(version: Version, bytes: &[u8]) -> (Option<u64>, Vec<Announce>) {
    let mut inbox = MessageBuf::new();
    inbox.push(bytes);
    let ok = version.has_announce_ok().then(|| inbox.next::<lite::AnnounceOk>(version).unwrap().unwrap());
    let mut announces = Vec::new();
    while let Some(announce) = Announce::next(&mut inbox, version).unwrap() {
        announces.push(announce);
    }
    (ok.map(|ok| ok.count), announces)
}

#[test]
fn fill_examines_at_most_max_entries() {
    let fixture = Fixture::with_paths(3_000);
    for version in [Version::V06, Version::V05, Version::V04, Version::V02] {
        let mut watching = fixture.watch(version, false);
        let (mut calls, mut entries) = (0, 0);
        while watching.is_pending() {
            let mut out = Vec::new();
            let filled = watching.fill(100, &mut out);
            assert!(filled.entries <= 100 && filled.more == watching.is_pending());
            // ANNOUNCE_INIT is sent at once, as one message at most.
            let most = if version.has_announce_init() { LIST_BYTES + FILL_BYTES } else { FILL_BYTES };
            assert!(out.len() < most + 1_500, "{} bytes", out.len());
            (calls, entries) = (calls + 1, entries + filled.entries);
        }
        let passes = if version.has_announce_ok() { 2 } else { 1 };
        assert!(entries >= passes * 3_000 && calls >= passes * 30, "{entries} in {calls}");
        assert_eq!(watching.watch.advertised(), 3_000);
    }
}

#[test]
fn one_call_encodes_many_messages() {
    let fixture = Fixture::with_paths(300);
    let mut watching = fixture.watch(Version::V06, false);
    let mut out = Vec::new();
    assert!(!watching.fill(10_000, &mut out).more);
    let (count, announces) = parse(Version::V06, &out);
    assert_eq!((count, announces.len()), (Some(300), 300));
}

#[test]
fn counted_paths_that_go_before_they_are_sent_start_and_end() {
    for version in [Version::V06, Version::V05] {
        let mut fixture = Fixture::with_paths(600);
        let mut watching = fixture.watch(version, false);
        let mut bytes = Vec::new();
        watching.fill(800, &mut bytes);
        // Sent, not sent yet, not sent and back, not sent and only for the peer itself, new.
        fixture.set(10, &[]);
        fixture.set(500, &[]);
        fixture.set(510, &[]);
        fixture.set(510, &[route(&[3], 1)]);
        fixture.set(520, &[Route { session: SessionId(7), ..route(&[3], 1) }]);
        fixture.set(1_000, &[route(&[4], 1)]);
        bytes.extend(drain(&mut watching, 64));
        let (count, announces) = parse(version, &bytes);
        assert_eq!(count, Some(600));
        let is_start = |announce: &&Announce| matches!(announce, Announce::Active { .. });
        // The new path replaces a counted one that is gone.
        assert_eq!(announces.iter().take_while(is_start).count(), 601 - 1);
        assert_eq!(watching.watch.advertised(), 598);
        let ends = announces.iter().filter(|announce| !is_start(announce)).count();
        assert_eq!(ends, announces.len() - 600, "then withdrawn paths end");
    }
}

#[test]
fn reader_gets_publishers_and_prices_but_no_detours() {
    let mut fixture = Fixture::with_paths(1);
    let version = Version::V06;
    let mut watching = fixture.watch(version, false);
    drain(&mut watching, 100);
    let mut sent = |routes: &[Route]| {
        fixture.set(0, routes);
        let mut out = Vec::new();
        watching.fill(100, &mut out);
        !out.is_empty()
    };
    assert!(!sent(&[route(&[1, 9], 5)]), "another route");
    assert!(!sent(&[route(&[1, 9], 6)]), "its price");
    assert!(sent(&[route(&[1, 2], 6)]), "the price of the route that was sent");
    assert!(sent(&[route(&[2, 2], 6)]), "another publisher");
    assert!(sent(&[]));
    assert!(!sent(&[]));
}

#[test]
fn path_outside_a_changed_scope_ends_once() {
    for version in [Version::V06, Version::V05, Version::V04] {
        let mut fixture = Fixture::with_paths(2);
        let mut watching = fixture.watch(version, false);
        drain(&mut watching, 100);
        watching.revise(Scope::of([Path::parse("p/00001").unwrap()]));
        assert!(!drain(&mut watching, 100).is_empty(), "it ends for the peer");
        fixture.set(0, &[]);
        assert!(drain(&mut watching, 100).is_empty(), "the peer knows of no such path");
        assert_eq!(watching.watch.advertised(), 1);
        fixture.set(1, &[]);
        assert!(!drain(&mut watching, 100).is_empty());
    }
}

#[test]
fn late_relay_gets_routes_withheld_from_readers() {
    for version in [Version::V06, Version::V05, Version::V04] {
        let mut fixture = Fixture::with_paths(10);
        let mut watching = fixture.watch(version, false);
        drain(&mut watching, 100);
        fixture.set(3, &[route(&[1, 9], 5)]);
        assert!(drain(&mut watching, 100).is_empty());
        watching.advertise_all();
        let one = drain(&mut watching, 2);
        assert!(!one.is_empty());
        assert_eq!(watching.watch.advertised(), 10);
        watching.revise(Scope::everything());
        assert!(drain(&mut watching, 2).is_empty(), "sent already");
        fixture.set(4, &[route(&[1, 9], 5)]);
        assert!(!drain(&mut watching, 100).is_empty());
    }
}

#[test]
fn exhausted_announce_ids_break_the_stream() {
    let mut fixture = Fixture::with_paths(1);
    let version = Version::V06;
    let mut watching = fixture.watch(version, false);
    drain(&mut watching, 100);
    watching.advertiser.next_id = u32::MAX - 1;
    fixture.set(1, &[route(&[1], 1)]);
    assert!(!watching.fill(100, &mut Vec::new()).is_broken);
    fixture.set(2, &[route(&[1], 1)]);
    assert!(watching.fill(100, &mut Vec::new()).is_broken);
}

#[test]
fn client_posing_as_relay_gets_paced_changes() {
    let version = Version::V05;
    let fixture = Fixture::with_paths(1);
    let changes = |is_peer: bool| {
        let mut watching = fixture.watch(version, true);
        if !is_peer {
            let viewer = AdvertisePolicy { is_peer: false, ..watching.advertiser.policy.clone() };
            let watch = fixture.store.board().watch(WorkerId(0), Path::root());
            watching = AnnounceStream::new(viewer, watch, version);
        }
        drain(&mut watching, 100);
        watching
    };
    let (mut posing, mut peer) = (changes(false), changes(true));
    let mut counts = [0, 0];
    let path = Path::parse("p/00000").unwrap();
    for ms in 0..1_000 {
        let now = fixture.now + Duration::from_secs(5) + Duration::from_millis(ms);
        let mut wakes = WakeSet::new();
        fixture.store.board().release(now, &mut wakes);
        let routes = if ms % 2 == 1 { vec![route(&[1, 2], 5)] } else { vec![] };
        fixture.store.board().set(path.clone(), routes, now, &mut wakes);
        for (count, watching) in counts.iter_mut().zip([&mut posing, &mut peer]) {
            let mut inbox = MessageBuf::new();
            inbox.push(&drain(watching, 100));
            while Announce::next(&mut inbox, version).unwrap().is_some() {
                *count += 1;
            }
        }
    }
    // 20 changes of one path in a second.
    assert!(counts[0] <= 20 && counts[1] >= 1_000, "{counts:?}");
}
