//! Groups and their strands, and how a writer continues them.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;
use relay_model::{StreamCode, limits};
use smallvec::SmallVec;

use crate::{
    bounds,
    entry::{LogEntry, ObjectHead},
};

/// Strand written by a fetch; readers see it as strand 0 of a group that came by FETCH. A stream of
/// the live subscription and the response to a fetch may bring the same group at once; the origin of
/// the group decides which of the two writes to it, and data of the other is skipped.
pub const FETCHED: u64 = u64::MAX;

/// A group as held for late joiners.
#[derive(Debug)]
pub(crate) struct CachedGroup {
    pub(crate) strands: SmallVec<[Strand; 1]>,
    /// Time a higher group opened, or a fetch brought it; `None` for the latest.
    pub(crate) superseded_at: Option<Instant>,
    /// Whether it came by FETCH; live readers do not know of it.
    pub(crate) fetched: bool,
    /// Whether objects between two received ones are lost: no replay from the start.
    gap: bool,
    pub(crate) payload: u64,
    pub(crate) overhead: u64,
}

/// An ordered run of objects that travels on one stream (a subgroup; moq-lite has exactly one).
#[derive(Debug)]
pub(crate) struct Strand {
    /// Id used by readers.
    pub(crate) id: u64,
    /// Id used by writers: [`FETCHED`] in a fetched group.
    key: u64,
    pub(crate) state: StrandState,
    /// Ascending ids. The last object received is always kept, if only its head.
    objects: VecDeque<CachedObject>,
    /// Objects below this id may be gone.
    held_from: u64,
    /// Position of the current writer's stream, once it has begun an object.
    incoming: Option<StreamPosition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StrandState {
    /// A writer continues it.
    Open,
    /// Its writer went away; a later one may continue.
    Suspended,
    /// Complete.
    Finished,
    /// Interrupted.
    Reset(StreamCode),
}

#[derive(Debug)]
struct CachedObject {
    head: ObjectHead,
    received: u64,
    pieces: SmallVec<[Bytes; 1]>,
}

#[derive(Clone, Copy, Debug)]
struct StreamPosition {
    object: u64,
    size: u64,
    offset: u64,
}

/// Error: the track is inconsistent.
#[derive(Debug)]
pub(crate) struct Malformed;

/// Relation of a writer's next object to a strand.
#[derive(Debug, PartialEq, Eq)]
enum Begun {
    /// The strand is over: ignore it.
    Over,
    /// The object continues the strand.
    New,
    /// The object is held, in whole or in part: only data past that is new.
    Held,
    /// Objects between it and the last one are lost for good.
    Gap,
    /// The object before it is short of its declared size.
    Short,
    /// The object contradicts the one held under its id.
    Malformed,
}

/// Relation of a piece of payload to a strand.
#[derive(Debug, PartialEq, Eq)]
enum PieceOutcome {
    /// Nothing new.
    Skipped,
    /// New bytes of an object at an offset; `held`: they are kept for late joiners.
    New { object: u64, offset: u64, payload: Bytes, held: bool },
    /// The object exceeds its declared size.
    Over,
}

impl CachedGroup {
    pub(crate) fn new(superseded_at: Option<Instant>) -> Self {
        Self {
            strands: SmallVec::new(),
            superseded_at,
            fetched: false,
            gap: false,
            payload: 0,
            overhead: bounds::GROUP_OVERHEAD,
        }
    }

    pub(crate) fn cost(&self) -> u64 {
        self.payload + self.overhead
    }

    /// A new group that a fetch brings.
    pub(crate) fn fetched(now: Instant) -> Self {
        Self { fetched: true, ..Self::new(Some(now)) }
    }

    /// Whether part of its beginning is gone, or never came: no replay from the start.
    pub(crate) fn lost_head(&self) -> bool {
        self.gap || self.strands.iter().any(|strand| strand.held_from > 0)
    }

    /// Code of the first strand that was reset, if any.
    pub(crate) fn cut_short(&self) -> Option<StreamCode> {
        self.strands.iter().find_map(|strand| match strand.state {
            StrandState::Reset(code) => Some(code),
            _ => None,
        })
    }

    /// Whether all of its strands are finished, and it can be read from object `first` on.
    pub(crate) fn is_complete(&self, first: u64) -> bool {
        let is_finished = |strand: &Strand| strand.state == StrandState::Finished;
        self.serves(first) && !self.strands.is_empty() && self.strands.iter().all(is_finished)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.strands.iter().all(Strand::is_over)
    }

    /// Whether a fetch is bringing it.
    pub(crate) fn is_coming_by_fetch(&self) -> bool {
        self.fetched && self.strands.iter().any(|strand| strand.state == StrandState::Open)
    }

