//! PROBE: path statistics sent on request.

use std::time::Duration;

use relay_model::{
    StreamCode,
    transport::{Stream, Transport},
};
use relay_session::pair::PairOptions;
use relay_wire::{
    MessageBuf,
    lite::{BidiType, Probe, Version},
};

use crate::{
    harness::{MS, Relay, guest, host},
    show::versions,
};

fn probe(relay: &mut Relay, at: usize) -> Stream {
    relay[at].open_bi(vec![BidiType::Probe.id() as u8])
}

fn heard(relay: &Relay, at: usize, stream: Stream) -> Vec<Probe> {
    let mut inbox = MessageBuf::new();
    inbox.push(&relay[at].raw[&stream].0);
    std::iter::from_fn(|| inbox.next(relay[at].version).unwrap()).collect()
}

#[test]
fn first_probe_is_sent_at_once() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let at = relay.connect(PairOptions { rate: Some(1_000_000), ..host() }, guest());
        let stream = probe(&mut relay, at);
        relay.run(MS * 15);
        let rtt_ms = if version == Version::V03 { 0 } else { 10 };
        assert_eq!(heard(&relay, at, stream), [Probe { bitrate: 8_000_000, rtt_ms }]);
        relay.disperse();
    });
}

#[test]
fn probe_is_repeated_on_change_or_after_ten_seconds() {
    let mut relay = Relay::of(Version::V06, 1);
    let at = relay.connect(PairOptions { rate: Some(1_000_000), ..host() }, guest());
    let stream = probe(&mut relay, at);
    relay.run(MS * 1_000);
    assert_eq!(heard(&relay, at, stream).len(), 1);
    for (rate, times) in [(1_240_000, 1), (1_260_000, 2), (1_000_000, 2), (900_000, 3)] {
        relay[at].pair.a.tune(|options| options.rate = Some(rate));
        relay.run(MS * 300);
        assert_eq!(heard(&relay, at, stream).len(), times, "at {rate}");
    }
    relay[at].pair.b.tune(|options| options.latency = MS * 10);
    relay.run(MS * 300);
    let last = *heard(&relay, at, stream).last().unwrap();
    assert_eq!(last, Probe { bitrate: 7_200_000, rtt_ms: 15 });
    relay.run(MS * 9_500);
    assert_eq!(heard(&relay, at, stream).len(), 4, "nothing has changed");
    relay.run(MS * 700);
    assert_eq!(heard(&relay, at, stream).len(), 5);
    relay.disperse();
}

#[test]
fn probe_is_offered_only_with_statistics() {
    for version in [Version::V06, Version::V05] {
        for measures in [true, false] {
            let mut relay = Relay::of(version, 1);
            let at = relay.connect(PairOptions { measures, ..host() }, guest());
            assert_eq!(relay[at].setups[0].probe, u64::from(measures));
            let stream = probe(&mut relay, at);
            relay.run(MS * 30);
            let end = relay[at].raw[&stream].1.and_then(|end| end.code());
            assert_eq!(end, (!measures).then_some(StreamCode::NOT_FOUND));
            assert!(relay.is_alive(at));
            relay.disperse();
        }
    }
}

#[test]
fn probe_ends_when_its_requester_is_done() {
    versions(|version| {
        for stop in [false, true] {
            let mut relay = Relay::of(version, 1);
            let at = relay.subscriber();
            relay.run(MS * 100);
            let before = relay[at].pair.a.live_streams();
            let stream = probe(&mut relay, at);
            relay.run(MS * 30);
            assert_eq!(heard(&relay, at, stream).len(), 1);
            if stop {
                relay[at].t().stop(stream, StreamCode::CANCEL);
            } else {
                relay[at].finish(stream);
            }
            relay.run(MS * 30);
            let end = relay[at].raw[&stream].1;
            assert!(stop || end.unwrap().is_fin());
            relay.run(Duration::from_secs(11));
            assert!(stop || heard(&relay, at, stream).len() == 1);
            if stop {
                relay[at].finish(stream);
                relay.run(MS * 30);
            }
            assert_eq!(relay[at].pair.a.live_streams(), before, "no stream state is left");
            assert!(relay.is_alive(at));
            relay.disperse();
        }
    });
}

#[test]
fn a_session_has_four_probes_at_most() {
    let mut relay = Relay::of(Version::V06, 1);
    let at = relay.subscriber();
    let streams: Vec<_> = (0..5).map(|_| probe(&mut relay, at)).collect();
    relay.run(MS * 30);
    let refused: Vec<_> = streams.iter().map(|stream| relay[at].raw[stream].1.is_some()).collect();
    assert_eq!(refused, [false, false, false, false, true]);
    assert!(relay.is_alive(at));
    relay.disperse();
}
