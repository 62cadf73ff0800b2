//! One downstream subscription, track-info request or fetch.

use std::{rc::Rc, time::Duration};

use relay_model::{LogId, Prefs, Start, StreamCode, SubId, Want};
use relay_store::LogEnd;
use smallvec::SmallVec;

use crate::{
    cursor::GroupCursor, dialect::ObjectFraming, encoded_group::LocalGroup, encoding_key::EncodingKey,
    request::RequestId,
};

/// Kind of a request of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// A track's properties.
    Info,
    /// Groups as they are published.
    Live,
    /// One group, on the request's own stream.
    Fetch {
        group: u64,
        /// First object wanted.
        first: u64,
        /// Last object wanted, inclusive.
        last: u64,
    },
}

impl RequestKind {
    /// Extent of interest reported to core.
    pub(crate) fn want(self) -> Want {
        match self {
            Self::Live => Want::Live,
            Self::Info | Self::Fetch { .. } => Want::Info,
        }
    }
}

/// A subscription, TRACK or FETCH request of the peer, and its progress.
#[derive(Debug)]
pub(crate) struct DownstreamSub {
    pub(crate) id: SubId,
    /// Number of the subscription on data streams, chosen by the peer.
    pub(crate) alias: u64,
    pub(crate) request: RequestId,
    pub(crate) kind: RequestKind,
    pub(crate) prefs: Prefs,
    pub(crate) framing: ObjectFraming,
    /// Log that serves it, once assigned by core.
    pub(crate) log: Option<LogId>,
    pub(crate) cursors: SmallVec<[GroupCursor; 1]>,
    pub(crate) end: Option<LogEnd>,
    /// Lowest group requested.
    lowest: u64,
    /// First group of the subscription; if none was requested, set by the first group taken.
    pub(crate) floor: Option<u64>,
    /// Whether the first group has been named to the peer.
    pub(crate) started: bool,
    /// Bytes it may send before the next subscription of its priority has its turn.
    pub(crate) deficit: usize,
    /// Bytes of the broadcast's path and the track's name.
    pub(crate) names: u32,
    seen: TakenGroups,
}

impl DownstreamSub {
    pub(crate) fn new(
        id: SubId,
        alias: u64,
        request: RequestId,
        kind: RequestKind,
        prefs: Prefs,
        framing: ObjectFraming,
    ) -> Self {
        let floor = match prefs.start {
            Start::Group(group) => Some(group),
            Start::Latest | Start::Fresh { .. } => None,
        };
        Self {
            id,
            alias,
            request,
            kind,
            prefs,
            framing,
            log: None,
            cursors: SmallVec::new(),
            end: None,
            lowest: prefs.start.floor().unwrap_or(0),
            floor,
            started: false,
            deficit: 0,
            names: 0,
            seen: TakenGroups::default(),
        }
    }

    /// Sets the bytes of names held for it.
    pub(crate) fn with_names(self, names: usize) -> Self {
        Self { names: u32::try_from(names).unwrap_or(u32::MAX), ..self }
    }

    /// Applies new preferences. Groups already being sent are not affected.
    pub(crate) fn update(&mut self, prefs: Prefs) {
        self.prefs = prefs;
        if let Some(start) = prefs.start.floor() {
            self.lowest = start;
            self.floor = self.floor.map(|floor| floor.max(start));
        }
    }

    /// Part of a group to be sent to the peer.
    pub(crate) fn encoding_key(&self, sequence: u64) -> EncodingKey {
        if let RequestKind::Fetch { first, last, .. } = self.kind {
            return EncodingKey { framing: self.framing, first, last };
        }
        let is_first = self.prefs.start.floor() == Some(sequence);
        let is_last = self.prefs.end == Some(sequence);
        EncodingKey {
            framing: self.framing,
            first: if is_first { self.prefs.start_frame } else { 0 },
            last: self.prefs.end_frame.filter(|_| is_last).unwrap_or(u64::MAX),
        }
    }

