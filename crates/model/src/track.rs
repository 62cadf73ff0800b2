//! Tracks: their name, their properties, and what a subscriber asks of one.

use std::{fmt, sync::Arc};

/// Name of a track within its broadcast, at most [`crate::limits::TRACK_NAME_BYTES`]. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrackName(Arc<str>);

impl TrackName {
    /// Checks the length. `None` when too long.
    pub fn parse(raw: &str) -> Option<Self> {
        (raw.len() <= crate::limits::TRACK_NAME_BYTES).then(|| Self(raw.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TrackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What a publisher says once of a track (moq-lite TRACK_INFO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackInfo {
    /// Publisher priority, higher wins.
    pub priority: u8,
    /// Whether groups are meant to be delivered in order (a hint).
    pub ordered: bool,
    /// How long a superseded group stays useful, in ms.
    pub max_age_ms: u64,
    /// Ticks a second of the frames' timestamps; never 0.
    pub timescale: u64,
}

impl Default for TrackInfo {
    fn default() -> Self {
        Self { priority: 127, ordered: false, max_age_ms: 5_000, timescale: 1_000 }
    }
}

/// What one subscriber asks of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefs {
    /// Subscriber priority, higher wins.
    pub priority: u8,
    /// Whether older groups go first (a hint).
    pub ordered: bool,
    /// How long a superseded group may still be delivered, in ms; 0 = only the newest.
    pub max_age_ms: u64,
    /// First group wanted; `None` = the latest.
    pub start: Option<u64>,
    /// Last group wanted, inclusive; `None` = no end.
    pub end: Option<u64>,
}

impl Default for Prefs {
    fn default() -> Self {
        Self { priority: 127, ordered: false, max_age_ms: 0, start: None, end: None }
    }
}

impl Prefs {
    /// What one upstream subscription must ask to serve both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            priority: self.priority.max(other.priority),
            ordered: self.ordered && other.ordered,
            max_age_ms: self.max_age_ms.max(other.max_age_ms),
            // Where the latest is wanted, a number could lie beyond it: that would starve who wants it.
            // Older groups then come out of the cache, as far as it holds them.
            start: match (self.start, other.start) {
                (Some(a), Some(b)) => Some(a.min(b)),
                _ => None,
            },
            end: match (self.end, other.end) {
                (Some(a), Some(b)) => Some(a.max(b)),
                _ => None,
            },
        }
    }
}
