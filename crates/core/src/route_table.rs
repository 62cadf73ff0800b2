//! Table of routes: announced ones, and lost ones that are still advertised.
//!
//! Vanished publishers (no close, no withdrawal) may come back. Their routes stay on the board during the
//! hold-down, so that a failover or a quick return causes at most one update, and then until the end of the
//! linger as a last resort, so that subscriptions wait instead of failing.
//!
//! Withdrawn routes stay on the board during the hold-down if others serve the path: in a mesh those may be
//! about to withdraw too, and all of it becomes one update. A relay that withdraws its last route to a path
//! also invalidates the older routes through it. Where two relays had their route from a third, each could
//! otherwise wait for the other and advertise the lost route meanwhile. Peer relays get such a withdrawal at
//! once; plain subscribers are shown the lost route during the hold-down, as a relay that had its route from
//! there may know another publisher that it has not advertised until now.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use relay_auth::Permit;
use relay_model::{Cost, Hop, Hops, Path, Route, SessionId, limits};

use crate::{
    config::{CoreConfig, Takeover},
    deadlines::DeadlineSet,
    path_routes::PathRoutes,
    route::RouteOffer,
    standing::{Standing, Withdrawal},
};

/// Limit on lost routes. One costs as much as a live route, without a session that could be closed for it;
/// past the limit, lost routes are withdrawn at once.
pub(crate) const STALE_ROUTES: usize = 100_000;
/// Memory of a lost route without its path, bytes: a route with its hop chain.
const STALE_ROUTE_BYTES: u64 = 1_280;

/// Memory of one lost route of `path`, bytes.
pub(crate) fn stale_footprint(path: &Path) -> u64 {
    STALE_ROUTE_BYTES + path.as_str().len() as u64
}

/// Routes of all paths.
#[derive(Debug)]
pub(crate) struct RouteTable {
    hop: Hop,
    takeover: Takeover,
    linger: Duration,
    hold_down: Duration,
    stale_limit_bytes: u64,
    paths: HashMap<Path, PathRoutes, RandomState>,
    /// Sessions that announced a route, or drain.
    sessions: HashMap<SessionId, RouteSession, RandomState>,
    /// Deadlines of lost routes.
    deadlines: DeadlineSet<LostRoute>,
    /// Number of lost routes over all paths.
    stale_routes: usize,
    /// Memory of all lost routes, bytes.
    stale_bytes: u64,
    serial: u64,
}

/// Routes of one session. Ordered, so that equal histories give equal actions.
#[derive(Debug, Default)]
struct RouteSession {
    /// Paths it announces now.
    announced: BTreeSet<Path>,
    /// Its routes rank last.
    draining: bool,
}

/// Announce of a session.
#[derive(Clone, Debug)]
pub(crate) struct RouteAnnounce {
    pub(crate) session: SessionId,
    pub(crate) path: Path,
    pub(crate) hops: Hops,
    pub(crate) cost: Cost,
    /// Permissions and subject of the session.
    pub(crate) permit: Permit,
}

/// Stale or withdrawn route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LostRoute {
    pub(crate) path: Path,
    pub(crate) session: SessionId,
}

/// Reason for the loss of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteLoss {
    /// Its session ended without a close.
    Vanished,
    /// Its session withdrew it or was closed, and may offer another route.
    Withdrawn,
    /// Its session withdrew it, and its peer has no other route that it could offer.
    LastWithdrawn,
}

/// Flaw of a hop chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainError {
    /// Longer than [`limits::HOPS`].
    TooLong,
    /// Contains our own hop.
    Looped,
}

/// Effect of a change on the routes of one path.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub(crate) struct RouteUpdate {
    /// Routes advertised from now on, best first, if they changed.
    pub(crate) advertised: Option<Vec<Route>>,
    /// The announced route waits for the subject that holds the path.
    pub(crate) is_waiting: bool,
    /// The lost route was not kept because the limit on stale routes was reached.
    pub(crate) is_over_limit: bool,
}

