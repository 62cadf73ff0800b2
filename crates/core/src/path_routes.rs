//! Routes of one path, best first.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use std::time::Instant;

use relay_auth::Permit;
use relay_model::{Hop, Path, Route, SessionId};

use crate::{
    config::Takeover,
    publisher::PublisherId,
    reconcile::{self, is_admissible},
    route::{RouteEntry, RouteOffer},
    standing::Standing,
};

/// Routes of one path. Dropped when there is none.
#[derive(Debug, Default)]
pub(crate) struct PathRoutes {
    /// Sorted by rank; at most one of each session.
    entries: Vec<RouteEntry>,
    /// Start of the current uninterrupted time with at least one route of any standing.
    since: Option<Instant>,
}

/// Lost route that was dropped from the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DroppedRoute {
    pub(crate) session: SessionId,
    /// Deadline it had.
    pub(crate) due: Instant,
}

impl PathRoutes {
    /// Adds a route, or replaces the one of the same session. A route of the same publisher on a new session
    /// ends the hold-down of its lost routes. Returns whether the route is admitted. [`Self::reconcile`] must
    /// follow.
    pub(crate) fn put(&mut self, path: &Path, offer: RouteOffer, takeover: Takeover, now: Instant) -> bool {
        if self.entries.is_empty() {
            self.since = Some(now);
        }
        let before = self.position(offer.route.session).map(|at| self.entries.remove(at));
        let was_admitted = before.as_ref().is_some_and(|before| before.standing.is_admitted());
        let holder = self.holder().or_else(|| Some(&offer.permit).filter(|permit| !permit.is_peer()));
        let is_admitted = was_admitted || is_admissible(&offer.permit, holder, takeover);
        let standing = if is_admitted { Standing::Live } else { Standing::Waiting };
        let entry = RouteEntry::new(path, offer, standing, before.as_ref());
        if is_admitted && before.is_none_or(|before| before.publisher != entry.publisher) {
            let same = self.entries.iter_mut().filter(|other| other.publisher == entry.publisher);
            same.for_each(|other| other.standing.end_hold_down());
        }
        self.insert(entry);
        is_admitted
    }

    /// Start of the current uninterrupted time with at least one route of any standing.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Drops the route of `session`, whatever its standing. [`Self::reconcile`] must follow.
    pub(crate) fn remove(&mut self, session: SessionId) {
        self.entries.retain(|entry| entry.route.session != session);
    }

