//! Tests of connected ends, captured sessions, and hostile input.

mod captures;
mod ends;
mod hostile;
mod replay;

use relay_model::transport::{ReadError, Stream, Transport, TransportEvent, WriteError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{QmuxCarrier, QmuxConfig, QmuxConnection, QmuxFraming};

const MS: Duration = Duration::from_millis(1);
/// All valid combinations.
const KINDS: [(QmuxFraming, QmuxCarrier); 5] = [
    (QmuxFraming::Legacy, QmuxCarrier::WebSocket),
    (QmuxFraming::Qmux00, QmuxCarrier::WebSocket),
    (QmuxFraming::Qmux00, QmuxCarrier::Bytes),
    (QmuxFraming::Qmux01, QmuxCarrier::WebSocket),
    (QmuxFraming::Qmux01, QmuxCarrier::Bytes),
];

/// Seeded random numbers.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 27)) >> 16) % bound.max(1)
    }
}

/// A client and a server, and the bytes between them.
struct Ends {
    client: QmuxConnection,
    server: QmuxConnection,
    now: Instant,
    rng: Rng,
    /// Bytes in flight to the server and to the client.
    wires: [Vec<u8>; 2],
}

impl Ends {
    fn new(framing: QmuxFraming, over: QmuxCarrier, seed: u64) -> Self {
        let server = QmuxConfig::new(framing, over);
        Self::of(QmuxConfig { is_client: true, mask_seed: seed, ..server.clone() }, server, seed)
    }

    fn of(client: QmuxConfig, server: QmuxConfig, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            client: QmuxConnection::new(client, now),
            server: QmuxConnection::new(server, now),
            now,
            rng: Rng(seed),
            wires: [Vec::new(), Vec::new()],
        }
    }

    /// Creates two ready ends whose `Ready` event was taken.
    fn ready(framing: QmuxFraming, over: QmuxCarrier) -> Self {
        let mut ends = Self::new(framing, over, 1);
        ends.settle();
        assert_eq!(ends.client.poll(), Some(TransportEvent::Ready));
        assert_eq!(ends.server.poll(), Some(TransportEvent::Ready));
        ends
    }

    /// Moves some bytes in pieces of random size; `false` if there were none.
    fn step(&mut self) -> bool {
        let mut moved = false;
        for to_client in [false, true] {
            let (from, to) = if to_client {
                (&mut self.server, &mut self.client)
            } else {
                (&mut self.client, &mut self.server)
            };
            let wire = &mut self.wires[usize::from(to_client)];
            let mut out = Vec::new();
            let max = 1 + self.rng.below(40_000) as usize;
            let had = from.has_output();
            let sent = if wire.len() < 200_000 { from.transmit(self.now, max, &mut out) } else { 0 };
            assert!(had || sent == 0, "output as announced");
            assert_eq!(sent, out.iter().map(Bytes::len).sum::<usize>());
            assert!(sent < max + 17_000, "{sent} for {max}");
            out.iter().for_each(|chunk| wire.extend_from_slice(chunk));
            if to.wants_input() && !wire.is_empty() {
                let most = if self.rng.below(4) == 0 { 7 } else { 60_000 };
                let size = 1 + self.rng.below(most) as usize;
                let part: Vec<u8> = wire.drain(..size.min(wire.len())).collect();
                to.receive(self.now, &part);
                moved = true;
            }
            moved |= sent > 0;
        }
        moved
    }

    fn settle(&mut self) {
        while self.step() {}
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for end in [&mut self.client, &mut self.server] {
            while let Some(at) = end.timeout()
                && at <= self.now
            {
                end.handle_timeout(self.now);
                assert_ne!(end.timeout(), Some(at), "a timeout takes effect");
            }
        }
    }
}

fn events(end: &mut QmuxConnection) -> Vec<TransportEvent> {
    std::iter::from_fn(|| end.poll()).collect()
}

fn put(end: &mut QmuxConnection, stream: Stream, bytes: &[u8]) -> Result<usize, WriteError> {
    end.write(stream, &mut [Bytes::copy_from_slice(bytes)])
}

/// Reads all available data; returns it with the end of the stream or the read error.
fn take(end: &mut QmuxConnection, stream: Stream) -> (Vec<u8>, Result<(), ReadError>) {
    let mut got = Vec::new();
    loop {
        match end.read(stream, 5_000) {
            Ok(Some(bytes)) => got.extend_from_slice(&bytes),
            Ok(None) => return (got, Ok(())),
            Err(error) => return (got, Err(error)),
        }
    }
}

/// Returns all pending output of an end.
fn output(end: &mut QmuxConnection, now: Instant) -> Vec<u8> {
    let mut out = Vec::new();
    while end.transmit(now, 100_000, &mut out) > 0 {}
    out.concat()
}
