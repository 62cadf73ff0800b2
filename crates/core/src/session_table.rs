//! Table of sessions: permits, excluded hops, and throttled requests.

use std::{collections::HashMap, time::Instant};

use foldhash::fast::RandomState;
use relay_auth::Permit;
use relay_model::{Hop, Hops, Prefs, SessionId};

use crate::{
    deadlines::DeadlineSet,
    log::ReaderKey,
    throttle::{RequestThrottle, SubscribeRequest, ThrottleVerdict},
};

/// Admitted sessions that are not closed.
#[derive(Debug, Default)]
pub(crate) struct SessionTable {
    sessions: HashMap<SessionId, CoreSession, RandomState>,
    /// Release times of queued requests.
    deadlines: DeadlineSet<SessionId>,
}

/// One admitted session.
#[derive(Debug)]
pub(crate) struct CoreSession {
    pub(crate) permit: Permit,
    /// Hop id of the peer, if it sent one.
    pub(crate) exclude: Option<Hop>,
    throttle: RequestThrottle,
}

/// Split horizon of a session: it is never served its own content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SplitHorizon {
    pub(crate) session: SessionId,
    /// Hop id of its peer.
    pub(crate) exclude: Option<Hop>,
}

impl SplitHorizon {
    /// Whether the session may be served what `writer` writes through the chain `hops`.
    pub(crate) fn allows(self, writer: SessionId, hops: &Hops) -> bool {
        self.session != writer && self.allows_chain(hops)
    }

    /// Whether the session may be served what comes through the chain `hops`.
    pub(crate) fn allows_chain(self, hops: &Hops) -> bool {
        self.exclude.is_none_or(|hop| !hops.contains(&hop))
    }
}

impl SessionTable {
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<&CoreSession> {
        self.sessions.get(&id)
    }

    /// Adds a session. False if its id is in use.
    pub(crate) fn open(&mut self, id: SessionId, permit: Permit) -> bool {
        if self.sessions.contains_key(&id) {
            return false;
        }
        self.sessions.insert(id, CoreSession { permit, exclude: None, throttle: RequestThrottle::default() });
        true
    }

    /// Removes a session and its queued requests. False if it is unknown.
    pub(crate) fn close(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.remove(&id) else { return false };
        if let Some(due) = session.throttle.due() {
            self.deadlines.disarm(due, id);
        }
        true
    }

    /// Replaces the permit of a session. False if it is unknown.
    pub(crate) fn revise(&mut self, id: SessionId, permit: Permit) -> bool {
        self.sessions.get_mut(&id).map(|session| session.permit = permit).is_some()
    }

    /// Sets the hop id of a session's peer. Returns whether it changed.
    pub(crate) fn set_exclude(&mut self, id: SessionId, exclude: Option<Hop>) -> bool {
        let session = self.sessions.get_mut(&id).filter(|session| session.exclude != exclude);
        session.map(|session| session.exclude = exclude).is_some()
    }

    /// Split horizon of a session. Of an unknown one: nothing but itself is excluded.
    pub(crate) fn horizon(&self, id: SessionId) -> SplitHorizon {
        SplitHorizon { session: id, exclude: self.get(id).and_then(|session| session.exclude) }
    }

    /// Decides on a request of a session to a publisher.
    pub(crate) fn throttle(
        &mut self,
        id: SessionId,
        request: SubscribeRequest,
        now: Instant,
    ) -> ThrottleVerdict {
        let Some(session) = self.sessions.get_mut(&id) else { return ThrottleVerdict::Pass };
        // A peer relay asks on behalf of all of its own sessions, and throttles those itself.
        if session.permit.is_peer() {
            session.throttle.count(now);
            return ThrottleVerdict::Pass;
        }
        let before = session.throttle.due();
        let verdict = session.throttle.admit(request, now);
        if before.is_none()
            && let Some(due) = session.throttle.due()
        {
            self.deadlines.arm(due, id);
        }
        verdict
    }

