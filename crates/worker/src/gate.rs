//! Who may come in, and what becomes of it while the session lives: between the workers and whoever decides.
//!
//! A [`Gate`] is asked once a session. It answers at once, or later through a [`Reply`]; the session waits,
//! bounded by `limits::AUTH_TIMEOUT`. What it let in it may narrow, widen or end through [`Sessions`], and it
//! hears once of the end of each session that it was asked about.
//!
//! Everything here is off the path of packets: a gate costs once a session, and an order once for what it
//! changes.

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use relay_auth::{Permit, Policy, Refusal};
use relay_model::{SessionCode, SessionId};
use relay_transport::quic::PeerCertificate;
pub use relay_wire::lite::Role;

use crate::mailbox::{Letter, Mailbox};

/// Decides who comes in. A [`Policy`] is one that answers at once.
pub trait Gate: Send + Sync {
    /// May this session come in? Runs on the worker's thread, between packets: it must not wait for
    /// anything. Who has to wait keeps [`Request::reply`] and says [`Answer::Later`].
    fn admit(&self, request: &Request) -> Answer;

    /// A session that [`Gate::admit`] was asked about is over, let in or not. Once each, and never before
    /// `admit` was asked; an answer may still be under way, and is dropped. Runs on the worker's thread: it
    /// must not wait.
    fn ended(&self, ended: &Ended<'_>) {
        let _ = ended;
    }

    /// The relay is about to serve: what acts on its sessions. Called once, before `admit` is.
    fn started(&self, sessions: &Sessions) {
        let _ = sessions;
    }
}

/// A gate's answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// In, or out.
    Now(Result<Permit, Denial>),
    /// It comes through the [`Reply`] of the request. Without one the session waits in vain, for as long as
    /// it may.
    Later,
}

/// Who asks to come in, and from where. Its `Debug` leaves out what may be a secret.
#[derive(Clone)]
pub struct Request {
    /// The session, from its first packet on.
    pub session: SessionId,
    /// Path and query, raw as the peer sent them; empty where nothing carries one. May hold a token.
    pub target: String,
    /// What carries it: `webtransport`, `quic`, `websocket`, `tcp` or `unix`.
    pub transport: &'static str,
    /// The protocol version, as ALPN or subprotocol names it; empty where it is agreed on only later.
    pub version: &'static str,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Our address that it came to.
    pub local: SocketAddr,
    /// The host it asked for (SNI).
    pub server_name: Option<String>,
    /// The only thing it says it wants to do; `None` = both, or not said yet (WebTransport).
    pub role: Option<Role>,
    /// The origin of the page it comes from, if a browser says one.
    pub origin: Option<String>,
    /// The certificate it showed, if it was asked for one and the chain is good.
    pub certificate: Option<PeerCertificate>,
    /// Wall clock.
    pub now: SystemTime,
    /// Where a late answer goes.
    pub(crate) mailbox: Arc<Mailbox>,
}

