//! One downstream subscription or track-info request.

use std::{rc::Rc, time::Duration};

use relay_model::{LogId, Prefs, StreamCode, SubId, Want};
use relay_store::End;
use smallvec::SmallVec;

use crate::{cursor::Cursor, dialect::Framing, lane::Group, transport::Stream};

/// What the peer asked of one track, and how far it has been served.
#[derive(Debug)]
pub(crate) struct Sub {
    pub(crate) id: SubId,
    /// The peer's own id of the subscription.
    pub(crate) wire_id: u64,
    /// The request's stream.
    pub(crate) stream: Stream,
    pub(crate) want: Want,
    pub(crate) prefs: Prefs,
    pub(crate) framing: Framing,
    /// The log that serves it, once core has said.
    pub(crate) log: Option<LogId>,
    pub(crate) cursors: SmallVec<[Cursor; 1]>,
    pub(crate) end: Option<End>,
    /// Lowest group that is still wanted; known with the first group.
    pub(crate) floor: Option<u64>,
    /// Whether the first group has been named to the peer.
    pub(crate) started: bool,
    /// Bytes it may send before the next of its priority has its turn.
    pub(crate) deficit: usize,
    seen: Seen,
}

impl Sub {
    pub(crate) fn new(
        id: SubId,
        wire_id: u64,
        stream: Stream,
        want: Want,
        prefs: Prefs,
        framing: Framing,
    ) -> Self {
        Self {
            id,
            wire_id,
            stream,
            want,
            prefs,
            framing,
            log: None,
            cursors: SmallVec::new(),
            end: None,
            floor: prefs.start,
            started: false,
            deficit: 0,
            seen: Seen::default(),
        }
    }

    /// QUIC priority of its media.
    pub(crate) fn priority(&self) -> i32 {
        1 + i32::from(self.prefs.priority)
    }

    /// Takes a group that opened, unless it lies outside what was asked or was taken before. The
    /// first one taken is the floor when none was asked.
    pub(crate) fn take(&mut self, group: &Rc<Group>) -> bool {
        let sequence = group.sequence();
        let wanted = self.floor.is_none_or(|floor| sequence >= floor)
            && self.prefs.end.is_none_or(|end| sequence <= end)
            && self.seen.insert(sequence);
        if wanted {
            self.floor.get_or_insert(sequence);
            self.cursors.push(Cursor::new(group.clone()));
        }
        wanted
    }

    /// The newest group taken.
    pub(crate) fn newest(&self) -> Option<u64> {
        self.seen.highest
    }

    /// Whether a group older than the newest is still being sent: its time may run out.
    pub(crate) fn lags(&self) -> bool {
        self.cursors.iter().any(|cursor| Some(cursor.group.sequence()) != self.newest())
    }

    /// Whether a cursor's group has outlived the subscriber's age budget. The newest never has.
    pub(crate) fn is_expired(&self, group: &Group, now: std::time::Instant) -> bool {
        let budget = Duration::from_millis(self.prefs.max_age_ms);
        Some(group.sequence()) != self.newest()
            && group.superseded().is_some_and(|since| now.saturating_duration_since(since) > budget)
    }

    /// First exclusive bound of the groups named to the peer.
    pub(crate) fn bound(&self) -> u64 {
        self.end
            .and_then(|end| end.final_group)
            .or_else(|| self.newest().map(|newest| newest.saturating_add(1)))
            .unwrap_or(0)
    }

    /// Whether the end may be said: the track ended and every group taken is accounted for.
    pub(crate) fn is_over(&self) -> Option<Option<StreamCode>> {
        self.end.filter(|_| self.cursors.is_empty()).map(|end| end.code)
    }
}

/// Which recent groups were taken: the highest, and a bit for each of the 64 below it.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    highest: Option<u64>,
    below: u64,
}

impl Seen {
    /// False when `sequence` was inserted before, or is too far below the highest to tell.
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
            let (mut seen, mut model) = (Seen::default(), HashSet::new());
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
