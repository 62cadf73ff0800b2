//! Late answers of the gate, and expiry of permits.

use std::sync::atomic::{AtomicUsize, Ordering};

use relay_model::{Ask, SessionCode, SessionId, limits, transport::TransportClosed};

use super::{
    turns::{closed, opened},
    *,
};
use crate::{
    admission::Denial,
    gate::{AdmissionRequest, EndedBy, GateAnswer, GateReply, SessionEnded},
};

/// Longer than a closed connection is kept.
const DRAIN: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

/// Session, whether it was admitted, the party that ended it, code and reason.
type End = (SessionId, bool, EndedBy, Option<SessionCode>, String);

/// Gate that records its calls and is answered by the test.
#[derive(Default)]
struct Doorman {
    owed: Mutex<Vec<GateReply>>,
    asked: Mutex<Vec<AdmissionRequest>>,
    ended: Mutex<Vec<End>>,
    bytes: Mutex<(u64, u64)>,
    sessions: Mutex<Option<SessionControl>>,
    panics: AtomicUsize,
}

impl Gate for Doorman {
    fn admit(&self, request: &AdmissionRequest) -> GateAnswer {
        assert_eq!(self.panics.load(Ordering::Relaxed), 0, "injected");
        self.asked.lock().push(request.clone());
        self.owed.lock().push(request.reply());
        GateAnswer::Later
    }

    fn ended(&self, ended: &SessionEnded<'_>) {
        let SessionEnded { session, admitted, by, code, reason, .. } = ended;
        self.ended.lock().push((*session, *admitted, *by, *code, (*reason).to_owned()));
        *self.bytes.lock() = (ended.bytes_in, ended.bytes_out);
    }

    fn started(&self, sessions: &SessionControl) {
        *self.sessions.lock() = Some(sessions.clone());
    }
}

impl Doorman {
    fn sessions(&self) -> SessionControl {
        self.sessions.lock().clone().expect("it was told")
    }
}

fn permit() -> relay_auth::Permit {
    open().admit("/", SystemTime::now()).unwrap()
}

fn open() -> Policy {
    Policy::public(Scope::everything(), Scope::everything())
}

fn told(code: SessionCode, reason: &str) -> TransportClosed {
    TransportClosed::ByPeer(code, reason.to_owned())
}

impl Bench {
    fn with_doorman() -> (Self, Arc<Doorman>, ConnKey) {
        let doorman = Arc::new(Doorman::default());
        let mut bench = Self::gated(doorman.clone(), &QuicTuning::default());
        let key = bench.connect();
        bench.settle();
        bench.set_up(key, "/room?jwt=secret");
        (bench, doorman, key)
    }

    /// Lets the worker read its letters.
    fn read(&mut self) {
        self.next = NextTurn::Now;
        self.settle();
    }

    /// Creates a bench with a session whose permit ends `after` its start.
    fn until(after: Duration) -> (Self, ConnKey) {
        let mut bench = Self::new(open().until(SystemTime::UNIX_EPOCH + DAY + after));
        let key = bench.connect();
        bench.settle();
        bench.set_up(key, "/");
        (bench, key)
    }

    fn is_open(&mut self, key: ConnKey) -> bool {
        self.phase(key) == ConnPhase::Ready
    }
}