    /// Whether the fetch that brought it lost its writer; the next fetch starts again.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.fetched && self.strands.iter().any(|strand| strand.state == StrandState::Suspended)
    }

    /// Whether [`CachedGroup::replay`] works from object `first` on, and the rest is held or arriving.
    pub(crate) fn serves(&self, first: u64) -> bool {
        let replays = self.strands.iter().all(|strand| strand.held_from <= first);
        replays && !self.is_abandoned() && (first > 0 || !self.gap) && self.cut_short().is_none()
    }

    /// Next object strand 0 needs, and whether the strand is over.
    pub(crate) fn resume(&self) -> (u64, bool) {
        let first = self.strands.iter().find(|strand| strand.id == 0);
        first.map_or((0, false), |strand| (strand.wanted(), strand.is_over()))
    }

    /// Prepares for another stream that continues the strands that are not over.
    pub(crate) fn restart(&mut self) {
        for strand in &mut self.strands {
            strand.incoming = None;
            if strand.state == StrandState::Suspended {
                strand.state = StrandState::Open;
            }
        }
    }

    /// Hands the group over from the fetch to a stream of the live subscription.
    pub(crate) fn come_live(&mut self) {
        self.fetched = false;
        self.restart();
        self.strands.iter_mut().for_each(|strand| strand.key = strand.id);
    }

    /// Index of the strand, opened if it is new or suspended. `None`: this writer's stream may
    /// not write to the group.
    pub(crate) fn open(&mut self, key: u64) -> Result<Option<usize>, Malformed> {
        let Some(at) = self.strands.iter().position(|strand| strand.key == key) else {
            if self.fetched != (key == FETCHED) {
                return Ok(None);
            }
            if self.strands.len() >= bounds::GROUP_STRANDS {
                return Err(Malformed);
            }
            self.strands.push(Strand::new(key));
            return Ok(Some(self.strands.len() - 1));
        };
        if let Some(strand) = self.strands.get_mut(at).filter(|strand| strand.state == StrandState::Suspended)
        {
            if self.fetched {
                return Ok(None);
            }
            strand.state = StrandState::Open;
        }
        Ok(Some(at))
    }

    /// Starts a writer's stream at object `first`. Objects between that and the held ones are lost.
    pub(crate) fn starts_at(
        &mut self,
        group: u64,
        strand: u64,
        first: u64,
    ) -> Result<Option<LogEntry>, Malformed> {
        let Some(at) = self.open(strand)? else { return Ok(None) };
        let Some(found) = self.strands.get_mut(at).filter(|found| !found.is_over()) else { return Ok(None) };
        if found.objects.is_empty() {
            found.held_from = first;
        } else if first > found.wanted() {
            self.gap = true;
            found.state = StrandState::Reset(StreamCode::OLD);
            return Ok(Some(LogEntry::Reset { group, strand: found.id, code: StreamCode::OLD }));
        }
        Ok(None)
    }

    /// Appends a writer's next object.
    pub(crate) fn object(
        &mut self,
        group: u64,
        strand: u64,
        head: ObjectHead,
        payload: Bytes,
    ) -> Result<Option<LogEntry>, Malformed> {
        let Some(at) = self.open(strand)? else { return Ok(None) };
        let Some(found) = self.strands.get_mut(at) else { return Ok(None) };
        let id = found.id;
        let code = match found.begin(&head) {
            Begun::Over => return Ok(None),
            Begun::Malformed => return Err(Malformed),
            Begun::Held => return Ok(self.data(group, strand, payload)),
            Begun::New if payload.len() as u64 <= head.size => {
                found.push(head.clone());
                self.overhead += bounds::OBJECT_OVERHEAD;
                if let PieceOutcome::New { held: true, .. } = found.append(payload.clone()) {
                    self.payload += payload.len() as u64;
                    self.overhead += bounds::PIECE_OVERHEAD;
                }
                self.shed();
                return Ok(Some(LogEntry::Object { group, strand: id, head, payload }));
            }
            Begun::New | Begun::Short => StreamCode::WRONG_SIZE,
            Begun::Gap => {
                self.gap = true;
                StreamCode::OLD
            }
        };
        found.state = StrandState::Reset(code);
        Ok(Some(LogEntry::Reset { group, strand: id, code }))
    }

    /// Appends payload to the current object of the writer's stream.
    pub(crate) fn data(&mut self, group: u64, strand: u64, payload: Bytes) -> Option<LogEntry> {
        let found = self.strands.iter_mut().find(|found| found.key == strand)?;
        let strand = found.id;
        match found.append(payload) {
            PieceOutcome::Skipped => None,
            PieceOutcome::Over => {
                let code = StreamCode::WRONG_SIZE;
                found.state = StrandState::Reset(code);
                Some(LogEntry::Reset { group, strand, code })
            }
            PieceOutcome::New { object, offset, payload, held } => {
                if held {
                    self.payload += payload.len() as u64;
                    self.overhead += bounds::PIECE_OVERHEAD;
                    self.shed();
                }
                Some(LogEntry::Data { group, strand, object, offset, payload })
            }
        }
    }

