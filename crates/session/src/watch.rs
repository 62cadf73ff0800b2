//! Telling a peer what is announced: a cursor over the board, walked while the peer takes it.

use std::collections::{HashMap, VecDeque};

use relay_model::{Cost, Hop, Hops, Path, Route, Scope, SessionId, limits};
use relay_store::{Change, Watch};
use relay_wire::lite::{self, Announce, Message, Version};

use crate::transport::Stream;

/// Changes taken from the board at a time.
const STEP: usize = 64;

/// Bytes of a list of all that is there: it must fit a message wherever it is read.
const LIST_BYTES: usize = limits::CONTROL_MESSAGE_BYTES / 2;

/// One announce request of the peer.
#[derive(Debug)]
pub(crate) struct Watching {
    pub(crate) stream: Stream,
    pub(crate) viewer: Viewer,
    watch: Watch,
    /// What the peer believes is live, and through whom.
    told: HashMap<Path, Told, foldhash::fast::RandomState>,
    /// Number of the next announce, where they have one.
    next_id: u64,
    queue: VecDeque<Change>,
    /// How many at the front of the queue were counted in the greeting.
    counted: usize,
    greeted: bool,
}

/// Outcome of [`Watching::fill`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filled {
    /// Changes whose messages were appended.
    pub(crate) entries: usize,
    /// There may be more.
    pub(crate) more: bool,
}

/// A live announce as the peer knows it.
#[derive(Clone, Debug)]
struct Told {
    id: u64,
    hops: Hops,
    cost: Cost,
}

/// Whose eyes the board is seen with.
#[derive(Clone, Debug)]
pub(crate) struct Viewer {
    pub(crate) session: SessionId,
    /// The relay's own hop.
    pub(crate) hop: Hop,
    pub(crate) scope: Scope,
    /// Absolute prefix asked for; announced paths are relative to it.
    pub(crate) prefix: Path,
    /// Routes through this hop are withheld.
    pub(crate) exclude: Hop,
    /// It passes on what it hears, and must know the way. For whoever only reads, one way is as good as
    /// another: of a detour to the same publisher it is not told.
    pub(crate) is_relay: bool,
}

impl Viewer {
    /// The route this peer may be told of: no fading one if it passes on what it hears, not its own, not one that passes it, in its scope, and with a
    /// chain that still has room for us.
    fn pick<'a>(&self, path: &Path, routes: &'a [Route], version: Version) -> Option<&'a Route> {
        if !self.scope.allows(path) {
            return None;
        }
        routes.iter().find(|route| {
            route.session != self.session
                && !(route.fading && self.is_relay)
                && route.hops.len() + usize::from(!version.has_announce_ok()) <= limits::HOPS
                && (self.exclude == Hop::ANONYMOUS || !route.passes(self.exclude))
        })
    }

    /// A chain as it is written for the peer: with us at its end where the version has no other place
    /// for it.
    fn chain(&self, hops: &Hops, version: Version) -> Hops {
        if version.has_announce_ok() {
            return hops.clone();
        }
        hops.iter().copied().chain([self.hop]).collect()
    }
}

impl Watching {
    pub(crate) fn new(stream: Stream, viewer: Viewer, watch: Watch) -> Self {
        Self {
            stream,
            viewer,
            watch,
            told: HashMap::default(),
            next_id: 0,
            queue: VecDeque::new(),
            counted: 0,
            greeted: false,
        }
    }

    /// Appends the messages of at most `max_entries` changes to `out`.
    pub(crate) fn fill(&mut self, version: Version, max_entries: usize, out: &mut Vec<u8>) -> Filled {
        for entries in 0..max_entries {
            let Some(message) = self.next(version) else { return Filled { entries, more: false } };
            out.extend_from_slice(&message);
        }
        Filled { entries: max_entries, more: true }
    }

    /// The next bytes for the peer; `None` until the board changes.
    fn next(&mut self, version: Version) -> Option<Vec<u8>> {
        if !std::mem::replace(&mut self.greeted, true) {
            if version.has_announce_ok() {
                return Some(self.greet(version));
            }
            if version.has_announce_init() {
                return Some(self.list(version));
            }
        }
        loop {
            if self.queue.is_empty() {
                let mut changes = Vec::new();
                self.watch.walk(STEP, &mut changes);
                if changes.is_empty() {
                    return None;
                }
                self.queue.extend(changes);
            }
            while let Some(change) = self.queue.pop_front() {
                self.counted = self.counted.saturating_sub(1);
                if let Some(message) = self.change(&change, version) {
                    return Some(message);
                }
            }
        }
    }

    /// The peer is a relay: what was kept from it is looked at again.
    pub(crate) fn tell_all(&mut self) {
        self.viewer.is_relay = true;
        self.watch.again();
    }