#[test]
fn late_answer_admits_before_the_requests_of_the_session() {
    let (mut bench, doorman, key) = Bench::with_doorman();
    let request = doorman.asked.lock().pop().expect("it is asked");
    assert_eq!((request.conn.target(), request.conn.transport), ("/room?jwt=secret", "quic"));
    assert_eq!((request.conn.remote, request.conn.local), (CLIENT.into(), SERVER.into()));
    assert_eq!(request.conn.server_name.as_deref(), Some("localhost"));
    assert!(!format!("{request:?}").contains("secret"));
    let conn = bench.client.conn(key).unwrap();
    let stream = conn.open(Dir::Bi, 0).unwrap();
    let mut message = Vec::new();
    relay_wire::varint::put(lite::BidiType::Track.id(), &mut message);
    let (broadcast, track) = (relay_model::Path::root(), relay_model::TrackName::parse("t").unwrap());
    lite::TrackRequest { broadcast, track }.encode(lite::Version::V05, &mut message);
    conn.write(stream, &mut [message.into()]).unwrap();
    bench.client.process_connection(key, bench.now);
    bench.advance(limits::AUTH_TIMEOUT - SECOND);
    assert!(bench.heard.is_empty(), "core gets no events before admission: {:?}", bench.heard);
    let reply = doorman.owed.lock().pop().unwrap();
    reply.give(Ok(permit()));
    bench.read();
    assert!(matches!(
        &bench.heard[..],
        [CoreEvent::Opened { .. }, CoreEvent::Ask { ask: Ask::Subscribe { .. }, .. }]
    ));
    bench.advance(DRAIN);
    assert!(bench.is_open(key));
    assert!(doorman.ended.lock().is_empty());
}

#[test]
fn session_without_answer_in_time_is_closed_for_good() {
    let (mut bench, doorman, key) = Bench::with_doorman();
    bench.advance(limits::AUTH_TIMEOUT - Duration::from_millis(1));
    assert!(bench.is_open(key));
    bench.advance(Duration::from_millis(2));
    assert_eq!(bench.end(key), told(SessionCode::TIMEOUT, "authorization timed out"));
    assert_eq!(bench.worker.host.meter.refused_auth_timeout, 1);
    doorman.owed.lock().pop().unwrap().give(Ok(permit()));
    bench.read();
    bench.advance(DRAIN);
    assert!(bench.heard.is_empty() && bench.worker.host.peers.slots.is_empty());
    let ended = doorman.ended.lock();
    assert_eq!(ended.len(), 1);
    assert!(!ended[0].1, "it was not admitted");
    assert_eq!((ended[0].2, ended[0].3), (EndedBy::Relay, Some(SessionCode::TIMEOUT)));
}

#[test]
fn dropped_or_failed_answer_denies_the_session_at_once() {
    let (mut bench, doorman, key) = Bench::with_doorman();
    doorman.owed.lock().clear();
    bench.read();
    assert_eq!(bench.end(key), told(SessionCode::INTERNAL, "authorization unavailable"));
    assert_eq!(bench.worker.host.meter.refused_unavailable, 1);
    let key = bench.connect();
    bench.settle();
    bench.set_up(key, "/");
    let refusal = open().admit("/..", SystemTime::now()).unwrap_err();
    doorman.owed.lock().pop().unwrap().give(Err(Denial::Refused(refusal)));
    bench.read();
    assert!(matches!(bench.end(key), TransportClosed::ByPeer(SessionCode::PROTOCOL_VIOLATION, _)));
    assert_eq!(bench.worker.host.meter.refused_malformed, 1);
}

#[test]
fn panicking_gate_costs_only_the_asking_session() {
    let (mut bench, doorman, _) = Bench::with_doorman();
    doorman.owed.lock().pop().unwrap().give(Ok(permit()));
    bench.read();
    doorman.panics.store(1, Ordering::Relaxed);
    let key = bench.connect();
    bench.settle();
    bench.set_up(key, "/");
    assert_eq!((bench.worker.host.meter.panics_input, bench.worker.host.meter.panics_endpoint), (1, 0));
    assert_eq!(bench.worker.host.peers.slots.len(), 1);
    assert_eq!(closed(&bench), []);
}