    /// Finishes the writer's stream; if declared data is missing, resets it instead.
    pub(crate) fn finish(&mut self, group: u64, strand: u64) -> Result<Option<LogEntry>, Malformed> {
        let Some(at) = self.open(strand)? else { return Ok(None) };
        let whole = self.strands.get(at).is_some_and(Strand::is_whole);
        if !whole {
            return self.reset(group, strand, StreamCode::WRONG_SIZE);
        }
        let Some(found) = self.strands.get_mut(at).filter(|found| !found.is_over()) else { return Ok(None) };
        found.state = StrandState::Finished;
        Ok(Some(LogEntry::Finish { group, strand: found.id }))
    }

    /// Resets the writer's stream.
    pub(crate) fn reset(
        &mut self,
        group: u64,
        strand: u64,
        code: StreamCode,
    ) -> Result<Option<LogEntry>, Malformed> {
        let Some(at) = self.open(strand)? else { return Ok(None) };
        let Some(found) = self.strands.get_mut(at).filter(|found| !found.is_over()) else { return Ok(None) };
        found.state = StrandState::Reset(code);
        Ok(Some(LogEntry::Reset { group, strand: found.id, code }))
    }

    /// Drops the oldest objects while the group is over its limit; readers past them keep reading.
    fn shed(&mut self) {
        while self.cost() > limits::GROUP_BYTES {
            let oldest = self.strands.iter_mut().filter(|strand| strand.can_shed());
            let Some(strand) = oldest.min_by_key(|strand| strand.held_from_id()) else { break };
            let freed = strand.shed();
            self.payload -= freed.0;
            self.overhead -= freed.1;
        }
    }

    /// Copies a page of the group's objects to `out`, and the end of each strand once its objects are all
    /// out. `None`: a requested object is not held.
    pub(crate) fn replay(
        &self,
        sequence: u64,
        mut page: ReplayPosition,
        out: &mut Vec<LogEntry>,
    ) -> Option<Replayed> {
        let mut room = bounds::REPLAY_OBJECTS;
        for (at, strand) in self.strands.iter().enumerate().skip(page.strand) {
            let from = if at == page.strand { page.object } else { page.first };
            if strand.held_from > from {
                return None;
            }
            let start = strand.objects.partition_point(|object| object.head.id < from);
            for object in strand.objects.range(start..) {
                if room == 0 {
                    (page.strand, page.object) = (at, object.head.id);
                    return Some(Replayed::Page(page));
                }
                room -= 1;
                object.replay(sequence, strand.id, out);
            }
            match strand.state {
                StrandState::Open | StrandState::Suspended => {}
                StrandState::Finished => out.push(LogEntry::Finish { group: sequence, strand: strand.id }),
                StrandState::Reset(code) => {
                    out.push(LogEntry::Reset { group: sequence, strand: strand.id, code });
                }
            }
        }
        Some(Replayed::All)
    }
}

/// Position of a replay: a strand (new strands are only added after it) and an object in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplayPosition {
    strand: usize,
    object: u64,
    first: u64,
}

/// Progress of a replay.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Replayed {
    /// More follows from here; the log may be unlocked in between, as only a strand's last object
    /// can still grow.
    Page(ReplayPosition),
    /// The replay is complete.
    All,
}

impl ReplayPosition {
    /// A replay from object `first` of every strand on.
    pub(crate) fn from(first: u64) -> Self {
        Self { strand: 0, object: first, first }
    }

    /// Object to continue from.
    pub(crate) fn object(self) -> u64 {
        self.object
    }
}

