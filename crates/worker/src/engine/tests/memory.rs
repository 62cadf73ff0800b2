use relay_model::{SessionCode, transport::TransportClosed};

use relay_transport::qmux::{QmuxCarrier, QmuxFraming};

use super::{
    turns::{closed, opened},
    *,
};
use crate::{
    accept::{PendingAccept, PendingSession, RejectReason},
    conn_info::ConnInfo,
    gate::{AdmissionRequest, GateAnswer, GateReply},
    ledger::REASON,
};

/// Shares bind above 300 KiB: a handful of idle sessions fit.
const LIMIT: u64 = 400 * 1024;
/// Longer than acknowledgements take.
const ROUND: Duration = Duration::from_millis(30);
/// Longer than a closed connection is kept.
const DRAIN: Duration = Duration::from_secs(5);

fn bench() -> Bench {
    let gate = Arc::new(Policy::public(Scope::everything(), Scope::everything()));
    Bench::limited(gate, &QuicTuning::default(), StateLimits { clients: LIMIT, peers: LIMIT })
}

/// Longer than the interval of updating charges.
const CHARGED: Duration = Duration::from_millis(600);

fn charged(bench: &Bench) -> u64 {
    bench.worker.host.shared.ledger.counts().clients
}

/// Opens a stream and sends the first `size` bytes of a larger SUBSCRIBE. Stops if the connection ends.
fn send_partial(bench: &mut Bench, key: ConnKey, size: usize) {
    let Some(stream) = bench.client.conn(key).and_then(|conn| conn.open(Dir::Bi, 0)) else { return };
    let mut bytes = Vec::new();
    relay_wire::varint::put(lite::BidiType::Subscribe.id(), &mut bytes);
    relay_wire::varint::put(60_000, &mut bytes);
    bytes.resize(size, 0);
    let mut rest = [Bytes::from(bytes)];
    while !rest[0].is_empty() {
        let Some(conn) = bench.client.conn(key) else { return };
        if conn.write(stream, &mut rest).is_err() && conn.phase() != ConnPhase::Ready {
            return;
        }
        bench.advance(ROUND);
    }
}

#[test]
fn session_over_its_share_is_closed_and_others_stay() {
    let mut bench = bench();
    let (small, large) = (bench.connect(), bench.connect());
    bench.settle();
    bench.set_up(small, "/");
    bench.set_up(large, "/");
    let [_, victim] = opened(&bench)[..] else { panic!("{:?}", bench.heard) };
    bench.advance(CHARGED);
    let idle = charged(&bench);
    assert!(idle > 0 && idle < LIMIT / 2, "{idle}");
    (0..8).for_each(|_| send_partial(&mut bench, large, 50_000));
    assert_eq!(bench.end(large), TransportClosed::ByPeer(SessionCode::MEMORY_SHARE, REASON.to_owned()));
    assert_eq!(closed(&bench), [victim]);
    assert_eq!(bench.phase(small), ConnPhase::Ready);
    assert_eq!(bench.worker.host.meter.sessions_closed_memory, 1);
    assert_eq!(bench.worker.host.shared.ledger.counts().closed, 1);
    bench.advance(DRAIN);
    assert!(charged(&bench) < idle, "what the victim held is returned");
    bench.client.conn(small).unwrap().close(bench.now, SessionCode::NONE, "bye");
    bench.advance(ROUND);
    bench.advance(DRAIN);
    assert_eq!(charged(&bench), 0);
}

#[test]
fn unread_data_in_the_transport_is_charged() {
    let mut bench = bench();
    let key = bench.connect();
    bench.settle();
    // Not admitted yet: its requests stay in the transport.
    (0..8).for_each(|_| send_partial(&mut bench, key, 50_000));
    assert_eq!(bench.end(key), TransportClosed::ByPeer(SessionCode::MEMORY_SHARE, REASON.to_owned()));
    assert_eq!(bench.worker.host.meter.refused_memory, 1);
    bench.advance(DRAIN);
    assert_eq!(charged(&bench), 0);
}