impl Request {
    /// The means to answer later, from any thread. For who then says [`Answer::Later`].
    pub fn reply(&self) -> Reply {
        Reply { session: self.session, mailbox: Some(self.mailbox.clone()) }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("session", &self.session)
            .field("transport", &self.transport)
            .field("version", &self.version)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

/// An answer that is still owed. Dropped, it is [`Denial::Unavailable`].
#[derive(Debug)]
pub struct Reply {
    session: SessionId,
    /// Until it is given.
    mailbox: Option<Arc<Mailbox>>,
}

impl Reply {
    /// Whom it is for.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The answer. One made of what was taken back since the question ([`Sessions::end_where`]) does not
    /// count.
    pub fn give(mut self, answer: Result<Permit, Denial>) {
        self.post(answer);
    }

    fn post(&mut self, answer: Result<Permit, Denial>) {
        if let Some(mailbox) = self.mailbox.take() {
            mailbox.post(&mut vec![Letter::Answer(self.session, answer)]);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.post(Err(Denial::Unavailable));
    }
}

/// Why a session is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Denial {
    /// What it asks for is not allowed, or is no request at all.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Its permit is over already.
    #[error("expired")]
    Expired,
    /// Who decides cannot be asked, or fails: nobody is let in on a guess. Clients may try again.
    #[error("authorization unavailable")]
    Unavailable,
    /// Who decides did not answer in time. Clients may try again.
    #[error("authorization timed out")]
    TimedOut,
}

impl Denial {
    /// What the session is closed with. Only what a new attempt cannot change is "unauthorized": clients do
    /// not come back after that.
    pub fn session_code(self) -> SessionCode {
        match self {
            Self::Refused(refusal) => refusal.session_code(),
            Self::Expired => SessionCode::UNAUTHORIZED,
            Self::Unavailable => SessionCode::INTERNAL,
            Self::TimedOut => SessionCode::TIMEOUT,
        }
    }
}

/// How a session ended that the gate was asked about.
#[derive(Clone, Debug)]
pub struct Ended<'a> {
    /// Which one.
    pub session: SessionId,
    /// It had been let in.
    pub admitted: bool,
    /// Bytes received: UDP payload, also of the handshake; on a stream socket with TLS, since it came here.
    pub bytes_in: u64,
    /// Bytes sent, the same.
    pub bytes_out: u64,
    /// Since the connection's first packet.
    pub lasted: Duration,
    /// Who ended it.
    pub by: EndedBy,
    /// The code it was closed with, if anybody closed it.
    pub code: Option<SessionCode>,
    /// In words; the peer's own if the peer ended it, to be escaped wherever they are shown.
    pub reason: &'a str,
}

/// Who ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// The client.
    Peer,
    /// We.
    Relay,
    /// Nobody meant it: idle timeout, reset, loss of the connection.
    Transport,
}

impl EndedBy {
    /// One word, for logs and requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Relay => "relay",
            Self::Transport => "transport",
        }
    }
}

/// Acts on live sessions, from any thread. Ids are never given twice: what is meant for a session that has
/// ended does nothing.
#[derive(Clone)]
pub struct Sessions(Arc<[Arc<Mailbox>]>);

impl Sessions {
    pub(crate) fn new(mailboxes: &[Arc<Mailbox>]) -> Self {
        Self(mailboxes.into())
    }

    /// Ends a session that was let in. `reason` is what the peer is told: no secrets in it.
    pub fn end(&self, session: SessionId, code: SessionCode, reason: &str) {
        self.post(session, Letter::End { session, code, reason: reason.into() });
    }

    /// Replaces the permit of a session that was let in: what lies outside of the new one ends, what is
    /// wider now shows, and a new expiry takes the old one's place. It must be of the same root and subject;
    /// with another the session ends, for its peer has to come anew.
    pub fn revise(&self, session: SessionId, permit: Permit) {
        self.post(session, Letter::Revise(session, permit));
    }

    /// Ends every session whose permit is one of `which`: of a key that was removed, of a subject that was
    /// revoked. Call it once new answers are made without what is taken back: those that were made with it and
    /// are still under way are seen too. `which` runs on the workers' threads and must not wait; one that
    /// panics means everybody.
    pub fn end_where(
        &self,
        code: SessionCode,
        reason: &str,
        which: impl Fn(&Permit) -> bool + Send + Sync + 'static,
    ) {
        let (which, reason): (Which, Arc<str>) = (Which(Arc::new(which)), reason.into());
        for mailbox in &*self.0 {
            let (which, reason) = (which.clone(), reason.clone());
            mailbox.post(&mut vec![Letter::EndWhere { which, code, reason }]);
        }
    }

    fn post(&self, session: SessionId, letter: Letter) {
        if let Some(mailbox) = self.0.get(usize::from(session.worker().0)) {
            mailbox.post(&mut vec![letter]);
        }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

/// Says of a permit whether it is meant.
#[derive(Clone)]
pub struct Which(Arc<dyn Fn(&Permit) -> bool + Send + Sync>);

impl Which {
    /// Says so.
    pub fn is(&self, permit: &Permit) -> bool {
        (self.0)(permit)
    }
}

impl fmt::Debug for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Which")
    }
}

/// Gives the time of day. It may step, either way.
pub type WallClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

impl Gate for Policy {
    fn admit(&self, request: &Request) -> Answer {
        Answer::Now(Policy::admit(self, &request.target, request.now).map_err(Denial::from))
    }
}