impl RouteTable {
    /// Creates a table without routes.
    pub(crate) fn new(config: &CoreConfig) -> Self {
        Self {
            hop: config.hop,
            takeover: config.takeover,
            linger: config.linger,
            hold_down: config.hold_down,
            stale_limit_bytes: config.stale_bytes,
            paths: HashMap::default(),
            sessions: HashMap::default(),
            deadlines: DeadlineSet::default(),
            stale_routes: 0,
            stale_bytes: 0,
            serial: 0,
        }
    }

    /// Routes of `path`; `None` without any.
    pub(crate) fn get(&self, path: &Path) -> Option<&PathRoutes> {
        self.paths.get(path)
    }

    /// All paths with a route.
    pub(crate) fn paths(&self) -> impl ExactSizeIterator<Item = (&Path, &PathRoutes)> {
        self.paths.iter()
    }

    /// Number of announced routes.
    pub(crate) fn announced(&self) -> usize {
        self.sessions.values().map(|session| session.announced.len()).sum()
    }

    /// Number of lost routes.
    pub(crate) fn stale_routes(&self) -> usize {
        self.stale_routes
    }

    /// Memory of all lost routes, bytes.
    pub(crate) fn stale_bytes(&self) -> u64 {
        self.stale_bytes
    }

    /// Paths that `session` announces.
    pub(crate) fn announced_by(&self, session: SessionId) -> impl Iterator<Item = &Path> {
        self.sessions.get(&session).into_iter().flat_map(|session| &session.announced)
    }

    /// Checks a hop chain for length and for our own hop.
    pub(crate) fn check_chain(&self, hops: &Hops) -> Result<(), ChainError> {
        if hops.len() > limits::HOPS {
            return Err(ChainError::TooLong);
        }
        if self.hop != Hop::ANONYMOUS && hops.contains(&self.hop) {
            return Err(ChainError::Looped);
        }
        Ok(())
    }

    /// Adds or replaces a route with a sound chain. The number of routes of a session is limited by the session
    /// itself.
    pub(crate) fn announce(&mut self, announce: RouteAnnounce, now: Instant) -> RouteUpdate {
        let RouteAnnounce { session, path, hops, cost, permit } = announce;
        let own = self.sessions.entry(session).or_default();
        if own.announced.insert(path.clone()) {
            self.forget_loss(session, &path);
        }
        let draining = self.sessions.get(&session).is_some_and(|own| own.draining);
        let serial = self.next_serial();
        let route = Route { session, hops, cost, stale: false };
        let offer = RouteOffer { route, permit, draining, serial };
        let takeover = self.takeover;
        self.paths.entry(path.clone()).or_default();
        let mut is_admitted = false;
        let advertised = self.change(&path, |routes| is_admitted = routes.put(&path, offer, takeover, now));
        RouteUpdate { advertised, is_waiting: !is_admitted, ..RouteUpdate::default() }
    }

    /// Withdraws the route of an open session. `None` if it announces none.
    pub(crate) fn withdraw(
        &mut self,
        session: SessionId,
        path: &Path,
        loss: RouteLoss,
        now: Instant,
    ) -> Option<RouteUpdate> {
        let is_announced = self.sessions.get_mut(&session)?.announced.remove(path);
        is_announced.then(|| self.lose(session, path, loss, now))
    }

    /// Forgets a closed session. Returns the paths it announced; [`Self::lose`] must follow for each.
    pub(crate) fn close(&mut self, session: SessionId) -> BTreeSet<Path> {
        self.sessions.remove(&session).map(|session| session.announced).unwrap_or_default()
    }

