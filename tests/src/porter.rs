//! Gate whose policy a test can change, and which records its calls.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use relay_auth::{Permit, Policy};
use relay_model::{Scope, SessionCode, SessionId};
use relay_worker::{
    AdmissionRequest, Denial, EndedBy, Gate, GateAnswer, GateReply, SessionControl, SessionEnded,
};

use crate::{relay::TestRelay, wait_until};

/// Gate that admits by its current policy.
#[derive(Debug)]
pub struct Porter {
    policy: Mutex<Policy>,
    /// Whether answers are delayed.
    is_slow: AtomicBool,
    owed: Mutex<Vec<(AdmissionRequest, GateReply)>>,
    admitted: Mutex<Vec<SessionId>>,
    ended: Mutex<Vec<Farewell>>,
    sessions: OnceLock<SessionControl>,
}

/// End of a session, as reported to the gate.
#[derive(Clone, Debug)]
pub struct Farewell {
    /// The session.
    pub session: SessionId,
    /// Whether it was admitted.
    pub admitted: bool,
    /// Bytes received and sent.
    pub bytes: (u64, u64),
    /// Side that ended it.
    pub by: EndedBy,
    /// Close code.
    pub code: Option<SessionCode>,
}

impl Porter {
    /// Starts a relay with `workers` workers and a porter that admits every session at first.
    pub fn relay(workers: usize) -> (TestRelay, Arc<Self>) {
        Self::relay_with(workers, |_| {})
    }

    /// The same, with options changed by `change`.
    pub fn relay_with(
        workers: usize,
        change: impl FnOnce(&mut crate::relay::RelayOptions),
    ) -> (TestRelay, Arc<Self>) {
        let porter = Arc::new(Self {
            policy: Mutex::new(open()),
            is_slow: AtomicBool::new(false),
            owed: Mutex::default(),
            admitted: Mutex::default(),
            ended: Mutex::default(),
            sessions: OnceLock::new(),
        });
        let gate = porter.clone();
        let relay = TestRelay::with(workers, |options| {
            options.gate = gate;
            change(options);
        });
        (relay, porter)
    }

    /// Replaces the policy for later requests.
    pub fn judge_by(&self, policy: Policy) {
        *lock(&self.policy) = policy;
    }

    /// Sets whether answers are delayed until [`Porter::answer`].
    pub fn be_slow(&self, slow: bool) {
        self.is_slow.store(slow, Ordering::Relaxed);
    }

    /// Number of delayed answers.
    pub fn owes(&self) -> usize {
        lock(&self.owed).len()
    }

    /// Gives all delayed answers.
    pub fn answer(&self) {
        for (request, reply) in lock(&self.owed).drain(..).collect::<Vec<_>>() {
            reply.give(self.judge(&request));
        }
    }

    /// Handle on the relay's sessions.
    pub fn sessions(&self) -> &SessionControl {
        self.sessions.get().expect("the relay has started")
    }

    /// Admitted sessions, in order.
    pub fn admitted(&self) -> Vec<SessionId> {
        lock(&self.admitted).clone()
    }

    /// Waits until `count` sessions were admitted; returns the last of them.
    pub async fn wait_admitted(&self, count: usize) -> SessionId {
        wait_until("sessions", 10, || self.admitted().len() >= count).await;
        *self.admitted().last().expect("a session")
    }

    /// Reported ends of sessions.
    pub fn farewells(&self) -> Vec<Farewell> {
        lock(&self.ended).clone()
    }

    fn judge(&self, request: &AdmissionRequest) -> Result<Permit, Denial> {
        let permit = lock(&self.policy).admit(request.conn.target(), request.now)?;
        lock(&self.admitted).push(request.session);
        Ok(permit)
    }
}

impl Gate for Porter {
    fn admit(&self, request: &AdmissionRequest) -> GateAnswer {
        if self.is_slow.load(Ordering::Relaxed) {
            lock(&self.owed).push((request.clone(), request.reply()));
            return GateAnswer::Later;
        }
        GateAnswer::Now(self.judge(request))
    }

    fn ended(&self, ended: &SessionEnded<'_>) {
        let SessionEnded { session, admitted, by, code, .. } = *ended;
        let bytes = (ended.bytes_in, ended.bytes_out);
        lock(&self.ended).push(Farewell { session, admitted, bytes, by, code });
    }

    fn started(&self, sessions: &SessionControl) {
        assert!(self.sessions.set(sessions.clone()).is_ok(), "told twice");
    }
}

/// Policy that allows everything to everybody.
pub fn open() -> Policy {
    Policy::public(Scope::everything(), Scope::everything())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
