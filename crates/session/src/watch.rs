//! Telling a peer what is announced: a cursor over the board, walked while the peer takes it.

use std::collections::{HashMap, VecDeque};

use relay_model::{Hop, Hops, Path, Route, Scope, SessionId};
use relay_store::{Change, Watch};
use relay_wire::lite::{self, Message};

use crate::transport::Stream;

/// Changes taken from the board at a time.
const STEP: usize = 64;

/// One announce request of the peer.
#[derive(Debug)]
pub(crate) struct Watching {
    pub(crate) stream: Stream,
    viewer: Viewer,
    watch: Watch,
    /// What the peer believes is live, and through whom.
    told: HashMap<Path, Hops, foldhash::fast::RandomState>,
    queue: VecDeque<Change>,
    greeted: bool,
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
}

impl Viewer {
    /// The route this peer may be told of: not its own, not one that passes it, in its scope.
    fn pick<'a>(&self, path: &Path, routes: &'a [Route]) -> Option<&'a Route> {
        if !self.scope.allows(path) {
            return None;
        }
        routes.iter().find(|route| {
            route.session != self.session && (self.exclude == Hop::ANONYMOUS || !route.passes(self.exclude))
        })
    }
}

impl Watching {
    pub(crate) fn new(stream: Stream, viewer: Viewer, watch: Watch) -> Self {
        Self { stream, viewer, watch, told: HashMap::default(), queue: VecDeque::new(), greeted: false }
    }

    /// The next message for the peer; `None` until the board changes.
    pub(crate) fn next(&mut self, version: lite::Version) -> Option<Vec<u8>> {
        if !self.greeted {
            return Some(self.greet(version));
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
                if let Some(message) = self.change(&change, version) {
                    return Some(message);
                }
            }
        }
    }

    /// The first message: how many broadcasts follow at once.
    fn greet(&mut self, version: lite::Version) -> Vec<u8> {
        self.greeted = true;
        let mut changes = Vec::new();
        while self.watch.walk(STEP, &mut changes) {}
        changes.retain(|change| self.viewer.pick(&change.path, &change.routes).is_some());
        let ok = lite::AnnounceOk { hop: self.viewer.hop, count: changes.len() as u64 };
        self.queue.extend(changes);
        let mut message = Vec::new();
        ok.encode(version, &mut message);
        message
    }

    fn change(&mut self, change: &Change, version: lite::Version) -> Option<Vec<u8>> {
        let suffix = Path::parse(change.path.strip_prefix(&self.viewer.prefix)?).ok()?;
        let announce = match self.viewer.pick(&change.path, &change.routes) {
            Some(route) => {
                let before = self.told.insert(change.path.clone(), route.hops.clone());
                if before.is_some_and(|hops| hops == route.hops) {
                    return None;
                }
                lite::Announce { status: lite::Status::Active, suffix, hops: route.hops.clone() }
            }
            None => {
                self.told.remove(&change.path)?;
                lite::Announce { status: lite::Status::Ended, suffix, hops: [].into() }
            }
        };
        let mut message = Vec::new();
        announce.encode(version, &mut message);
        Some(message)
    }
}
