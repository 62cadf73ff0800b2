//! Memory charges of peers.

use std::time::Instant;

use relay_model::SessionCode;
use relay_session::Footprint;

use super::SessionHost;
use crate::{
    admission::CloseReason,
    engine::peer::PeerState,
    ledger::{ChargeVerdict, REASON},
};

/// Memory of a peer over a stream socket that waits for the gate, besides [`Socketed::footprint`], bytes: its
/// entries in the worker and in the gate, its task and its verdict. Estimated from their sizes, rounded up.
///
/// [`Socketed::footprint`]: crate::engine::stream::Socketed::footprint
const WAITING_BYTES: u64 = 8 * 1024;

impl SessionHost {
    /// Updates the charges of all active peers, if it is due.
    #[inline]
    pub(in crate::engine) fn charge_active(&mut self, now: Instant) {
        if self.peers.charges.begin_round(now, self.meter.bytes_in) {
            while let Some(index) = self.peers.charges.pop() {
                self.charge(index, now);
            }
        }
    }

    /// Updates the charge of the peer at `index`. A peer that exceeds its share is closed.
    pub(in crate::engine) fn charge(&mut self, index: u32, now: Instant) {
        let peers = &mut self.peers;
        let Some(peer) = peers.slots.get_mut(index) else { return };
        // QUIC handshakes and closing connections have bounds of their own. A connection over a stream socket has
        // no session until its socket is handed over, and may wait for the gate until then.
        let mut footprint = Footprint::default();
        if peer.session.is_none()
            && peer.state() != PeerState::Over
            && let Some(stream) = peer.carrier.stream()
        {
            footprint.connection = WAITING_BYTES + stream.footprint();
        }
        if let Some(session) = &peer.session {
            peer.charge.begin_session();
            footprint = session.footprint();
            if let Some(mut conn) = peer.carrier.conn(&mut peers.quic.endpoint) {
                footprint.connection += conn.footprint();
            }
        }
        if peer.charge.set(footprint) == ChargeVerdict::Exceeded {
            self.exceed(index, now);
        }
    }

    /// Closes a session that exceeds its share, in any state.
    pub(in crate::engine) fn exceed(&mut self, index: u32, now: Instant) {
        let Some(peer) = self.peers.get(index).filter(|peer| peer.admission.closing().is_none()) else {
            return;
        };
        let close = CloseReason::new(SessionCode::MEMORY_SHARE, REASON);
        match peer.state() {
            PeerState::Over => {}
            PeerState::Open => {
                self.meter.sessions_closed_memory += 1;
                self.close(index, now, close);
            }
            PeerState::Pending => {
                self.meter.refused_memory += 1;
                self.refuse(index, now, close);
            }
        }
    }
}
