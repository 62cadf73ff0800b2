//! What a log holds and has been brought, in numbers.

use crate::log::Log;

/// A log in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Groups that began, live or fetched; one that was let go of and came again is counted again.
    pub groups: u64,
    /// Frames that writers brought, also those that were held already.
    pub frames: u64,
    /// Payload that writers brought, bytes.
    pub bytes: u64,
    /// The highest group that ever began; it may be gone from the cache.
    pub latest: Option<u64>,
    /// Groups held now.
    pub cached_groups: u64,
    /// What they cost, bytes.
    pub cached_bytes: u64,
}

impl Log {
    /// The log in numbers. Costs its lock for as long as it takes to walk the groups held.
    pub fn figures(&self) -> Figures {
        let state = self.lock();
        let Brought { groups, frames, bytes } = state.brought;
        Figures {
            groups,
            frames,
            bytes,
            latest: state.latest,
            cached_groups: state.groups.len() as u64,
            cached_bytes: state.groups.values().map(|group| group.cost()).sum(),
        }
    }
}

/// What writers have brought. Plain numbers: a writer adds up what it stages and hands it over once a commit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Brought {
    pub(crate) groups: u64,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
}

impl Brought {
    #[inline]
    pub(crate) fn add(&mut self, more: Self) {
        self.groups += more.groups;
        self.frames += more.frames;
        self.bytes += more.bytes;
    }
}
