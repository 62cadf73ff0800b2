//! Subscriptions of one egress, without the rest of a session.

use std::time::Instant;

use bytes::Bytes;
use relay_model::{StreamCode, SubId};
use relay_store::{LogEntry, ObjectHead};
use relay_wire::Version;

use super::*;
use crate::{control::ControlQueue, dialect::Dialect, encoding_key::EncodingKey, sink::Sink};

struct Fixture {
    egress: Egress,
    sink: Sink,
    control: ControlQueue,
    meter: Meter,
    now: Instant,
}

impl Fixture {
    /// An egress whose peer grants `streams` streams.
    fn new(streams: u64) -> Self {
        let encoder = Dialect::new(Version::from_alpn("moq-lite-05").expect("a known version")).encoder();
        Self {
            egress: Egress::new(encoder),
            sink: Sink { openable: streams, ..Sink::default() },
            control: ControlQueue::default(),
            meter: Meter::default(),
            now: Instant::now(),
        }
    }

    fn run<R>(&mut self, run: impl FnOnce(&mut Egress, &mut EgressContext<'_, Sink>) -> R) -> R {
        let Self { egress, sink, control, meter, now } = self;
        run(egress, &mut EgressContext { t: sink, control, meter, now: *now })
    }

    fn subscribe(&mut self, request: u64) -> SubId {
        let framing = self.egress.encoder.framing();
        let make = |id| {
            let kind = RequestKind::Live;
            DownstreamSub::new(id, request, RequestId(request), kind, Prefs::default(), framing)
        };
        self.egress.insert(10, make).expect("room for it")
    }

    /// Opens a group with one frame for a subscription.
    fn publish(&mut self, id: SubId, sequence: u64) -> Rc<LocalGroup> {
        let group = LocalGroup::new(sequence);
        group.add_encoding(EncodingKey::whole(self.egress.encoder.framing()));
        group.apply(&LogEntry::Object {
            group: sequence,
            strand: 0,
            head: ObjectHead::frame(0, Some(0), 5),
            payload: Bytes::from_static(b"frame"),
        });
        let batch = Batch { opened: [group.clone()].into_iter().collect(), ..Batch::default() };
        self.run(|egress, out| egress.apply_batch(out, id, &batch));
        group
    }

    fn finish(&mut self, id: SubId, group: &LocalGroup) {
        group.apply(&LogEntry::Finish { group: group.sequence(), strand: 0 });
        self.run(|egress, out| egress.apply_batch(out, id, &Batch::default()));
    }

    fn frames(&self) -> usize {
        self.sink.taken.values().filter(|bytes| bytes.ends_with(b"frame")).count()
    }
}

#[test]
fn egress_is_quiet_once_its_groups_are_sent() {
    let mut fixture = Fixture::new(10);
    let id = fixture.subscribe(4);
    assert!(fixture.egress.is_quiet());
    let group = fixture.publish(id, 0);
    assert!(!fixture.egress.is_quiet());
    fixture.finish(id, &group);
    assert!(fixture.egress.is_quiet());
    assert_eq!((fixture.frames(), fixture.sink.finished.len()), (1, 1));
}

#[test]
fn groups_without_stream_credit_are_sent_once_there_is_some() {
    let mut fixture = Fixture::new(0);
    let ids = [4, 8].map(|request| fixture.subscribe(request));
    for id in ids {
        fixture.publish(id, 0);
    }
    assert_eq!(fixture.frames(), 0);
    assert!(ids.iter().all(|id| fixture.egress.index.runnable.contains(slot_of(*id))));
    fixture.sink.openable = 2;
    fixture.egress.openable();
    fixture.run(|egress, out| egress.pump(out));
    assert_eq!(fixture.frames(), 2);
    assert!(!ids.iter().any(|id| fixture.egress.index.runnable.contains(slot_of(*id))));
}

#[test]
fn blocked_stream_continues_when_it_is_writable() {
    let mut fixture = Fixture::new(1);
    fixture.sink.credit = Some(Default::default());
    let id = fixture.subscribe(4);
    fixture.publish(id, 0);
    let stream = Stream(1_001);
    assert_eq!(fixture.egress.index.slot_of(stream), Some(slot_of(id)));
    fixture.sink.grant(stream, 100);
    fixture.egress.writable(Stream(99));
    fixture.run(|egress, out| egress.pump(out));
    assert_eq!(fixture.frames(), 0, "another stream is writable");
    fixture.egress.writable(stream);
    fixture.run(|egress, out| egress.pump(out));
    assert_eq!(fixture.frames(), 1);
}

#[test]
fn stopped_group_leaves_the_index() {
    let mut fixture = Fixture::new(1);
    let id = fixture.subscribe(4);
    fixture.publish(id, 0);
    let stream = Stream(1_001);
    fixture.run(|egress, out| egress.stopped(out, stream, StreamCode::CANCEL));
    assert_eq!(fixture.egress.index.slot_of(stream), None);
    assert!(fixture.egress.is_quiet());
    assert_eq!(fixture.sink.resets, [(stream, StreamCode::CANCEL)]);
}

#[test]
fn only_lagging_subscriptions_are_checked_for_expiry() {
    let mut fixture = Fixture::new(10);
    let ids = [4, 8].map(|request| fixture.subscribe(request));
    let old = fixture.publish(ids[0], 0);
    fixture.publish(ids[1], 0);
    old.supersede(fixture.now);
    fixture.publish(ids[0], 1);
    let lags = |fixture: &Fixture| ids.map(|id| fixture.egress.index.lagging.contains(slot_of(id)));
    assert_eq!(lags(&fixture), [true, false]);
    fixture.finish(ids[0], &old);
    fixture.now = fixture.egress.deadline().expect("a check");
    fixture.run(|egress, out| egress.expire(out));
    assert_eq!((lags(&fixture), fixture.egress.deadline()), ([false, false], None));
}

#[test]
fn removed_subscription_resets_its_groups() {
    let mut fixture = Fixture::new(10);
    let id = fixture.subscribe(4);
    fixture.publish(id, 0);
    assert_eq!(fixture.egress.of_request(RequestId(4)), Some(id));
    fixture.run(|egress, out| egress.remove(out.t, id, StreamCode::CANCEL));
    assert_eq!(fixture.egress.of_request(RequestId(4)), None);
    assert_eq!(fixture.egress.index.slot_of(Stream(1_001)), None);
    assert!(fixture.egress.is_quiet() && fixture.sink.resets.len() == 1);
}
