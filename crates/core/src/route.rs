//! Routes of one path, best first, and logs of its tracks.

use std::{cmp::Reverse, collections::BTreeMap, time::Instant};

use relay_auth::Permit;
use relay_model::{Cost, Hop, LogId, Path, Route, SessionId, TrackName};
use smallvec::SmallVec;

use crate::core::Takeover;

/// Origin of a broadcast, which must not change within a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum PublisherId {
    /// First hop of the chain. The same hop on another session continues the broadcast.
    Named(Hop),
    /// Publisher without a hop id: each announce is a publisher of its own.
    Anonymous(u64),
}

/// Preference among routes, lowest first. Equal chains give the same order on every relay; of two equal ones
/// the newer wins, so that a publisher that came back beats its previous session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    draining: bool,
    anonymous: bool,
    cost: Cost,
    hops: usize,
    tie: u64,
    age: Reverse<u64>,
}

/// Route announced by a session.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) route: Route,
    /// Permissions and subject of the session.
    pub(crate) permit: Permit,
    pub(crate) draining: bool,
    /// Increases with every offer.
    pub(crate) serial: u64,
}

/// One route.
#[derive(Clone, Debug)]
pub(crate) struct RouteEntry {
    pub(crate) route: Route,
    pub(crate) publisher: PublisherId,
    /// Set once its session vanished or withdrew it.
    pub(crate) stale: Option<StaleState>,
    pub(crate) permit: Permit,
    /// Whether the route counts; false while another subject holds the path.
    pub(crate) admitted: bool,
    /// A relay in its chain has withdrawn the path, see [`Withdrawal`].
    suppressed: bool,
    /// Serial of the session's last announce of it.
    serial: u64,
    rank: Rank,
}

/// State of a route whose session vanished or withdrew it: advertised unchanged, and never used for data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StaleState {
    /// Set if the session withdrew it, and may still be open. Such a ghost is never a last resort.
    pub(crate) withdrawal: Option<Withdrawal>,
    /// Advertised regardless of other routes. After the hold-back it is a last resort.
    pub(crate) in_hold_down: bool,
    /// Time of its timer: the end of the hold-back, then of the linger.
    pub(crate) due: Instant,
    /// Latest time of its withdrawal.
    pub(crate) until: Instant,
}

/// A withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Withdrawal {
    /// Relay that withdrew its last route to the path (all others it has lead through us). Older routes
    /// through that relay are about to be withdrawn too: while this is fresh they are neither used nor
    /// advertised as the only ones.
    pub(crate) relay: Option<Hop>,
    /// Comparable to the serials of offers.
    pub(crate) serial: u64,
}

/// One path: its routes and its logs. Dropped when it has neither.
#[derive(Debug, Default)]
pub(crate) struct BroadcastState {
    routes: Vec<RouteEntry>,
    logs: BTreeMap<(PublisherId, TrackName), Logs>,
    /// Start of the current uninterrupted time with at least one route of any kind.
    since: Option<Instant>,
}

/// Logs of one track; more than one only if a reader may not be served through the route of the first.
pub(crate) type Logs = SmallVec<[LogId; 1]>;

impl BroadcastState {
    /// Adds a route, or replaces the one of the same session. A route of the same publisher on a new session
    /// ends the hold-back of its ghosts. Returns whether the route is usable. [`Self::reconcile`] must follow.
    pub(crate) fn put(&mut self, path: &Path, offer: Offer, takeover: Takeover) -> bool {
        let Offer { route, permit, draining, serial } = offer;
        let session = route.session;
        let old = self.position(session).map(|at| self.routes.remove(at));
        let publisher = match route.publisher() {
            Hop::ANONYMOUS => PublisherId::Anonymous(serial),
            hop => PublisherId::Named(hop),
        };
        let same = old.as_ref().filter(|old| old.publisher == publisher);
        let is_new = same.is_none();
        let age = same.map_or(Reverse(serial), |same| same.rank.age);
        let rank = Rank::new(path, &route, draining, age);
        let admitted = old.is_some_and(|old| old.admitted);
        let silenced = false;
        self.insert(RouteEntry {
            route,
            publisher,
            stale: None,
            permit,
            admitted,
            suppressed: silenced,
            serial,
            rank,
        });
        self.admit(takeover);
        let counts = self.route_of(session).is_some();
        if counts && is_new {
            let ghosts = self.routes.iter_mut().filter(|candidate| candidate.publisher == publisher);
            ghosts
                .filter_map(|candidate| candidate.stale.as_mut())
                .for_each(|ghost| ghost.in_hold_down = false);
        }
        counts
    }

