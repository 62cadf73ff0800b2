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

/// Price of a route, lower is better: first what it costs to join what flows already, then what it
/// costs to start it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cost {
    /// To join a broadcast that somebody on the way reads already.
    pub warm: u64,
    /// To be the first reader.
    pub cold: u64,
}

impl Cost {
    /// Where prices stop growing: the largest number the wire can carry.
    pub const MAX: u64 = (1 << 62) - 1;
    /// Of a route that came over a version without prices.
    pub const UNKNOWN: Self = Self { warm: 0, cold: Self::MAX };

    /// With the price of one more link.
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
    /// Who it passed, original publisher first, the announcing peer last.
    pub hops: Hops,
    /// What it costs, this relay's own link included.
    pub cost: Cost,
    /// Its relay has taken it back, and nothing else is there that is believed: for a moment it is still
    /// shown to who only reads, in case another relay says that the broadcast goes on.
    pub fading: bool,
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
