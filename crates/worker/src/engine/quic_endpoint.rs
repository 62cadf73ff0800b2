//! QUIC endpoint of a worker, and the peers of its connections.

use relay_model::WorkerId;
use relay_transport::quic::{ConnKey, Endpoint, QuicConfig};

use super::guard::guard;

/// The endpoint, with the index of the peer for each connection.
pub(super) struct QuicEndpoint {
    pub(super) endpoint: Endpoint,
    worker: WorkerId,
    /// Whether the socket never fragments.
    mtu_discovery: bool,
    /// Index of the peer by slot of its connection. Entries of dropped connections stay, so that the peer has to be
    /// checked.
    by_slot: Vec<u32>,
}

impl QuicEndpoint {
    /// Creates an endpoint without connections. `mtu_discovery`: its socket never fragments.
    pub(super) fn new(config: &QuicConfig, worker: WorkerId, mtu_discovery: bool) -> Self {
        let endpoint = Endpoint::new(config, worker, mtu_discovery, None);
        Self { endpoint, worker, mtu_discovery, by_slot: Vec::new() }
    }

    /// Replaces the endpoint, which drops all its connections.
    pub(super) fn rebuild(&mut self, config: &QuicConfig) {
        *self = Self::new(config, self.worker, self.mtu_discovery);
    }

    /// Records the peer of a connection.
    pub(super) fn set_peer(&mut self, key: ConnKey, index: u32) {
        if self.by_slot.len() <= key.slot() {
            self.by_slot.resize(key.slot() + 1, u32::MAX);
        }
        if let Some(slot) = self.by_slot.get_mut(key.slot()) {
            *slot = index;
        }
    }

    /// Peer last recorded for the connection's slot.
    #[inline]
    pub(super) fn peer(&self, key: ConnKey) -> Option<u32> {
        self.by_slot.get(key.slot()).copied()
    }

    /// Removes a connection. False: the endpoint panicked.
    pub(super) fn remove(&mut self, key: ConnKey) -> bool {
        guard(|| self.endpoint.remove(key)).is_ok()
    }
}
