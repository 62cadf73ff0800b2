//! Memory charges of peers.

use std::time::{Duration, Instant};

use relay_model::{SessionCode, SessionId};
use relay_session::Footprint;

use super::{PeerState, Worker};
use crate::ledger::{ChargeVerdict, REASON};

/// Interval of updating the charges of active peers.
const INTERVAL: Duration = Duration::from_millis(500);
/// Bytes received by the worker after which the charges are updated earlier.
const INPUT: u64 = 256 * 1024;

/// Memory of a peer over a stream socket that waits for the gate, besides [`Socketed::footprint`], bytes: its
/// entries in the worker and in the gate, its task and its verdict. Estimated from their sizes, rounded up.
///
/// [`Socketed::footprint`]: super::stream::Socketed::footprint
const WAITING_BYTES: u64 = 8 * 1024;

/// Peers whose charge is to be updated.
#[derive(Debug)]
pub(super) struct Uncharged {
    peers: Vec<u32>,
    due: Instant,
    /// Bytes that the worker had received at the last update.
    received: u64,
}

impl Uncharged {
    pub(super) fn new(now: Instant) -> Self {
        Self { peers: Vec::new(), due: now, received: 0 }
    }

    /// Time of the next update, if there is something to update.
    pub(super) fn next(&self) -> Option<Instant> {
        (!self.peers.is_empty()).then_some(self.due)
    }

    pub(super) fn clear(&mut self) {
        self.peers.clear();
    }
}

impl Worker {
    /// Queues the peer at `index` for an update of its charge.
    pub(super) fn charge_later(&mut self, index: u32) {
        if let Some(peer) = self.peers.get_mut(index)
            && !std::mem::replace(&mut peer.is_uncharged, true)
        {
            self.uncharged.peers.push(index);
        }
    }

    /// Updates the charges of all active peers, once per [`INTERVAL`] and once per [`INPUT`] bytes.
    #[inline]
    pub(super) fn charge_active(&mut self, now: Instant) {
        let is_early = now < self.uncharged.due && self.meter.bytes_in - self.uncharged.received < INPUT;
        if !is_early && !self.uncharged.peers.is_empty() {
            self.charge_all(now);
        }
    }

    fn charge_all(&mut self, now: Instant) {
        (self.uncharged.due, self.uncharged.received) = (now + INTERVAL, self.meter.bytes_in);
        let mut active = std::mem::take(&mut self.uncharged.peers);
        for index in active.drain(..) {
            if let Some(peer) = self.peers.get_mut(index) {
                peer.is_uncharged = false;
                self.charge(index, now);
            }
        }
        self.uncharged.peers = active;
    }

    /// Updates the charge of the peer at `index`. A peer that exceeds its share is closed.
    pub(super) fn charge(&mut self, index: u32, now: Instant) {
        let Self { peers, endpoint, .. } = self;
        let Some(peer) = peers.get_mut(index) else { return };
        // QUIC handshakes and closing connections have bounds of their own. A connection over a stream socket has
        // no session until its socket is handed over, and may wait for the gate until then.
        let mut footprint = Footprint::default();
        if peer.session.is_none()
            && !matches!(peer.state, PeerState::Over)
            && let Some(stream) = peer.carrier.stream()
        {
            footprint.connection = WAITING_BYTES + stream.footprint();
        }
        if let Some(session) = &peer.session {
            peer.charge.begin_session();
            footprint = session.footprint();
            if let Some(mut conn) = peer.carrier.conn(endpoint) {
                footprint.connection += conn.footprint();
            }
        }
        if peer.charge.set(footprint) == ChargeVerdict::Exceeded {
            self.exceed(index, now);
        }
    }

    /// Whether new sessions are refused for lack of memory.
    pub(super) fn is_out_of_memory(&self) -> bool {
        self.shared.store.budget().at_ceiling() || self.shared.ledger.is_full()
    }

    /// Closes a session chosen by the ledger, in any state.
    pub(super) fn exceeded(&mut self, session: SessionId, now: Instant) {
        if let Some(index) = self.peers.index_of(session) {
            self.exceed(index, now);
        }
    }

    fn exceed(&mut self, index: u32, now: Instant) {
        let Some(peer) = self.peers.get(index).filter(|peer| peer.parting.is_none()) else { return };
        match peer.state {
            PeerState::Over => {}
            PeerState::Open => {
                self.meter.sessions_closed_memory += 1;
                self.close(index, now, SessionCode::MEMORY_SHARE, REASON);
            }
            PeerState::Opening | PeerState::Waiting | PeerState::Asked(_) | PeerState::Placed(_) => {
                self.meter.refused_memory += 1;
                self.refuse(index, now, SessionCode::MEMORY_SHARE, REASON);
            }
        }
    }
}