    /// Handles the loss of a route that its session announces no more: it is kept for a while if it was
    /// advertised and that is of use, and dropped otherwise.
    pub(crate) fn lose(
        &mut self,
        session: SessionId,
        path: &Path,
        loss: RouteLoss,
        now: Instant,
    ) -> RouteUpdate {
        let serial = self.next_serial();
        let Some(routes) = self.paths.get(path) else { return RouteUpdate::default() };
        let own = routes.of_session(session);
        let is_admitted = own.is_some_and(|own| own.standing.is_admitted());
        let relay = own.filter(|_| loss == RouteLoss::LastWithdrawn).and_then(|own| own.relay());
        let is_alone = routes.entries().len() == 1;
        let is_useful = is_admitted && (loss == RouteLoss::Vanished || !is_alone);
        let is_full = self.stale_routes >= STALE_ROUTES || self.stale_bytes >= self.stale_limit_bytes;
        if !is_useful || is_full {
            let advertised = self.change(path, |routes| routes.remove(session));
            return RouteUpdate { advertised, is_over_limit: is_useful, ..RouteUpdate::default() };
        }
        let (until, in_hold_down) = (now + self.linger, true);
        let due = until.min(now + self.hold_down);
        let standing = match loss {
            RouteLoss::Vanished => Standing::Stale { in_hold_down, due, until },
            RouteLoss::Withdrawn | RouteLoss::LastWithdrawn => {
                Standing::Withdrawn { withdrawal: Withdrawal { relay, serial }, in_hold_down, due }
            }
        };
        // The change may drop the route at once, and then disarms this deadline.
        self.deadlines.arm(due, LostRoute { path: path.clone(), session });
        self.count_stale(path);
        let advertised = self.change(path, |routes| routes.set_standing(session, standing));
        RouteUpdate { advertised, ..RouteUpdate::default() }
    }

    /// Marks `session` as draining: its routes, also future ones, rank last. Returns the paths it announces;
    /// [`Self::drain_path`] must follow for each. Empty if it drains already.
    pub(crate) fn drain(&mut self, session: SessionId) -> Vec<Path> {
        let own = self.sessions.entry(session).or_default();
        if std::mem::replace(&mut own.draining, true) {
            return Vec::new();
        }
        own.announced.iter().cloned().collect()
    }

    /// Ranks the route of a draining session last.
    pub(crate) fn drain_path(&mut self, session: SessionId, path: &Path) -> RouteUpdate {
        let advertised = self.change(path, |routes| routes.drain(session));
        RouteUpdate { advertised, ..RouteUpdate::default() }
    }