#[test]
fn gate_gets_each_end_once_with_its_traffic() {
    let (mut bench, doorman, key) = Bench::with_doorman();
    doorman.owed.lock().pop().unwrap().give(Ok(permit()));
    bench.read();
    let session = opened(&bench)[0];
    bench.client.conn(key).unwrap().close(bench.now, SessionCode(77), "bye");
    bench.read();
    let expected = (session, true, EndedBy::Peer, Some(SessionCode(77)), "bye".to_owned());
    assert_eq!(*doorman.ended.lock(), [expected]);
    let (bytes_in, bytes_out) = *doorman.bytes.lock();
    assert!(bytes_in > 1_200 && bytes_out > 1_200, "{bytes_in} {bytes_out}");
    bench.advance(DRAIN);
    bench.worker.finish();
    assert_eq!(doorman.ended.lock().len(), 1);
    // A session that leaves before the answer is reported too.
    let (mut bench, doorman, key) = Bench::with_doorman();
    bench.client.conn(key).unwrap().close(bench.now, SessionCode::NONE, "");
    bench.read();
    assert_eq!(doorman.ended.lock().len(), 1);
    assert!(!doorman.ended.lock()[0].1);
    // So is one that is lost with the endpoint.
    let (mut bench, doorman, _) = Bench::with_doorman();
    bench.worker.rebuild(bench.now);
    assert_eq!(doorman.ended.lock().len(), 1);
}

#[test]
fn a_session_ends_when_its_permit_does() {
    let (mut bench, key) = Bench::until(10 * SECOND);
    bench.advance(10 * SECOND - Duration::from_millis(1));
    assert!(bench.is_open(key));
    bench.advance(Duration::from_millis(2));
    assert_eq!(bench.end(key), told(SessionCode::UNAUTHORIZED, "expired"));
    assert_eq!(bench.worker.host.meter.sessions_expired, 1);
    bench.advance(DRAIN);
    assert_eq!(closed(&bench).len(), 1);
    assert_eq!(bench.next, NextTurn::Idle, "nobody is waited for");
}

#[test]
fn a_session_ends_within_a_second_of_a_clock_that_steps_forward() {
    let (mut bench, key) = Bench::until(3_600 * SECOND);
    bench.advance(SECOND);
    *bench.time_of_day.lock() += 3_600 * SECOND;
    bench.advance(SECOND);
    assert_eq!(bench.end(key), told(SessionCode::UNAUTHORIZED, "expired"));
}

#[test]
fn session_expires_by_the_new_time_after_a_clock_step_back() {
    let (mut bench, key) = Bench::until(10 * SECOND);
    bench.advance(9 * SECOND);
    *bench.time_of_day.lock() -= 60 * SECOND;
    bench.advance(60 * SECOND);
    assert!(bench.is_open(key));
    bench.advance(SECOND);
    assert_eq!(bench.end(key), told(SessionCode::UNAUTHORIZED, "expired"));
}

#[test]
fn session_with_an_expired_permit_is_refused() {
    let mut bench = Bench::new(open().until(SystemTime::UNIX_EPOCH + DAY));
    let key = bench.connect();
    bench.settle();
    bench.set_up(key, "/");
    assert_eq!(bench.end(key), told(SessionCode::UNAUTHORIZED, "expired"));
    assert_eq!(
        (bench.worker.host.meter.refused_unauthorized, bench.worker.host.meter.sessions_opened),
        (1, 0)
    );
}

#[test]
fn sessions_that_end_leave_no_deadline_behind() {
    let (mut bench, key) = Bench::until(3_600 * SECOND);
    assert!(bench.worker.host.expiry.next().is_some());
    bench.client.conn(key).unwrap().close(bench.now, SessionCode::NONE, "");
    bench.read();
    bench.advance(DRAIN);
    assert_eq!((bench.worker.host.expiry.next(), bench.next), (None, NextTurn::Idle));
}

#[test]
fn new_expiry_replaces_the_old_one() {
    let (mut bench, doorman, key) = Bench::with_doorman();
    let until = |seconds: u32| {
        let at = SystemTime::UNIX_EPOCH + DAY + seconds * SECOND;
        open().until(at).admit("/", SystemTime::now()).unwrap()
    };
    doorman.owed.lock().pop().unwrap().give(Ok(until(5)));
    bench.read();
    let session = opened(&bench)[0];
    doorman.sessions().revise(session, until(30));
    bench.advance(29 * SECOND);
    assert!(bench.is_open(key));
    doorman.sessions().revise(session, until(10));
    bench.read();
    bench.advance(SECOND / 10);
    assert_eq!(bench.end(key), told(SessionCode::UNAUTHORIZED, "expired"));
    assert_eq!(bench.worker.host.meter.sessions_revised, 2);
    assert!(!bench.heard.iter().any(|event| matches!(event, CoreEvent::Revised { .. })), "the same scopes");
}

