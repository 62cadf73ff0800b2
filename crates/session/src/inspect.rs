//! Statistics of a session.

use crate::{session::Session, sub::RequestKind};

impl Session {
    /// Number of broadcasts announced by the peer, routed or not.
    pub fn publishes(&self) -> usize {
        self.peer_announces.len()
    }

    /// Number of announces that wait because the session's limit of routed ones is reached.
    pub fn surplus(&self) -> usize {
        self.peer_announces.surplus()
    }

    /// Announces not routed since the session began, over the limit or with an invalid name.
    pub fn unrouted(&self) -> u64 {
        self.peer_announces.unrouted()
    }

    /// Number of live subscriptions of the peer.
    pub fn subscriptions(&self) -> usize {
        self.egress.subs().filter(|sub| sub.kind == RequestKind::Live).count()
    }
}
