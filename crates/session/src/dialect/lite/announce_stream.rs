//! Advertising live paths to a peer: a position on the announce board, and an encoder for the peer's version.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use relay_model::{Hop, Hops, Path, Route, Scope, limits};
use relay_store::{Advert, BoardWatch, VisitStep, WatchCandidate};
use relay_wire::lite::{self, Announce, Message, Version};

use crate::{advertise_policy::AdvertisePolicy, dialect::Filled};

/// Bytes at which a call of [`AnnounceStream::fill`] stops. Including one more announcement it fits the free half of
/// [`limits::CONTROL_QUEUE`].
const FILL_BYTES: usize = 16 * 1024;

/// Bytes of ANNOUNCE_INIT: it must fit a control message at every receiver.
const LIST_BYTES: usize = limits::CONTROL_MESSAGE_BYTES / 2 - LIST_ENTRY_BYTES;
/// Most bytes of one suffix in it, its length included.
const LIST_ENTRY_BYTES: usize = limits::PATH_BYTES + 2;

/// Memory of an announce request without adverts, bytes: its entries here and on the board.
const REQUEST: u64 = 1_024;
/// Memory of an advertised path, bytes: an entry of the board's watch, with spare capacity.
const ADVERTISED: u64 = 20;

/// One announce request of the peer.
///
/// Advertised paths are [`Advert`]s in the store's watch: the announce id and a fingerprint of the route.
#[derive(Debug)]
pub(crate) struct AnnounceStream {
    version: Version,
    watch: BoardWatch,
    phase: AnnouncePhase,
    advertiser: Advertiser,
    /// Changes deferred until [`AnnouncePhase::Following`].
    deferred: Deferred,
}

/// Stage of an announce stream.
#[derive(Debug)]
enum AnnouncePhase {
    /// The paths for the count in ANNOUNCE_OK are being counted; done up to `after`.
    Counting { after: Option<Path>, count: u64 },
    /// ANNOUNCE_INIT is being built.
    Listing { init: lite::AnnounceInit, bytes: usize },
    /// Number of counted announcements still to be sent. No other message may precede them.
    Promised { owed: u64 },
    /// The initial set was visited, but some counted paths were withdrawn or changed since: they are sent in
    /// their last state. Changes up to `since` were examined.
    Owing { owed: u64, since: u64 },
    /// Changes are sent as they happen.
    Following,
}

/// Changes of the policy deferred until the initial set is sent.
#[derive(Clone, Copy, Debug, Default)]
struct Deferred {
    restart: bool,
    is_relay: bool,
}

/// Encoder of one announce stream.
#[derive(Debug)]
struct Advertiser {
    policy: AdvertisePolicy,
    marks: RouteFingerprints,
    /// Id of the next announcement, for versions that have one.
    next_id: u32,
    /// Whether the ids are exhausted.
    is_exhausted: bool,
    /// The peer became a relay: existing marks are compared as reader marks.
    is_converting: bool,
}

/// Fingerprints of routes, seeded: a peer cannot choose two that agree.
#[derive(Debug, Default)]
struct RouteFingerprints {
    hasher: RandomState,
}

impl AnnouncePhase {
    fn first(version: Version) -> Self {
        match (version.has_announce_ok(), version.has_announce_init()) {
            (true, _) => Self::Counting { after: None, count: 0 },
            (_, true) => Self::Listing { init: lite::AnnounceInit::default(), bytes: 0 },
            _ => Self::Following,
        }
    }
}

impl AnnounceStream {
    pub(crate) fn new(policy: AdvertisePolicy, mut watch: BoardWatch, version: Version) -> Self {
        if policy.is_peer {
            watch.set_exact();
        }
        let advertiser = Advertiser {
            policy,
            marks: RouteFingerprints::default(),
            next_id: 0,
            is_exhausted: false,
            is_converting: false,
        };
        Self {
            version,
            watch,
            phase: AnnouncePhase::first(version),
            advertiser,
            deferred: Deferred::default(),
        }
    }

    /// Memory held for this request, bytes: advertised paths, and the initial list while it is built.
    pub(crate) fn footprint(&self) -> u64 {
        let listed = match &self.phase {
            AnnouncePhase::Listing { bytes, .. } => *bytes as u64,
            _ => 0,
        };
        REQUEST + self.watch.advertised() as u64 * ADVERTISED + listed
    }