    /// Sets the standing of the route of `session`. [`Self::reconcile`] must follow.
    pub(crate) fn set_standing(&mut self, session: SessionId, standing: Standing) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.route.session == session) {
            entry.standing = standing;
        }
    }

    /// Ranks the route of `session` last. [`Self::reconcile`] must follow.
    pub(crate) fn drain(&mut self, session: SessionId) {
        if let Some(at) = self.position(session) {
            let mut entry = self.entries.remove(at);
            entry.rank.draining = true;
            self.insert(entry);
        }
    }

    /// Sets the standings that follow from a change of the routes, see [`reconcile`]. Returns the lost routes
    /// that were dropped.
    pub(crate) fn reconcile(&mut self, takeover: Takeover) -> Vec<DroppedRoute> {
        let mut dropped = Vec::new();
        let mut verdicts = reconcile::decide(&self.entries, takeover).into_iter();
        self.entries.retain_mut(|entry| match verdicts.next().flatten() {
            Some(standing) => {
                entry.standing = standing;
                true
            }
            None => {
                let due = entry.standing.due();
                dropped.extend(due.map(|due| DroppedRoute { session: entry.route.session, due }));
                false
            }
        });
        dropped
    }

    /// Routes that serve data, best first.
    pub(crate) fn live(&self) -> impl Iterator<Item = &RouteEntry> {
        self.entries.iter().filter(|entry| entry.standing == Standing::Live)
    }

    /// Whether a route serves data.
    pub(crate) fn is_served(&self) -> bool {
        self.live().next().is_some()
    }

    /// Stale and withdrawn routes, best first.
    pub(crate) fn lost(&self) -> impl Iterator<Item = &RouteEntry> {
        self.entries.iter().filter(|entry| !entry.standing.is_announced())
    }

    /// Routes whose publisher may come back, best first.
    pub(crate) fn stale(&self) -> impl Iterator<Item = &RouteEntry> {
        self.entries.iter().filter(|entry| entry.standing.is_stale())
    }

    /// Whether `session` withdrew its route to `publisher`, which is still advertised.
    pub(crate) fn is_leaving(&self, session: SessionId, publisher: PublisherId) -> bool {
        let own = self.of_session(session).filter(|own| own.publisher == publisher);
        own.is_some_and(|own| own.standing.withdrawal().is_some())
    }

    /// Routes shown on the announce board, best first.
    pub(crate) fn advertised(&self) -> Vec<Route> {
        let is_served = self.is_served();
        let admitted = || self.admitted().filter(|entry| is_served || entry.standing.is_stale());
        let shown: Vec<Route> = admitted().map(|entry| entry.route.clone()).collect();
        if is_served || !shown.is_empty() {
            return shown;
        }
        // Withdrawals that other relays have not confirmed yet.
        self.lost().map(|entry| Route { stale: true, ..entry.route.clone() }).collect()
    }

    /// All routes but those that wait for another subject, best first.
    pub(crate) fn admitted(&self) -> impl Iterator<Item = &RouteEntry> {
        self.entries.iter().filter(|entry| entry.standing.is_admitted())
    }

    /// All routes, best first.
    pub(crate) fn entries(&self) -> &[RouteEntry] {
        &self.entries
    }

    /// Route of `session`, whatever its standing.
    pub(crate) fn of_session(&self, session: SessionId) -> Option<&RouteEntry> {
        self.entries.iter().find(|entry| entry.route.session == session)
    }

    /// Route of `session`, if it serves data.
    pub(crate) fn live_of(&self, session: SessionId) -> Option<&RouteEntry> {
        self.of_session(session).filter(|entry| entry.standing == Standing::Live)
    }

    /// Routes to `publisher` that serve data, best first.
    pub(crate) fn live_to(&self, publisher: PublisherId) -> impl Iterator<Item = &RouteEntry> {
        self.live().filter(move |entry| entry.publisher == publisher)
    }

    /// Whether `publisher` has a route that serves data, or may come back soon.
    pub(crate) fn expects(&self, publisher: PublisherId) -> bool {
        self.live().chain(self.stale()).any(|entry| entry.publisher == publisher)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Asserts the order of the routes, and that their standings are the ones decided for them.
    pub(crate) fn check(&self, takeover: Takeover) {
        assert!(!self.is_empty(), "empty path was kept");
        assert!(self.entries.is_sorted_by(|a, b| a.rank < b.rank), "routes out of order");
        let decided = reconcile::decide(&self.entries, takeover);
        let standings = self.entries.iter().map(|entry| Some(entry.standing));
        assert!(decided.into_iter().eq(standings), "outdated standings: {:?}", self.entries);
        let holder = self.holder();
        for entry in &self.entries {
            let admitted = is_admissible(&entry.permit, holder, takeover);
            assert_eq!(entry.standing.is_admitted(), admitted, "admitted routes do not match the holder");
        }
        let needless = |entry: &RouteEntry| match entry.standing.withdrawal() {
            _ if self.is_served() => !entry.standing.in_hold_down(),
            Some(withdrawal) => !self.entries.iter().any(|entry| entry.echoes(withdrawal)),
            None => false,
        };
        assert!(!self.lost().any(needless), "needless lost route");
        let relays: Vec<Hop> = self.lost().filter_map(|entry| entry.standing.withdrawal()?.relay).collect();
        let mut suppressed = self.entries.iter().filter(|entry| entry.standing == Standing::Suppressed);
        assert!(
            suppressed.all(|entry| entry.route.hops.iter().any(|hop| relays.contains(hop))),
            "suppressed without a withdrawal"
        );
    }

    /// Permit of the holder of the path.
    fn holder(&self) -> Option<&Permit> {
        self.admitted().map(|entry| &entry.permit).find(|permit| !permit.is_peer())
    }

    fn insert(&mut self, entry: RouteEntry) {
        if self.entries.is_empty() {
            // Nearly every path has one route; a vector grows to four at once.
            self.entries.reserve_exact(1);
        }
        let at = self.entries.partition_point(|other| other.rank < entry.rank);
        self.entries.insert(at, entry);
    }

    fn position(&self, session: SessionId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.route.session == session)
    }
}

