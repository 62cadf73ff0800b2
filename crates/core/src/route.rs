//! Routes of one path, best first, and the logs that carry its tracks.

use std::{cmp::Reverse, collections::BTreeMap};

use relay_model::{Hop, LogId, Path, Route, SessionId, TrackName};
use smallvec::SmallVec;

/// Who made a broadcast: what must not change under a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Publisher {
    /// First hop of the chain. The same one on another session carries on.
    Named(Hop),
    /// No name at all: each announce is a publisher of its own.
    Nameless(u64),
}

/// Preference among routes, lowest first. The same chains give the same order on every relay,
/// and of two equal ones the newer wins: a publisher that came back beats its own ghost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    anonymous: bool,
    cost: u64,
    hops: usize,
    tie: u64,
    age: Reverse<u64>,
}

/// One live route.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) route: Route,
    pub(crate) publisher: Publisher,
    rank: Rank,
}

/// One path: its routes and its logs. Gone when both are.
#[derive(Debug, Default)]
pub(crate) struct Broadcast {
    routes: Vec<Candidate>,
    logs: BTreeMap<(Publisher, TrackName), Logs>,
}

/// Logs of one track. One, unless a reader may not be served through the first one's route.
pub(crate) type Logs = SmallVec<[LogId; 1]>;

impl Broadcast {
    /// Adds the route, or replaces the one its session has. `serial` grows with every call.
    /// Returns whether the visible list changed.
    pub(crate) fn put(&mut self, path: &Path, route: Route, serial: u64) -> bool {
        let old = self.position(route.session).map(|at| (at, self.routes.remove(at)));
        let publisher = match route.publisher() {
            Hop::ANONYMOUS => Publisher::Nameless(serial),
            hop => Publisher::Named(hop),
        };
        let age = match &old {
            Some((_, old)) if old.publisher == publisher => old.rank.age,
            _ => Reverse(serial),
        };
        let candidate = Candidate { rank: Rank::new(path, &route, age), route, publisher };
        let at = self.routes.partition_point(|other| other.rank < candidate.rank);
        let same = old.is_some_and(|(was, old)| was == at && old.route == candidate.route);
        self.routes.insert(at, candidate);
        !same
    }

    /// Drops the route of `session`. Returns whether there was one.
    pub(crate) fn remove(&mut self, session: SessionId) -> bool {
        let at = self.position(session);
        at.map(|at| self.routes.remove(at)).is_some()
    }

    /// All routes, best first.
    pub(crate) fn routes(&self) -> &[Candidate] {
        &self.routes
    }

    /// What the announce board shows.
    pub(crate) fn visible(&self) -> Vec<Route> {
        self.routes.iter().map(|candidate| candidate.route.clone()).collect()
    }

    /// The route `session` announced.
    pub(crate) fn route_of(&self, session: SessionId) -> Option<&Candidate> {
        self.routes.iter().find(|candidate| candidate.route.session == session)
    }

    /// The routes that lead to `publisher`, best first.
    pub(crate) fn routes_to(&self, publisher: Publisher) -> impl Iterator<Item = &Candidate> {
        self.routes.iter().filter(move |candidate| candidate.publisher == publisher)
    }

    /// Logs of one track that still have, or wait for, an upstream.
    pub(crate) fn logs_of(&self, publisher: Publisher, track: &TrackName) -> &[LogId] {
        self.logs.get(&(publisher, track.clone())).map_or(&[], |logs| logs.as_slice())
    }

    /// Logs of all tracks, oldest first within each.
    pub(crate) fn logs(&self) -> impl Iterator<Item = LogId> {
        self.logs.values().flatten().copied()
    }

    pub(crate) fn add_log(&mut self, publisher: Publisher, track: TrackName, log: LogId) {
        self.logs.entry((publisher, track)).or_default().push(log);
    }

    pub(crate) fn remove_log(&mut self, publisher: Publisher, track: &TrackName, log: LogId) {
        let key = (publisher, track.clone());
        if let Some(logs) = self.logs.get_mut(&key) {
            logs.retain(|other| *other != log);
            if logs.is_empty() {
                self.logs.remove(&key);
            }
        }
    }

    /// Whether nothing is left to remember.
    pub(crate) fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.logs.is_empty()
    }

    /// Asserts the order of the routes.
    pub(crate) fn check(&self) {
        assert!(self.routes.is_sorted_by(|a, b| a.rank < b.rank), "routes out of order");
        assert!(self.logs.values().all(|logs| !logs.is_empty()), "a track without a log was kept");
    }

    fn position(&self, session: SessionId) -> Option<usize> {
        self.routes.iter().position(|candidate| candidate.route.session == session)
    }
}

impl Rank {
    fn new(path: &Path, route: &Route, age: Reverse<u64>) -> Self {
        // An unnamed publisher has a stamp in front of its zero.
        let anonymous = route.hops.iter().take(2).any(|hop| *hop == Hop::ANONYMOUS);
        Self { anonymous, cost: route.cost, hops: route.hops.len(), tie: tie(path, &route.hops), age }
    }
}

/// FNV-1a of path and chain: the same on every machine and in every release, and spreads paths over
/// equal routes.
fn tie(path: &Path, hops: &[Hop]) -> u64 {
    let chain = hops.iter().flat_map(|hop| hop.0.to_le_bytes());
    path.as_str()
        .bytes()
        .chain(chain)
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