impl Strand {
    fn new(key: u64) -> Self {
        let id = if key == FETCHED { 0 } else { key };
        Self { id, key, state: StrandState::Open, objects: VecDeque::new(), held_from: 0, incoming: None }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, StrandState::Finished | StrandState::Reset(_))
    }

    /// Index of the first object that is not held whole.
    fn wanted(&self) -> u64 {
        match self.objects.back() {
            None => self.held_from,
            Some(last) if last.is_complete() => last.head.id.saturating_add(1),
            Some(last) => last.head.id,
        }
    }

    /// Suspends the strand when its writer is gone. Returns whether it is suspended now.
    pub(crate) fn suspend(&mut self) -> bool {
        self.incoming = None;
        if self.state == StrandState::Open {
            self.state = StrandState::Suspended;
        }
        self.state == StrandState::Suspended
    }

    /// Begins an object of the writer's stream. `New` and `Held` expect its payload by
    /// [`Strand::append`]; `New` first requires [`Strand::push`].
    fn begin(&mut self, head: &ObjectHead) -> Begun {
        let contradicts = |held: &CachedObject| held.head.size != head.size;
        if self.is_over() {
            return if self.find(head.id).is_some_and(contradicts) { Begun::Malformed } else { Begun::Over };
        }
        if self.incoming.is_some_and(|incoming| incoming.offset < incoming.size) {
            return Begun::Short;
        }
        let begun = match self.objects.back() {
            None => {
                // Strand 0 counts from 0; the others of a group may begin at any object.
                if self.id == 0 {
                    self.held_from = head.id;
                }
                Begun::New
            }
            Some(last) if head.id > last.head.id => {
                let resumed = self.incoming.is_none();
                let next = last.head.id.checked_add(1) == Some(head.id);
                if !last.is_complete() || (resumed && !next) { Begun::Gap } else { Begun::New }
            }
            Some(_) if self.find(head.id).is_some_and(contradicts) => Begun::Malformed,
            Some(_) => Begun::Held,
        };
        if matches!(begun, Begun::New | Begun::Held) {
            self.incoming = Some(StreamPosition { object: head.id, size: head.size, offset: 0 });
        }
        begun
    }

    /// Adds a new object with no payload yet.
    #[inline]
    fn push(&mut self, head: ObjectHead) {
        self.objects.push_back(CachedObject { head, received: 0, pieces: SmallVec::new() });
    }

    /// Appends payload of the current object of the writer's stream. New bytes are held (not when the head of
    /// their object is gone) and returned.
    fn append(&mut self, mut piece: Bytes) -> PieceOutcome {
        let Some(incoming) = self.incoming.as_mut().filter(|_| self.state == StrandState::Open) else {
            return PieceOutcome::Skipped;
        };
        let start = incoming.offset;
        let Some(end) = start.checked_add(piece.len() as u64).filter(|end| *end <= incoming.size) else {
            return PieceOutcome::Over;
        };
        incoming.offset = end;
        let Some(last) = self.objects.back_mut().filter(|last| last.head.id == incoming.object) else {
            return PieceOutcome::Skipped;
        };
        if end <= last.received {
            return PieceOutcome::Skipped;
        }
        let offset = last.received;
        if let Ok(cut @ 1..) = usize::try_from(offset - start) {
            piece = piece.slice(cut..);
        }
        last.received = end;
        let held = last.head.id >= self.held_from;
        if held {
            last.pieces.push(piece.clone());
        }
        PieceOutcome::New { object: last.head.id, offset, payload: piece, held }
    }

    /// Whether the writer's stream may end cleanly. False: it is in the middle of declared data, or short of what
    /// is held.
    fn is_whole(&self) -> bool {
        let Some(last) = self.objects.back() else { return true };
        let at_last = self
            .incoming
            .is_none_or(|incoming| incoming.object == last.head.id && incoming.offset == incoming.size);
        last.is_complete() && at_last
    }

    fn find(&self, id: u64) -> Option<&CachedObject> {
        let at = self.objects.binary_search_by_key(&id, |object| object.head.id).ok()?;
        self.objects.get(at)
    }

    fn held_from_id(&self) -> u64 {
        self.objects.front().map_or(u64::MAX, |object| object.head.id)
    }

    fn can_shed(&self) -> bool {
        self.objects.len() > 1 || self.objects.back().is_some_and(|last| !last.pieces.is_empty())
    }

    /// Drops the oldest object; of the last one only its payload. Returns payload and overhead.
    fn shed(&mut self) -> (u64, u64) {
        let only_one = self.objects.len() == 1;
        let Some(oldest) = self.objects.front_mut() else { return (0, 0) };
        self.held_from = oldest.head.id.saturating_add(1);
        let payload = oldest.pieces.iter().map(|piece| piece.len() as u64).sum();
        let overhead = oldest.pieces.len() as u64 * bounds::PIECE_OVERHEAD;
        if only_one {
            oldest.pieces.clear();
            return (payload, overhead);
        }
        self.objects.pop_front();
        (payload, overhead + bounds::OBJECT_OVERHEAD)
    }
}

impl CachedObject {
    fn is_complete(&self) -> bool {
        self.received == self.head.size
    }

    fn replay(&self, group: u64, strand: u64, out: &mut Vec<LogEntry>) {
        let mut pieces = self.pieces.iter().cloned();
        let payload = pieces.next().unwrap_or_default();
        let mut offset = payload.len() as u64;
        out.push(LogEntry::Object { group, strand, head: self.head.clone(), payload });
        for payload in pieces {
            let after = offset + payload.len() as u64;
            out.push(LogEntry::Data { group, strand, object: self.head.id, offset, payload });
            offset = after;
        }
    }
}
