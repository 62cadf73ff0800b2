//! Routes: the sessions and hop chains through which a broadcast is reachable.

use std::sync::Arc;

use crate::id::SessionId;

/// Id of a relay or an endpoint in a hop chain; 0 = anonymous. Ids drawn by this relay are below 2^53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hop(pub u64);

impl Hop {
    /// An endpoint without an id.
    pub const ANONYMOUS: Self = Self(0);
}

/// A hop chain, original publisher first, at most [`crate::limits::HOPS`].
pub type Hops = Arc<[Hop]>;

/// Cost of a route, lower is better: compared by the cost of joining a flowing broadcast, then by that of
/// starting it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cost {
    /// Cost of joining a broadcast that is already read somewhere along the route.
    pub warm: u64,
    /// Cost of being the first reader.
    pub cold: u64,
}

impl Cost {
    /// Saturation value: the largest number the wire can carry.
    pub const MAX: u64 = (1 << 62) - 1;
    /// Cost of a route received over a version without costs.
    pub const UNKNOWN: Self = Self { warm: 0, cold: Self::MAX };

    /// Adds the cost of one more link.
    #[must_use]
    pub fn plus(self, price: u64) -> Self {
        let add = |cost: u64| cost.saturating_add(price).min(Self::MAX);
        Self { warm: add(self.warm), cold: add(self.cold) }
    }
}

/// One way to reach a broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The session it was announced on.
    pub session: SessionId,
    /// Hop chain: original publisher first, the announcing peer last.
    pub hops: Hops,
    /// Cost, including this relay's own link.
    pub cost: Cost,
    /// The announcing relay has withdrawn the route, and no other trusted route exists: it stays advertised to
    /// pure subscribers for a moment, in case another relay announces that the broadcast continues.
    pub stale: bool,
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
