//! Streams of one moq-lite session, without the engine.

use relay_meter::Worker as Meter;
use relay_model::{Path, Prefs, TrackName};
use relay_store::{Store, StoreConfig};
use relay_wire::{lite::BidiType, varint};

use super::{encode::encoded, *};
use crate::{
    control::ControlQueue, dialect::ReadAccess, request::Incoming, request_limiter::RequestLimiter,
    sink::Sink, work::Work,
};

struct Fixture {
    lite: Lite,
    sink: Sink,
    control: ControlQueue,
    limiter: RequestLimiter,
    upstreams: Upstreams,
    store: Arc<Store>,
    access: ReadAccess,
    now: Instant,
}

impl Fixture {
    fn new(version: Version) -> Self {
        let config = StoreConfig {
            workers: 1,
            capacity: 1 << 20,
            ceiling: 1 << 21,
            max_age: std::time::Duration::from_secs(30),
        };
        Self {
            lite: Lite::new(version),
            sink: Sink::default(),
            control: ControlQueue::default(),
            limiter: RequestLimiter::new(&relay_model::limits::SessionLimits::default()),
            upstreams: Upstreams::default(),
            store: Store::new(config),
            access: ReadAccess { is_admitted: true, may_ask: true, accepts_groups: true },
            now: Instant::now(),
        }
    }

    fn open(&mut self, stream: Stream, dir: Dir, bytes: Vec<u8>) {
        self.lite.opened(&mut self.sink, self.now, stream, dir);
        self.sink.feed(stream, bytes);
    }

    fn read(&mut self, stream: Stream) -> ReadStep {
        let (mut work, mut meter) = (Work::new(), Meter::default());
        let mut io = ReadContext {
            t: &mut self.sink,
            now: self.now,
            work: &mut work,
            meter: &mut meter,
            budget: self.store.budget(),
            control: &mut self.control,
            limiter: &mut self.limiter,
            upstreams: &mut self.upstreams,
            access: self.access,
            started: self.now,
        };
        self.lite.read(&mut io, stream)
    }

    fn reply(&mut self, request: RequestId, reply: &Reply) {
        let mut out = Outbound { t: &mut self.sink, control: &mut self.control, now: self.now };
        self.lite.reply(&mut out, request, reply);
    }
}

fn subscribe(version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    varint::put(BidiType::Subscribe.id(), &mut bytes);
    let (broadcast, track) = (Path::parse("a").unwrap(), TrackName::parse("v").unwrap());
    let message = lite::Subscribe { id: 7, broadcast, track, prefs: Prefs::default() };
    bytes.extend(encoded(version, &message));
    bytes
}

#[test]
fn subscribe_becomes_a_request_and_updates_follow() {
    let (mut fixture, stream) = (Fixture::new(Version::V05), Stream(0));
    let mut bytes = subscribe(Version::V05);
    let prefs = Prefs { priority: 9, ..Prefs::default() };
    bytes.extend(encoded(Version::V05, &lite::SubscribeUpdate { prefs }));
    fixture.open(stream, Dir::Bi, bytes);
    let ReadStep::Event(Incoming::Request(id, Request::Subscribe { alias: 7, .. })) = fixture.read(stream)
    else {
        panic!("a subscription")
    };
    let ReadStep::Event(Incoming::Request(of, Request::Update(PrefsUpdate::All(updated)))) =
        fixture.read(stream)
    else {
        panic!("an update")
    };
    assert_eq!((of, updated.priority), (id, 9));
    assert!(matches!(fixture.read(stream), ReadStep::Blocked));
}

#[test]
fn refused_request_ends_its_stream_alone() {
    let (mut fixture, stream) = (Fixture::new(Version::V06), Stream(0));
    fixture.open(stream, Dir::Bi, subscribe(Version::V06));
    assert!(matches!(fixture.read(stream), ReadStep::Event(_)));
    assert!(fixture.lite.footprint() > 0);
    fixture.reply(RequestId(0), &Reply::Refused { code: StreamCode::NOT_FOUND });
    assert_eq!(fixture.sink.resets, [(stream, StreamCode::NOT_FOUND)]);
    assert!(matches!(fixture.read(stream), ReadStep::Done));
    assert_eq!(fixture.lite.footprint(), 0);
}

#[test]
fn request_is_paused_while_core_is_behind() {
    let (mut fixture, stream) = (Fixture::new(Version::V05), Stream(0));
    fixture.open(stream, Dir::Bi, subscribe(Version::V05));
    fixture.access.may_ask = false;
    assert!(matches!(fixture.read(stream), ReadStep::Paused));
    fixture.access.may_ask = true;
    assert!(matches!(fixture.read(stream), ReadStep::Event(_)));
}

#[test]
fn late_header_resets_the_stream_unless_it_is_paused() {
    let mut fixture = Fixture::new(Version::V05);
    for stream in [0, 4] {
        fixture.open(Stream(stream), Dir::Bi, Vec::new());
    }
    let due = fixture.now + relay_model::limits::STREAM_HEADER_TIMEOUT;
    while fixture.lite.expire_header(&mut fixture.sink, due, |stream| stream == Stream(4)) {}
    assert_eq!(fixture.sink.resets, [(Stream(0), StreamCode::CONTROL_TIMEOUT)]);
}

#[test]
fn second_setup_is_a_violation() {
    let mut fixture = Fixture::new(Version::V05);
    let mut setup = Vec::new();
    varint::put(UniType::Setup.id(), &mut setup);
    setup.extend(encoded(Version::V05, &lite::Setup::default()));
    fixture.open(Stream(2), Dir::Uni, setup.clone());
    fixture.open(Stream(6), Dir::Uni, setup);
    assert!(matches!(fixture.read(Stream(2)), ReadStep::Event(Incoming::Setup(_))));
    assert!(matches!(fixture.read(Stream(6)), ReadStep::Event(Incoming::Violation(_))));
}