    /// Records the start time if this is the first route.
    pub(crate) fn comes(&mut self, now: Instant) {
        if self.routes.is_empty() {
            self.since = Some(now);
        }
    }

    /// Start of the current uninterrupted time with at least one route of any kind.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Drops the route of `session`, live or ghost. [`Self::reconcile`] must follow.
    pub(crate) fn remove(&mut self, session: SessionId) {
        self.routes.retain(|candidate| candidate.route.session != session);
    }

    /// Turns the route of `session` into a ghost. [`Self::reconcile`] must follow.
    pub(crate) fn mark_stale(&mut self, session: SessionId, ghost: StaleState) {
        if let Some(candidate) = self.position(session).and_then(|at| self.routes.get_mut(at)) {
            candidate.stale = Some(ghost);
        }
    }

    /// Ghost of the route of `session`.
    pub(crate) fn stale_of(&mut self, session: SessionId) -> Option<&mut StaleState> {
        let at = self.position(session)?;
        self.routes.get_mut(at)?.stale.as_mut()
    }

    /// Marks the route of `session` as draining.
    pub(crate) fn drain(&mut self, session: SessionId) {
        if let Some(at) = self.position(session) {
            let mut candidate = self.routes.remove(at);
            candidate.rank.draining = true;
            self.insert(candidate);
        }
    }

    /// Assigns the path to a holder if it has none, and drops ghosts that are no longer needed. Returns
    /// session and deadline of the dropped ones.
    pub(crate) fn reconcile(&mut self, takeover: Takeover) -> Vec<(SessionId, Instant)> {
        self.suppress();
        let mut dropped = self.drop_stale();
        // The last ghost of the holder may be gone, and a newly admitted route may replace a peer's.
        self.admit(takeover);
        self.suppress();
        dropped.extend(self.drop_stale());
        self.suppress();
        dropped
    }

    /// Routes usable for data, best first.
    pub(crate) fn usable(&self) -> impl Iterator<Item = &RouteEntry> {
        self.live().filter(|candidate| !candidate.suppressed)
    }

    /// Whether a route is usable for data.
    pub(crate) fn is_served(&self) -> bool {
        self.usable().next().is_some()
    }

    /// Routes whose session vanished or withdrew them, best first.
    pub(crate) fn stale_routes(&self) -> impl Iterator<Item = &RouteEntry> {
        self.routes.iter().filter(|candidate| candidate.stale.is_some())
    }

    /// Ghosts whose publisher may come back, best first.
    pub(crate) fn last_resorts(&self) -> impl Iterator<Item = &RouteEntry> {
        self.stale_routes()
            .filter(|candidate| candidate.stale.is_some_and(|ghost| ghost.withdrawal.is_none()))
    }

    /// Whether `session` withdrew its route to `publisher`, and the ghost is still advertised.
    pub(crate) fn is_leaving(&self, session: SessionId, publisher: PublisherId) -> bool {
        let own = self.stale_routes().find(|candidate| candidate.route.session == session);
        own.is_some_and(|own| {
            own.publisher == publisher && own.stale.is_some_and(|ghost| ghost.withdrawal.is_some())
        })
    }

    /// Routes shown on the announce board, best first.
    pub(crate) fn visible(&self) -> Vec<Route> {
        let served = self.is_served();
        let last_resort = |ghost: StaleState| ghost.withdrawal.is_none();
        let stays = |candidate: &&RouteEntry| served || candidate.stale.is_some_and(last_resort);
        let admitted = || self.routes.iter().filter(|candidate| candidate.admitted);
        let shown: Vec<Route> = admitted().filter(stays).map(|candidate| candidate.route.clone()).collect();
        if served || !shown.is_empty() {
            return shown;
        }
        // Withdrawals that other relays have not confirmed yet.
        let gone = admitted().filter(|candidate| candidate.stale.is_some());
        gone.map(|candidate| Route { stale: true, ..candidate.route.clone() }).collect()
    }

