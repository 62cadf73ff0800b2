//! A worker driven turn by turn, without sockets and threads, on a virtual clock.

mod drain;
mod fairness;
mod gate;
mod memory;
mod turns;

use std::{
    cell::Cell,
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use bytes::{Bytes, BytesMut};
use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use relay_auth::Policy;
use relay_core::CoreEvent;
use relay_meter::CounterBoard;
use relay_model::{
    Hop, Scope, SessionId, WorkerId,
    limits::SessionLimits,
    transport::{Dir, Transport, TransportEvent as Heard},
};
use relay_store::Store;
use relay_transport::quic::{
    ConnKey, ConnPhase, Endpoint, OutgoingConfig, QuicConfig, QuicTuning, certificate,
};
use relay_wire::lite::{self, Message};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::{NextTurn, TurnStage, Worker, WorkerShared};
use crate::{
    gate::Gate,
    ledger::{MemoryLedger, StateLimits},
    mailbox::Mailbox,
    session_control::SessionControl,
    socket::{Io, UdpPacket, UdpReceived},
};

const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 443);
/// Time of day at the start of each test.
const DAY: Duration = Duration::from_secs(20_000 * 24 * 3_600);
const CLIENT: ([u8; 4], u16) = ([10, 0, 0, 2], 5_000);

/// Socket of the worker, filled and read by the test.
struct FakeIo {
    inbound: VecDeque<UdpReceived>,
    sent: Vec<(SocketAddr, Bytes)>,
    /// Number of packets it takes before it is full.
    room: usize,
    /// Segmented packets fail, as on a device without segmentation offload.
    no_trains: bool,
    trains: usize,
    clock: Cell<Instant>,
    /// Time added by each clock read.
    tick: Duration,
}

impl Io for FakeIo {
    fn recv(&mut self, out: &mut Vec<UdpReceived>) -> io::Result<bool> {
        if self.inbound.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        out.extend(self.inbound.drain(..self.inbound.len().min(32)));
        Ok(!self.inbound.is_empty())
    }

    fn send(&mut self, packets: &[UdpPacket]) -> io::Result<usize> {
        let mut taken = 0;
        for packet in packets {
            let error = if self.room == 0 {
                Some(libc::EAGAIN)
            } else if self.no_trains && packet.datagrams() > 1 {
                Some(libc::EIO)
            } else {
                None
            };
            match error {
                Some(errno) if taken == 0 => return Err(io::Error::from_raw_os_error(errno)),
                Some(_) => return Ok(taken),
                None => {}
            }
            self.trains += usize::from(packet.datagrams() > 1);
            let size = packet.segment.map_or(packet.bytes.len(), usize::from);
            let datagrams = packet.bytes.chunks(size).map(Bytes::copy_from_slice);
            self.sent.extend(datagrams.map(|datagram| (packet.destination, datagram)));
            self.room -= 1;
            taken += 1;
        }
        Ok(taken)
    }

    fn max_segments(&self) -> usize {
        64
    }

    fn now(&self) -> Instant {
        self.clock.set(self.clock.get() + self.tick);
        self.clock.get()
    }
}

/// Memory limit of sessions, larger than all tests but one need.
const STATE: StateLimits = StateLimits { clients: 64 << 20, peers: 64 << 20 };

