//! In-memory test setup: two endpoints, a simulated link and a virtual clock.

mod fairness;
mod hostile;
mod life;
mod raw;
mod tls;
mod webtransport;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use relay_model::{
    WorkerId,
    transport::{Dir, ReadError, Stream, Transport, TransportEvent, WriteError},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;

const SECRET: [u8; 32] = [3; 32];
/// Queue of the slow link, above which it drops datagrams.
const QUEUE: Duration = Duration::from_millis(250);

/// Certificate for `localhost`, created once.
fn identity() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    static IDENTITY: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    let (cert, key) = IDENTITY.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (made.cert.der().to_vec(), made.signing_key.serialize_der())
    });
    (cert.clone().into(), PrivatePkcs8KeyDer::from(key.clone()).into())
}

fn server_config() -> QuicConfig {
    server_config_with(QuicTuning::default())
}

fn server_config_with(tuning: QuicTuning) -> QuicConfig {
    let (cert, key) = identity();
    QuicConfig::new(certificate(vec![cert], key).unwrap(), &SECRET, 4, &tuning).unwrap()
}

fn client_config(alpn: &[&str]) -> OutgoingConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity().0).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    OutgoingConfig::new(tls, &QuicTuning::default()).unwrap()
}

/// One end of the link.
struct Node {
    endpoint: Endpoint,
    addr: SocketAddr,
    inbound: VecDeque<(Instant, SocketAddr, BytesMut)>,
    /// Time at which the outgoing direction is free again.
    free_at: Instant,
    accepted: Vec<ConnKey>,
    /// Largest number of segments in one send.
    train: usize,
}

impl Node {
    fn new(addr: &str, seed: u8, now: Instant) -> Self {
        let endpoint = Endpoint::new(&server_config(), WorkerId(1), true, Some([seed; 32]));
        let addr = addr.parse().unwrap();
        Self { endpoint, addr, inbound: VecDeque::new(), free_at: now, accepted: Vec::new(), train: 0 }
    }

    fn conn(&mut self, key: ConnKey) -> &mut QuicConnection {
        self.endpoint.conn(key).expect("connection is held")
    }

    fn keys(&self) -> Vec<ConnKey> {
        let mut keys = Vec::new();
        self.endpoint.keys(&mut keys);
        keys
    }

    /// Runs one turn like a worker; returns the datagrams to send.
    fn turn(&mut self, now: Instant, segments: usize) -> Vec<(SocketAddr, Bytes)> {
        let mut sent = Vec::new();
        let mut buf = Vec::new();
        while self.inbound.front().is_some_and(|(at, ..)| *at <= now) {
            let (_, from, data) = self.inbound.pop_front().unwrap();
            match self.endpoint.handle(now, from, None, None, data, &mut buf) {
                FeedOutcome::New(key) => self.accepted.push(key),
                FeedOutcome::Respond(transmit) | FeedOutcome::Refused(transmit) => {
                    sent.extend(cut(&transmit, &buf))
                }
                FeedOutcome::Conn(_) | FeedOutcome::Dropped(_) | FeedOutcome::Nothing => {}
            }
        }
        for key in self.keys() {
            if self.conn(key).next_deadline().is_some_and(|at| at <= now) {
                self.endpoint.handle_timeout(key, now);
            }
            self.endpoint.process_connection(key, now);
            while let Some(transmit) = self.conn(key).poll_transmit(now, segments, &mut buf) {
                let pieces = cut(&transmit, &buf);
                self.train = self.train.max(pieces.len());
                sent.extend(pieces);
            }
            self.endpoint.process_connection(key, now);
        }
        sent
    }

    fn next(&mut self) -> Option<Instant> {
        let inbound = self.inbound.front().map(|(at, ..)| *at);
        let timers = self.keys().into_iter().filter_map(|key| self.conn(key).next_deadline()).min();
        inbound.into_iter().chain(timers).min()
    }
}

fn cut(transmit: &Transmit, buf: &[u8]) -> Vec<(SocketAddr, Bytes)> {
    assert_eq!(transmit.len, buf.len());
    let size = transmit.segment_size.unwrap_or(transmit.len);
    buf.chunks(size).map(|piece| (transmit.destination, Bytes::copy_from_slice(piece))).collect()
}

