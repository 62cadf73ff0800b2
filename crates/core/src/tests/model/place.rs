//! Routes announced for one path, and their visibility.

use std::{collections::BTreeSet, time::Instant};

use relay_auth::Permit;
use relay_model::{Cost, Hop, Hops, Route, SessionId};

use super::super::{HOLD_DOWN, LINGER};
use crate::Takeover;

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) session: SessionId,
    pub(super) hops: Hops,
    pub(super) cost: Cost,
    pub(super) permit: Permit,
    pub(super) draining: bool,
    /// Time when its session vanished or withdrew it.
    pub(super) vanished: Option<Instant>,
    /// Its session withdrew it or closed.
    pub(super) gone: bool,
    /// Relay that withdrew its last route with it.
    withdrawn_by: Option<Hop>,
    /// Its publisher has a newer route elsewhere.
    pub(super) displaced: bool,
}

/// Way in which a route ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    Vanished,
    /// Its session closed.
    Closed,
    /// Its relay withdrew it and has no other route.
    LastWord,
    /// It was replaced by a looped chain.
    Looped,
}

#[derive(Debug, Default)]
pub(super) struct Place {
    /// In order of the last announce or withdrawal of each.
    pub(super) entries: Vec<Entry>,
    /// Subject that took the path while it was free.
    holder: Option<Permit>,
}

impl Entry {
    pub(super) fn new(
        session: SessionId,
        (hops, cost): (Hops, Cost),
        permit: Permit,
        draining: bool,
    ) -> Self {
        let (vanished, gone, withdrawn_by, displaced) = (None, false, None, false);
        Self { session, hops, cost, permit, draining, vanished, gone, withdrawn_by, displaced }
    }

    /// Rank, lower is better; equal ones may be in any order.
    pub(super) fn worth(&self) -> (bool, bool, u64, u64, usize) {
        let anonymous = self.hops.iter().take(2).any(|hop| *hop == Hop::ANONYMOUS);
        (self.draining, anonymous, self.cost.warm, self.cost.cold, self.hops.len())
    }
}

