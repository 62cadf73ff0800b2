//! Answers of a worker to status requests.

use std::time::Instant;

use relay_wire::Version;

use super::{PeerState, Worker, guard, trace};
use crate::inspect::{SESSIONS_LISTED, SessionList, SessionQuery, SessionSeen, WorkerQuery};

impl Worker {
    /// Answers a request; a panic in its callback has no effect.
    pub(super) fn inspected(&mut self, now: Instant, asked: WorkerQuery) {
        match asked {
            WorkerQuery::Sessions { wanted, reply } => {
                let list = self.list_sessions(now, &wanted);
                guard(|| reply.give(list));
            }
            WorkerQuery::Kick { session, code, reason, reply } => {
                let is_here = self.open_peer(session).is_some();
                self.revoke(session, now, code, &reason);
                guard(|| reply.give(is_here));
            }
        }
    }

    /// Lists the requested sessions. Walks over all, and describes only those that are listed.
    fn list_sessions(&mut self, now: Instant, wanted: &SessionQuery) -> SessionList {
        let limit = wanted.limit.min(SESSIONS_LISTED);
        let peers = &self.peers;
        let is_meant = |index: &u32| {
            let Some(peer) = peers.get(*index).filter(|peer| peer.state == PeerState::Open) else {
                return false;
            };
            peer.permit.as_ref().is_some_and(|permit| permit.root().has_prefix(&wanted.prefix))
        };
        let mut found: Vec<_> = peers
            .indices()
            .filter(is_meant)
            .filter_map(|index| peers.get(index).map(|peer| (peer.id, index)))
            .collect();
        let total = found.len();
        found.retain(|(id, _)| wanted.after.is_none_or(|after| *id > after));
        if found.len() > limit {
            found.select_nth_unstable(limit);
            found.truncate(limit);
        }
        found.sort_unstable();
        let sessions = found.into_iter().filter_map(|(_, index)| self.describe(index, now)).collect();
        SessionList { worker: self.id, at: now, traffic: (&self.meter).into(), sessions, total }
    }

    /// Describes one session.
    fn describe(&mut self, index: u32, now: Instant) -> Option<SessionSeen> {
        let Self { peers, endpoint, .. } = self;
        let peer = peers.get_mut(index)?;
        let (root, session) = (peer.permit.as_ref()?.root().clone(), peer.session.as_deref()?);
        guard(|| {
            let conn = peer.carrier.conn(endpoint)?;
            let traffic = conn.traffic();
            Some(SessionSeen {
                id: peer.id,
                remote: conn.remote(),
                transport: conn.transport(),
                version: session.version().map_or(Version::LEGACY_ALPN, Version::name),
                root,
                age: trace::lasted(peer.admit_by, now),
                rtt: conn.rtt(),
                bytes_in: traffic.bytes_in,
                bytes_out: traffic.bytes_out,
                publishes: session.publishes(),
                subscriptions: session.subscriptions(),
                surplus: session.surplus(),
                unrouted: session.unrouted(),
                memory: peer.charge.bytes(),
            })
        })?
    }
}
