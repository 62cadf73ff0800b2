//! Permit changes and revocations of admitted sessions, and notifying the gate of their end.

use std::time::Instant;

use relay_auth::Permit;
use relay_core::CoreEvent;
use relay_meter::Worker as Meter;
use relay_model::{SessionCode, SessionId, transport::TransportClosed};
use relay_transport::quic::Endpoint;

use super::{
    PeerState, TurnStage, Worker, WorkerShared,
    expiry::Expiring,
    guard,
    peer::{TakenBack, WorkerPeer},
    trace::{self, Parting},
};
use crate::gate::{PermitFilter, SessionEnded};

/// Close reason of a session whose new permit is for another root, subject or role.
pub const IDENTITY_CHANGED: &str = "token subject changed";

impl Worker {
    /// Replaces the permit of a session. Core gets the change before any later request of the session.
    pub(super) fn revise(&mut self, session: SessionId, now: Instant, permit: Permit) {
        let Some(index) = self.open_peer(session) else { return };
        let Some(peer) = self.peers.get_mut(index) else { return };
        let Some(before) = peer.permit.as_ref() else { return };
        if !permit.has_identity_of(before) {
            // Routes and paths are bound to the identity, so the peer must reconnect.
            self.revoke(session, now, SessionCode::UNAUTHORIZED, IDENTITY_CHANGED);
            return;
        }
        let Some(before) = peer.permit.replace(permit.clone()) else { return };
        // Core does not know the session yet, and will get it with this permit.
        let is_placed = matches!(peer.state, PeerState::Placed(_));
        self.meter.sessions_revised += 1;
        trace::revised(session);
        if !is_placed {
            self.expiring.set(session, before.expires(), permit.expires(), now);
        }
        if (before.publish(), before.subscribe()) == (permit.publish(), permit.subscribe()) || is_placed {
            return;
        }
        self.events.push(CoreEvent::Revised { session, permit: permit.clone() });
        self.with_session(index, TurnStage::Order, now, |session, conn, cx| {
            session.revised(conn, cx, permit);
        });
    }

    /// Ends an admitted session.
    pub(super) fn revoke(&mut self, session: SessionId, now: Instant, code: SessionCode, reason: &str) {
        let Some(index) = self.open_peer(session) else { return };
        self.meter.sessions_revoked += 1;
        self.close(index, now, code, reason);
    }

    /// Ends every admitted session whose permit matches, and makes pending answers with such a permit
    /// rejected.
    pub(super) fn revoke_where(
        &mut self,
        which: PermitFilter,
        now: Instant,
        code: SessionCode,
        reason: &str,
    ) {
        let parting = Parting { code, reason: reason.into() };
        let taken_back = TakenBack { which, parting };
        let indices: Vec<u32> = self.peers.indices().collect();
        for index in indices {
            let Some(peer) = self.peers.get_mut(index) else { continue };
            match peer.state {
                PeerState::Asked(_) => peer.taken_back.push(taken_back.clone()),
                PeerState::Open | PeerState::Placed(_)
                    if peer.permit.as_ref().is_some_and(|permit| taken_back.is(permit)) =>
                {
                    let session = peer.id;
                    self.revoke(session, now, code, reason);
                }
                PeerState::Opening
                | PeerState::Waiting
                | PeerState::Placed(_)
                | PeerState::Open
                | PeerState::Over => {}
            }
        }
    }

    /// Index of a session that was admitted or has a place, unless it is being closed.
    pub(super) fn open_peer(&self, session: SessionId) -> Option<u32> {
        let index = self.peers.index_of(session)?;
        let peer = self.peers.get(index)?;
        (matches!(peer.state, PeerState::Open | PeerState::Placed(_)) && peer.parting.is_none())
            .then_some(index)
    }

    /// Notifies the gate of the end of the session at `index`, once. `ours`: code and reason of our close, if
    /// we closed it.
    pub(super) fn report(
        &mut self,
        index: u32,
        now: Instant,
        why: Option<&TransportClosed>,
        ours: Option<&Parting>,
    ) {
        let Self { peers, endpoint, shared, expiring, meter, .. } = self;
        if let Some(peer) = peers.get_mut(index) {
            report_of(peer, (endpoint, shared, expiring, meter), now, (why, ours));
        }
    }

    /// Notifies the gate of a lost session.
    pub(super) fn report_lost(&mut self, peer: &mut WorkerPeer, now: Instant) {
        let Self { endpoint, shared, expiring, meter, .. } = self;
        report_of(peer, (endpoint, shared, expiring, meter), now, (None, None));
    }

    /// Notifies the gate of all sessions left when the worker ends.
    pub(super) fn report_all(&mut self, now: Instant) {
        let indices: Vec<u32> = self.peers.indices().collect();
        for index in indices {
            self.report(index, now, None, None);
        }
    }
}

fn report_of(
    peer: &mut WorkerPeer,
    (endpoint, shared, expiring, meter): (&mut Endpoint, &WorkerShared, &mut Expiring, &mut Meter),
    now: Instant,
    (why, ours): (Option<&TransportClosed>, Option<&Parting>),
) {
    let permit = peer.permit.take();
    expiring.clear(peer.id, permit.as_ref().and_then(Permit::expires));
    if !std::mem::take(&mut peer.is_asked) {
        return;
    }
    let (by, code, reason) = trace::cause(why, ours);
    let told = guard(|| {
        let traffic = peer.carrier.conn(endpoint).map(|conn| conn.traffic()).unwrap_or_default();
        let ended = SessionEnded {
            session: peer.id,
            admitted: permit.is_some(),
            bytes_in: traffic.bytes_in,
            bytes_out: traffic.bytes_out,
            lasted: trace::lasted(peer.admit_by, now),
            by,
            code,
            reason,
        };
        shared.gate.ended(&ended);
    });
    if told.is_none() {
        meter.panics_input += 1;
        tracing::error!(session = %peer.id, "gate panicked at the end of a session");
    }
}