impl Place {
    pub(super) fn live(&self, session: SessionId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.session == session && entry.vanished.is_none())
    }

    pub(super) fn counts(&self, entry: &Entry, takeover: Takeover) -> bool {
        let holds = |holder: &Permit| holder.subject() == entry.permit.subject();
        takeover == Takeover::Any || entry.permit.is_peer() || self.holder.as_ref().is_some_and(holds)
    }

    pub(super) fn usable(&self, takeover: Takeover) -> impl Iterator<Item = &Entry> {
        let trusted = self.entries.iter().enumerate().filter(move |(at, _)| !self.is_hearsay(*at, takeover));
        let trusted = trusted.map(|(_, entry)| entry);
        trusted.filter(move |entry| entry.vanished.is_none() && self.counts(entry, takeover))
    }

    /// Whether a relay in its chain has withdrawn the path since.
    fn is_hearsay(&self, at: usize, takeover: Takeover) -> bool {
        (at + 1..self.entries.len()).any(|later| self.contradicts(later, at, takeover))
    }

    /// Whether entry `later` is the last withdrawal of a relay that the route at `at` came through.
    fn contradicts(&self, later: usize, at: usize, takeover: Takeover) -> bool {
        let (entry, Some(relay)) = (&self.entries[at], self.entries[later].withdrawn_by) else {
            return false;
        };
        let way = &entry.hops[..entry.hops.len().saturating_sub(1)];
        let direct = entry.hops.last() == Some(&relay);
        let mut live = self.entries.iter().filter(|e| e.vanished.is_none() && self.counts(e, takeover));
        let is_announced = live.any(|e| e.hops.last() == Some(&relay));
        at < later && entry.vanished.is_none() && !direct && way.contains(&relay) && !is_announced
    }

    pub(super) fn announce(&mut self, entry: Entry, takeover: Takeover) {
        if self.holder.is_none() && !entry.permit.is_peer() {
            self.holder = Some(entry.permit.clone());
        }
        let publisher = entry.hops.first().copied().filter(|hop| *hop != Hop::ANONYMOUS);
        let before = self.entries.iter().find(|other| other.session == entry.session);
        let before = before.and_then(|entry| entry.hops.first().copied());
        if publisher != before && publisher.is_some() && self.counts(&entry, takeover) {
            let same = self.entries.iter_mut().filter(|other| other.hops.first().copied() == publisher);
            same.for_each(|other| other.displaced = true);
        }
        self.entries.retain(|other| other.session != entry.session);
        self.entries.push(entry);
    }

    /// Ends the route of a session.
    pub(super) fn leave(&mut self, session: SessionId, how: Leave, now: Instant, takeover: Takeover) {
        let Some(entry) = self.live(session).cloned() else { return };
        self.entries.retain(|entry| entry.session != session);
        if self.counts(&entry, takeover) {
            let is_relay = entry.hops.len() > 1 && how == Leave::LastWord;
            let withdrawn_by = entry.hops.last().copied().filter(|hop| is_relay && *hop != Hop::ANONYMOUS);
            let gone = how != Leave::Vanished;
            self.entries.push(Entry { vanished: Some(now), gone, withdrawn_by, displaced: false, ..entry });
            self.drop_gone(takeover);
        }
    }

    /// Drops withdrawn entries that contradict nothing, once no route is usable.
    fn drop_gone(&mut self, takeover: Takeover) {
        if self.usable(takeover).next().is_none() {
            let counts = |at: &usize| self.counts(&self.entries[*at], takeover);
            let needless = |later: &usize| {
                let contradicted = |at: usize| self.contradicts(*later, at, takeover) && counts(&at);
                self.entries[*later].gone && !(0..*later).any(contradicted)
            };
            let needless: BTreeSet<SessionId> =
                (0..self.entries.len()).filter(needless).map(|at| self.entries[at].session).collect();
            self.entries.retain(|entry| !needless.contains(&entry.session));
        }
    }

    /// Whether `session` withdrew a route to `publisher` that is still shown.
    pub(super) fn is_leaving(&self, session: SessionId, publisher: Option<Hop>) -> bool {
        let named = publisher.filter(|hop| *hop != Hop::ANONYMOUS);
        let mut own = self.entries.iter().filter(|entry| entry.session == session && entry.gone);
        own.any(|entry| entry.hops.first().copied() == named)
    }

    /// Whether the hold-down of the lost route of `session` is over.
    pub(super) fn is_over(&self, session: SessionId, takeover: Takeover, ticked: Instant) -> bool {
        let in_hold_down = |entry: &Entry| {
            entry.vanished.is_some_and(|since| !entry.displaced && since + HOLD_DOWN > ticked)
        };
        let mut own = self.entries.iter().filter(|entry| entry.session == session);
        self.usable(takeover).next().is_none() || !own.any(in_hold_down)
    }

    /// Drops the lost routes that expired by the last timer run, and admits the next subject: of equally good
    /// ones, that on the board.
    pub(super) fn settle(&mut self, takeover: Takeover, ticked: Instant, shown: &[Route]) {
        let over = |entry: &Entry| if entry.gone { HOLD_DOWN } else { LINGER };
        self.entries.retain(|entry| entry.vanished.is_none_or(|since| since + over(entry) > ticked));
        self.drop_stale_routes(takeover, ticked);
        let owned = || self.entries.iter().filter(|entry| !entry.permit.is_peer());
        let holds = |entry: &Entry| {
            self.holder.as_ref().is_some_and(|holder| holder.subject() == entry.permit.subject())
        };
        if !owned().any(holds) {
            let shown = |entry: &&Entry| shown.iter().any(|route| route.session == entry.session);
            // The next holder's route may be silenced for now.
            let silenced = (0..self.entries.len())
                .all(|at| self.entries[at].vanished.is_some() || self.is_hearsay(at, takeover));
            let next = owned().filter(|entry| silenced || shown(entry)).min_by_key(|entry| entry.worth());
            let best = owned().map(Entry::worth).min();
            assert_eq!(next.map(Entry::worth), best, "the best waiting route was not admitted");
            self.holder = next.map(|entry| entry.permit.clone());
        }
        self.drop_stale_routes(takeover, ticked);
    }

    fn drop_stale_routes(&mut self, takeover: Takeover, ticked: Instant) {
        if self.usable(takeover).next().is_some() {
            let stays = |entry: &Entry| {
                entry.vanished.is_none_or(|since| !entry.displaced && since + HOLD_DOWN > ticked)
            };
            self.entries.retain(stays);
        }
        self.drop_gone(takeover);
    }

    pub(super) fn assert_shown(&self, takeover: Takeover, shown: &[Route]) {
        let entry = |route: &Route| (route.session, route.hops.clone(), route.cost);
        let routes: BTreeSet<_> = shown.iter().map(entry).collect();
        assert_eq!(routes.len(), shown.len(), "a session has two routes");
        let served = self.usable(takeover).next().is_some();
        let stays = |entry: &&Entry| served || (entry.vanished.is_some() && !entry.gone);
        let counted = self.entries.iter().filter(|entry| self.counts(entry, takeover)).filter(stays);
        let all = |e: &Entry| (e.session, e.hops.clone(), e.cost);
        let mut expected: BTreeSet<_> = counted.map(all).collect();
        let fades = expected.is_empty() && !served;
        if fades {
            let gone = self.entries.iter().filter(|entry| self.counts(entry, takeover) && entry.gone);
            expected.extend(gone.map(all));
        }
        assert!(shown.iter().all(|route| route.stale == fades), "fading flag is wrong");
        assert_eq!(routes, expected, "board and announced routes disagree");
        let worths = shown
            .iter()
            .map(|route| self.entries.iter().find(|entry| entry.session == route.session).map(Entry::worth));
        assert!(worths.is_sorted(), "board is not sorted by rank");
    }
}
