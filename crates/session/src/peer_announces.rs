//! Announces of one peer: the routed ones, and those waiting because the session's limit is reached.
//!
//! moq-lite cannot refuse a single announce. One over the limit is therefore not routed until an earlier one
//! ends, oldest first. As many announces wait as may be routed; beyond those an announce is counted and
//! dropped, and routed only when it is announced again.

use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};

use relay_model::{Cost, Hops, Path, limits};

use crate::footprint::{ANNOUNCE, HOP};

/// Routing state of a stored announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnnounceRouting {
    /// Core was asked to route it.
    Routed,
    /// Over the limit; its position in the order of arrival.
    Surplus(u64),
    /// Outside the session's permit: core counts it as denied.
    Denied,
}

/// Latest announce of one broadcast.
#[derive(Debug)]
pub(crate) struct PeerAnnounce {
    /// Hop chain, publisher first, as sent to core.
    pub(crate) hops: Hops,
    pub(crate) cost: Cost,
    /// Number of the relay's announce requests on which it is live.
    pub(crate) times: usize,
    standing: AnnounceRouting,
}

/// All stored announces of one peer.
#[derive(Debug, Default)]
pub(crate) struct PeerAnnounces {
    by_path: HashMap<Path, PeerAnnounce, foldhash::fast::RandomState>,
    /// Memory held for all of them, bytes.
    bytes: u64,
    routed: usize,
    /// Announces over the limit, in order of arrival.
    surplus: BTreeMap<u64, Path>,
    next_place: u64,
    /// Announces not routed since the session began.
    unrouted: u64,
    over_limit: LogLimiter,
    misnamed: LogLimiter,
}

impl PeerAnnounces {
    pub(crate) fn get(&self, path: &Path) -> Option<&PeerAnnounce> {
        self.by_path.get(path)
    }

    /// Number of stored announces, routed or not.
    pub(crate) fn len(&self) -> usize {
        self.by_path.len()
    }

    /// Memory held for the announces, in the session, in core and on the board. Bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of stored announces over the limit.
    pub(crate) fn surplus(&self) -> usize {
        self.surplus.len()
    }

    /// Number of announces not routed since the session began.
    pub(crate) fn unrouted(&self) -> u64 {
        self.unrouted
    }

    /// Whether another path can be stored, where `most` may be routed.
    pub(crate) fn has_room(&self, path: &Path, most: usize) -> bool {
        self.by_path.len() < most.saturating_mul(2) || self.by_path.contains_key(path)
    }

    /// Stores an announce, new or replaced. `is_new`: it is on one more announce request than before. Returns
    /// its standing.
    pub(crate) fn insert(
        &mut self,
        path: &Path,
        (hops, cost): (Hops, Cost),
        is_new: bool,
        (is_allowed, most): (bool, usize),
    ) -> AnnounceRouting {
        let added = footprint(path, &hops);
        if let Some(known) = self.by_path.get_mut(path) {
            self.bytes = self.bytes + added - footprint(path, &known.hops);
            (known.hops, known.cost) = (hops, cost);
            known.times += usize::from(is_new);
            return known.standing;
        }
        let standing = self.place(path, is_allowed, most);
        let times = usize::from(is_new);
        self.bytes += added;
        self.by_path.insert(path.clone(), PeerAnnounce { hops, cost, times, standing });
        standing
    }

    /// Removes an announce from one announce request. Returns its standing when it has ended on all of them.
    pub(crate) fn remove(&mut self, path: &Path) -> Option<AnnounceRouting> {
        let known = self.by_path.get_mut(path)?;
        if known.times > 1 {
            known.times -= 1;
            return None;
        }
        let PeerAnnounce { hops, standing, .. } = self.by_path.remove(path)?;
        self.bytes -= footprint(path, &hops);
        match standing {
            AnnounceRouting::Routed => self.routed -= 1,
            AnnounceRouting::Surplus(place) => drop(self.surplus.remove(&place)),
            AnnounceRouting::Denied => {}
        }
        Some(standing)
    }

    /// Promotes the oldest announce over the limit to routed, if the limit allows.
    pub(crate) fn promote(&mut self, most: usize) -> Option<(Path, Hops, Cost)> {
        if self.routed >= most {
            return None;
        }
        let (_, path) = self.surplus.pop_first()?;
        let known = self.by_path.get_mut(&path)?;
        known.standing = AnnounceRouting::Routed;
        self.routed += 1;
        Some((path, known.hops.clone(), known.cost))
    }

    /// Applies a changed permit: announces it no longer covers are denied, and newly covered ones queue behind
    /// those that wait. Take the ones to route with [`Self::promote`].
    pub(crate) fn revise(&mut self, is_allowed: impl Fn(&Path) -> bool) {
        let mut admitted = Vec::new();
        for (path, known) in &mut self.by_path {
            match (known.standing, is_allowed(path)) {
                (AnnounceRouting::Denied, true) => admitted.push(path.clone()),
                (AnnounceRouting::Routed, false) => {
                    self.routed -= 1;
                    known.standing = AnnounceRouting::Denied;
                }
                (AnnounceRouting::Surplus(place), false) => {
                    self.surplus.remove(&place);
                    known.standing = AnnounceRouting::Denied;
                }
                _ => {}
            }
        }
        admitted.sort_unstable();
        for path in admitted {
            let standing = self.wait(&path);
            if let Some(known) = self.by_path.get_mut(&path) {
                known.standing = standing;
            }
        }
    }

