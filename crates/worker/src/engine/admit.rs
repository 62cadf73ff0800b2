//! Creation, admission, refusal and end of sessions.

use std::time::Instant;

use relay_auth::{Permit, Refusal};
use relay_core::CoreEvent;
use relay_model::{
    Ask, Hop, Role, SessionCode, SessionId, limits,
    transport::{Transport, TransportClosed},
};
use relay_session::{Session, SessionConfig, SessionOutput};
use relay_transport::quic::ConnPhase;
use relay_wire::Version;

use super::{
    PeerCarrier, PeerState, SESSIONS, TurnStage, Worker, guard,
    trace::{self, Parting},
};
use crate::gate::{AdmissionRequest, Denial, GateAnswer};

/// Random hop ids fit a JSON number.
const HOP_BITS: u32 = 53;

/// Progress of a connection's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conclusion {
    /// The connection is open.
    Open,
    /// The connection is closed and its session has ended.
    Over,
    /// The connection is closed, but its session has more to read first, in another share.
    Later,
    /// The peer was dropped.
    Gone,
}

impl Worker {
    /// Creates the session of a connection that has become ready. False: the peer was dropped.
    pub(super) fn make_session(&mut self, index: u32, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(index) else { return false };
        if !matches!(peer.state, PeerState::Opening | PeerState::Placed(_)) {
            return true;
        }
        let Some(conn) = peer.carrier.conn(&mut self.endpoint) else { return true };
        // Without ALPN or subprotocol, the version is negotiated in the session.
        let name = conn.protocol().unwrap_or(Version::LEGACY_ALPN);
        let version = match name {
            name if !self.shared.quic.protocols().contains(&name) => None,
            Version::LEGACY_ALPN => Version::LEGACY.first().copied(),
            name => Version::from_alpn(name),
        };
        let Some(version) = version else {
            self.meter.refused_version += 1;
            self.refuse(index, now, SessionCode::VERSION, "no version in common");
            return true;
        };
        let target = conn.target().map(str::to_owned);
        let stamp = Hop((self.random.next() >> (u64::BITS - HOP_BITS)).max(1));
        let before = std::mem::replace(&mut peer.state, PeerState::Waiting);
        peer.session = Some(Box::new(Session::new(SessionConfig {
            id: peer.id,
            worker: self.id,
            hop: self.shared.hop,
            stamp,
            version,
            has_url: target.is_some(),
            started: self.shared.started,
            limits: self.shared.limits,
        })));
        match (before, target) {
            (PeerState::Placed(until), _) => self.open_placed(index, now, until),
            (_, Some(target)) => self.ask_gate(index, now, target, None),
            (_, None) => {}
        }
        self.with_session(index, TurnStage::Input, now, |session, _, cx| session.start(cx))
    }

