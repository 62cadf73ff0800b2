//! Progress of an upstream subscription: groups received, and the end once nothing more is expected.

use std::time::{Duration, Instant};

use relay_store::LogEnd;

/// Time in which groups may still arrive after the publisher's end, as streams may be reordered.
const STRAGGLERS: Duration = Duration::from_secs(1);
/// Further time for a group that has begun to arrive by then.
const LAST_GROUPS: Duration = Duration::from_secs(4);

/// Groups of one subscription, received or accounted for.
#[derive(Debug, Default)]
pub(crate) struct GroupProgress {
    /// Group streams being received.
    open: usize,
    /// First group of the subscription: as named by the publisher, until then the lowest received.
    first: Option<u64>,
    started: bool,
    /// Number of groups received or reported as dropped.
    accounted: u64,
    /// Exclusive end of the track, once named by the publisher.
    bound: Option<u64>,
    finishing: Option<Instant>,
}

impl GroupProgress {
    /// Group streams being received.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Whether the publisher has named the first group.
    pub(crate) fn has_started(&self) -> bool {
        self.started
    }

    /// Whether any group was received or reported as dropped.
    pub(crate) fn has_groups(&self) -> bool {
        self.accounted > 0
    }

    /// Records the start of a group stream.
    pub(crate) fn group_opened(&mut self, sequence: u64) {
        self.open = self.open.saturating_add(1);
        self.accounted = self.accounted.saturating_add(1);
        if !self.started {
            self.first = Some(self.first.map_or(sequence, |first| first.min(sequence)));
        }
    }

    /// Records the end of a group stream. False if none was open.
    pub(crate) fn group_closed(&mut self) -> bool {
        let was_open = self.open > 0;
        self.open = self.open.saturating_sub(1);
        was_open
    }

    /// Records the first group named by the publisher.
    pub(crate) fn start(&mut self, first: u64) {
        self.first = Some(first);
        self.started = true;
    }

    /// Records that the publisher will not send `first..=last`.
    pub(crate) fn dropped(&mut self, first: u64, last: u64) {
        let first = first.max(self.first.unwrap_or(0));
        let count = last.checked_sub(first).map_or(0, |more| more.saturating_add(1));
        self.accounted = self.accounted.saturating_add(count);
    }

    /// Records the exclusive end of the track.
    pub(crate) fn set_bound(&mut self, bound: u64) {
        self.bound = Some(bound);
    }

    /// Records that the publisher is done; its last groups may still arrive.
    pub(crate) fn finish(&mut self, now: Instant) {
        self.finishing = Some(now + STRAGGLERS);
    }

    /// Whether the publisher is done.
    pub(crate) fn is_finishing(&self) -> bool {
        self.finishing.is_some()
    }

    /// Time at which [`Self::ended`] must be checked again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let late = if self.open == 0 { Duration::ZERO } else { LAST_GROUPS };
        self.finishing.map(|at| at + late)
    }

    /// End of the track, once nothing more is expected. Where the last group is not named, a timeout decides.
    pub(crate) fn ended(&self, now: Instant) -> Option<LogEnd> {
        let deadline = self.finishing?;
        let counted = self.first.unwrap_or(0).saturating_add(self.accounted);
        let complete = self.open == 0 && self.bound.is_some_and(|bound| counted >= bound);
        let waited = now >= deadline && (self.open == 0 || now >= deadline + LAST_GROUPS);
        (complete || waited).then_some(LogEnd { final_group: self.bound, code: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn track_ends_once_all_groups_are_accounted_for() {
        let (mut progress, now) = (GroupProgress::default(), Instant::now());
        progress.start(3);
        progress.group_opened(3);
        progress.dropped(0, 4);
        progress.set_bound(6);
        progress.finish(now);
        assert_eq!(progress.ended(now), None, "one group is open and one is missing");
        progress.group_opened(5);
        assert!(progress.group_closed());
        assert_eq!(progress.ended(now), None);
        assert!(progress.group_closed() && !progress.group_closed());
        let end = progress.ended(now).expect("the end");
        assert_eq!((end.final_group, end.code), (Some(6), None));
    }

    #[test]
    fn unnamed_last_group_is_awaited_within_limits() {
        let (mut progress, now) = (GroupProgress::default(), Instant::now());
        progress.group_opened(0);
        progress.finish(now);
        let (early, late) = (now + STRAGGLERS, now + STRAGGLERS + LAST_GROUPS);
        assert_eq!((progress.deadline(), progress.ended(early)), (Some(late), None));
        assert!(progress.ended(late).is_some());
        progress.group_closed();
        assert_eq!(progress.deadline(), Some(early));
        assert!(progress.ended(early).is_some_and(|end| end.final_group.is_none()));
    }
}