/// A worker, a client of it, and core's end of the channel.
struct Bench {
    now: Instant,
    /// Wall clock, which advances with `now`.
    time_of_day: Arc<Mutex<SystemTime>>,
    worker: Worker,
    io: FakeIo,
    next: NextTurn,
    core: Receiver<Vec<CoreEvent>>,
    heard: Vec<CoreEvent>,
    /// Shares of sessions in turns, in order.
    shares: Arc<Mutex<Vec<(TurnStage, SessionId)>>>,
    mailbox: Arc<Mailbox>,
    client: Endpoint,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        Self::tuned(policy, &QuicTuning::default())
    }

    fn tuned(policy: Policy, tuning: &QuicTuning) -> Self {
        Self::gated(Arc::new(policy), tuning)
    }

    fn gated(gate: Arc<dyn Gate>, tuning: &QuicTuning) -> Self {
        Self::limited(gate, tuning, STATE)
    }

    fn limited(gate: Arc<dyn Gate>, tuning: &QuicTuning, state: StateLimits) -> Self {
        let time_of_day = Arc::new(Mutex::new(SystemTime::UNIX_EPOCH + DAY));
        let wall = time_of_day.clone();
        let now = Instant::now();
        let store = Store::new(relay_store::StoreConfig {
            workers: 1,
            capacity: 1 << 20,
            ceiling: 1 << 20,
            max_age: Duration::MAX,
        });
        let shares = Arc::new(Mutex::new(Vec::new()));
        let noted = shares.clone();
        let shared = WorkerShared {
            quic: server_config(tuning),
            store,
            ledger: MemoryLedger::new(state),
            gate: gate.clone(),
            wall: Arc::new(move || *wall.lock()),
            local: SERVER.into(),
            hop: Hop(1),
            started: now,
            limits: SessionLimits::default(),
            board: Arc::new(CounterBoard::new(1)),
            fault: Some(Arc::new(move |stage, session| noted.lock().push((stage, session)))),
        };
        let mailbox = Arc::new(Mailbox::new(Box::new(|| {})));
        let (sender, core) = crossbeam_channel::bounded(1);
        let worker = Worker::new(WorkerId(0), Arc::new(shared), mailbox.clone(), sender, false, now);
        let io = FakeIo {
            inbound: VecDeque::new(),
            sent: Vec::new(),
            room: usize::MAX,
            no_trains: false,
            trains: 0,
            clock: Cell::new(now),
            tick: Duration::ZERO,
        };
        let client = Endpoint::new(&server_config(tuning), WorkerId(0), false, Some([9; 32]));
        let sessions = SessionControl::new(std::slice::from_ref(&mailbox));
        worker.host.shared.ledger.start(sessions.clone());
        gate.started(&sessions);
        let heard = Vec::new();
        Self { now, time_of_day, worker, io, next: NextTurn::Now, core, heard, shares, mailbox, client }
    }

    fn open_to_all() -> Self {
        Self::new(Policy::public(Scope::everything(), Scope::everything()))
    }

    fn connect(&mut self) -> ConnKey {
        self.connect_with(lite::Version::V05)
    }

    fn connect_with(&mut self, version: lite::Version) -> ConnKey {
        self.client.connect(self.now, &client_config(version), SERVER.into(), "localhost").unwrap()
    }

    /// Takes one turn of the worker.
    fn turn(&mut self) {
        self.io.clock.set(self.now);
        self.next = self.worker.turn(self.now, &mut self.io);
        self.heard.extend(self.core.try_iter().flatten());
    }

    fn deliver(&mut self, datagram: &[u8]) {
        self.io.inbound.push_back(UdpReceived {
            remote: CLIENT.into(),
            local_ip: None,
            ecn: None,
            stride: datagram.len(),
            data: BytesMut::from(datagram),
        });
        self.worker.readable();
    }

    /// Lets the client receive all sent datagrams and send its own.
    fn client_turn(&mut self) {
        let mut buf = Vec::new();
        for (to, datagram) in std::mem::take(&mut self.io.sent) {
            assert_eq!(to, CLIENT.into());
            self.client.handle(self.now, SERVER.into(), None, None, BytesMut::from(&datagram[..]), &mut buf);
        }
        let mut keys = Vec::new();
        self.client.keys(&mut keys);
        for key in keys {
            self.client.handle_timeout(key, self.now);
            self.client.process_connection(key, self.now);
            while let Some(conn) = self.client.conn(key) {
                buf.clear();
                let Some(_) = conn.poll_transmit(self.now, 1, &mut buf) else { break };
                let datagram = std::mem::take(&mut buf);
                self.deliver(&datagram);
            }
        }
    }

    /// Alternates both sides until neither has anything to send.
    fn settle(&mut self) {
        for _ in 0..100 {
            self.client_turn();
            if self.io.inbound.is_empty() && self.next != NextTurn::Now {
                return;
            }
            self.turn();
        }
        panic!("it never settles");
    }

    /// Advances the clock, with a turn whenever the worker asks for one.
    fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        while self.now < until {
            let before = self.now;
            self.now = match self.next {
                NextTurn::At(at) => at.clamp(self.now, until),
                NextTurn::Now | NextTurn::Idle => until,
            };
            *self.time_of_day.lock() += self.now - before;
            self.next = NextTurn::Now;
            self.settle();
        }
    }

    fn phase(&mut self, key: ConnKey) -> ConnPhase {
        self.client.conn(key).map_or(ConnPhase::Drained, |conn| conn.phase())
    }

    /// Sends the client's SETUP.
    fn set_up(&mut self, key: ConnKey, path: &str) {
        let now = self.now;
        let conn = self.client.conn(key).unwrap();
        let stream = conn.open(Dir::Uni, 0).unwrap();
        let mut message = Vec::new();
        relay_wire::varint::put(lite::UniType::Setup.id(), &mut message);
        let setup = lite::Setup { probe: 0, path: Some(path.to_owned()), role: None, cost: None, hop: None };
        setup.encode(lite::Version::V05, &mut message);
        conn.write(stream, &mut [message.into()]).unwrap();
        conn.finish(stream);
        self.client.process_connection(key, now);
        self.settle();
    }

    /// End of the session, as seen by the client.
    fn end(&mut self, key: ConnKey) -> relay_model::transport::TransportClosed {
        let conn = self.client.conn(key).expect("it keeps its closed connection");
        loop {
            match conn.poll() {
                Some(Heard::Closed(why)) => return why,
                Some(_) => {}
                None => panic!("still open"),
            }
        }
    }
}

/// A certificate larger than one datagram, so that handshakes send segmented packets.
fn identity() -> &'static rcgen::CertifiedKey<rcgen::KeyPair> {
    static IDENTITY: OnceLock<rcgen::CertifiedKey<rcgen::KeyPair>> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        let mut names: Vec<String> = (0..80).map(|n| format!("relay-{n}.example.com")).collect();
        names.push("localhost".to_owned());
        rcgen::generate_simple_self_signed(names).unwrap()
    })
}

fn server_config(tuning: &QuicTuning) -> QuicConfig {
    let key = PrivatePkcs8KeyDer::from(identity().signing_key.serialize_der());
    let resolver = certificate(vec![identity().cert.der().clone()], key.into()).unwrap();
    QuicConfig::new(resolver, &[3; 32], 1, tuning).unwrap()
}

fn client_config(version: lite::Version) -> OutgoingConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity().cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![version.alpn().as_bytes().to_vec()];
    OutgoingConfig::new(tls, &QuicTuning::default()).unwrap()
}
