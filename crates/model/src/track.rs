//! Tracks: names, properties and subscriber preferences.

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

/// Properties of a track, sent once by its publisher (moq-lite TRACK_INFO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackInfo {
    /// Publisher priority, higher wins.
    pub priority: u8,
    /// Whether groups are meant to be delivered in order (a hint).
    pub ordered: bool,
    /// Time a superseded group stays useful, in ms.
    pub max_age_ms: u64,
    /// Ticks a second of the frames' timestamps; never 0.
    pub timescale: u64,
}

impl Default for TrackInfo {
    fn default() -> Self {
        Self { priority: 127, ordered: false, max_age_ms: 5_000, timescale: 1_000 }
    }
}

/// Start of a subscription. Only a log can resolve it to a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// The latest group, or the first to arrive if there is none (moq-lite-01..05 without a start).
    #[default]
    Latest,
    /// This group, and later ones (moq-lite-03..05 with a start).
    Group(u64),
    /// The oldest group at or above the floor that is within the age budget; the latest group always is
    /// (moq-lite-06).
    Fresh {
        /// Lowest group wanted.
        floor: u64,
    },
}

impl Start {
    /// Lowest group wanted; `None` until the log has resolved the start.
    pub fn floor(self) -> Option<u64> {
        match self {
            Self::Latest => None,
            Self::Group(group) => Some(group),
            Self::Fresh { floor } => Some(floor),
        }
    }

    /// Start that one upstream subscription must request to serve both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        match (self, other) {
            (Self::Group(a), Self::Group(b)) => Self::Group(a.min(b)),
            // If one wants the latest group, a requested number could lie beyond it and starve that reader.
            // Older groups are then served from the cache, as far as it holds them.
            (Self::Latest, Self::Latest | Self::Group(_)) | (Self::Group(_), Self::Latest) => Self::Latest,
            (Self::Fresh { .. }, Self::Latest) | (Self::Latest, Self::Fresh { .. }) => {
                Self::Fresh { floor: 0 }
            }
            (Self::Fresh { floor: a }, Self::Fresh { floor: b } | Self::Group(b))
            | (Self::Group(a), Self::Fresh { floor: b }) => Self::Fresh { floor: a.min(b) },
        }
    }
}

/// Preferences of one subscriber of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefs {
    /// Subscriber priority, higher wins.
    pub priority: u8,
    /// Whether older groups go first (a hint).
    pub ordered: bool,
    /// Time a superseded group may still be delivered, in ms; 0 = only the newest.
    pub max_age_ms: u64,
    /// First group wanted.
    pub start: Start,
    /// First frame wanted of the group given by [`Start::floor`]; 0 = the whole group (moq-lite-06).
    pub start_frame: u64,
    /// Last group wanted, inclusive; `None` = no end.
    pub end: Option<u64>,
    /// Last frame wanted of the end group, inclusive; `None` = the whole group (moq-lite-06).
    pub end_frame: Option<u64>,
}

impl Default for Prefs {
    fn default() -> Self {
        Self {
            priority: 127,
            ordered: false,
            max_age_ms: 0,
            start: Start::Latest,
            start_frame: 0,
            end: None,
            end_frame: None,
        }
    }
}

impl Prefs {
    /// Start that one upstream subscription must request to serve both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        let start = self.start.union(other.start);
        let end = match (self.end, other.end) {
            (Some(a), Some(b)) => Some(a.max(b)),
            _ => None,
        };
        let same_start = self.start == other.start && self.start_frame == other.start_frame;
        let same_end = self.end == other.end && self.end_frame == other.end_frame;
        Self {
            priority: self.priority.max(other.priority),
            ordered: self.ordered && other.ordered,
            max_age_ms: self.max_age_ms.max(other.max_age_ms),
            start,
            start_frame: if same_start { self.start_frame } else { 0 },
            end,
            end_frame: if same_end { self.end_frame } else { None },
        }
    }
}
