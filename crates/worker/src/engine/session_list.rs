//! Lists of sessions, for status requests.

use std::time::Instant;

use relay_wire::Version;

use super::{guard::guard, peer::PeerState, peers::PeerSet, trace};
use crate::query::{SESSIONS_LISTED, SessionList, SessionQuery, SessionSeen, WorkerTraffic};

/// Lists the requested sessions. Walks over all, and describes only those that are listed.
pub(super) fn list(
    peers: &mut PeerSet,
    traffic: WorkerTraffic,
    now: Instant,
    wanted: &SessionQuery,
) -> SessionList {
    let limit = wanted.limit.min(SESSIONS_LISTED);
    let indices = peers.select(|peer| {
        let permit = peer.admission.permit().filter(|_| peer.state() == PeerState::Open);
        permit.is_some_and(|permit| permit.root().has_prefix(&wanted.prefix))
    });
    let total = indices.len();
    let mut found: Vec<_> =
        indices.into_iter().filter_map(|index| Some((peers.get(index)?.id, index))).collect();
    found.retain(|(id, _)| wanted.after.is_none_or(|after| *id > after));
    if found.len() > limit {
        found.select_nth_unstable(limit);
        found.truncate(limit);
    }
    found.sort_unstable();
    let sessions = found.into_iter().filter_map(|(_, index)| describe(peers, index, now)).collect();
    SessionList { worker: peers.slots.worker(), at: now, traffic, sessions, total }
}

/// Describes one session.
fn describe(peers: &mut PeerSet, index: u32, now: Instant) -> Option<SessionSeen> {
    let peer = peers.slots.get_mut(index)?;
    let (root, session) = (peer.admission.permit()?.root().clone(), peer.session.as_deref()?);
    let described = guard(|| {
        let conn = peer.carrier.conn(&mut peers.quic.endpoint)?;
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
    });
    described.ok().flatten()
}
