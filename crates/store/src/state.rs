//! State of a log under its lock: groups, journal and writer lease.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use relay_model::{Epoch, StreamCode, TrackInfo};

use crate::{
    absent::Absent,
    budget::BudgetShare,
    entry::{HeldGroup, LogEnd, LogEntry, LogHead, Lookup, Resume},
    group::{CachedGroup, FETCHED, Malformed, ReplayPosition, Replayed, Strand, StrandState},
    journal::Journal,
    ready_list::{DirtyFlags, Marks, WakeSet},
    stats::{LogStats, WriteTotals},
};

#[derive(Debug)]
pub(crate) struct LogState {
    pub(crate) info: Option<TrackInfo>,
    /// Highest group ever opened, held or not.
    pub(crate) latest: Option<u64>,
    pub(crate) groups: BTreeMap<u64, CachedGroup>,
    /// Held groups below the latest, and fetched groups, by age.
    pub(crate) superseded: VecDeque<Superseded>,
    /// Groups the publisher is known not to have.
    pub(crate) absent: Absent,
    pub(crate) end: Option<LogEnd>,
    pub(crate) journal: Journal,
    pub(crate) lease: WriterLease,
    /// Bytes charged besides payload: bookkeeping of the groups and of the absent ranges.
    pub(crate) overhead: u64,
    pub(crate) share: BudgetShare,
    /// Whether strands may wait for a writer to continue them.
    has_suspended: bool,
    /// Number of times the lock was taken.
    pub(crate) locks: u64,
    /// Totals committed by writers, including data already held.
    pub(crate) brought: WriteTotals,
}

/// A group that may be evicted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Superseded {
    /// Time of superseding, as in the group.
    pub(crate) since: Instant,
    pub(crate) sequence: u64,
    /// Whether a fetch brought the group or is bringing it.
    pub(crate) fetched: bool,
}

/// Writer lease of a log. A writer holds it until a later epoch claims or fences it.
#[derive(Debug, Default)]
pub(crate) struct WriterLease {
    barred_below: u64,
    held_by: Option<Epoch>,
    retired: bool,
}

impl WriterLease {
    /// Claims the lease, from an older writer if necessary.
    pub(crate) fn claim(&mut self, epoch: Epoch) -> bool {
        if self.retired || epoch.0 < self.barred_below || self.held_by == Some(epoch) {
            return false;
        }
        self.barred_below = epoch.0;
        self.held_by = Some(epoch);
        true
    }

    /// Latest epoch that claimed the lease or fenced others.
    pub(crate) fn latest(&self) -> Epoch {
        Epoch(self.barred_below)
    }

    /// Whether the writer of `epoch` holds the lease.
    pub(crate) fn holds(&self, epoch: Epoch) -> bool {
        self.held_by == Some(epoch)
    }

    /// Releases the lease of `epoch`. False: it was lost before.
    pub(crate) fn leave(&mut self, epoch: Epoch) -> bool {
        let held = self.holds(epoch);
        if held {
            self.held_by = None;
        }
        held
    }

    /// Fences every epoch below `epoch`. True: the current writer lost the lease.
    pub(crate) fn fence(&mut self, epoch: Epoch) -> bool {
        self.barred_below = self.barred_below.max(epoch.0);
        let is_lost = self.held_by.is_some_and(|held| held.0 < self.barred_below);
        if is_lost {
            self.held_by = None;
        }
        is_lost
    }

    /// Fences all writers for good.
    pub(crate) fn retire(&mut self) {
        self.held_by = None;
        self.retired = true;
    }
}

impl LogState {
    pub(crate) fn new(share: BudgetShare) -> Self {
        Self {
            info: None,
            latest: None,
            groups: BTreeMap::new(),
            superseded: VecDeque::new(),
            absent: Absent::default(),
            end: None,
            journal: Journal::default(),
            lease: WriterLease::default(),
            overhead: 0,
            share,
            has_suspended: false,
            locks: 0,
            brought: WriteTotals::default(),
        }
    }

    pub(crate) fn head(&self) -> LogHead {
        let whole = self.groups.iter().filter(|(_, group)| !group.lost_head());
        let held = |(sequence, group): (&u64, &CachedGroup)| HeldGroup {
            sequence: *sequence,
            superseded: group.superseded_at,
            fetched: group.fetched,
        };
        LogHead { info: self.info, latest: self.latest, groups: whole.map(held).collect(), end: self.end }
    }

    pub(crate) fn stats(&self) -> LogStats {
        let WriteTotals { groups, frames, bytes } = self.brought;
        LogStats {
            groups,
            frames,
            bytes,
            latest: self.latest,
            cached_groups: self.groups.len() as u64,
            cached_bytes: self.groups.values().map(CachedGroup::cost).sum(),
        }
    }

