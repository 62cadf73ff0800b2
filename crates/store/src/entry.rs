//! What readers of a log meet, in arrival order.

use std::time::Instant;

use bytes::Bytes;
use relay_model::{StreamCode, TrackInfo};

/// What an object stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Status {
    /// A frame with its payload.
    #[default]
    Normal,
}

/// An object but for its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    /// Ascending within its strand; gaps are legal.
    pub id: u64,
    /// Raw timestamp in the track's timescale.
    pub tick: Option<i64>,
    /// Declared payload size, bytes.
    pub size: u64,
    /// What it stands for.
    pub status: Status,
    /// Opaque properties, forwarded as they came; usually empty.
    pub properties: Bytes,
}

impl ObjectHead {
    /// A plain frame: no properties.
    pub fn frame(id: u64, tick: Option<i64>, size: u64) -> Self {
        Self { id, tick, size, status: Status::Normal, properties: Bytes::new() }
    }
}

/// How a log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Groups below it were produced (exclusive bound); `None` = unknown.
    pub final_group: Option<u64>,
    /// Why; `None` = a clean end.
    pub code: Option<StreamCode>,
}

/// One thing that happened to a log. Cheap to clone: payloads are shared.
///
/// A replay ([`crate::Feed::group`]) and the journal may overlap: object ids and offsets tell a
/// reader what it already has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The track's properties became known (once).
    Info(TrackInfo),
    /// A group opened. One that was fetched before it came is followed by what is held of it.
    Group {
        /// Its number.
        sequence: u64,
    },
    /// An object began.
    Object {
        /// Its group.
        group: u64,
        /// Its strand.
        strand: u64,
        /// All but its payload.
        head: ObjectHead,
        /// The first of its payload: nothing, some or all.
        payload: Bytes,
    },
    /// More payload of the strand's last object.
    Data {
        /// Its group.
        group: u64,
        /// Its strand.
        strand: u64,
        /// Its object.
        object: u64,
        /// Where in the object's payload it belongs.
        offset: u64,
        /// The bytes.
        payload: Bytes,
    },
    /// A strand is complete.
    Finish {
        /// Its group.
        group: u64,
        /// Its strand.
        strand: u64,
    },
    /// A strand was interrupted.
    Reset {
        /// Its group.
        group: u64,
        /// Its strand.
        strand: u64,
        /// Why.
        code: StreamCode,
    },
    /// An object of its own, not held for late joiners.
    Datagram {
        /// Its group.
        group: u64,
        /// Its raw timestamp.
        tick: i64,
        /// Its payload.
        payload: Bytes,
    },
    /// Groups the publisher will not deliver.
    Dropped {
        /// The first of them.
        start: u64,
        /// The last of them.
        end: u64,
        /// Why, as the publisher said it.
        code: u64,
    },
    /// A group that somebody fetched did not come. Whoever waits for it waits no longer.
    Absent {
        /// Its number.
        group: u64,
        /// Why.
        code: StreamCode,
    },
    /// The cache let go of a group: drop its handles, nothing more of it follows. Only when it was
    /// damaged and is brought anew does that follow, as of a group that began with this entry: by a
    /// fetch without, by a live stream with another [`Entry::Group`].
    Evicted {
        /// Its number.
        group: u64,
    },
    /// The last entry of a log; only [`Entry::Evicted`] may still follow.
    End(End),
}

impl Entry {
    /// Payload bytes it carries.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Object { payload, .. } | Self::Data { payload, .. } | Self::Datagram { payload, .. } => {
                payload.len() as u64
            }
            _ => 0,
        }
    }
}

/// A log at the moment a feed was attached (or asked).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The track's properties, when known.
    pub info: Option<TrackInfo>,
    /// The highest group that ever opened; it may be gone from the cache.
    pub latest: Option<u64>,
    /// Groups held from their beginning, ascending: those [`crate::Feed::group`] can replay.
    pub groups: Vec<HeldGroup>,
    /// How it ended, if it did.
    pub end: Option<End>,
}

/// A group held from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldGroup {
    /// Its number.
    pub sequence: u64,
    /// Since when a later group was open, or when a fetch brought it; `None` for the latest.
    pub superseded: Option<Instant>,
    /// It came by FETCH: those who follow live were never told of it.
    pub fetched: bool,
}

/// A group that will not change: it came to its end, and is held from where it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompleteGroup {
    /// Payload of the whole group, bytes. `None`: it is not held from its beginning.
    pub bytes: Option<u64>,
}

/// What a log can say about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// [`crate::Feed::group_from`] works from the object asked for on, and the group is complete or
    /// still coming: the journal has the rest.
    Held,
    /// It will not come, and why.
    Absent(StreamCode),
    /// Only the publisher can tell.
    Unknown,
}

/// Where a new writer of the same publisher goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The latest group.
    pub group: u64,
    /// The first of its objects that is not held whole.
    pub object: u64,
    /// It takes nothing more, being complete or cut short: go on with the next group.
    pub finished: bool,
}