    /// Whether [`Self::fill`] has something to do. Takes no lock.
    pub(crate) fn is_pending(&self) -> bool {
        !matches!(self.phase, AnnouncePhase::Following) || self.watch.is_pending()
    }

    /// Appends the next messages to `out`: examines at most `max_entries` paths, and stops beyond
    /// [`FILL_BYTES`].
    pub(crate) fn fill(&mut self, max_entries: usize, out: &mut Vec<u8>) -> Filled {
        let version = self.version;
        let mut filled = Filled::default();
        while self.is_pending() && filled.entries < max_entries && out.len() < FILL_BYTES {
            let left = max_entries - filled.entries;
            let (entries, is_broken) = match self.phase {
                AnnouncePhase::Counting { .. } => (self.count(version, left, out), false),
                AnnouncePhase::Listing { .. } => self.list(version, left, out),
                AnnouncePhase::Promised { owed } => self.send_initial(version, left, owed, out),
                AnnouncePhase::Owing { owed, since } => self.send_missed(version, left, (owed, since), out),
                AnnouncePhase::Following => self.follow(version, left, out),
            };
            // A step that only changes the phase counts as well, so that every call ends.
            filled.entries += entries.max(1);
            if is_broken || self.advertiser.is_exhausted {
                return Filled { is_broken: true, ..filled };
            }
        }
        filled.more = self.is_pending();
        filled
    }

    /// Withholds routes through `hop`.
    pub(crate) fn exclude(&mut self, hop: Hop) {
        self.advertiser.policy.exclude = hop;
        self.restart();
    }

    /// Treats the peer as a relay: sends the routes withheld from readers.
    pub(crate) fn advertise_all(&mut self) {
        match self.phase {
            AnnouncePhase::Promised { .. } | AnnouncePhase::Owing { .. } => self.deferred.is_relay = true,
            _ => self.become_relay(),
        }
    }

    /// Replaces the scope of the peer. If that excludes a path that ANNOUNCE_OK counted and that was not sent
    /// yet, a later [`Self::fill`] finds the stream broken.
    pub(crate) fn revise(&mut self, scope: Scope) {
        self.advertiser.policy.scope = scope;
        self.restart();
    }

    fn become_relay(&mut self) {
        self.advertiser.policy.is_relay = true;
        self.advertiser.is_converting = true;
        self.restart();
    }

    /// Visits all paths again, once all counted announcements are sent.
    fn restart(&mut self) {
        match &mut self.phase {
            AnnouncePhase::Counting { after, count } => (*after, *count) = (None, 0),
            AnnouncePhase::Listing { init, bytes } => {
                (*init, *bytes) = (lite::AnnounceInit::default(), 0);
                self.watch.reset();
            }
            AnnouncePhase::Promised { .. } | AnnouncePhase::Owing { .. } => self.deferred.restart = true,
            AnnouncePhase::Following => self.watch.restart(),
        }
    }

    /// Counts the paths for ANNOUNCE_OK, then encodes it.
    fn count(&mut self, version: Version, max: usize, out: &mut Vec<u8>) -> usize {
        let AnnouncePhase::Counting { after, count } = &mut self.phase else { return 0 };
        let policy = &self.advertiser.policy;
        let entries = self.watch.look(after, max, |path, routes| {
            *count += u64::from(policy.pick(path, routes, appended(version)).is_some());
        });
        if entries < max {
            let owed = *count;
            lite::AnnounceOk { hop: policy.hop, count: owed }.encode(version, out);
            self.phase = AnnouncePhase::Promised { owed };
        }
        entries
    }

    /// Builds ANNOUNCE_INIT; paths that do not fit follow as announcements.
    fn list(&mut self, version: Version, max: usize, out: &mut Vec<u8>) -> (usize, bool) {
        let Self { watch, phase, advertiser, .. } = self;
        let AnnouncePhase::Listing { init, bytes } = phase else { return (0, false) };
        let is_full = |init: &lite::AnnounceInit, bytes: usize| {
            bytes > LIST_BYTES - LIST_ENTRY_BYTES || init.suffixes.len() >= lite::AnnounceInit::MOST
        };
        let visited = watch.visit(max, |candidate| {
            if !candidate.is_live || candidate.advert.is_some() {
                return VisitStep::Next(candidate.advert);
            }
            let route = advertiser.policy.pick(candidate.path, candidate.routes, appended(version));
            let (Some(route), Some(suffix)) = (route, advertiser.policy.suffix(candidate.path)) else {
                return VisitStep::Next(None);
            };
            let advert = advertiser.next_advert(route, version);
            *bytes += suffix.as_str().len() + 2;
            init.suffixes.push(suffix);
            if is_full(init, *bytes) { VisitStep::Last(advert) } else { VisitStep::Next(advert) }
        });
        if is_full(init, *bytes) || !watch.is_in_pass() {
            init.encode(version, out);
            self.phase = AnnouncePhase::Following;
        }
        (visited.entries, visited.is_lost)
    }

