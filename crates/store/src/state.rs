//! What a log's lock guards: its groups, its journal, who may write.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use relay_model::{Epoch, StreamCode, TrackInfo};

use crate::{
    bell::{Flags, Marks, Rings},
    budget::Share,
    entry::{End, Entry, Head},
    group::{Group, Malformed, Strand, StrandState},
    journal::Journal,
};

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) info: Option<TrackInfo>,
    /// The highest group that ever opened, held or not.
    pub(crate) latest: Option<u64>,
    pub(crate) groups: BTreeMap<u64, Group>,
    /// The held groups below the latest, in the order they were superseded.
    pub(crate) superseded: VecDeque<(Instant, u64)>,
    pub(crate) end: Option<End>,
    pub(crate) journal: Journal,
    pub(crate) seat: Seat,
    /// What the groups cost besides their payload.
    pub(crate) overhead: u64,
    pub(crate) share: Share,
    /// Strands may wait for a writer to continue them.
    has_suspended: bool,
    /// How often the lock was taken.
    pub(crate) locks: u64,
}

/// Who may write. A writer holds the seat until a later epoch takes or bars it.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    barred_below: u64,
    held_by: Option<Epoch>,
    retired: bool,
}

impl Seat {
    /// Takes the seat, from an older writer if need be.
    pub(crate) fn claim(&mut self, epoch: Epoch) -> bool {
        if self.retired || epoch.0 < self.barred_below || self.held_by == Some(epoch) {
            return false;
        }
        self.barred_below = epoch.0;
        self.held_by = Some(epoch);
        true
    }

    /// Whether the writer of `epoch` still sits.
    pub(crate) fn holds(&self, epoch: Epoch) -> bool {
        self.held_by == Some(epoch)
    }

    /// The writer of `epoch` leaves. False: it had lost its seat before.
    pub(crate) fn leave(&mut self, epoch: Epoch) -> bool {
        let held = self.holds(epoch);
        if held {
            self.held_by = None;
        }
        held
    }

    /// Bars every epoch below `epoch`. True: that unseated the writer.
    pub(crate) fn fence(&mut self, epoch: Epoch) -> bool {
        self.barred_below = self.barred_below.max(epoch.0);
        let unseated = self.held_by.is_some_and(|held| held.0 < self.barred_below);
        if unseated {
            self.held_by = None;
        }
        unseated
    }

    /// Nobody writes any more.
    pub(crate) fn retire(&mut self) {
        self.held_by = None;
        self.retired = true;
    }
}

impl State {
    pub(crate) fn new(share: Share) -> Self {
        Self {
            info: None,
            latest: None,
            groups: BTreeMap::new(),
            superseded: VecDeque::new(),
            end: None,
            journal: Journal::default(),
            seat: Seat::default(),
            overhead: 0,
            share,
            has_suspended: false,
            locks: 0,
        }
    }

    pub(crate) fn head(&self) -> Head {
        let whole = self.groups.iter().filter(|(_, group)| !group.head_missing);
        Head {
            info: self.info,
            latest: self.latest,
            groups: whole.map(|(at, _)| *at).collect(),
            end: self.end,
        }
    }

    /// Tells the workers that read about what was pushed since the journal's tail was `before`.
    pub(crate) fn announce(&self, before: u64, flags: &Flags, marks: &mut Marks, rings: &mut Rings) {
        if self.journal.tail() == before {
            return;
        }
        for worker in self.journal.workers() {
            if flags.set(worker) {
                marks.push(worker);
            }
            rings.mark(worker);
        }
    }

    pub(crate) fn set_info(&mut self, info: TrackInfo) {
        if self.end.is_none() && self.info.is_none() {
            self.info = Some(info);
            self.journal.push(Entry::Info(info));
        }
    }

    pub(crate) fn open(&mut self, sequence: u64, strand: u64, now: Instant) -> Result<(), Malformed> {
        if self.end.is_some() {
            return Ok(());
        }
        if !self.groups.contains_key(&sequence) {
            self.open_group(sequence, now);
        }
        self.change(sequence, |group| group.open(strand).map(|_| None))
    }

    fn open_group(&mut self, sequence: u64, now: Instant) {
        let superseded_at = self.latest.is_some_and(|latest| sequence < latest).then_some(now);
        if superseded_at.is_some() {
            self.superseded.push_back((now, sequence));
        } else if self.latest != Some(sequence) {
            self.supersede(sequence, now);
        }
        let group = Group::new(superseded_at);
        self.overhead += group.overhead;
        self.groups.insert(sequence, group);
        self.journal.push(Entry::Group { sequence });
    }

    /// `sequence` is the new latest group.
    fn supersede(&mut self, sequence: u64, now: Instant) {
        let before = self.latest.replace(sequence);
        if let Some(before) = before
            && let Some(group) = self.groups.get_mut(&before)
        {
            group.superseded_at = Some(now);
            self.superseded.push_back((now, before));
        }
        if std::mem::take(&mut self.has_suspended) {
            self.reset_where(StreamCode::OLD, |strand| strand.state == StrandState::Suspended);
        }
    }

    /// Applies `change` to a held group; what happened is its entry. Groups that are not held (any
    /// more) are left alone, and so is a log that ended.
    pub(crate) fn change(
        &mut self,
        sequence: u64,
        change: impl FnOnce(&mut Group) -> Result<Option<Entry>, Malformed>,
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

    /// Journal only: neither held nor a reason to supersede anything.
    pub(crate) fn pass(&mut self, entry: Entry) {
        if self.end.is_none() {
            self.journal.push(entry);
        }
    }

    /// The last entry. What is still open is interrupted.
    pub(crate) fn end(&mut self, end: End) {
        if self.end.is_some() {
            return;
        }
        self.reset_where(end.code.unwrap_or(StreamCode::CANCEL), |strand| !strand.is_over());
        self.end = Some(end);
        self.journal.push(Entry::End(end));
    }

    /// Open strands wait for another writer.
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
                self.journal.push(Entry::Reset { group: *sequence, strand: strand.id, code });
            }
        }
    }
}
