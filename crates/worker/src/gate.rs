//! Admission of sessions, and changes to admitted ones: the interface between the workers and an authorizer.
//!
//! A [`Gate`] is asked once per session. It answers at once, or later through a [`GateReply`] while the session
//! waits, at most `limits::AUTH_TIMEOUT`. It may narrow, widen or end admitted sessions through [`SessionControl`],
//! and is notified once of the end of each session it was asked about.
//!
//! None of this is on the packet path: a gate costs once per session, and a change once per affected session.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use relay_auth::{Permit, Policy, Refusal};
pub use relay_model::Role;
use relay_model::{SessionCode, SessionId};

use crate::{
    conn_info::ConnInfo,
    mailbox::{Mailbox, WorkerMessage},
};

/// Authorizer of sessions. A [`Policy`] is a gate that answers at once.
pub trait Gate: Send + Sync {
    /// Decides whether to admit a session. Runs on the worker's thread between packets and must not block; to
    /// answer later, keep [`AdmissionRequest::reply`] and return [`GateAnswer::Later`].
    fn admit(&self, request: &AdmissionRequest) -> GateAnswer;

    /// Notifies of the end of a session that [`Gate::admit`] was asked about, admitted or not. Called once
    /// per session, after `admit`; an answer still pending is dropped. Runs on the worker's thread and must
    /// not block.
    fn ended(&self, ended: &SessionEnded<'_>) {
        let _ = ended;
    }

    /// Provides the handle for changing sessions. Called once, before the first `admit`.
    fn started(&self, sessions: &SessionControl) {
        let _ = sessions;
    }
}

/// Reply of a gate.
#[derive(Clone, Debug)]
pub enum GateAnswer {
    /// Final answer.
    Now(Result<Permit, Denial>),
    /// The answer follows through the [`GateReply`] of the request; without one the session times out.
    Later,
}

/// Admission request of a session. Its `Debug` omits possible secrets.
#[derive(Clone, Debug)]
pub struct AdmissionRequest {
    /// Id of the session, assigned with its first packet.
    pub session: SessionId,
    /// Connection, with the request target of the session.
    pub conn: ConnInfo,
    /// Time of the request, wall clock.
    pub now: SystemTime,
    /// Destination of a late answer.
    pub(crate) mailbox: Arc<Mailbox>,
}

impl AdmissionRequest {
    /// Handle for a late answer, usable from any thread together with [`GateAnswer::Later`].
    pub fn reply(&self) -> GateReply {
        GateReply { session: self.session, mailbox: Some(self.mailbox.clone()) }
    }
}

/// Pending answer. Dropping it denies the session with [`Denial::Unavailable`].
#[derive(Debug)]
pub struct GateReply {
    session: SessionId,
    /// `None` once the answer was given.
    mailbox: Option<Arc<Mailbox>>,
}

impl GateReply {
    /// Session of the request.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Gives the answer. It is rejected if its permit was revoked since the request
    /// ([`SessionControl::end_where`]).
    pub fn give(mut self, answer: Result<Permit, Denial>) {
        self.post(answer);
    }

    fn post(&mut self, answer: Result<Permit, Denial>) {
        if let Some(mailbox) = self.mailbox.take() {
            mailbox.post(&mut vec![WorkerMessage::Answer(self.session, answer)]);
        }
    }
}

impl Drop for GateReply {
    fn drop(&mut self) {
        self.post(Err(Denial::Unavailable));
    }
}

/// Reason for denying a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denial {
    /// The requested path is not allowed, or the request is malformed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The permit has expired.
    #[error("expired")]
    Expired,
    /// The authorizer cannot be reached or failed: nobody is admitted without its answer. Clients may retry.
    #[error("authorization unavailable")]
    Unavailable,
    /// The authorizer did not answer in time. Clients may retry.
    #[error("authorization timed out")]
    TimedOut,
}