    /// Applies the gate's answer that came before the session existed.
    fn open_placed(&mut self, index: u32, now: Instant, until: Instant) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        peer.state = PeerState::Asked(until);
        if let Some(permit) = peer.permit.take() {
            self.decide(index, now, Ok(permit));
        }
    }

    /// Handles the outputs of a session, most of which are requests to core.
    pub(super) fn take_outputs(&mut self, index: u32, now: Instant) {
        let mut out = std::mem::take(&mut self.scratch.out);
        let id = self.peers.get(index).map(|peer| peer.id);
        let announces = |output: &SessionOutput| matches!(output, SessionOutput::Ask(Ask::Announce { .. }));
        if out.iter().any(announces)
            && let Some(peer) = self.peers.get_mut(index)
        {
            peer.publishes = true;
        }
        for output in out.drain(..) {
            match (output, id) {
                (SessionOutput::Ask(ask), Some(session)) => {
                    tracing::trace!(target: SESSIONS, %session, ?ask, "asks");
                    self.events.push(CoreEvent::Ask { session, ask });
                }
                (SessionOutput::Authorize { target, role }, Some(_)) => {
                    self.ask_gate(index, now, target, role)
                }
                (_, None) => {}
            }
        }
        if self.scratch.out.is_empty() {
            self.scratch.out = out;
        }
    }

    /// Asks the gate to admit a session.
    pub(super) fn ask_gate(&mut self, index: u32, now: Instant, target: String, role: Option<Role>) {
        let Self { peers, endpoint, shared, mailbox, .. } = self;
        let Some(peer) = peers.get_mut(index).filter(|peer| peer.state == PeerState::Waiting) else { return };
        let Some(conn) = peer.carrier.conn(endpoint) else { return };
        // Not known yet for sessions with a URL that negotiate it later.
        let version = peer.session.as_ref().and_then(|session| session.version());
        let mut info = conn.info(shared.local);
        info.target = Some(target);
        info.role = role;
        info.version = Some(version.map_or(Version::LEGACY_ALPN, Version::name));
        let request =
            AdmissionRequest { session: peer.id, conn: info, now: (shared.wall)(), mailbox: mailbox.clone() };
        (peer.is_asked, peer.state) = (true, PeerState::Asked(now + limits::AUTH_TIMEOUT));
        let gate = shared.gate.clone();
        match guard(|| gate.admit(&request)) {
            Some(GateAnswer::Now(answer)) => self.decide(index, now, answer),
            Some(GateAnswer::Later) => self.mark_dirty(index),
            None => self.drop_panicked(index, TurnStage::Input),
        }
    }

    /// Handles a late answer of the gate, which is ignored if the session has ended.
    pub(super) fn answered(&mut self, session: SessionId, now: Instant, answer: Result<Permit, Denial>) {
        if let Some(index) = self.peers.index_of(session) {
            self.decide(index, now, answer);
        }
    }

    /// Admits a session or closes it. Only the first answer counts.
    fn decide(&mut self, index: u32, now: Instant, answer: Result<Permit, Denial>) {
        let wall = (self.shared.wall)();
        let answer = answer.and_then(|permit| match permit.expires() {
            Some(at) if at <= wall => Err(Denial::Expired),
            _ => Ok(permit),
        });
        let Some(peer) = self.peers.get_mut(index).filter(|peer| matches!(peer.state, PeerState::Asked(_)))
        else {
            return;
        };
        let permit = match answer {
            Ok(permit) => permit,
            Err(denial) => return self.deny(index, now, denial),
        };
        let taken_back = std::mem::take(&mut peer.taken_back);
        if let Some(hit) = taken_back.into_iter().find(|taken_back| taken_back.is(&permit)) {
            self.meter.refused_unauthorized += 1;
            self.reject_arrival(index, Some(Refusal::Unauthorized.into()));
            self.refuse(index, now, hit.parting.code, &hit.parting.reason);
            return;
        }
        if peer.session.is_none() {
            // The socket is handed over first.
            (peer.state, peer.permit) = (PeerState::Placed(now + limits::SETUP_TIMEOUT), Some(permit));
            self.mark_dirty(index);
            return self.give_admission(index);
        }
        (peer.state, peer.permit) = (PeerState::Open, Some(permit.clone()));
        let id = peer.id;
        if permit.is_peer() {
            peer.charge.make_peer();
        }
        self.meter.sessions_opened += 1;
        self.expiring.set(id, None, permit.expires(), now);
        if let Some(conn) = peer.carrier.conn(&mut self.endpoint) {
            trace::accepted(id, &conn, &permit);
        }
        // Sent before any request of the session.
        self.events.push(CoreEvent::Opened { session: id, permit: permit.clone() });
        self.with_session(index, TurnStage::Input, now, |session, conn, cx| {
            session.authorized(conn, cx, permit);
        });
    }

    /// Denies a session.
    pub(super) fn deny(&mut self, index: u32, now: Instant, denial: Denial) {
        *match denial {
            Denial::Refused(Refusal::Malformed) => &mut self.meter.refused_malformed,
            Denial::Refused(_) | Denial::Expired => &mut self.meter.refused_unauthorized,
            Denial::Unavailable => &mut self.meter.refused_unavailable,
            Denial::TimedOut => &mut self.meter.refused_auth_timeout,
        } += 1;
        self.reject_arrival(index, Some(denial));
        self.refuse(index, now, denial.session_code(), &denial.to_string());
    }

    /// Closes a connection that was never admitted. The caller counts the reason.
    pub(super) fn refuse(&mut self, index: u32, now: Instant, code: SessionCode, reason: &str) {
        if let Some(peer) = self.peers.get_mut(index) {
            trace::refused(peer.id, peer.carrier.conn(&mut self.endpoint).as_ref(), code, reason);
            peer.state = PeerState::Over;
        }
        self.close(index, now, code, reason);
    }

    /// Closes a connection; its session ends when the close is flushed.
    pub(super) fn close(&mut self, index: u32, now: Instant, code: SessionCode, reason: &str) {
        let Self { peers, endpoint, .. } = self;
        let Some(peer) = peers.get_mut(index) else { return };
        peer.parting.get_or_insert_with(|| Parting { code, reason: reason.into() });
        let closed = guard(|| {
            if let Some(mut conn) = peer.carrier.conn(endpoint) {
                conn.close(now, code, reason);
            }
        });
        match closed {
            Some(()) => self.mark_dirty(index),
            None => self.drop_panicked(index, TurnStage::Flush),
        }
    }

    /// Ends the session of a closed connection once it has read all input. Called before each flush of a
    /// peer.
    pub(super) fn conclude(&mut self, index: u32, now: Instant) -> Conclusion {
        let Self { peers, endpoint, .. } = self;
        let Some(peer) = peers.get_mut(index) else { return Conclusion::Gone };
        let phase = peer.carrier.conn(endpoint).map_or(ConnPhase::Drained, |conn| conn.phase());
        if matches!(phase, ConnPhase::Opening | ConnPhase::Ready) {
            return Conclusion::Open;
        }
        // The closed event comes last, after all data.
        if peer.is_touched && peer.session.as_ref().is_some_and(|session| session.closed().is_none()) {
            return Conclusion::Later;
        }
        if peer.session.is_some()
            && !self.with_session(index, TurnStage::Input, now, |session, conn, cx| session.input(conn, cx))
        {
            return Conclusion::Gone;
        }
        let Some(peer) = self.peers.get_mut(index) else { return Conclusion::Gone };
        if peer.is_touched && peer.session.as_ref().is_some_and(|session| session.closed().is_none()) {
            return Conclusion::Later;
        }
        let id = peer.id;
        let session = peer.session.take();
        let why = session.as_ref().and_then(|session| session.closed()).cloned();
        let said = session.as_ref().and_then(|session| session.parting());
        let said = said.map(|(code, reason)| Parting { code, reason: reason.into() });
        let (parting, lasted) = (peer.parting.take().or(said), trace::lasted(peer.admit_by, now));
        let vanished = !matches!(why, Some(TransportClosed::ByUs | TransportClosed::ByPeer(..)));
        let state = std::mem::replace(&mut peer.state, PeerState::Over);
        self.report(index, now, why.as_ref(), parting.as_ref());
        self.reject_arrival(index, None);
        let Self { peers, endpoint, fanout, .. } = self;
        let Some(peer) = peers.get_mut(index) else { return Conclusion::Gone };
        let clean = guard(|| {
            match state {
                PeerState::Open => trace::ended(id, why.as_ref(), parting.as_ref(), lasted),
                PeerState::Opening | PeerState::Waiting | PeerState::Asked(_) | PeerState::Placed(_) => {
                    trace::failed(id, peer.carrier.conn(endpoint));
                }
                PeerState::Over => {}
            }
            if let Some(mut session) = session {
                session.leave(fanout);
            }
            if let PeerCarrier::Quic(key) = peer.carrier {
                endpoint.process_connection(key, now);
            }
        });
        self.count_end(id, state, vanished);
        self.charge(index, now);
        if clean.is_none() {
            self.drop_panicked(index, TurnStage::Input);
            return Conclusion::Gone;
        }
        Conclusion::Over
    }
}