struct Pair {
    now: Instant,
    client: Node,
    server: Node,
    latency: Duration,
    /// Bytes per second in the direction of the client.
    rate: Option<u64>,
    segments: usize,
    /// All datagrams of the client, in order.
    captured: Vec<Bytes>,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            now,
            client: Node::new("[::ffff:10.0.0.1]:1000", 1, now),
            server: Node::new("10.0.0.2:443", 2, now),
            latency: Duration::from_millis(5),
            rate: None,
            segments: 64,
            captured: Vec::new(),
        }
    }

    /// Creates a pair whose server supports `versions` only.
    fn speaking(versions: &[Version]) -> Self {
        Self::tuned(QuicTuning { versions: versions.to_vec(), ..QuicTuning::default() })
    }

    /// Creates a pair whose server uses `tuning`.
    fn tuned(tuning: QuicTuning) -> Self {
        let mut pair = Self::new();
        let config = server_config_with(tuning);
        pair.server.endpoint = Endpoint::new(&config, WorkerId(1), true, Some([2; 32]));
        pair
    }

    fn dial(&mut self, alpn: &[&str]) -> ConnKey {
        let addr = self.server.addr;
        self.client.endpoint.connect(self.now, &client_config(alpn), addr, "localhost").unwrap()
    }

    /// Connects; returns the keys of the connection on the client and on the server.
    fn connect(&mut self, alpn: &[&str]) -> (ConnKey, ConnKey) {
        let client = self.dial(alpn);
        self.run(Duration::from_millis(100));
        (client, *self.server.accepted.last().expect("accepted"))
    }

    /// Runs one turn of both ends.
    fn turn(&mut self) {
        let (from, to) = (self.client.addr, self.server.addr);
        for (_, data) in self.client.turn(self.now, self.segments) {
            self.captured.push(data.clone());
            self.server.inbound.push_back((self.now + self.latency, from, BytesMut::from(&data[..])));
        }
        for (_, data) in self.server.turn(self.now, self.segments) {
            let start = self.server.free_at.max(self.now);
            if start - self.now > QUEUE {
                continue;
            }
            let took = self
                .rate
                .map_or(Duration::ZERO, |rate| Duration::from_micros(data.len() as u64 * 1_000_000 / rate));
            self.server.free_at = start + took;
            let at = self.server.free_at + self.latency;
            self.client.inbound.push_back((at, to, BytesMut::from(&data[..])));
        }
    }

    /// Lets `span` pass.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.turn();
            let next = self.client.next().into_iter().chain(self.server.next()).min();
            let Some(next) = next.filter(|at| *at <= end) else { break };
            // Always advance: a timer at `now` was already handled.
            self.now = next.max(self.now + Duration::from_micros(10));
        }
        self.now = end;
    }

    fn settle(&mut self) {
        self.run(Duration::from_millis(60));
    }

    fn client_events(&mut self, key: ConnKey) -> Vec<TransportEvent> {
        drain(self.client.conn(key))
    }

    fn server_events(&mut self, key: ConnKey) -> Vec<TransportEvent> {
        drain(self.server.conn(key))
    }
}

fn drain(conn: &mut QuicConnection) -> Vec<TransportEvent> {
    std::iter::from_fn(|| conn.poll()).collect()
}

/// Reads all available data; returns it with the end of the stream or the read error.
fn read_all(conn: &mut QuicConnection, stream: Stream) -> (Vec<u8>, Result<(), ReadError>) {
    let mut out = Vec::new();
    loop {
        match conn.read(stream, usize::MAX) {
            Ok(Some(bytes)) => out.extend_from_slice(&bytes),
            Ok(None) => return (out, Ok(())),
            Err(error) => return (out, Err(error)),
        }
    }
}

fn write_all(conn: &mut QuicConnection, stream: Stream, bytes: &[u8]) {
    let mut chunks = [Bytes::copy_from_slice(bytes)];
    assert_eq!(conn.write(stream, &mut chunks), Ok(bytes.len()));
}

fn opened(events: &[TransportEvent], dir: Dir) -> Vec<Stream> {
    let opened = |event: &TransportEvent| match event {
        TransportEvent::Opened(stream, of) if *of == dir => Some(*stream),
        _ => None,
    };
    events.iter().filter_map(opened).collect()
}

/// Writes until the transport accepts no more; returns the bytes accepted and the error.
fn fill(conn: &mut QuicConnection, stream: Stream, most: usize) -> (usize, Option<WriteError>) {
    let mut taken = 0;
    while taken < most {
        match conn.write(stream, &mut [Bytes::from(vec![7; 16 * 1024])]) {
            Ok(count) => taken += count,
            Err(error) => return (taken, Some(error)),
        }
    }
    (taken, None)
}