    /// Takes the next session whose queued request is due; [`Self::release`] must follow.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<SessionId> {
        self.deadlines.pop_due(now)
    }

    /// Takes the next queued request of a session.
    pub(crate) fn release(&mut self, id: SessionId, now: Instant) -> Option<SubscribeRequest> {
        let throttle = &mut self.sessions.get_mut(&id)?.throttle;
        let request = throttle.release(now);
        if let Some(due) = throttle.due() {
            self.deadlines.arm(due, id);
        }
        request
    }

    /// Whether a subscription is queued.
    pub(crate) fn is_queued(&self, reader: ReaderKey) -> bool {
        self.get(reader.session).is_some_and(|session| session.throttle.holds(reader.sub))
    }

    /// Updates the preferences of a queued subscription; false if it is not queued.
    pub(crate) fn update_queued(&mut self, reader: ReaderKey, prefs: Prefs) -> bool {
        let session = self.sessions.get_mut(&reader.session);
        session.is_some_and(|session| session.throttle.update(reader.sub, prefs))
    }

    /// Removes a queued subscription; false if it is not queued.
    pub(crate) fn cancel_queued(&mut self, reader: ReaderKey) -> bool {
        let Some(session) = self.sessions.get_mut(&reader.session) else { return false };
        let before = session.throttle.due();
        let is_cancelled = session.throttle.cancel(reader.sub);
        if let Some(due) = before.filter(|_| session.throttle.due().is_none()) {
            self.deadlines.disarm(due, reader.session);
        }
        is_cancelled
    }

    /// Counts a reply that a track requested for the session does not exist.
    pub(crate) fn count_missing(&mut self, id: SessionId, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.throttle.count_missing(now);
        }
    }

    /// Number of queued subscriptions.
    #[cfg(test)]
    pub(crate) fn queued(&self) -> usize {
        self.sessions.values().map(|session| session.throttle.queued()).sum()
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
        let mut due = 0;
        for (id, session) in &self.sessions {
            session.throttle.check();
            if let Some(at) = session.throttle.due() {
                due += 1;
                assert!(self.deadlines.contains(at, *id), "release of a queued request is not armed");
            }
        }
        assert_eq!(due, self.deadlines.len(), "a deadline without a queued request");
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use relay_auth::Policy;
    use relay_model::{Path, Scope, SubId, TrackName, Want, limits};

    use super::*;
    use crate::log::TrackDemand;

    const SESSION: SessionId = SessionId(1);

    fn open(policy: Policy, now: Instant) -> SessionTable {
        let mut table = SessionTable::default();
        assert!(table.open(SESSION, policy.admit("/", SystemTime::UNIX_EPOCH).unwrap()));
        for sub in 0..u64::from(limits::BRAKE_MISSES) {
            assert_eq!(table.throttle(SESSION, request(sub), now), ThrottleVerdict::Pass);
            table.count_missing(SESSION, now);
        }
        table
    }

    fn policy() -> Policy {
        let path = || Scope::of([Path::parse("").unwrap()]);
        Policy::public(path(), path())
    }

    fn request(sub: u64) -> SubscribeRequest {
        let (path, track) = (Path::parse("a").unwrap(), TrackName::parse("video").unwrap());
        let demand = TrackDemand { prefs: Prefs::default(), want: Want::Live };
        SubscribeRequest { sub: SubId(sub), path, track, demand }
    }

    #[test]
    fn queued_request_is_due_until_cancelled() {
        let now = Instant::now();
        let mut table = open(policy(), now);
        assert_eq!(table.throttle(SESSION, request(100), now), ThrottleVerdict::Queued);
        let reader = ReaderKey { session: SESSION, sub: SubId(100) };
        assert!(table.is_queued(reader) && table.next_deadline().is_some());
        table.check();
        assert!(table.cancel_queued(reader) && !table.is_queued(reader));
        assert_eq!(table.next_deadline(), None);
        table.check();
    }

    #[test]
    fn queued_requests_are_released_in_turn() {
        let now = Instant::now();
        let mut table = open(policy(), now);
        for sub in [100, 101] {
            assert_eq!(table.throttle(SESSION, request(sub), now), ThrottleVerdict::Queued);
        }
        for sub in [100, 101] {
            let due = table.next_deadline().unwrap();
            assert_eq!(table.pop_due(due), Some(SESSION));
            assert_eq!(table.release(SESSION, due), Some(request(sub)));
            table.check();
        }
        assert_eq!(table.next_deadline(), None);
    }

    #[test]
    fn peer_relay_is_not_throttled() {
        let now = Instant::now();
        let mut table = open(policy().for_peers(), now);
        assert_eq!(table.throttle(SESSION, request(100), now), ThrottleVerdict::Pass);
    }

    #[test]
    fn closed_session_leaves_no_deadline() {
        let now = Instant::now();
        let mut table = open(policy(), now);
        assert_eq!(table.throttle(SESSION, request(100), now), ThrottleVerdict::Queued);
        assert!(table.close(SESSION) && !table.close(SESSION));
        assert_eq!((table.len(), table.deadlines()), (0, 0));
    }

    #[test]
    fn split_horizon_excludes_own_content() {
        let mut table = SessionTable::default();
        assert!(table.open(SESSION, policy().admit("/", SystemTime::UNIX_EPOCH).unwrap()));
        assert!(table.set_exclude(SESSION, Some(Hop(5))) && !table.set_exclude(SESSION, Some(Hop(5))));
        let horizon = table.horizon(SESSION);
        let chain = |hop| [Hop(hop)].into_iter().collect::<Hops>();
        assert!(horizon.allows(SessionId(2), &chain(4)));
        assert!(!horizon.allows(SESSION, &chain(4)) && !horizon.allows(SessionId(2), &chain(5)));
    }
}