#[test]
fn session_within_its_share_stays_open() {
    let mut bench = bench();
    let key = bench.connect();
    bench.settle();
    bench.set_up(key, "/");
    (0..4).for_each(|_| send_partial(&mut bench, key, 50_000));
    bench.advance(CHARGED);
    assert_eq!(bench.phase(key), ConnPhase::Ready);
    assert!(charged(&bench) > 200_000, "{}", charged(&bench));
    assert_eq!(bench.worker.host.meter.sessions_closed_memory, 0);
}

#[test]
fn handshakes_are_not_charged() {
    let mut bench = bench();
    let key = bench.connect();
    bench.settle();
    bench.set_up(key, "/");
    bench.advance(CHARGED);
    let before = charged(&bench);
    // Charged, they would exceed the limit and cost the only session.
    let crowd = 20;
    for _ in 0..crowd {
        bench.connect();
    }
    bench.client_turn();
    for _ in 0..3 {
        bench.turn();
        // Nothing reaches the clients: no handshake is completed.
        bench.io.sent.clear();
        bench.now += CHARGED;
    }
    assert_eq!(bench.worker.host.peers.slots.indices().count(), 1 + crowd);
    assert_eq!(charged(&bench), before);
    assert_eq!(bench.worker.host.shared.ledger.counts().closed, 0);
    assert_eq!(bench.phase(key), ConnPhase::Ready);
}

#[test]
fn relay_of_the_cluster_is_charged_to_its_own_pool() {
    let gate = Arc::new(Policy::public(Scope::everything(), Scope::everything()).for_peers());
    let limits = StateLimits { clients: LIMIT, peers: LIMIT };
    let mut bench = Bench::limited(gate, &QuicTuning::default(), limits);
    let key = bench.connect();
    bench.settle();
    bench.set_up(key, "/");
    bench.advance(CHARGED);
    let counts = bench.worker.host.shared.ledger.counts();
    assert!(counts.peers > 0 && counts.clients == 0, "{counts:?}");
    bench.client.conn(key).unwrap().close(bench.now, SessionCode::NONE, "bye");
    bench.advance(ROUND);
    bench.advance(DRAIN);
    assert_eq!(bench.worker.host.shared.ledger.counts().peers, 0);
}

/// Gate that never answers.
#[derive(Default)]
struct SilentGate(Mutex<Vec<GateReply>>);

impl Gate for SilentGate {
    fn admit(&self, request: &AdmissionRequest) -> GateAnswer {
        self.0.lock().push(request.reply());
        GateAnswer::Later
    }
}

type Verdicts = Arc<Mutex<Vec<RejectReason>>>;

/// A WebSocket request with a target of `target` bytes, whose rejection is added to `verdicts`.
fn upgrade(bench: &mut Bench, target: usize, verdicts: &Verdicts) {
    let newcomer = PendingSession {
        framing: QmuxFraming::Qmux01,
        over: QmuxCarrier::WebSocket,
        conn: ConnInfo {
            version: Some("moq-lite-05"),
            target: Some(format!("/{}", "x".repeat(target - 1))),
            ..ConnInfo::new("websocket", CLIENT.into(), SERVER.into())
        },
    };
    let verdicts = verdicts.clone();
    let verdict = Box::new(move |verdict: Result<_, RejectReason>| verdicts.lock().extend(verdict.err()));
    bench.worker.host.arrive_over_stream(PendingAccept { pending: newcomer, verdict }, bench.now);
}

#[test]
fn peers_that_wait_for_the_gate_are_charged_with_their_target() {
    let gate = Arc::new(SilentGate::default());
    let limits = StateLimits { clients: LIMIT, peers: LIMIT };
    let mut bench = Bench::limited(gate.clone(), &QuicTuning::default(), limits);
    let verdicts = Verdicts::default();
    upgrade(&mut bench, 7_000, &verdicts);
    let one = charged(&bench);
    assert!(one >= 28_000, "{one}");
    (0..50).for_each(|_| upgrade(&mut bench, 7_000, &verdicts));
    bench.advance(CHARGED);
    assert!(charged(&bench) <= LIMIT, "{}", charged(&bench));
    let kept = gate.0.lock().len() as u64;
    assert_eq!(kept, LIMIT / 4 * 3 / one, "as many as the share has room for");
    assert_eq!(verdicts.lock().len() as u64, 51 - kept, "the others are rejected at once");
    bench.advance(Duration::from_secs(60));
    assert_eq!(charged(&bench), 0, "all have timed out");
}
