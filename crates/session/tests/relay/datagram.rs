//! Relaying of datagrams.

use bytes::Bytes;
use relay_model::{limits, transport::Transport};
use relay_session::pair::PairOptions;
use relay_wire::lite::Datagram;

use crate::{
    harness::{MS, Relay, guest, host},
    show::{Show, bytes, patient, seeds, version_of},
};

fn send(relay: &mut Relay, show: &Show, sequence: u64, payload: Vec<u8>) {
    let datagram =
        Datagram { subscribe: show.subscribe, sequence, tick: 10 * sequence, payload: payload.into() };
    let mut out = Vec::new();
    datagram.encode(relay[show.publisher].version, &mut out);
    relay[show.publisher].t().send_datagram(out.into()).unwrap();
}

#[test]
fn datagrams_are_relayed_whole_or_not_at_all() {
    seeds(20, |seed, rng| {
        let mut relay = Relay::of(version_of(seed % 2), seed);
        let publisher = relay.publisher("live/cam", &["audio"]);
        let readers = [relay.subscriber(), relay.subscriber()];
        let lossy = relay.connect(PairOptions { loss: 0.5, ..host() }, guest());
        let deaf = relay.connect(host(), PairOptions { max_datagram: 0, ..guest() });
        let small = relay.connect(host(), PairOptions { max_datagram: 200, ..guest() });
        let all = [readers[0], readers[1], lossy, deaf, small];
        let subs = all.map(|reader| relay[reader].subscribe("live/cam", "audio", patient()));
        let show = Show::new(&mut relay, publisher, "audio");
        relay.run(MS * 200);
        let sent: Vec<_> = (0..30)
            .map(|_| {
                let len = rng.below(limits::DATAGRAM_PAYLOAD as u64 + 1) as usize;
                bytes(rng, len)
            })
            .collect();
        for (n, payload) in sent.iter().enumerate() {
            send(&mut relay, &show, n as u64, payload.clone());
            relay.run(MS * rng.below(5) as u32);
        }
        relay.run(MS * 100);
        for (reader, sub) in all.into_iter().zip(subs) {
            let id = relay[reader].sub(sub).id;
            let got = &relay[reader].datagrams;
            for datagram in got {
                assert_eq!(datagram.subscribe, id);
                assert_eq!(datagram.tick, 10 * datagram.sequence);
                assert_eq!(datagram.payload, sent[datagram.sequence as usize], "seed {seed}");
            }
            let sequences: Vec<_> = got.iter().map(|datagram| datagram.sequence).collect();
            let mut once = sequences.clone();
            once.dedup();
            assert_eq!(once, sequences, "seed {seed}");
            match reader {
                at if readers.contains(&at) => assert_eq!(got.len(), 30, "seed {seed}"),
                at if at == lossy => assert!((1..30).contains(&got.len()), "seed {seed}: {}", got.len()),
                at if at == deaf => assert_eq!(got.len(), 0),
                _ => assert!(got.iter().all(|datagram| datagram.payload.len() < 200)),
            }
            assert_eq!(relay[reader].sub(sub).responses, []);
            assert!(relay.is_alive(reader));
        }
        relay.disperse();
    });
}

#[test]
fn malformed_datagram_is_dropped() {
    let mut relay = Relay::new(1);
    let publisher = relay.publisher("live/cam", &["audio"]);
    let reader = relay.subscriber();
    relay[reader].subscribe("live/cam", "audio", patient());
    let mut show = Show::new(&mut relay, publisher, "audio");
    for bad in [&[][..], &[0], &[0, 0], &[0xff; 9]] {
        relay[publisher].t().send_datagram(Bytes::copy_from_slice(bad)).unwrap();
    }
    let real = show.subscribe;
    show.subscribe = 99;
    send(&mut relay, &show, 1, vec![1]);
    show.subscribe = real;
    send(&mut relay, &show, 2, vec![2]);
    relay.run(MS * 50);
    let got: Vec<_> = relay[reader].datagrams.iter().map(|datagram| datagram.sequence).collect();
    assert_eq!(got, [2]);
    assert!(relay.is_alive(publisher));
    relay.disperse();
}