    pub(crate) fn lookup(&self, sequence: u64, first_object: u64) -> Lookup {
        let held = self.groups.get(&sequence);
        if held.is_some_and(|group| group.serves(first_object)) {
            return Lookup::Held;
        }
        let final_group = self.end.and_then(|end| end.final_group);
        if self.absent.contains(sequence) || final_group.is_some_and(|bound| sequence >= bound) {
            return Lookup::Absent(StreamCode::NOT_FOUND);
        }
        if self.end.is_none() {
            return Lookup::Unknown;
        }
        // A group below the latest may never have existed; this is no longer known.
        let existed = self.latest.is_some_and(|latest| sequence <= latest) || held.is_some();
        let lost = if existed { StreamCode::EVICTED } else { StreamCode::NOT_FOUND };
        Lookup::Absent(held.and_then(CachedGroup::cut_short).unwrap_or(lost))
    }

    pub(crate) fn resume(&self) -> Option<Resume> {
        let group = self.latest?;
        let (object, finished) = self.groups.get(&group)?.resume();
        Some(Resume { group, object, finished })
    }

    /// Marks the workers that read this log if anything was pushed since the journal's tail was `before`.
    pub(crate) fn announce(&self, before: u64, flags: &DirtyFlags, marks: &mut Marks, wakes: &mut WakeSet) {
        if self.journal.tail() == before {
            return;
        }
        for worker in self.journal.workers() {
            if flags.set(worker) {
                marks.push(worker);
            }
            wakes.mark(worker);
        }
    }

    pub(crate) fn set_info(&mut self, info: TrackInfo) {
        if self.end.is_none() && self.info.is_none() {
            self.info = Some(info);
            self.journal.push(LogEntry::Info(info));
        }
    }

    /// Opens a live stream of a group that begins with object `first` of the strand.
    pub(crate) fn open(
        &mut self,
        sequence: u64,
        strand: u64,
        first: u64,
        now: Instant,
        evicted: &mut Vec<CachedGroup>,
    ) -> Result<(), Malformed> {
        if self.end.is_some() || strand == FETCHED {
            return Ok(());
        }
        self.known_present(sequence);
        match self.groups.get(&sequence) {
            None => self.open_group(sequence, now),
            Some(group) if group.fetched => self.come_live(sequence, now, evicted),
            Some(_) => {}
        }
        if first > 0 {
            return self.change(sequence, |group| group.starts_at(sequence, strand, first));
        }
        self.change(sequence, |group| group.open(strand).map(|_| None))
    }

    fn open_group(&mut self, sequence: u64, now: Instant) {
        let superseded_at = self.latest.is_some_and(|latest| sequence < latest).then_some(now);
        if superseded_at.is_some() {
            self.superseded.push_back(Superseded { since: now, sequence, fetched: false });
        } else if self.latest != Some(sequence) {
            self.supersede(sequence, now);
        }
        self.insert(sequence, CachedGroup::new(superseded_at));
        self.journal.push(LogEntry::Group { sequence });
    }

    #[inline]
    fn insert(&mut self, sequence: u64, group: CachedGroup) {
        self.overhead += group.overhead;
        self.brought.groups += 1;
        self.groups.insert(sequence, group);
    }

    /// Makes `sequence` the latest group.
    fn supersede(&mut self, sequence: u64, now: Instant) {
        let before = self.latest.replace(sequence);
        if let Some(before) = before
            && let Some(group) = self.groups.get_mut(&before)
            && group.superseded_at.is_none()
        {
            group.superseded_at = Some(now);
            self.superseded.push_back(Superseded { since: now, sequence: before, fetched: false });
        }
        if std::mem::take(&mut self.has_suspended) {
            self.reset_where(StreamCode::OLD, |strand| strand.state == StrandState::Suspended);
        }
    }

    /// Opens the response to a fetch. A group that is whole or arriving is kept; one that was cut short or lost
    /// its head is evicted first, since it cannot be repaired.
    pub(crate) fn open_fetched(&mut self, sequence: u64, now: Instant, evicted: &mut Vec<CachedGroup>) {
        if self.end.is_some() {
            return;
        }
        self.known_present(sequence);
        if let Some(group) = self.groups.get_mut(&sequence) {
            let is_damaged = group.cut_short().is_some() || group.lost_head() || group.is_abandoned();
            if !is_damaged || !(group.fetched || group.is_over()) {
                if group.fetched {
                    group.restart();
                }
                return;
            }
            self.unlink(sequence, evicted);
        }
        self.insert(sequence, CachedGroup::fetched(now));
        self.superseded.push_back(Superseded { since: now, sequence, fetched: true });
        // A fetched group has only this strand: opening it cannot fail.
        let _ = self.change(sequence, |group| group.open(FETCHED).map(|_| None));
    }