    /// Sends the initial set in its current state.
    fn send_initial(&mut self, version: Version, max: usize, owed: u64, out: &mut Vec<u8>) -> (usize, bool) {
        let (advertiser, mut owed) = (&mut self.advertiser, owed);
        if !self.watch.is_in_pass() {
            self.after_initial(owed);
            return (0, false);
        }
        let visited = self.watch.visit(max, |candidate| {
            let WatchCandidate { path, routes, is_live, advert } = candidate;
            let route = advertiser
                .policy
                .pick(path, routes, appended(version))
                .filter(|_| is_live && advert.is_none());
            let advert = route.map_or(advert, |route| advertiser.start(path, route, version, out));
            owed = owed.saturating_sub(u64::from(route.is_some()));
            if out.len() < FILL_BYTES { VisitStep::Next(advert) } else { VisitStep::Last(advert) }
        });
        self.phase = AnnouncePhase::Promised { owed };
        if !self.watch.is_in_pass() {
            self.after_initial(owed);
        }
        (visited.entries, visited.is_lost)
    }

    fn after_initial(&mut self, owed: u64) {
        match owed {
            0 => self.begin_following(),
            _ => self.phase = AnnouncePhase::Owing { owed, since: self.watch.seen() },
        }
    }

    /// Sends counted paths that have been withdrawn. Their end follows as a change.
    fn send_missed(
        &mut self,
        version: Version,
        max: usize,
        (owed, since): (u64, u64),
        out: &mut Vec<u8>,
    ) -> (usize, bool) {
        let (advertiser, mut owed, mut since) = (&mut self.advertiser, owed, since);
        let visited = self.watch.visit_missed(&mut since, max, |candidate| {
            let WatchCandidate { path, routes, .. } = candidate;
            let route = advertiser.policy.pick(path, routes, appended(version));
            let route = route.or_else(|| advertiser.policy.pick_any(path, routes, appended(version)));
            let Some(route) = route.filter(|_| owed > 0) else { return VisitStep::Next(None) };
            owed -= 1;
            let advert = advertiser.start(path, route, version, out);
            if owed > 0 && out.len() < FILL_BYTES { VisitStep::Next(advert) } else { VisitStep::Last(advert) }
        });
        self.phase = AnnouncePhase::Owing { owed, since };
        if owed == 0 {
            self.begin_following();
        }
        (visited.entries, owed > 0 && !visited.more)
    }

    fn begin_following(&mut self) {
        self.phase = AnnouncePhase::Following;
        let deferred = std::mem::take(&mut self.deferred);
        if deferred.is_relay {
            self.become_relay();
        } else if deferred.restart {
            self.restart();
        }
    }

    fn follow(&mut self, version: Version, max: usize, out: &mut Vec<u8>) -> (usize, bool) {
        let advertiser = &mut self.advertiser;
        let visited = self.watch.visit(max, |candidate| {
            let advert = advertiser.change(candidate, version, out);
            if out.len() < FILL_BYTES { VisitStep::Next(advert) } else { VisitStep::Last(advert) }
        });
        advertiser.is_converting &= self.watch.is_in_pass();
        (visited.entries, visited.is_lost)
    }
}

impl Advertiser {
    /// Encodes the change of a path as the peer sees it, if it sees any.
    fn change(
        &mut self,
        candidate: WatchCandidate<'_>,
        version: Version,
        out: &mut Vec<u8>,
    ) -> Option<Advert> {
        let WatchCandidate { path, routes, is_live, advert } = candidate;
        let route = self.policy.pick(path, routes, appended(version)).filter(|_| is_live);
        match (route, advert) {
            (None, None) => None,
            (None, Some(advert)) => {
                self.end(path, advert, version, out);
                None
            }
            (Some(route), None) => self.start(path, route, version, out),
            (Some(route), Some(advert)) => self.update(path, route, advert, version, out),
        }
    }