    /// Takes the next lost route whose deadline has passed; [`Self::expire`] must follow.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<LostRoute> {
        self.deadlines.pop_due(now)
    }

    /// Ends the hold-down of a lost route. A stale one is kept as a last resort until the end of the linger.
    pub(crate) fn expire(&mut self, lost: LostRoute) -> RouteUpdate {
        let LostRoute { path, session } = lost;
        let routes = self.paths.get(&path);
        let standing = routes.and_then(|routes| routes.of_session(session)).map(|own| own.standing);
        let advertised = if let Some(Standing::Stale { in_hold_down: true, until, .. }) = standing {
            let standing = Standing::Stale { in_hold_down: false, due: until, until };
            self.deadlines.arm(until, LostRoute { path: path.clone(), session });
            self.change(&path, |routes| routes.set_standing(session, standing))
        } else {
            self.uncount_stale(&path);
            self.change(&path, |routes| routes.remove(session))
        };
        RouteUpdate { advertised, ..RouteUpdate::default() }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Number of armed deadlines.
    pub(crate) fn deadlines(&self) -> usize {
        self.deadlines.len()
    }

    /// Asserts the invariants of the table.
    pub(crate) fn check(&self) {
        let (mut stale_routes, mut stale_bytes) = (0, 0);
        for (path, routes) in &self.paths {
            routes.check(self.takeover);
            for entry in routes.entries() {
                let session = entry.route.session;
                let is_announced = self.announced_by(session).any(|announced| announced == path);
                assert_eq!(is_announced, entry.standing.is_announced(), "standing and announces disagree");
                if let Some(due) = entry.standing.due() {
                    stale_routes += 1;
                    stale_bytes += stale_footprint(path);
                    let lost = LostRoute { path: path.clone(), session };
                    assert!(self.deadlines.contains(due, lost), "deadline of a lost route is not armed");
                }
                assert_eq!(self.check_chain(&entry.route.hops), Ok(()));
            }
        }
        for (session, own) in &self.sessions {
            let has_route = |path| self.get(path).is_some_and(|routes| routes.of_session(*session).is_some());
            assert!(own.announced.iter().all(has_route), "announced path has no route");
        }
        assert_eq!(
            (stale_routes, stale_bytes),
            (self.stale_routes, self.stale_bytes),
            "lost routes miscounted"
        );
        assert!(stale_routes <= STALE_ROUTES);
        assert_eq!(stale_routes, self.deadlines.len(), "a deadline without a lost route");
    }

    /// Changes the routes of `path` and reconciles them. Returns the routes to advertise, if they changed.
    fn change(&mut self, path: &Path, change: impl FnOnce(&mut PathRoutes)) -> Option<Vec<Route>> {
        let routes = self.paths.get_mut(path)?;
        let before = routes.advertised();
        change(routes);
        let dropped = routes.reconcile(self.takeover);
        let advertised = routes.advertised();
        if routes.is_empty() {
            self.paths.remove(path);
        }
        for dropped in dropped {
            self.uncount_stale(path);
            let lost = LostRoute { path: path.clone(), session: dropped.session };
            self.deadlines.disarm(dropped.due, lost);
        }
        (advertised != before).then_some(advertised)
    }

    /// Disarms and uncounts the lost route of a session that announces `path` again.
    fn forget_loss(&mut self, session: SessionId, path: &Path) {
        let own = self.paths.get(path).and_then(|routes| routes.of_session(session));
        if let Some(due) = own.and_then(|own| own.standing.due()) {
            self.uncount_stale(path);
            self.deadlines.disarm(due, LostRoute { path: path.clone(), session });
        }
    }

    fn count_stale(&mut self, path: &Path) {
        self.stale_routes += 1;
        self.stale_bytes += stale_footprint(path);
    }

    fn uncount_stale(&mut self, path: &Path) {
        self.stale_routes -= 1;
        self.stale_bytes -= stale_footprint(path);
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use relay_auth::Policy;
    use relay_model::Scope;

    use super::*;

    const OWN_HOP: u64 = 99;

    fn table() -> RouteTable {
        RouteTable::new(&CoreConfig::new(Hop(OWN_HOP)))
    }

    fn path() -> Path {
        Path::parse("a").unwrap()
    }

    fn hops(chain: &[u64]) -> Hops {
        chain.iter().copied().map(Hop).collect()
    }

    fn announce(session: u64, subject: &str, chain: &[u64]) -> RouteAnnounce {
        let policy = Policy::public(Scope::of([path()]), Scope::of([path()])).with_subject(subject);
        let permit = policy.admit("/", SystemTime::UNIX_EPOCH).unwrap();
        let cost = Cost { warm: 1, cold: 1 };
        RouteAnnounce { session: SessionId(session), path: path(), hops: hops(chain), cost, permit }
    }

    fn vanish(table: &mut RouteTable, session: u64, now: Instant) -> RouteUpdate {
        table.close(SessionId(session));
        table.lose(SessionId(session), &path(), RouteLoss::Vanished, now)
    }

    fn expire(table: &mut RouteTable, now: Instant) -> RouteUpdate {
        let lost = table.pop_due(now).unwrap();
        table.expire(lost)
    }

    fn sessions(update: &RouteUpdate) -> Vec<u64> {
        update.advertised.iter().flatten().map(|route| route.session.0).collect()
    }

    #[test]
    fn vanished_route_is_advertised_until_the_linger_ends() {
        let (mut table, now) = (table(), Instant::now());
        let _ = table.announce(announce(1, "alice", &[7]), now);
        assert_eq!(vanish(&mut table, 1, now), RouteUpdate::default());
        table.check();
        assert_eq!(table.next_deadline(), Some(now + limits::HOLD_DOWN));
        assert_eq!(expire(&mut table, now + limits::HOLD_DOWN), RouteUpdate::default());
        assert_eq!(table.next_deadline(), Some(now + limits::LINGER));
        table.check();
        let update = expire(&mut table, now + limits::LINGER);
        assert_eq!((update.advertised, table.paths().len()), (Some(Vec::new()), 0));
        assert_eq!((table.stale_routes(), table.stale_bytes()), (0, 0));
    }

    #[test]
    fn returned_publisher_replaces_its_stale_route() {
        let (mut table, now) = (table(), Instant::now());
        let _ = table.announce(announce(1, "alice", &[7]), now);
        let _ = vanish(&mut table, 1, now);
        let update = table.announce(announce(2, "alice", &[7]), now);
        assert_eq!((sessions(&update), table.deadlines()), (vec![2], 0));
        table.check();
    }

    #[test]
    fn waiting_route_follows_the_last_route_of_the_holder() {
        let (mut table, now) = (table(), Instant::now());
        let _ = table.announce(announce(1, "alice", &[7]), now);
        let update = table.announce(announce(2, "bob", &[8]), now);
        assert_eq!((update.is_waiting, update.advertised), (true, None));
        table.check();
        let update = table.withdraw(SessionId(1), &path(), RouteLoss::Withdrawn, now).unwrap();
        assert_eq!(sessions(&update), [2]);
        assert_eq!(table.withdraw(SessionId(1), &path(), RouteLoss::Withdrawn, now), None);
        table.check();
    }

    #[test]
    fn last_withdrawal_of_a_relay_suppresses_its_echo() {
        let (mut table, now) = (table(), Instant::now());
        let _ = table.announce(announce(1, "alice", &[7, 2]), now);
        let _ = table.announce(announce(3, "alice", &[7, 2, 4]), now);
        let update = table.withdraw(SessionId(1), &path(), RouteLoss::LastWithdrawn, now).unwrap();
        assert_eq!(sessions(&update), [1]);
        assert!(update.advertised.iter().flatten().all(|route| route.stale));
        assert!(!table.get(&path()).unwrap().is_served());
        table.check();
        assert_eq!(sessions(&expire(&mut table, now + limits::HOLD_DOWN)), [3]);
        assert!(table.get(&path()).unwrap().is_served());
        table.check();
    }

    #[test]
    fn draining_session_ranks_last() {
        let (mut table, now) = (table(), Instant::now());
        let _ = table.announce(announce(1, "alice", &[7]), now);
        let _ = table.announce(announce(2, "alice", &[7]), now);
        assert_eq!(table.drain(SessionId(2)), [path()]);
        assert_eq!(sessions(&table.drain_path(SessionId(2), &path())), [1, 2]);
        assert!(table.drain(SessionId(2)).is_empty());
        table.check();
    }

    #[test]
    fn lost_route_past_the_memory_limit_is_withdrawn() {
        let now = Instant::now();
        let mut table = RouteTable::new(&CoreConfig { stale_bytes: 0, ..CoreConfig::new(Hop(OWN_HOP)) });
        let _ = table.announce(announce(1, "alice", &[7]), now);
        let update = vanish(&mut table, 1, now);
        assert_eq!((update.advertised, update.is_over_limit), (Some(Vec::new()), true));
        assert_eq!(table.deadlines(), 0);
    }

    #[test]
    fn chain_with_our_hop_or_too_many_hops_is_refused() {
        let table = table();
        assert_eq!(table.check_chain(&hops(&[7, OWN_HOP])), Err(ChainError::Looped));
        assert_eq!(table.check_chain(&hops(&[7; limits::HOPS + 1])), Err(ChainError::TooLong));
        assert_eq!(table.check_chain(&hops(&[7; limits::HOPS])), Ok(()));
    }
}
