//! Who comes in: sessions are made, admitted, refused, and end.

use std::time::{Instant, SystemTime};

use relay_auth::Permit;
use relay_core::Event;
use relay_model::{Ask, Hop, SessionCode};
use relay_session::{
    Config, Grant, Output, Session,
    transport::{Closed, Transport},
};
use relay_transport::quic::Phase;
use relay_wire::lite;

use super::{
    SESSIONS, Stage, State, Worker, guard,
    words::{self, Parting},
};

/// Hops we draw fit a JSON number.
const HOP_BITS: u32 = 53;

impl Worker {
    /// Makes the session of a connection that has become ready. False: the peer is gone.
    pub(super) fn make_session(&mut self, index: u32, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(index) else { return false };
        if peer.state != State::Opening {
            return true;
        }
        let Some(conn) = self.endpoint.conn(peer.conn) else { return true };
        let Some(version) = conn.protocol().and_then(lite::Version::from_alpn) else {
            self.meter.refused_version += 1;
            self.refuse(index, now, SessionCode::VERSION, "no version in common");
            return true;
        };
        let target = conn.target().map(str::to_owned);
        let stamp = Hop((self.random.next() >> (u64::BITS - HOP_BITS)).max(1));
        peer.state = State::Waiting;
        peer.session = Some(Box::new(Session::new(Config {
            id: peer.id,
            worker: self.id,
            hop: self.shared.hop,
            stamp,
            version,
            has_url: target.is_some(),
            started: self.shared.started,
        })));
        if let Some(target) = target {
            self.admit(index, now, &target);
        }
        self.with_session(index, Stage::Input, now, |session, _, cx| session.start(cx))
    }

    /// What a session wants: most of it is for core.
    pub(super) fn take_outputs(&mut self, index: u32, now: Instant) {
        let mut out = std::mem::take(&mut self.scratch.out);
        let id = self.peers.get(index).map(|peer| peer.id);
        let announces = |output: &Output| matches!(output, Output::Ask(Ask::Announce { .. }));
        if out.iter().any(announces)
            && let Some(peer) = self.peers.get_mut(index)
        {
            peer.publishes = true;
        }
        for output in out.drain(..) {
            match (output, id) {
                (Output::Ask(ask), Some(session)) => {
                    tracing::trace!(target: SESSIONS, %session, ?ask, "asks");
                    self.events.push(Event::Ask { session, ask });
                }
                (Output::Authorize { target }, Some(_)) => self.admit(index, now, &target),
                (_, None) => {}
            }
        }
        if self.scratch.out.is_empty() {
            self.scratch.out = out;
        }
    }

    /// Lets a session in, or closes it, by what it asked for.
    fn admit(&mut self, index: u32, now: Instant, target: &str) {
        let Some(peer) = self.peers.get_mut(index).filter(|peer| peer.state == State::Waiting) else {
            return;
        };
        match self.shared.policy.admit(target, SystemTime::now()) {
            Ok(permit) => {
                peer.state = State::Open { until: expiry(&permit, now) };
                self.meter.sessions_opened += 1;
                if let Some(conn) = self.endpoint.conn(peer.conn) {
                    words::accepted(peer.id, conn, &permit);
                }
                let grant = Grant {
                    root: permit.root().clone(),
                    publish: permit.publish().clone(),
                    subscribe: permit.subscribe().clone(),
                    is_peer: permit.is_peer(),
                };
                // Before anything the session asks.
                self.events.push(Event::Opened { session: peer.id, permit });
                self.with_session(index, Stage::Input, now, |session, conn, cx| {
                    session.authorized(conn, cx, grant);
                });
            }
            Err(refusal) => {
                match refusal {
                    relay_auth::Refusal::Malformed => self.meter.refused_malformed += 1,
                    _ => self.meter.refused_unauthorized += 1,
                }
                self.refuse(index, now, refusal.session_code(), &refusal.to_string());
            }
        }
    }

    /// Closes a connection that was never let in. Whoever calls counts why.
    pub(super) fn refuse(&mut self, index: u32, now: Instant, code: SessionCode, reason: &str) {
        if let Some(peer) = self.peers.get_mut(index) {
            words::refused(peer.id, self.endpoint.conn(peer.conn), code, reason);
            peer.state = State::Over;
        }
        self.close(index, now, code, reason);
    }

    /// Closes a connection; its session ends when the close is flushed.
    pub(super) fn close(&mut self, index: u32, now: Instant, code: SessionCode, reason: &str) {
        let Self { peers, endpoint, .. } = self;
        let Some(peer) = peers.get_mut(index) else { return };
        let key = peer.conn;
        peer.parting.get_or_insert_with(|| Parting { code, reason: reason.into() });
        let closed = guard(|| {
            if let Some(conn) = endpoint.conn(key) {
                conn.close(now, code, reason);
            }
        });
        match closed {
            Some(()) => self.mark_dirty(index),
            None => self.bury(index, Stage::Flush),
        }
    }

    /// Before a peer is flushed: if its connection is over, so is its session. False: the peer is gone.
    pub(super) fn conclude(&mut self, index: u32, now: Instant) -> bool {
        let Self { peers, endpoint, .. } = self;
        let Some(peer) = peers.get_mut(index) else { return false };
        let phase = endpoint.conn(peer.conn).map_or(Phase::Drained, |conn| conn.phase());
        if matches!(phase, Phase::Opening | Phase::Ready) {
            return true;
        }
        // It hears of its end, and says its last words to core.
        if peer.session.is_some()
            && !self.with_session(index, Stage::Input, now, |session, conn, cx| session.input(conn, cx))
        {
            return false;
        }
        let Self { peers, endpoint, fanout, .. } = self;
        let Some(peer) = peers.get_mut(index) else { return false };
        let (id, key) = (peer.id, peer.conn);
        let session = peer.session.take();
        let (parting, lasted) = (peer.parting.take(), words::lasted(peer.admit_by, now));
        let vanished = !matches!(
            session.as_ref().and_then(|session| session.closed()),
            Some(Closed::ByUs | Closed::ByPeer(..))
        );
        let state = std::mem::replace(&mut peer.state, State::Over);
        let clean = guard(|| {
            match state {
                State::Open { .. } => {
                    let said = session.as_ref().and_then(|session| session.parting());
                    let said = said.map(|(code, reason)| Parting { code, reason: reason.into() });
                    let why = session.as_ref().and_then(|session| session.closed());
                    words::ended(id, why, parting.or(said).as_ref(), lasted);
                }
                State::Opening | State::Waiting => words::failed(id, endpoint.conn(key)),
                State::Over => {}
            }
            if let Some(mut session) = session {
                session.leave(fanout);
            }
            endpoint.settle(key, now);
        });
        self.count_end(id, &state, vanished);
        if clean.is_none() {
            self.bury(index, Stage::Input);
            return false;
        }
        true
    }
}

/// When a permit ends, on the clock of this process.
fn expiry(permit: &Permit, now: Instant) -> Option<Instant> {
    let left = permit.expires()?.duration_since(SystemTime::now()).unwrap_or_default();
    now.checked_add(left)
}
