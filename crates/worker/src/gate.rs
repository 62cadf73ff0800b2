//! Admission of sessions, and changes to admitted ones: the interface between the workers and an authorizer.
//!
//! A [`Gate`] is asked once per session. It answers at once, or later through a [`GateReply`] while the session
//! waits, at most `limits::AUTH_TIMEOUT`. It may narrow, widen or end admitted sessions through [`SessionControl`],
//! and is notified once of the end of each session it was asked about.
//!
//! None of this is on the packet path: a gate costs once per session, and a change once per affected session.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, SystemTime},
};

use relay_auth::{Permit, Policy};
pub use relay_model::Role;
use relay_model::{SessionCode, SessionId};

use crate::{
    admission::Denial,
    conn_info::ConnInfo,
    mailbox::{Mailbox, WorkerMessage},
    session_control::SessionControl,
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

/// Source of the time of day, which may step in either direction.
pub type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// A gate as seen by one worker; a panic in it costs no more than the asking session.
pub(crate) struct GateClient {
    gate: Arc<dyn Gate>,
    wall: WallClock,
    mailbox: Arc<Mailbox>,
}

impl GateClient {
    /// Creates a client whose late answers are posted to `mailbox`.
    pub(crate) fn new(gate: Arc<dyn Gate>, wall: WallClock, mailbox: Arc<Mailbox>) -> Self {
        Self { gate, wall, mailbox }
    }

    /// Time of day.
    pub(crate) fn wall(&self) -> SystemTime {
        (self.wall)()
    }

    /// Asks the gate to admit a session. `None`: it panicked.
    pub(crate) fn ask(&self, session: SessionId, conn: ConnInfo) -> Option<GateAnswer> {
        let request = AdmissionRequest { session, conn, now: self.wall(), mailbox: self.mailbox.clone() };
        catch_unwind(AssertUnwindSafe(|| self.gate.admit(&request))).ok()
    }

    /// Notifies the gate of the end of a session. False: it panicked.
    pub(crate) fn report(&self, ended: &SessionEnded<'_>) -> bool {
        let reported = catch_unwind(AssertUnwindSafe(|| self.gate.ended(ended)));
        if reported.is_err() {
            tracing::error!(session = %ended.session, "gate panicked at the end of a session");
        }
        reported.is_ok()
    }
}

impl Gate for Policy {
    fn admit(&self, request: &AdmissionRequest) -> GateAnswer {
        GateAnswer::Now(Policy::admit(self, request.conn.target(), request.now).map_err(Denial::from))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, net::Ipv4Addr};

    use relay_model::Scope;

    use super::*;

    /// Gate that keeps no reply, or panics.
    struct DroppingGate {
        panics: bool,
    }

    impl Gate for DroppingGate {
        fn admit(&self, request: &AdmissionRequest) -> GateAnswer {
            assert!(!self.panics, "injected");
            drop(request.reply());
            GateAnswer::Later
        }

        fn ended(&self, _: &SessionEnded<'_>) {
            assert!(!self.panics, "injected");
        }
    }

    fn client(gate: impl Gate + 'static) -> GateClient {
        let wall: WallClock = Arc::new(|| SystemTime::UNIX_EPOCH);
        GateClient::new(Arc::new(gate), wall, Arc::new(Mailbox::new(Box::new(|| {}))))
    }

    fn conn(target: &str) -> ConnInfo {
        let at = (Ipv4Addr::LOCALHOST, 443).into();
        ConnInfo { target: Some(target.to_owned()), ..ConnInfo::new("quic", at, at) }
    }

    #[test]
    fn policy_answers_at_once_for_the_target() {
        let client = client(Policy::public(Scope::everything(), Scope::everything()));
        let Some(GateAnswer::Now(Ok(permit))) = client.ask(SessionId(1), conn("/room")) else {
            panic!("denied");
        };
        assert_eq!(permit.root().as_str(), "room");
    }

    #[test]
    fn dropped_reply_is_posted_as_a_denial() {
        let client = client(DroppingGate { panics: false });
        assert!(matches!(client.ask(SessionId(7), conn("/")), Some(GateAnswer::Later)));
        let mut messages = VecDeque::new();
        client.mailbox.take(&mut messages);
        let message = messages.pop_front();
        let is_denial =
            matches!(message, Some(WorkerMessage::Answer(SessionId(7), Err(Denial::Unavailable))));
        assert!(is_denial, "{message:?}");
    }

    #[test]
    fn panic_in_the_gate_is_contained() {
        let client = client(DroppingGate { panics: true });
        assert!(client.ask(SessionId(1), conn("/")).is_none());
        let ended = SessionEnded {
            session: SessionId(1),
            admitted: false,
            bytes_in: 0,
            bytes_out: 0,
            lasted: Duration::ZERO,
            by: EndedBy::Relay,
            code: None,
            reason: "",
        };
        assert!(!client.report(&ended));
    }
}