#[test]
fn core_gets_a_narrower_permit_before_later_requests() {
    let (mut bench, doorman, key) = Bench::with_doorman();
    doorman.owed.lock().pop().unwrap().give(Ok(permit()));
    bench.read();
    let session = opened(&bench)[0];
    let anon = Scope::of([relay_model::Path::parse("anon").unwrap()]);
    let narrow = Policy::public(anon.clone(), anon).admit("/", SystemTime::now()).unwrap();
    doorman.sessions().revise(session, narrow.clone());
    bench.read();
    assert_eq!(bench.heard.last(), Some(&CoreEvent::Revised { session, permit: narrow }));
    assert!(bench.is_open(key));
    // A permit of another subject is no revision.
    let other = open().with_subject("mallory").admit("/", SystemTime::now()).unwrap();
    doorman.sessions().revise(session, other);
    bench.read();
    assert!(matches!(bench.end(key), TransportClosed::ByPeer(SessionCode::UNAUTHORIZED, _)));
}

#[test]
fn sessions_are_ended_by_id_or_by_their_permit() {
    let (mut bench, doorman, first) = Bench::with_doorman();
    let mut keys = vec![first];
    for _ in 0..2 {
        keys.push(bench.connect());
        bench.settle();
        bench.set_up(keys[keys.len() - 1], "/");
    }
    let replies: Vec<GateReply> = doorman.owed.lock().drain(..).collect();
    for (reply, subject) in replies.into_iter().zip(["alice", "bob", "bob"]) {
        reply.give(Ok(open().with_subject(subject).admit("/", SystemTime::now()).unwrap()));
    }
    bench.read();
    let sessions = opened(&bench);
    assert_eq!(sessions.len(), 3);
    let revoke = doorman.sessions();
    revoke.end_where(SessionCode::UNAUTHORIZED, "revoked", |permit| permit.subject() == Some("bob"));
    bench.read();
    assert!(bench.is_open(keys[0]));
    for key in &keys[1..] {
        assert_eq!(bench.end(*key), told(SessionCode::UNAUTHORIZED, "revoked"));
    }
    revoke.end(sessions[0], SessionCode(99), "enough");
    revoke.end(sessions[1], SessionCode(99), "it is over already");
    bench.read();
    assert_eq!(bench.end(keys[0]), told(SessionCode(99), "enough"));
    assert_eq!(bench.worker.host.meter.sessions_revoked, 3);
    bench.advance(DRAIN);
    assert_eq!(closed(&bench).len(), 3);
}

#[test]
fn answer_with_a_revoked_permit_is_rejected() {
    let (mut bench, doorman, bob) = Bench::with_doorman();
    let alice = bench.connect();
    bench.settle();
    bench.set_up(alice, "/");
    doorman
        .sessions()
        .end_where(SessionCode::UNAUTHORIZED, "revoked", |permit| permit.subject() == Some("bob"));
    bench.read();
    let replies: Vec<GateReply> = doorman.owed.lock().drain(..).collect();
    for (reply, subject) in replies.into_iter().zip(["bob", "alice"]) {
        reply.give(Ok(open().with_subject(subject).admit("/", SystemTime::now()).unwrap()));
    }
    bench.read();
    assert_eq!(bench.end(bob), told(SessionCode::UNAUTHORIZED, "revoked"));
    assert!(bench.is_open(alice));
    assert_eq!(opened(&bench).len(), 1, "no event of the other for core");
    assert_eq!(bench.worker.host.meter.refused_unauthorized, 1);
}

#[test]
fn panicking_permit_filter_ends_every_session() {
    let (mut bench, doorman, key) = Bench::with_doorman();
    doorman.owed.lock().pop().unwrap().give(Ok(permit()));
    bench.read();
    doorman.sessions().end_where(SessionCode::UNAUTHORIZED, "revoked", |_| panic!("injected"));
    bench.read();
    assert_eq!(bench.end(key), told(SessionCode::UNAUTHORIZED, "revoked"));
}