    fn update(
        &mut self,
        path: &Path,
        route: &Route,
        advert: Advert,
        version: Version,
        out: &mut Vec<u8>,
    ) -> Option<Advert> {
        let mark = self.mark(route, version);
        let was = advert.mark;
        if was == mark || self.is_converting && was == self.marks.of_reader(route, version) {
            return Some(Advert { mark, ..advert });
        }
        // A relay must know each route, even if that takes an end and a start: with outdated chains, relays
        // could read from each other in a loop.
        if !self.policy.is_relay && RouteFingerprints::is_detour(was, mark) {
            return Some(advert);
        }
        if !version.replaces_announces() {
            self.end(path, advert, version, out);
            return self.start(path, route, version, out);
        }
        let (hops, cost) = (route.hops.clone(), route.cost);
        match version.has_announce_ids() {
            true => Announce::Restart { id: u64::from(advert.id), hops, cost }.encode(version, out),
            false => {
                let Some(suffix) = self.policy.suffix(path) else { return Some(advert) };
                Announce::Active { suffix, hops, cost }.encode(version, out);
            }
        }
        Some(Advert { mark, ..advert })
    }

    fn start(&mut self, path: &Path, route: &Route, version: Version, out: &mut Vec<u8>) -> Option<Advert> {
        let suffix = self.policy.suffix(path)?;
        let advert = self.next_advert(route, version)?;
        let hops = self.chain(&route.hops, version);
        Announce::Active { suffix, hops, cost: route.cost }.encode(version, out);
        Some(advert)
    }

    /// Hop chain as encoded: with this relay appended in versions without another field for it.
    fn chain(&self, hops: &Hops, version: Version) -> Hops {
        if version.has_announce_ok() {
            return hops.clone();
        }
        hops.iter().copied().chain([self.policy.hop]).collect()
    }

    fn end(&self, path: &Path, advert: Advert, version: Version, out: &mut Vec<u8>) {
        if version.has_announce_ids() {
            Announce::EndedId { id: u64::from(advert.id) }.encode(version, out);
        } else if let Some(suffix) = self.policy.suffix(path) {
            Announce::Ended { suffix }.encode(version, out);
        }
    }

    /// Advert of the next announcement. `None` when the ids of the stream are exhausted.
    fn next_advert(&mut self, route: &Route, version: Version) -> Option<Advert> {
        let id = self.next_id;
        if version.has_announce_ids() {
            let next = id.checked_add(1);
            self.is_exhausted = next.is_none();
            self.next_id = next?;
        }
        Some(Advert { id, mark: self.mark(route, version) })
    }

    fn mark(&self, route: &Route, version: Version) -> u64 {
        match self.policy.is_relay {
            true => self.marks.of_relay(route, version),
            false => self.marks.of_reader(route, version),
        }
    }
}

/// Hops that the relay appends to the chains that it sends.
fn appended(version: Version) -> usize {
    usize::from(!version.has_announce_ok())
}

impl RouteFingerprints {
    const CHAIN_BITS: u32 = 20;
    const COST_BITS: u32 = 16;

    /// Mark of chain and cost together.
    fn of_relay(&self, route: &Route, version: Version) -> u64 {
        let cost = version.has_announce_ids().then_some(route.cost);
        self.hasher.hash_one((&route.hops, cost))
    }

    /// Mark with separate bits for publisher, chain and cost. A peer that became a relay is compared with it
    /// once; a reader may miss one change of cost in 65,536.
    fn of_reader(&self, route: &Route, version: Version) -> u64 {
        let cost = if version.has_announce_ids() { self.hasher.hash_one(route.cost) } else { 0 };
        let publisher = self.hasher.hash_one(route.hops.first());
        let chain = self.hasher.hash_one(&route.hops);
        let low = |hash: u64, bits: u32| hash & ((1 << bits) - 1);
        publisher << (Self::CHAIN_BITS + Self::COST_BITS)
            | low(chain, Self::CHAIN_BITS) << Self::COST_BITS
            | low(cost, Self::COST_BITS)
    }

    /// Whether two reader marks denote different routes to the same publisher.
    fn is_detour(one: u64, other: u64) -> bool {
        let is_other = |shift: u32| one >> shift != other >> shift;
        is_other(Self::COST_BITS) && !is_other(Self::CHAIN_BITS + Self::COST_BITS)
    }
}

#[cfg(test)]
mod tests;
