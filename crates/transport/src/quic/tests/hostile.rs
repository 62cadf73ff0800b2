//! Mutated and random input never causes a panic.

use super::{
    webtransport::{connect_request, prefix, settings},
    *,
};

/// Seeded random number generator, so that failures can be reproduced.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() % most.max(1) as u64) as usize
    }

    fn mutate(&mut self, data: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(data.len());
            match self.below(4) {
                0 => data.truncate(at),
                1 => data.insert(at, self.next() as u8),
                _ => {
                    if let Some(byte) = data.get_mut(at) {
                        *byte = self.next() as u8;
                    }
                }
            }
        }
    }
}

/// Records the client's datagrams of a session with this ALPN.
fn capture(alpn: &str) -> Vec<Bytes> {
    let mut pair = Pair::new();
    let (client, _) = pair.connect(&[alpn]);
    for bytes in [settings(), connect_request(&["moq-lite-05"])] {
        let stream = pair.client.conn(client).open(Dir::Uni, 0).unwrap();
        write_all(pair.client.conn(client), stream, &bytes);
        pair.settle();
    }
    pair.captured
}

#[test]
fn mutated_datagrams_do_no_harm() {
    for (seed, alpn) in [(11, "moq-lite-05"), (12, "h3")] {
        let captured = capture(alpn);
        let mut random = Random(seed);
        for round in 0..300 {
            let mut pair = Pair::new();
            if round % 2 == 0 {
                pair.connect(&[alpn]);
            }
            for _ in 0..10 {
                let mut data = captured[random.below(captured.len())].to_vec();
                random.mutate(&mut data);
                let at = (pair.now, pair.client.addr, BytesMut::from(&data[..]));
                pair.server.inbound.push_back(at);
                pair.turn();
            }
            for key in pair.server.keys() {
                pair.server_events(key);
            }
        }
    }
}

#[test]
fn random_datagrams_do_no_harm() {
    let mut random = Random(99);
    let mut pair = Pair::new();
    for _ in 0..2_000 {
        let len = random.below(1_500);
        let mut data: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        // Half of them look like QUIC version 1.
        if random.below(2) == 0 && data.len() > 5 {
            data[0] |= 0xc0;
            data[1..5].copy_from_slice(&[0, 0, 0, 1]);
        }
        let at = (pair.now, pair.client.addr, BytesMut::from(&data[..]));
        pair.server.inbound.push_back(at);
        pair.turn();
    }
}

#[test]
fn mutated_http_does_no_harm() {
    let mut random = Random(7);
    let connect = Stream(0);
    let mut close = Vec::new();
    web_transport_proto::Capsule::CloseWebTransportSession { code: 1, reason: "x".into() }.encode(&mut close);
    let close = [vec![0, close.len() as u8], close].concat();
    let mut survived = 0;
    for _ in 0..400 {
        let mut pair = Pair::new();
        let (client, server) = pair.connect(&["h3"]);
        let streams: [(Dir, Vec<u8>); 5] = [
            (Dir::Bi, [connect_request(&["moq-lite-05"]), close.clone()].concat()),
            (Dir::Uni, settings()),
            (Dir::Uni, [prefix(0x54, connect), vec![1; 9]].concat()),
            (Dir::Bi, [prefix(0x41, connect), vec![1; 9]].concat()),
            (Dir::Uni, vec![2, 0x3f]),
        ];
        for (dir, mut bytes) in streams {
            let Some(stream) = pair.client.conn(client).open(dir, 0) else { break };
            if random.below(2) == 0 {
                random.mutate(&mut bytes);
            }
            let cut = random.below(bytes.len());
            for piece in [&bytes[..cut], &bytes[cut..]] {
                let _ = pair.client.conn(client).write(stream, &mut [Bytes::copy_from_slice(piece)]);
                pair.turn();
                pair.now += Duration::from_millis(10);
            }
            match random.below(6) {
                0 => pair.client.conn(client).finish(stream),
                1 => pair.client.conn(client).reset(stream, relay_model::StreamCode(random.next() as u32)),
                2 => pair.client.conn(client).stop(stream, relay_model::StreamCode(random.next() as u32)),
                _ => {}
            }
            let mut datagram = vec![0, 1];
            random.mutate(&mut datagram);
            let _ = pair.client.conn(client).send_datagram(datagram.into());
            use_it(&mut pair, server);
        }
        pair.settle();
        use_it(&mut pair, server);
        survived += u32::from(pair.server.conn(server).phase() == ConnPhase::Ready);
        pair.run(Duration::from_secs(12));
    }
    assert!(survived < 400);
}

/// Handles all events as a session does.
fn use_it(pair: &mut Pair, server: ConnKey) {
    for event in pair.server_events(server) {
        let conn = pair.server.conn(server);
        match event {
            TransportEvent::Opened(stream, _) | TransportEvent::Readable(stream) => {
                let _ = read_all(conn, stream);
                let _ = conn.write(stream, &mut [Bytes::from_static(b"answer")]);
            }
            TransportEvent::Stopped(stream, code) => conn.reset(stream, code),
            TransportEvent::Datagram => while conn.recv_datagram().is_some() {},
            TransportEvent::Ready => {
                let stream = conn.open(Dir::Uni, 0).unwrap();
                conn.finish(stream);
            }
            _ => {}
        }
    }
}