    /// Counts an announce over the limit. Returns, if a log line is due, the number since the last line.
    pub(crate) fn count_over_limit(&mut self, now: Instant) -> Option<u64> {
        self.unrouted += 1;
        self.over_limit.count(now)
    }

    /// Counts an announce with an invalid name. Returns the same as [`Self::count_over_limit`].
    pub(crate) fn count_misnamed(&mut self, now: Instant) -> Option<u64> {
        self.unrouted += 1;
        self.misnamed.count(now)
    }

    fn place(&mut self, path: &Path, is_allowed: bool, most: usize) -> AnnounceRouting {
        if !is_allowed {
            return AnnounceRouting::Denied;
        }
        if self.routed >= most {
            return self.wait(path);
        }
        self.routed += 1;
        AnnounceRouting::Routed
    }

    fn wait(&mut self, path: &Path) -> AnnounceRouting {
        let place = self.next_place;
        self.next_place += 1;
        self.surplus.insert(place, path.clone());
        AnnounceRouting::Surplus(place)
    }
}

fn footprint(path: &Path, hops: &Hops) -> u64 {
    ANNOUNCE + path.as_str().len() as u64 + HOP * hops.len() as u64
}

/// Limits log lines of one kind to one in [`limits::SESSION_LOG_INTERVAL`].
#[derive(Debug, Default)]
struct LogLimiter {
    last: Option<Instant>,
    since_last: u64,
}

impl LogLimiter {
    /// Counts one event. Returns the number since the last line, when a line is due.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.since_last += 1;
        let is_due =
            self.last.is_none_or(|last| now.saturating_duration_since(last) >= limits::SESSION_LOG_INTERVAL);
        if !is_due {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.since_last))
    }
}

#[cfg(test)]
mod tests {
    use relay_model::Hop;

    use super::*;

    fn path(raw: &str) -> Path {
        Path::parse(raw).unwrap()
    }

    fn add(announces: &mut PeerAnnounces, raw: &str, most: usize) -> AnnounceRouting {
        let chain: Hops = [Hop(7)].into();
        announces.insert(&path(raw), (chain, Cost::UNKNOWN), true, (true, most))
    }

    #[test]
    fn oldest_surplus_is_promoted_first() {
        let mut announces = PeerAnnounces::default();
        assert_eq!(add(&mut announces, "a", 1), AnnounceRouting::Routed);
        assert!(matches!(add(&mut announces, "c", 1), AnnounceRouting::Surplus(_)));
        assert!(matches!(add(&mut announces, "b", 1), AnnounceRouting::Surplus(_)));
        assert_eq!(announces.promote(1), None);
        assert!(!announces.has_room(&path("d"), 1) && announces.has_room(&path("c"), 1));
        assert_eq!(announces.remove(&path("a")), Some(AnnounceRouting::Routed));
        assert_eq!(announces.promote(1).map(|(path, ..)| path), Some(path("c")));
        assert_eq!((announces.promote(1), announces.surplus()), (None, 1));
    }

    #[test]
    fn announces_are_charged_and_released_to_zero() {
        let (mut announces, at) = (PeerAnnounces::default(), path("room/camera"));
        let chain = |hops: u64| ((0..hops).map(Hop).collect(), Cost::UNKNOWN);
        announces.insert(&at, chain(3), true, (true, 1));
        assert_eq!(announces.bytes(), ANNOUNCE + 11 + 3 * HOP);
        announces.insert(&at, chain(1), false, (true, 1));
        assert_eq!(announces.bytes(), ANNOUNCE + 11 + HOP, "a replaced chain is charged once");
        announces.remove(&at);
        announces.remove(&at);
        assert_eq!((announces.bytes(), announces.len()), (0, 0));
    }

    #[test]
    fn revised_permit_denies_and_admits() {
        let mut announces = PeerAnnounces::default();
        for raw in ["a", "b", "c"] {
            add(&mut announces, raw, 2);
        }
        announces.revise(|at| *at != path("a"));
        assert_eq!(announces.promote(2).map(|(path, ..)| path), Some(path("c")));
        announces.revise(|_| true);
        assert_eq!(announces.promote(2), None, "it waits behind the routed ones");
        assert_eq!(announces.remove(&path("b")), Some(AnnounceRouting::Routed));
        assert_eq!(announces.promote(2).map(|(path, ..)| path), Some(path("a")));
    }

    #[test]
    fn log_lines_are_a_minute_apart() {
        let (mut log, now) = (LogLimiter::default(), Instant::now());
        assert_eq!(log.count(now), Some(1));
        assert_eq!((log.count(now), log.count(now)), (None, None));
        assert_eq!(log.count(now + limits::SESSION_LOG_INTERVAL), Some(3));
    }
}
