//! What peers are charged for the memory that they make the relay hold.

use std::time::Instant;

use relay_model::{SessionCode, SessionId};

use super::{State, Worker};
use crate::ledger::{REASON, Standing};

impl Worker {
    /// Brings the charge of the peer at `index` up to date, after what may have changed it. A peer that exceeds
    /// its share is closed.
    pub(super) fn charge(&mut self, index: u32, now: Instant) {
        let Self { peers, endpoint, .. } = self;
        let Some(peer) = peers.get_mut(index) else { return };
        let mut footprint = peer.session.as_ref().map(|session| session.footprint()).unwrap_or_default();
        if let Some(mut conn) = peer.carrier.conn(endpoint) {
            footprint.connection += conn.footprint();
        }
        if peer.charge.set(footprint) == Standing::Exceeded {
            self.exceed(index, now);
        }
    }

    /// Whether new sessions are refused for lack of memory.
    pub(super) fn is_out_of_memory(&self) -> bool {
        self.shared.store.budget().at_ceiling() || self.shared.ledger.is_full()
    }

    /// The ledger has chosen a session of this worker, whatever its state.
    pub(super) fn exceeded(&mut self, session: SessionId, now: Instant) {
        if let Some(index) = self.peers.index_of(session) {
            self.exceed(index, now);
        }
    }

    fn exceed(&mut self, index: u32, now: Instant) {
        let Some(peer) = self.peers.get(index).filter(|peer| peer.parting.is_none()) else { return };
        match peer.state {
            State::Over => {}
            State::Open => {
                self.meter.sessions_closed_memory += 1;
                self.close(index, now, SessionCode::MEMORY_SHARE, REASON);
            }
            State::Opening | State::Waiting | State::Asked(_) | State::Placed(_) => {
                self.meter.refused_memory += 1;
                self.refuse(index, now, SessionCode::MEMORY_SHARE, REASON);
            }
        }
    }
}