    /// The peer may see another part of the board from now on. False: something that was counted in the
    /// greeting and is not said yet may not be said any more. The peer would wait for it; what is left is
    /// to break off.
    #[must_use]
    pub(crate) fn revise(&mut self, scope: Scope, version: Version) -> bool {
        self.viewer.scope = scope;
        self.watch.again();
        let mut counted = self.queue.iter().take(self.counted);
        counted.all(|change| self.viewer.pick(&change.path, &change.routes, version).is_some())
    }

    /// The first message: how many broadcasts follow at once.
    fn greet(&mut self, version: Version) -> Vec<u8> {
        let mut changes = Vec::new();
        while self.watch.walk(STEP, &mut changes) {}
        changes.retain(|change| self.viewer.pick(&change.path, &change.routes, version).is_some());
        let ok = lite::AnnounceOk { hop: self.viewer.hop, count: changes.len() as u64 };
        self.counted = changes.len();
        self.queue.extend(changes);
        let mut message = Vec::new();
        ok.encode(version, &mut message);
        message
    }

    /// The first message where it names what is there: as much as one holds, the rest follows at once.
    fn list(&mut self, version: Version) -> Vec<u8> {
        let mut changes = Vec::new();
        while self.watch.walk(STEP, &mut changes) {}
        let (mut init, mut bytes) = (lite::AnnounceInit::default(), 0);
        for change in changes {
            let Some(route) = self.viewer.pick(&change.path, &change.routes, version) else { continue };
            let suffix =
                change.path.strip_prefix(&self.viewer.prefix).and_then(|rest| Path::parse(rest).ok());
            let Some(suffix) = suffix else { continue };
            // Its length takes two bytes at most.
            bytes += suffix.as_str().len() + 2;
            let is_full = bytes > LIST_BYTES || init.suffixes.len() >= lite::AnnounceInit::MOST;
            if is_full || self.told.contains_key(&change.path) {
                self.queue.push_back(change);
                continue;
            }
            let told = Told { id: self.next_id, hops: route.hops.clone(), cost: route.cost };
            self.next_id = self.next_id.saturating_add(1);
            self.told.insert(change.path.clone(), told);
            init.suffixes.push(suffix);
        }
        let mut message = Vec::new();
        init.encode(version, &mut message);
        message
    }

    fn change(&mut self, change: &Change, version: Version) -> Option<Vec<u8>> {
        let suffix = Path::parse(change.path.strip_prefix(&self.viewer.prefix)?).ok()?;
        let route = self.viewer.pick(&change.path, &change.routes, version);
        let told = self.told.get(&change.path).cloned();
        let mut message = Vec::new();
        match (route, told) {
            (None, None) => return None,
            (None, Some(told)) => {
                self.told.remove(&change.path);
                ended(told.id, suffix, version).encode(version, &mut message);
            }
            (Some(route), None) => self.start(&change.path, suffix, route, version, &mut message),
            (Some(route), Some(told)) => {
                let is_same_way = told.hops == route.hops;
                let is_priced = version.has_announce_ids() && told.cost != route.cost;
                let is_same_publisher = told.hops.first() == route.hops.first();
                // A relay must know each way, also where that takes an end and a beginning: with chains
                // that are not true, relays would read from each other in a circle.
                let is_told = self.viewer.is_relay;
                if is_same_way && !is_priced || is_same_publisher && !is_same_way && !is_told {
                    return None;
                }
                if version.replaces_announces() {
                    self.replace(change, suffix, route, told.id, version, &mut message);
                } else {
                    ended(told.id, suffix.clone(), version).encode(version, &mut message);
                    self.start(&change.path, suffix, route, version, &mut message);
                }
            }
        }
        Some(message)
    }

    fn start(&mut self, path: &Path, suffix: Path, route: &Route, version: Version, out: &mut Vec<u8>) {
        let told = Told { id: self.next_id, hops: route.hops.clone(), cost: route.cost };
        self.next_id = self.next_id.saturating_add(1);
        self.told.insert(path.clone(), told);
        let hops = self.viewer.chain(&route.hops, version);
        Announce::Active { suffix, hops, cost: route.cost }.encode(version, out);
    }

    fn replace(
        &mut self,
        change: &Change,
        suffix: Path,
        route: &Route,
        id: u64,
        version: Version,
        out: &mut Vec<u8>,
    ) {
        let (hops, cost) = (route.hops.clone(), route.cost);
        self.told.insert(change.path.clone(), Told { id, hops: hops.clone(), cost });
        match version.has_announce_ids() {
            true => Announce::Restart { id, hops, cost }.encode(version, out),
            false => Announce::Active { suffix, hops, cost }.encode(version, out),
        }
    }
}

fn ended(id: u64, suffix: Path, version: Version) -> Announce {
    if version.has_announce_ids() { Announce::EndedId { id } } else { Announce::Ended { suffix } }
}
