//! One route, and its rank among the routes of a path.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use std::cmp::Reverse;

use relay_auth::Permit;
use relay_model::{Cost, Hop, Path, Route};

use crate::{
    publisher::PublisherId,
    standing::{Standing, Withdrawal},
};

/// Route announced by a session.
#[derive(Debug)]
pub(crate) struct RouteOffer {
    pub(crate) route: Route,
    /// Permissions and subject of the session.
    pub(crate) permit: Permit,
    pub(crate) draining: bool,
    /// Increases with every offer.
    pub(crate) serial: u64,
}

/// One route of a path.
#[derive(Clone, Debug)]
pub(crate) struct RouteEntry {
    pub(crate) route: Route,
    pub(crate) publisher: PublisherId,
    pub(crate) standing: Standing,
    pub(crate) permit: Permit,
    /// Serial of the session's last announce of it.
    serial: u64,
    pub(crate) rank: RouteRank,
}

/// Preference among routes, lowest first. Equal chains give the same order on every relay; of two equal ones
/// the newer wins, so that a publisher that came back beats its previous session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RouteRank {
    pub(crate) draining: bool,
    anonymous: bool,
    cost: Cost,
    hops: usize,
    tie: u64,
    age: Reverse<u64>,
}

impl RouteEntry {
    /// Announced route. `before`: the session's previous route to `path`; one to the same publisher gives the
    /// new one its age.
    pub(crate) fn new(path: &Path, offer: RouteOffer, standing: Standing, before: Option<&Self>) -> Self {
        let RouteOffer { route, permit, draining, serial } = offer;
        let publisher = PublisherId::of(&route, serial);
        let same = before.filter(|before| before.publisher == publisher);
        let age = same.map_or(Reverse(serial), |same| same.rank.age);
        let rank = RouteRank::new(path, &route, draining, age);
        Self { route, publisher, standing, permit, serial, rank }
    }

    /// Relay that announced the route; `None` for a direct publisher, and for a relay without a hop id.
    pub(crate) fn relay(&self) -> Option<Hop> {
        let (relay, before) = self.route.hops.split_last()?;
        Some(*relay).filter(|relay| *relay != Hop::ANONYMOUS && !before.is_empty())
    }

    /// Whether the route is an older one, of another relay, through the relay of `withdrawal`.
    pub(crate) fn echoes(&self, withdrawal: Withdrawal) -> bool {
        let Some(relay) = withdrawal.relay else { return false };
        let Some((from, passed)) = self.route.hops.split_last() else { return false };
        let is_announced_before = self.serial < withdrawal.serial && self.standing.is_announced();
        is_announced_before && *from != relay && passed.contains(&relay)
    }
}

impl RouteRank {
    fn new(path: &Path, route: &Route, draining: bool, age: Reverse<u64>) -> Self {
        // The chain of an unnamed publisher is its zero and a stamp before it.
        let anonymous = route.hops.iter().take(2).any(|hop| *hop == Hop::ANONYMOUS);
        // Direct publishers are ordered by age alone, the newest first. Routes through relays are ordered the
        // same way on every relay, regardless of age.
        let own = route.hops.len() <= if anonymous { 2 } else { 1 };
        let tie = if own { 0 } else { tie(path, &route.hops) };
        Self { draining, anonymous, cost: route.cost, hops: route.hops.len(), tie, age }
    }
}

/// FNV-1a of path and chain: equal on every machine and in every release, and spreads paths over equal
/// routes.
fn tie(path: &Path, hops: &[Hop]) -> u64 {
    let chain = hops.iter().flat_map(|hop| hop.0.to_le_bytes());
    path.as_str()
        .bytes()
        .chain(chain)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
