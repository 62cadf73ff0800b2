//! Standings of the routes of one path, decided together.
//!
//! The standing of a route depends on the others: a lost route is kept or dropped by the routes that serve the
//! path, a path passes to another subject when its holder has no route left, and a kept withdrawal suppresses
//! older routes through the relay that sent it. The order is:
//!
//! 1. lost routes are kept or dropped, judged by the routes admitted so far;
//! 2. the path passes to the subject of the best route, if that leaves its holder without one;
//! 3. if it does, the lost routes that were kept are judged again: the admitted routes may replace them;
//! 4. announced routes are live, waiting, or suppressed by the withdrawals that are kept.
//!
//! The result is a fixpoint: deciding again changes nothing.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use relay_auth::Permit;
use smallvec::SmallVec;

use crate::{
    config::Takeover,
    route::RouteEntry,
    standing::{Standing, Withdrawal},
};

/// Decisions on the routes of a path, in their order. `None`: the lost route is dropped.
pub(crate) type RouteVerdicts = SmallVec<[Option<Standing>; 4]>;

/// Decides the standing of each route. `entries` are sorted by rank.
pub(crate) fn decide(entries: &[RouteEntry], takeover: Takeover) -> RouteVerdicts {
    let mut judge = RouteJudge {
        entries,
        admitted: entries.iter().map(|entry| entry.standing.is_admitted()).collect(),
        kept: SmallVec::from_elem(true, entries.len()),
    };
    judge.drop_needless();
    if judge.admit(takeover) {
        judge.drop_needless();
    }
    judge.verdicts()
}

/// Whether routes with `permit` are admitted to a path of `holder`. Relays of the cluster neither hold a path
/// nor are rejected: their publishers were admitted elsewhere.
pub(crate) fn is_admissible(permit: &Permit, holder: Option<&Permit>, takeover: Takeover) -> bool {
    takeover == Takeover::Any
        || permit.is_peer()
        || holder.is_some_and(|holder| holder.subject() == permit.subject())
}

/// Routes of a path during the decision.
struct RouteJudge<'a> {
    entries: &'a [RouteEntry],
    /// Whether the route is advertised as far as its subject is concerned, by index.
    admitted: SmallVec<[bool; 8]>,
    /// Whether the route stays in the table, by index. Announced routes always do.
    kept: SmallVec<[bool; 8]>,
}

impl<'a> RouteJudge<'a> {
    /// Drops needless lost routes: beside a route that serves the path, those whose hold-down is over; without
    /// one, withdrawn ones that suppress no other route.
    fn drop_needless(&mut self) {
        if self.entries.iter().all(|entry| entry.standing.is_announced()) {
            return;
        }
        let is_served = self.is_served();
        let is_kept = |entry: &RouteEntry| match entry.standing {
            Standing::Live | Standing::Waiting | Standing::Suppressed => true,
            standing if is_served => standing.in_hold_down(),
            standing => standing.withdrawal().is_none_or(|withdrawal| self.suppresses_any(withdrawal)),
        };
        self.kept =
            self.entries.iter().zip(&self.kept).map(|(entry, kept)| *kept && is_kept(entry)).collect();
    }

    /// Admits the routes of the holder of the path. Returns whether that changed which routes are admitted.
    fn admit(&mut self, takeover: Takeover) -> bool {
        let holder = self.holder();
        let admitted: SmallVec<[bool; 8]> =
            self.entries.iter().map(|entry| is_admissible(&entry.permit, holder, takeover)).collect();
        let is_changed = admitted != self.admitted;
        self.admitted = admitted;
        is_changed
    }

    /// Permit of the holder of the path: that of the routes that are admitted already, or else of the best
    /// route.
    fn holder(&self) -> Option<&'a Permit> {
        let owned = || self.kept().filter(|(entry, _)| !entry.permit.is_peer());
        let holder = owned().find(|(_, admitted)| *admitted).or_else(|| owned().next());
        holder.map(|(entry, _)| &entry.permit)
    }

    fn verdicts(&self) -> RouteVerdicts {
        let verdict = |((entry, admitted), kept): ((&RouteEntry, &bool), &bool)| match entry.standing {
            Standing::Stale { .. } | Standing::Withdrawn { .. } => kept.then_some(entry.standing),
            _ if !admitted => Some(Standing::Waiting),
            _ if self.is_suppressed(entry) => Some(Standing::Suppressed),
            _ => Some(Standing::Live),
        };
        self.entries.iter().zip(&self.admitted).zip(&self.kept).map(verdict).collect()
    }

    /// Whether an admitted, announced route is not suppressed.
    fn is_served(&self) -> bool {
        self.announced().any(|entry| !self.is_suppressed(entry))
    }

    fn is_suppressed(&self, entry: &RouteEntry) -> bool {
        let withdrawals = self.kept().filter_map(|(entry, _)| entry.standing.withdrawal());
        withdrawals.into_iter().any(|withdrawal| self.suppresses(withdrawal, entry))
    }

    fn suppresses_any(&self, withdrawal: Withdrawal) -> bool {
        withdrawal.relay.is_some() && self.announced().any(|entry| self.suppresses(withdrawal, entry))
    }

    /// Whether `withdrawal` invalidates the route. False if its relay still announces the path on another
    /// session.
    fn suppresses(&self, withdrawal: Withdrawal, entry: &RouteEntry) -> bool {
        entry.echoes(withdrawal)
            && !self.announced().any(|other| other.route.hops.last() == withdrawal.relay.as_ref())
    }

    /// Admitted routes that are announced now, best first.
    fn announced(&self) -> impl Iterator<Item = &'a RouteEntry> {
        let admitted = self.entries.iter().zip(&self.admitted).filter(|(_, admitted)| **admitted);
        admitted.map(|(entry, _)| entry).filter(|entry| entry.standing.is_announced())
    }

    /// Routes that are not dropped, best first, and whether each is admitted.
    fn kept(&self) -> impl Iterator<Item = (&'a RouteEntry, bool)> {
        let all = self.entries.iter().zip(&self.admitted).zip(&self.kept);
        all.filter(|(_, kept)| **kept).map(|((entry, admitted), _)| (entry, *admitted))
    }
}
