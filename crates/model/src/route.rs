//! Routes: who serves a broadcast, and through whom.

use std::sync::Arc;

use crate::id::SessionId;

/// Id of a relay or an endpoint in a hop chain; 0 = anonymous. Below 2^53 when we draw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hop(pub u64);

impl Hop {
    /// No name given.
    pub const ANONYMOUS: Self = Self(0);
}

/// A hop chain, original publisher first, at most [`crate::limits::HOPS`].
pub type Hops = Arc<[Hop]>;

/// One way to reach a broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The session it was announced on.
    pub session: SessionId,
    /// Who it passed, original publisher first, the announcing peer last.
    pub hops: Hops,
    /// What it costs to join, lower is better.
    pub cost: u64,
}

impl Route {
    /// The original publisher: first hop of the chain. Anonymous publishers are stamped per
    /// connection, so two of them differ.
    pub fn publisher(&self) -> Hop {
        self.hops.first().copied().unwrap_or(Hop::ANONYMOUS)
    }

    /// Whether the route goes through `hop`.
    pub fn passes(&self, hop: Hop) -> bool {
        self.hops.contains(&hop)
    }
}