    /// Turns a fetched group, whole or partial, into a live one when its live stream begins. Readers get the
    /// group's opening and then its held objects; readers that waited for the fetch already have those. A group
    /// that is damaged, or too long to replay under the lock, starts again.
    #[cold]
    fn come_live(&mut self, sequence: u64, now: Instant, evicted: &mut Vec<CachedGroup>) {
        let mut held = Vec::new();
        let Some(group) = self.groups.get_mut(&sequence) else { return };
        let is_whole = group.cut_short().is_none() && !group.lost_head();
        let is_replayed = is_whole
            && matches!(group.replay(sequence, ReplayPosition::from(0), &mut held), Some(Replayed::All));
        if !is_replayed {
            self.unlink(sequence, evicted);
            return self.open_group(sequence, now);
        }
        group.come_live();
        // Its age counts from now, as for any group that arrives now.
        self.superseded.retain(|group| group.sequence != sequence);
        group.superseded_at = self.latest.is_some_and(|latest| sequence < latest).then_some(now);
        if group.superseded_at.is_some() {
            self.superseded.push_back(Superseded { since: now, sequence, fetched: false });
        } else if self.latest != Some(sequence) {
            self.supersede(sequence, now);
        }
        self.journal.push(LogEntry::Group { sequence });
        held.into_iter().for_each(|entry| self.journal.push(entry));
    }

    /// Evicts a group that is about to be replaced.
    fn unlink(&mut self, sequence: u64, evicted: &mut Vec<CachedGroup>) {
        self.superseded.retain(|group| group.sequence != sequence);
        self.evict(sequence, evicted);
    }

    /// Unlinks a group that is no longer in a queue. Returns its cost, bytes.
    pub(crate) fn evict(&mut self, sequence: u64, evicted: &mut Vec<CachedGroup>) -> u64 {
        let Some(group) = self.groups.remove(&sequence) else { return 0 };
        let cost = group.cost();
        self.overhead -= group.overhead;
        self.journal.push(LogEntry::Evicted { group: sequence });
        evicted.push(group);
        cost
    }

    /// Records a failed fetch of a group; `absent`: because there is no such group.
    pub(crate) fn fetch_failed(&mut self, group: u64, code: StreamCode, absent: bool) {
        if self.end.is_some() {
            return;
        }
        if absent {
            self.overhead -= self.absent.overhead();
            self.absent.insert(group);
            self.overhead += self.absent.overhead();
        }
        self.journal.push(LogEntry::Absent { group, code });
    }

    fn known_present(&mut self, sequence: u64) {
        if self.absent.is_empty() {
            return;
        }
        self.overhead -= self.absent.overhead();
        self.absent.remove(sequence);
        self.overhead += self.absent.overhead();
    }

    /// Applies `change` to a held group and pushes the resulting entry. Groups that are not held (any more) are
    /// ignored, and so are changes after the log's end.
    pub(crate) fn change(
        &mut self,
        sequence: u64,
        change: impl FnOnce(&mut CachedGroup) -> Result<Option<LogEntry>, Malformed>,
    ) -> Result<(), Malformed> {
        if self.end.is_some() {
            return Ok(());
        }
        let Some(group) = self.groups.get_mut(&sequence) else { return Ok(()) };
        let before = group.overhead;
        let entry = change(group)?;
        self.overhead = self.overhead - before + group.overhead;
        if let Some(entry) = entry {
            self.journal.push(entry);
        }
        Ok(())
    }

    /// Pushes an entry to the journal only: it is not held, and supersedes no group.
    pub(crate) fn pass(&mut self, entry: LogEntry) {
        if self.end.is_none() {
            self.journal.push(entry);
        }
    }

    /// Appends the end of the log. Open strands are reset.
    pub(crate) fn end(&mut self, end: LogEnd) {
        if self.end.is_some() {
            return;
        }
        self.reset_where(end.code.unwrap_or(StreamCode::CANCEL), |strand| !strand.is_over());
        self.end = Some(end);
        self.journal.push(LogEntry::End(end));
    }

    /// Suspends open strands until another writer continues them.
    pub(crate) fn suspend(&mut self) {
        if self.end.is_some() {
            return;
        }
        for strand in self.groups.values_mut().flat_map(|group| group.strands.iter_mut()) {
            self.has_suspended |= strand.suspend();
        }
    }

    fn reset_where(&mut self, code: StreamCode, which: impl Fn(&Strand) -> bool) {
        for (sequence, group) in &mut self.groups {
            for strand in group.strands.iter_mut().filter(|strand| which(strand)) {
                strand.state = StrandState::Reset(code);
                self.journal.push(LogEntry::Reset { group: *sequence, strand: strand.id, code });
            }
        }
    }
}