    /// All routes, ghosts included.
    pub(crate) fn routes(&self) -> &[RouteEntry] {
        &self.routes
    }

    /// Route of `session`, live or ghost, admitted or not.
    pub(crate) fn announced_by(&self, session: SessionId) -> Option<&RouteEntry> {
        self.routes.iter().find(|candidate| candidate.route.session == session)
    }

    /// Usable route announced by `session`.
    pub(crate) fn route_of(&self, session: SessionId) -> Option<&RouteEntry> {
        self.usable().find(|candidate| candidate.route.session == session)
    }

    /// Usable routes to `publisher`, best first.
    pub(crate) fn routes_to(&self, publisher: PublisherId) -> impl Iterator<Item = &RouteEntry> {
        self.usable().filter(move |candidate| candidate.publisher == publisher)
    }

    /// Whether `publisher` has a usable route or may come back soon.
    pub(crate) fn expects(&self, publisher: PublisherId) -> bool {
        self.usable().chain(self.last_resorts()).any(|candidate| candidate.publisher == publisher)
    }

    /// Logs of one track that have an upstream or wait for one.
    pub(crate) fn logs_of(&self, publisher: PublisherId, track: &TrackName) -> &[LogId] {
        self.logs.get(&(publisher, track.clone())).map_or(&[], |logs| logs.as_slice())
    }

    /// Logs of all tracks, oldest first within each.
    pub(crate) fn logs(&self) -> impl Iterator<Item = LogId> {
        self.logs.values().flatten().copied()
    }

    /// Logs by track.
    pub(crate) fn tracks(&self) -> impl Iterator<Item = (&TrackName, &Logs)> {
        self.logs.iter().map(|((_, track), logs)| (track, logs))
    }

    pub(crate) fn add_log(&mut self, publisher: PublisherId, track: TrackName, log: LogId) {
        self.logs.entry((publisher, track)).or_default().push(log);
    }

    pub(crate) fn remove_log(&mut self, publisher: PublisherId, track: &TrackName, log: LogId) {
        let key = (publisher, track.clone());
        if let Some(logs) = self.logs.get_mut(&key) {
            logs.retain(|other| *other != log);
            if logs.is_empty() {
                self.logs.remove(&key);
            }
        }
    }