    /// Whether a first or last frame is requested.
    pub(crate) fn has_frame_bounds(&self) -> bool {
        self.prefs.start_frame > 0 || self.prefs.end_frame.is_some()
    }

    /// Whether a group lies in the requested range.
    pub(crate) fn wants(&self, sequence: u64) -> bool {
        self.kind == RequestKind::Live
            && sequence >= self.floor.unwrap_or(self.lowest)
            && self.prefs.end.is_none_or(|end| sequence <= end)
    }

    /// QUIC priority of its media.
    pub(crate) fn priority(&self) -> i32 {
        1 + i32::from(self.prefs.priority)
    }

    /// Adds a cursor for an opened group, unless the group is outside the requested range or was taken before.
    /// The first group taken becomes the floor if none was requested.
    pub(crate) fn take(&mut self, group: &Rc<LocalGroup>) -> bool {
        let sequence = group.sequence();
        let wanted = self.wants(sequence) && self.seen.insert(sequence);
        if wanted {
            self.floor.get_or_insert(sequence);
            self.cursors.push(GroupCursor::new(group.clone(), self.encoding_key(sequence)));
        }
        wanted
    }

    /// The newest group taken.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.seen.highest
    }

    /// Whether a group older than the newest is still being sent and may expire.
    pub(crate) fn lags(&self) -> bool {
        self.kind == RequestKind::Live
            && self.cursors.iter().any(|cursor| Some(cursor.group.sequence()) != self.newest())
    }

    /// Whether a group has exceeded the subscriber's age budget. The newest never has.
    pub(crate) fn is_expired(&self, group: &LocalGroup, now: std::time::Instant) -> bool {
        let budget = Duration::from_millis(self.prefs.max_age_ms);
        self.kind == RequestKind::Live
            && Some(group.sequence()) != self.newest()
            && group.superseded().is_some_and(|since| now.saturating_duration_since(since) > budget)
    }

    /// Exclusive upper bound of the groups, for SUBSCRIBE_END.
    pub(crate) fn bound(&self) -> u64 {
        self.end
            .and_then(|end| end.final_group)
            .or_else(|| self.newest().map(|newest| newest.saturating_add(1)))
            .unwrap_or(0)
    }

    /// End of the subscription, once it may be sent: the track ended (a fetch was answered or failed) and every
    /// group taken is accounted for.
    pub(crate) fn is_over(&self) -> Option<Option<StreamCode>> {
        if let RequestKind::Fetch { .. } = self.kind {
            return (self.started && self.cursors.is_empty()).then_some(None);
        }
        self.end.filter(|_| self.cursors.is_empty()).map(|end| end.code)
    }
}

/// Recently taken groups: the highest, and a bit for each of the 64 below it.
#[derive(Clone, Copy, Debug, Default)]
struct TakenGroups {
    highest: Option<u64>,
    below: u64,
}

impl TakenGroups {
    /// Inserts `sequence`. False if it was inserted before, or is too far below the highest to know.
    fn insert(&mut self, sequence: u64) -> bool {
        let Some(highest) = self.highest else {
            self.highest = Some(sequence);
            return true;
        };
        if sequence > highest {
            let shift = sequence - highest;
            self.below = match shift {
                1..=63 => (self.below << shift) | (1 << (shift - 1)),
                64 => 1 << 63,
                _ => 0,
            };
            self.highest = Some(sequence);
            return true;
        }
        let Some(bit) = (highest - sequence).checked_sub(1).filter(|bit| *bit < 64) else { return false };
        let fresh = self.below & (1 << bit) == 0;
        self.below |= 1 << bit;
        fresh
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_group_is_taken_once(sequences in proptest::collection::vec(0u64..300, 1..200)) {
            let (mut seen, mut model) = (TakenGroups::default(), HashSet::new());
            for sequence in sequences {
                let highest = seen.highest;
                let fresh = seen.insert(sequence);
                if highest.is_some_and(|highest| sequence + 64 < highest) {
                    prop_assert!(!fresh);
                } else {
                    prop_assert_eq!(fresh, model.insert(sequence));
                }
            }
        }
    }
}
