//! Changes, revocation and expiry of permits.

use std::time::Instant;

use relay_auth::Permit;
use relay_core::CoreEvent;
use relay_model::SessionId;

use super::SessionHost;
use crate::{
    admission::{CloseReason, PermitFilter, Revision},
    engine::{peer::PeerState, shared::TurnStage, trace},
};

impl SessionHost {
    /// Replaces the permit of a session. Core gets the change before any later request of the session.
    pub(in crate::engine) fn revise(&mut self, session: SessionId, now: Instant, permit: Permit) {
        let Some(index) = self.peers.index_of(session) else { return };
        let Some(peer) = self.peers.get_mut(index) else { return };
        let (expired_at, changes_scopes) = match peer.admission.revise(permit.clone()) {
            Revision::Ignored => return,
            Revision::MustClose => {
                self.meter.sessions_revoked += 1;
                return self.close_recorded(index, now);
            }
            Revision::Replaced { expired_at, changes_scopes } => (expired_at, changes_scopes),
        };
        let is_open = peer.state() == PeerState::Open;
        self.meter.sessions_revised += 1;
        trace::revised(session);
        // Otherwise core does not know the session yet, and will get it with this permit.
        if !is_open {
            return;
        }
        self.expiry.set(session, expired_at, permit.expires(), now);
        if changes_scopes {
            self.core.push(CoreEvent::Revised { session, permit: permit.clone() });
            self.with_session(index, TurnStage::Order, now, |session, conn, cx| {
                session.revised(conn, cx, permit);
            });
        }
    }

    /// Ends an admitted session. False: there is none with this id.
    pub(in crate::engine) fn revoke(&mut self, session: SessionId, now: Instant, close: CloseReason) -> bool {
        let Some(index) = self.peers.index_of(session) else { return false };
        let is_revoked = self.peers.get_mut(index).is_some_and(|peer| peer.admission.revoke(close));
        if is_revoked {
            self.meter.sessions_revoked += 1;
            self.close_recorded(index, now);
        }
        is_revoked
    }

    /// Ends every admitted session whose permit matches, and makes pending answers with such a permit
    /// rejected.
    pub(in crate::engine) fn revoke_where(
        &mut self,
        filter: &PermitFilter,
        now: Instant,
        close: &CloseReason,
    ) {
        for index in self.peers.indices() {
            if self.peers.get_mut(index).is_some_and(|peer| peer.admission.revoke_where(filter, close)) {
                self.meter.sessions_revoked += 1;
                self.close_recorded(index, now);
            }
        }
    }

    /// Ends the sessions whose permits have expired.
    pub(in crate::engine) fn expire_permits(&mut self, now: Instant) {
        if self.expiry.next().is_none_or(|at| now < at) {
            return;
        }
        let wall = self.gate.wall();
        while let Some(session) = self.expiry.pop(now, wall) {
            let Some(index) = self.peers.index_of(session) else { continue };
            if self.peers.get_mut(index).is_some_and(|peer| peer.admission.expire(wall)) {
                self.meter.sessions_expired += 1;
                self.close_recorded(index, now);
            }
        }
    }
}