    /// Whether neither routes nor logs are left.
    pub(crate) fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.logs.is_empty()
    }

    /// Asserts the order of the routes, the holder of the path, and the need for each ghost.
    pub(crate) fn check(&self, takeover: Takeover) {
        assert!(self.routes.is_sorted_by(|a, b| a.rank < b.rank), "routes out of order");
        let holder = self.holder();
        for candidate in &self.routes {
            let free = takeover == Takeover::Any || candidate.permit.is_peer();
            let admitted =
                free || holder.is_some_and(|holder| holder.subject() == candidate.permit.subject());
            assert_eq!(candidate.admitted, admitted, "admitted routes do not match the holder");
            assert!(admitted || candidate.stale.is_none(), "ghost of a route that was not admitted");
        }
        if self.is_served() {
            let held_back = |ghost: &RouteEntry| ghost.stale.is_some_and(|ghost| ghost.in_hold_down);
            assert!(self.stale_routes().all(held_back), "ghost beside a live route after its hold-back");
        } else {
            let vain = |ghost: &RouteEntry| {
                ghost.stale.is_some_and(|g| g.withdrawal.is_some_and(|g| !self.suppresses(g)))
            };
            assert!(!self.stale_routes().any(vain), "needless ghost of a withdrawn route");
        }
        for candidate in &self.routes {
            let silenced = self
                .stale_routes()
                .filter_map(|ghost| ghost.stale?.withdrawal)
                .any(|gone| self.is_suppressed(candidate, gone));
            assert_eq!(candidate.suppressed, silenced, "silenced flag is outdated");
        }
        assert!(self.logs.values().all(|logs| !logs.is_empty()), "track without a log was kept");
    }

    /// Permit of the holder of the path: that of the routes that are admitted already, or else of the best
    /// route.
    fn holder(&self) -> Option<&Permit> {
        let owned = || self.routes.iter().filter(|candidate| !candidate.permit.is_peer());
        let holder = owned().find(|candidate| candidate.admitted).or_else(|| owned().next());
        holder.map(|candidate| &candidate.permit)
    }

    /// Decides which routes are admitted. Relays of the cluster neither hold a path nor are rejected: their
    /// publishers were admitted elsewhere.
    fn admit(&mut self, takeover: Takeover) {
        let holder = self.holder().cloned();
        for candidate in &mut self.routes {
            let free = takeover == Takeover::Any || candidate.permit.is_peer();
            candidate.admitted =
                free || holder.as_ref().is_some_and(|holder| holder.subject() == candidate.permit.subject());
        }
    }

    /// Live admitted routes, silenced ones included, best first.
    fn live(&self) -> impl Iterator<Item = &RouteEntry> {
        self.routes.iter().filter(|candidate| candidate.admitted && candidate.stale.is_none())
    }

    /// Whether `candidate` is an older route through the relay that withdrew (`gone`). False if that relay
    /// still has a live route here on another session.
    fn is_suppressed(&self, candidate: &RouteEntry, gone: Withdrawal) -> bool {
        let Some(relay) = gone.relay else { return false };
        let Some((from, passed)) = candidate.route.hops.split_last() else { return false };
        let is_hearsay = *from != relay && passed.contains(&relay);
        let is_older = candidate.serial < gone.serial && candidate.stale.is_none();
        is_hearsay && is_older && !self.live().any(|other| other.route.hops.last() == Some(&relay))
    }

    /// Whether the withdrawal silences another route.
    fn suppresses(&self, gone: Withdrawal) -> bool {
        gone.relay.is_some() && self.live().any(|candidate| self.is_suppressed(candidate, gone))
    }

    /// Recomputes which routes are silenced.
    fn suppress(&mut self) {
        let gone: SmallVec<[Withdrawal; 4]> =
            self.stale_routes().filter_map(|ghost| ghost.stale?.withdrawal).collect();
        let silenced: SmallVec<[bool; 8]> = self
            .routes
            .iter()
            .map(|candidate| gone.iter().any(|gone| self.is_suppressed(candidate, *gone)))
            .collect();
        for (candidate, silenced) in self.routes.iter_mut().zip(silenced) {
            candidate.suppressed = silenced;
        }
    }

    /// Drops ghosts: beside a live route, those whose hold-back is over; without one, withdrawn ones that
    /// silence no other route.
    fn drop_stale(&mut self) -> Vec<(SessionId, Instant)> {
        let mut dropped = Vec::new();
        let served = self.is_served();
        for ghost in self.stale_routes() {
            let Some(StaleState { withdrawal: gone, in_hold_down: held_back, due, .. }) = ghost.stale else {
                continue;
            };
            let over = if served { !held_back } else { gone.is_some_and(|gone| !self.suppresses(gone)) };
            if over {
                dropped.push((ghost.route.session, due));
            }
        }
        dropped.iter().for_each(|(session, _)| self.remove(*session));
        dropped
    }

    fn insert(&mut self, candidate: RouteEntry) {
        if self.routes.is_empty() {
            // Nearly every path has one route; a vector grows to four at once.
            self.routes.reserve_exact(1);
        }
        let at = self.routes.partition_point(|other| other.rank < candidate.rank);
        self.routes.insert(at, candidate);
    }

    fn position(&self, session: SessionId) -> Option<usize> {
        self.routes.iter().position(|candidate| candidate.route.session == session)
    }
}

impl Rank {
    fn new(path: &Path, route: &Route, draining: bool, age: Reverse<u64>) -> Self {
        // The chain of an unnamed publisher is its zero and a stamp before it.
        let anonymous = route.hops.iter().take(2).any(|hop| *hop == Hop::ANONYMOUS);
        // Direct publishers are ordered by age alone, the newest first. Routes through relays are ordered the
        // same way on every relay, regardless of age.
        let own = route.hops.len() <= 1 + usize::from(anonymous);
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