#[cfg(test)]
mod tests {
    use std::{iter, time::SystemTime};

    use proptest::{collection::vec, prelude::*};
    use relay_auth::Policy;
    use relay_model::{Cost, Scope};

    use super::*;
    use crate::standing::Withdrawal;

    #[derive(Clone, Debug)]
    enum Change {
        Put { session: u64, subject: u8, hops: Vec<u64> },
        Vanish { session: u64, in_hold_down: bool },
        Withdraw { session: u64, in_hold_down: bool, is_last: bool },
        Remove { session: u64 },
    }

    fn change() -> impl Strategy<Value = Change> {
        let hops =
            prop_oneof![vec(1..5_u64, 1..4), Just(vec![1, 2]), Just(vec![1, 2, 3]), Just(vec![1, 2, 4])];
        let session = || 0..5_u64;
        prop_oneof![
            4 => (session(), 0..4_u8, hops).prop_map(|(session, subject, hops)| Change::Put { session, subject, hops }),
            1 => (session(), any::<bool>()).prop_map(|(session, in_hold_down)| Change::Vanish { session, in_hold_down }),
            2 => (session(), any::<bool>(), any::<bool>())
                .prop_map(|(session, in_hold_down, is_last)| Change::Withdraw { session, in_hold_down, is_last }),
            1 => session().prop_map(|session| Change::Remove { session }),
        ]
    }

    /// Permit of a subject of its own, or of a relay.
    fn permit(subject: u8) -> Permit {
        let scope = || Scope::of([Path::parse("").unwrap()]);
        let policy = Policy::public(scope(), scope());
        let policy = match subject {
            0 => policy.for_peers(),
            subject => policy.with_subject(subject.to_string()),
        };
        policy.admit("/", SystemTime::UNIX_EPOCH).unwrap()
    }

    fn apply(routes: &mut PathRoutes, change: Change, serial: u64, takeover: Takeover, now: Instant) {
        let lose = |routes: &mut PathRoutes, session: u64, standing: Standing| {
            let session = SessionId(session);
            let own = routes.of_session(session).map(|own| own.standing);
            if own.is_some_and(|own| own.is_announced() && own.is_admitted()) {
                routes.set_standing(session, standing);
            }
        };
        match change {
            Change::Put { session, subject, hops } => {
                let hops = hops.into_iter().map(Hop).collect();
                let (cost, session) = (Cost { warm: 1, cold: 1 }, SessionId(session));
                let route = Route { session, hops, cost, stale: false };
                // A session keeps its subject.
                let before = routes.of_session(session).map(|own| own.permit.clone());
                let permit = before.unwrap_or_else(|| permit(subject));
                let offer = RouteOffer { route, permit, draining: false, serial };
                routes.put(&Path::parse("a").unwrap(), offer, takeover, now);
            }
            Change::Vanish { session, in_hold_down } => {
                lose(routes, session, Standing::Stale { in_hold_down, due: now, until: now });
            }
            Change::Withdraw { session, in_hold_down, is_last } => {
                let own = routes.of_session(SessionId(session)).filter(|_| is_last);
                let withdrawal = Withdrawal { relay: own.and_then(RouteEntry::relay), serial };
                lose(routes, session, Standing::Withdrawn { withdrawal, in_hold_down, due: now });
            }
            Change::Remove { session } => routes.remove(SessionId(session)),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn reconciled_routes_are_a_fixpoint(changes in vec(change(), 1..24), any_subject in any::<bool>()) {
            let takeover = if any_subject { Takeover::Any } else { Takeover::Identity };
            let (mut routes, now) = (PathRoutes::default(), Instant::now());
            for (change, serial) in iter::zip(changes, 1..) {
                apply(&mut routes, change, serial, takeover, now);
                let _ = routes.reconcile(takeover);
                let standings = |routes: &PathRoutes| routes.entries.iter().map(|e| e.standing).collect::<Vec<_>>();
                let before = standings(&routes);
                prop_assert_eq!(routes.reconcile(takeover), []);
                prop_assert_eq!(standings(&routes), before);
                if !routes.is_empty() {
                    routes.check(takeover);
                }
            }
        }
    }
}