impl Denial {
    /// Code the session is closed with. "Unauthorized" only for denials that a retry cannot change: clients
    /// do not reconnect after it.
    pub fn session_code(self) -> SessionCode {
        match self {
            Self::Refused(refusal) => refusal.session_code(),
            Self::Expired => SessionCode::UNAUTHORIZED,
            Self::Unavailable => SessionCode::INTERNAL,
            Self::TimedOut => SessionCode::TIMEOUT,
        }
    }
}

/// End of a session that the gate was asked about.
#[derive(Clone, Debug)]
pub struct SessionEnded<'a> {
    /// Id of the session.
    pub session: SessionId,
    /// Whether it was admitted.
    pub admitted: bool,
    /// Bytes received: UDP payload including the handshake; on a stream socket including TLS, since the
    /// hand-over.
    pub bytes_in: u64,
    /// Bytes sent, counted in the same way.
    pub bytes_out: u64,
    /// Time since the first packet of the connection.
    pub lasted: Duration,
    /// Party that ended it.
    pub by: EndedBy,
    /// Close code, if it was closed.
    pub code: Option<SessionCode>,
    /// Close reason; peer-controlled if the peer closed it: escape it for display.
    pub reason: &'a str,
}

/// Party that ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The client.
    Peer,
    /// This relay.
    Relay,
    /// Neither side closed it: idle timeout, reset, or lost connection.
    Transport,
}

impl EndedBy {
    /// Name for logs and requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Relay => "relay",
            Self::Transport => "transport",
        }
    }
}

/// Handle for changing admitted sessions, from any thread. Ids are never reused: calls for an ended session
/// do nothing.
#[derive(Clone)]
pub struct SessionControl(Arc<[Arc<Mailbox>]>);

impl SessionControl {
    pub(crate) fn new(mailboxes: &[Arc<Mailbox>]) -> Self {
        Self(mailboxes.into())
    }

    /// Ends an admitted session. The peer is sent `reason`, which must not hold secrets.
    pub fn end(&self, session: SessionId, code: SessionCode, reason: &str) {
        self.post(session, WorkerMessage::End { session, code, reason: reason.into() });
    }

    /// Replaces the permit of an admitted session: what it no longer allows ends, what it newly allows
    /// becomes visible, and its expiry replaces the old one. With another root or subject the session ends,
    /// as its peer must reconnect.
    pub fn revise(&self, session: SessionId, permit: Permit) {
        self.post(session, WorkerMessage::Revise(session, permit));
    }

    /// Ends every session whose permit matches `which`, such as those of a removed key or a revoked subject.
    /// Call it once new answers are no longer based on the revoked credential; pending answers based on it
    /// are rejected too. `which` runs on the workers' threads and must not block; a panic in it matches every
    /// permit.
    pub fn end_where(
        &self,
        code: SessionCode,
        reason: &str,
        which: impl Fn(&Permit) -> bool + Send + Sync + 'static,
    ) {
        let (which, reason): (PermitFilter, Arc<str>) = (PermitFilter(Arc::new(which)), reason.into());
        for mailbox in &*self.0 {
            let (which, reason) = (which.clone(), reason.clone());
            mailbox.post(&mut vec![WorkerMessage::EndWhere { which, code, reason }]);
        }
    }

    fn post(&self, session: SessionId, message: WorkerMessage) {
        if let Some(mailbox) = self.0.get(usize::from(session.worker().0)) {
            mailbox.post(&mut vec![message]);
        }
    }
}

impl fmt::Debug for SessionControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

/// Filter for permits.
#[derive(Clone)]
pub struct PermitFilter(Arc<dyn Fn(&Permit) -> bool + Send + Sync>);

impl PermitFilter {
    /// Whether `permit` matches.
    pub fn matches(&self, permit: &Permit) -> bool {
        (self.0)(permit)
    }
}

impl fmt::Debug for PermitFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Which")
    }
}

/// Source of the time of day, which may step in either direction.
pub type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

impl Gate for Policy {
    fn admit(&self, request: &AdmissionRequest) -> GateAnswer {
        GateAnswer::Now(Policy::admit(self, request.conn.target(), request.now).map_err(Denial::from))
    }
}
