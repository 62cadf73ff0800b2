//! Entries of a log, in arrival order.

use std::time::Instant;

use bytes::Bytes;
use relay_model::{StreamCode, TrackInfo};

/// Kind of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ObjectStatus {
    /// A frame with its payload.
    #[default]
    Normal,
}

/// Header of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    /// Object id, ascending within its strand; gaps are legal.
    pub id: u64,
    /// Raw timestamp in the track's timescale.
    pub tick: Option<i64>,
    /// Declared payload size, bytes.
    pub size: u64,
    /// Kind of the object.
    pub status: ObjectStatus,
    /// Opaque properties, forwarded unchanged; usually empty.
    pub properties: Bytes,
}

impl ObjectHead {
    /// A plain frame: no properties.
    pub fn frame(id: u64, tick: Option<i64>, size: u64) -> Self {
        Self { id, tick, size, status: ObjectStatus::Normal, properties: Bytes::new() }
    }
}

/// End of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// Exclusive upper bound of the published groups; `None` = unknown.
    pub final_group: Option<u64>,
    /// Error code; `None` = a clean end.
    pub code: Option<StreamCode>,
}

/// One event of a log. Cheap to clone: payloads are shared.
///
/// A replay ([`crate::Feed::group`]) and the journal may overlap: by object ids and offsets a reader recognises
/// entries it already has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEntry {
    /// The track's properties became known (once).
    Info(TrackInfo),
    /// A group opened. If it was fetched before its live stream began, its held objects follow.
    Group {
        /// Sequence number of the group.
        sequence: u64,
    },
    /// An object began.
    Object {
        /// Sequence number of the group.
        group: u64,
        /// Strand of the group.
        strand: u64,
        /// Header of the object.
        head: ObjectHead,
        /// First bytes of the payload: none, some or all.
        payload: Bytes,
    },
    /// More payload of the strand's last object.
    Data {
        /// Sequence number of the group.
        group: u64,
        /// Strand of the group.
        strand: u64,
        /// Object of the strand.
        object: u64,
        /// Offset in the object's payload, bytes.
        offset: u64,
        /// The bytes.
        payload: Bytes,
    },
    /// A strand is complete.
    Finish {
        /// Sequence number of the group.
        group: u64,
        /// Strand of the group.
        strand: u64,
    },
    /// A strand was interrupted.
    Reset {
        /// Sequence number of the group.
        group: u64,
        /// Strand of the group.
        strand: u64,
        /// Error code.
        code: StreamCode,
    },
    /// An object outside any stream, not kept for late joiners.
    Datagram {
        /// Sequence number of the group.
        group: u64,
        /// Raw timestamp.
        tick: i64,
        /// Payload.
        payload: Bytes,
    },
    /// Range of groups the publisher will not deliver.
    Dropped {
        /// First group of the range.
        start: u64,
        /// Last group of the range, inclusive.
        end: u64,
        /// Error code received from the publisher.
        code: u64,
    },
    /// A fetch of a group failed: readers waiting for the group stop waiting.
    Absent {
        /// Sequence number of the group.
        group: u64,
        /// Error code.
        code: StreamCode,
    },
    /// The cache evicted a group: drop its handles; nothing more of the group follows. Exception: a damaged
    /// group that is replaced follows again from its beginning, after this entry if a fetch brings it, after
    /// another [`LogEntry::Group`] if a live stream does.
    Evicted {
        /// Sequence number of the group.
        group: u64,
    },
    /// The last entry of a log; only [`LogEntry::Evicted`] may still follow.
    End(LogEnd),
}

impl LogEntry {
    /// Payload bytes of the entry.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Object { payload, .. } | Self::Data { payload, .. } | Self::Datagram { payload, .. } => {
                payload.len() as u64
            }
            _ => 0,
        }
    }
}

/// State of a log when a feed was attached or [`crate::Feed::head`] was called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogHead {
    /// The track's properties, when known.
    pub info: Option<TrackInfo>,
    /// Highest group ever opened; it may have been evicted.
    pub latest: Option<u64>,
    /// Groups held from their beginning, ascending; [`crate::Feed::group`] can replay them.
    pub groups: Vec<HeldGroup>,
    /// End of the log, if it has ended.
    pub end: Option<LogEnd>,
}

/// A group held from its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldGroup {
    /// Sequence number of the group.
    pub sequence: u64,
    /// Time since a later group is open, or since a fetch brought this one; `None` for the latest.
    pub superseded: Option<Instant>,
    /// Whether it came by FETCH; live readers got no [`LogEntry::Group`] for it.
    pub fetched: bool,
}

/// A finished group, held from the requested object on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompleteGroup {
    /// Payload of the whole group, bytes; `None` if it is not held from its beginning.
    pub bytes: Option<u64>,
}

/// Availability of a group in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// [`crate::Feed::group_from`] works from the requested object on, and the group is finished or still
    /// arriving: the journal has the rest.
    Held,
    /// The group will not arrive; the code is the reason.
    Absent(StreamCode),
    /// Only the publisher knows.
    Unknown,
}

/// Resume point for a new writer of the same publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The latest group.
    pub group: u64,
    /// First object of the group that is not held completely.
    pub object: u64,
    /// Whether the group is finished or reset: resume with the next group.
    pub finished: bool,
}
