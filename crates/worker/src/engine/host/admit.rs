//! Creation and admission of sessions.

use std::time::Instant;

use relay_auth::{Permit, Refusal};
use relay_core::CoreEvent;
use relay_meter::Worker as Meter;
use relay_model::{Role, SessionCode, limits};
use relay_session::{Session, SessionConfig};
use relay_wire::Version;

use super::SessionHost;
use crate::{
    admission::{CloseReason, Denial, Rejection},
    engine::{peer::PeerState, shared::TurnStage, trace},
    gate::GateAnswer,
};

impl SessionHost {
    /// Creates the session of a connection that has become ready. False: the peer was dropped.
    pub(super) fn make_session(&mut self, index: u32, now: Instant) -> bool {
        let Self { peers, shared, .. } = self;
        let Some(peer) = peers.slots.get_mut(index) else { return false };
        if peer.session.is_some() || peer.state() == PeerState::Over {
            return true;
        }
        let Some(conn) = peer.carrier.conn(&mut peers.quic.endpoint) else { return true };
        // Without ALPN or subprotocol, the version is negotiated in the session.
        let name = conn.protocol().unwrap_or(Version::LEGACY_ALPN);
        let version = match name {
            name if !shared.quic.protocols().contains(&name) => None,
            Version::LEGACY_ALPN => Version::LEGACY.first().copied(),
            name => Version::from_alpn(name),
        };
        let target = conn.target().map(str::to_owned);
        let Some(version) = version else {
            self.meter.refused_version += 1;
            self.refuse(index, now, CloseReason::new(SessionCode::VERSION, "no version in common"));
            return true;
        };
        peer.session = Some(Box::new(Session::new(SessionConfig {
            id: peer.id,
            worker: self.id,
            hop: shared.hop,
            stamp: self.hops.next(),
            version,
            has_url: target.is_some(),
            started: shared.started,
            limits: shared.limits,
        })));
        match peer.admission.permit().cloned() {
            // Admitted before its socket was handed over.
            Some(permit) => self.open_session(index, now, permit),
            None if target.is_some() => self.ask_gate(index, now, target, None),
            None => {}
        }
        self.with_session(index, TurnStage::Input, now, |session, _, cx| session.start(cx))
    }

    /// Asks the gate to admit a session. `target` and `role` were declared by its SETUP.
    pub(super) fn ask_gate(&mut self, index: u32, now: Instant, target: Option<String>, role: Option<Role>) {
        let Self { peers, shared, gate, .. } = self;
        let Some(peer) = peers.slots.get_mut(index) else { return };
        if !peer.admission.is_unasked() {
            return;
        }
        let Some(conn) = peer.carrier.conn(&mut peers.quic.endpoint) else { return };
        let mut info = conn.info(shared.local);
        if target.is_some() {
            info.target = target;
        }
        info.role = role;
        // Not known yet for sessions with a URL that negotiate it later.
        let version = peer.session.as_ref().and_then(|session| session.version());
        info.version = Some(version.map_or(Version::LEGACY_ALPN, Version::name));
        if !peer.admission.ask(now) {
            return;
        }
        match gate.ask(peer.id, info) {
            Some(GateAnswer::Now(answer)) => self.decide(index, now, answer),
            Some(GateAnswer::Later) => self.peers.mark_dirty(index),
            None => self.drop_panicked(index, TurnStage::Input),
        }
    }

    /// Applies the gate's answer: admits a session or closes it.
    pub(in crate::engine) fn decide(&mut self, index: u32, now: Instant, answer: Result<Permit, Denial>) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        match peer.admission.handle_answer(answer, self.gate.wall()) {
            Some(Ok(permit)) if peer.session.is_some() => self.open_session(index, now, permit),
            // The socket is handed over first.
            Some(Ok(_)) => {
                if let Some(stream) = peer.carrier.stream() {
                    stream.socket_by = Some(now + limits::SETUP_TIMEOUT);
                }
                self.peers.mark_dirty(index);
                self.peers.give_admission(index, &self.mailbox);
            }
            Some(Err(rejection)) => self.deny(index, now, rejection),
            None => {}
        }
    }

    /// Opens an admitted session.
    fn open_session(&mut self, index: u32, now: Instant, permit: Permit) {
        let Self { peers, gate, expiry, meter, core, .. } = self;
        let Some(peer) = peers.slots.get_mut(index) else { return };
        // It may have expired since the admission.
        if peer.admission.expire(gate.wall()) {
            return self.deny(index, now, Denial::Expired.into());
        }
        let session = peer.id;
        if permit.is_peer() {
            peer.charge.make_peer();
        }
        meter.sessions_opened += 1;
        expiry.set(session, None, permit.expires(), now);
        if let Some(conn) = peer.carrier.conn(&mut peers.quic.endpoint) {
            trace::accepted(session, &conn, &permit);
        }
        // Sent before any request of the session.
        core.push(CoreEvent::Opened { session, permit: permit.clone() });
        self.with_session(index, TurnStage::Input, now, |session, conn, cx| {
            session.authorized(conn, cx, permit);
        });
    }

    /// Closes a session that the gate does not admit.
    pub(super) fn deny(&mut self, index: u32, now: Instant, rejection: Rejection) {
        *denials(&mut self.meter, rejection.denial) += 1;
        self.peers.reject_arrival(index, self.drain.has_begun(), Some(rejection.denial));
        self.refuse(index, now, rejection.close);
    }
}

/// Counter of denials for a reason.
fn denials(meter: &mut Meter, denial: Denial) -> &mut u64 {
    match denial {
        Denial::Refused(Refusal::Malformed) => &mut meter.refused_malformed,
        Denial::Refused(_) | Denial::Expired => &mut meter.refused_unauthorized,
        Denial::Unavailable => &mut meter.refused_unavailable,
        Denial::TimedOut => &mut meter.refused_auth_timeout,
    }
}
