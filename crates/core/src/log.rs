//! One log as the control plane sees it: who reads it, and where it comes from.

use std::{collections::HashMap, time::Instant};

use foldhash::fast::RandomState;
use relay_model::{Epoch, Hops, Path, Prefs, SessionId, SubId, TrackName, Want};

use crate::{route::Publisher, union::Union};

/// Where a log's groups come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// This session was told to open it and has not said that it ended.
    Open(SessionId),
    /// Its session went away; its publisher may come back until the deadline.
    Suspended,
    /// It ended. Who reads it may read on; nobody new comes.
    Over,
}

/// A created log that is not retired.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) path: Path,
    pub(crate) publisher: Publisher,
    pub(crate) track: TrackName,
    pub(crate) upstream: Upstream,
    /// Chain of the route it is, or was last, read through.
    pub(crate) hops: Hops,
    /// Of the newest writer; 0 before the first.
    pub(crate) epoch: Epoch,
    /// When the linger ends: of an open log nobody reads, or of a suspended one.
    pub(crate) deadline: Option<Instant>,
    /// What the upstream was last asked for.
    pub(crate) asked: (Prefs, Want),
    readers: HashMap<Reader, (Prefs, Want), RandomState>,
    union: Union,
}

/// A subscription, globally.
pub(crate) type Reader = (SessionId, SubId);

impl Log {
    pub(crate) fn new(path: Path, publisher: Publisher, track: TrackName, hops: Hops) -> Self {
        Self {
            path,
            publisher,
            track,
            upstream: Upstream::Suspended,
            hops,
            epoch: Epoch(0),
            deadline: None,
            asked: (Prefs::default(), Want::Info),
            readers: HashMap::default(),
            union: Union::default(),
        }
    }

    pub(crate) fn add(&mut self, reader: Reader, prefs: Prefs, want: Want) {
        self.remove(reader);
        self.readers.insert(reader, (prefs, want));
        self.union.add(prefs, want);
    }

    pub(crate) fn remove(&mut self, reader: Reader) {
        if let Some((prefs, want)) = self.readers.remove(&reader) {
            self.union.remove(prefs, want);
        }
    }

    pub(crate) fn update(&mut self, reader: Reader, prefs: Prefs) {
        if let Some((_, want)) = self.readers.get(&reader).copied() {
            self.add(reader, prefs, want);
        }
    }

    pub(crate) fn readers(&self) -> impl ExactSizeIterator<Item = (&Reader, &(Prefs, Want))> {
        self.readers.iter()
    }

    pub(crate) fn is_unread(&self) -> bool {
        self.readers.is_empty()
    }

    /// What a new upstream subscription must ask for.
    pub(crate) fn wanted(&self) -> (Prefs, Want) {
        self.union.live().map_or((Prefs::default(), Want::Info), |prefs| (prefs, Want::Live))
    }

    /// What the open upstream subscription must ask for. Groups that flow are not stopped for a
    /// reader of properties: it is a matter of moments.
    pub(crate) fn wanted_of_open(&self) -> (Prefs, Want) {
        match self.wanted() {
            (_, Want::Info) => self.asked,
            wanted => wanted,
        }
    }
}
