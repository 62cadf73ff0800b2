//! Position in a group, read from the log as the body is sent.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use relay_model::{Epoch, LogId, Path};
use relay_store::{CompleteGroup, LogEntry, Lookup};

use crate::{
    readers::ReaderSession,
    shared_feed::SharedFeed,
    stream::{BodySource, Interrupted},
};

/// Reason for which nothing can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missed {
    /// There is no such broadcast, track or group.
    Nothing,
    /// The permit has ended or no longer covers the path.
    Over,
}

/// Context in which a group number is unique: one log under one writer. A publisher that returns may number its groups
/// from the beginning again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Incarnation {
    pub(super) log: LogId,
    pub(super) epoch: Epoch,
}

/// Frames of a group that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameRange {
    pub(super) first: u64,
    /// Inclusive; `None`: to the end of the group.
    pub(super) last: Option<u64>,
}

/// Reads frames of one group.
pub(super) struct FetchReader {
    reader: ReaderSession,
    /// Path of the broadcast.
    path: Path,
    /// Feed of the log. Core may attach another log of the same track.
    feed: Option<Arc<SharedFeed>>,
    group: Option<u64>,
    /// Whether another log was attached, which may not have the group.
    is_lost: bool,
    /// Current frame, and how many of its bytes were read.
    frame: u64,
    offset: u64,
    /// Declared size of the current frame, bytes, and whether it has begun to arrive.
    size: u64,
    has_begun: bool,
    last: Option<u64>,
    ready: VecDeque<Bytes>,
    is_done: bool,
}

/// Progress of one read.
enum Step {
    /// Something was read, or another read may find more.
    More,
    /// No data is available yet.
    Wait,
    /// The requested frames have ended.
    End,
    /// The rest of the group will not arrive.
    Broken,
}

impl FetchReader {
    pub(super) fn new(reader: ReaderSession, path: Path, frames: FrameRange) -> Self {
        Self {
            reader,
            path,
            feed: None,
            group: None,
            is_lost: true,
            frame: frames.first,
            offset: 0,
            size: 0,
            has_begun: false,
            last: frames.last,
            ready: VecDeque::new(),
            is_done: false,
        }
    }

    /// Finds `group`, or else the latest group that can be read; waits for the first one if there is none yet. Returns
    /// its number.
    pub(super) async fn begin(&mut self, group: Option<u64>) -> Result<u64, Missed> {
        let mut newest_missed = None;
        loop {
            self.apply_changes()?;
            let (latest, has_ended) = self.feed.as_ref().map(|feed| feed.head()).unwrap_or_default();
            self.group = group.or(latest.filter(|latest| Some(*latest) > newest_missed));
            match (self.locate(), self.group) {
                (Ok(true), Some(found)) => return Ok(found),
                (Err(Missed::Nothing), Some(missed)) if group.is_none() && !has_ended => {
                    newest_missed = Some(missed);
                }
                (Err(missed), _) => return Err(missed),
                (Ok(_), None) if has_ended => return Err(Missed::Nothing),
                (Ok(_), _) => self.reader.changed().await,
            }
        }
    }

    /// Incarnation of the group that was found.
    pub(super) fn incarnation(&self) -> Option<Incarnation> {
        let feed = self.feed.as_ref()?;
        Some(Incarnation { log: feed.log(), epoch: feed.epoch() })
    }

    /// Whether the group is complete, so that repeated requests get the same bytes.
    pub(super) fn is_complete(&self) -> bool {
        self.complete().is_some()
    }

    /// Payload of the requested frames, bytes; `None` if it is unknown without reading them. Part of a group is walked
    /// only if `walks`.
    pub(super) fn bytes(&self, walks: bool) -> Option<u64> {
        let complete = self.complete()?;
        match complete.bytes {
            Some(bytes) if self.frame == 0 && self.last.is_none() => Some(bytes),
            _ if walks => self.sum(),
            _ => None,
        }
    }

    fn complete(&self) -> Option<CompleteGroup> {
        self.feed.as_ref()?.complete(self.group?, self.frame)
    }

    /// Sum of the declared sizes of the requested frames of a complete group.
    fn sum(&self) -> Option<u64> {
        let (feed, group) = (self.feed.as_ref()?, self.group?);
        let (mut bytes, mut from, mut entries) = (0, self.frame, Vec::new());
        loop {
            entries.clear();
            let next = feed.page(group, from, &mut entries)?.next;
            for entry in &entries {
                match entry {
                    LogEntry::Object { head, .. } if self.last.is_some_and(|last| head.id > last) => {
                        return Some(bytes);
                    }
                    LogEntry::Object { strand: 0, head, .. } => bytes += head.size,
                    LogEntry::Finish { strand: 0, .. } => return Some(bytes),
                    _ => {}
                }
            }
            from = next?;
        }
    }

    /// Applies changes of the permit and answers of core.
    fn apply_changes(&mut self) -> Result<(), Missed> {
        let permit = self.reader.permit().ok_or(Missed::Over)?;
        if !permit.subscribe().allows(&self.path) {
            return Err(Missed::Over);
        }
        match self.reader.served() {
            None => Ok(()),
            Some(Err(_)) => Err(Missed::Nothing),
            Some(Ok(log)) => {
                self.feed = Some(self.reader.follow(log).ok_or(Missed::Nothing)?);
                self.is_lost = true;
                Ok(())
            }
        }
    }

    /// Whether the log has the group; pulls the group from the publisher if only that may have it. `false`: it may
    /// arrive later.
    fn locate(&mut self) -> Result<bool, Missed> {
        let (Some(feed), Some(group)) = (&self.feed, self.group) else { return Ok(false) };
        // Read before the lookup: a group that arrives in between must not count as failed.
        let (has_failed, (_, has_ended)) = (self.reader.has_failed(), feed.head());
        let (found, is_fetched) = feed.lookup(group, self.frame);
        let is_held = found == Lookup::Held;
        match found {
            Lookup::Held => {}
            Lookup::Unknown if !has_failed && !has_ended => {}
            Lookup::Unknown | Lookup::Absent(_) => return Err(Missed::Nothing),
        }
        // A group that a fetch fills is fetched for the readers that pulled it.
        if !is_held || is_fetched {
            self.reader.pull(group);
        }
        self.is_lost = !is_held;
        Ok(is_held)
    }

    /// Reads one page of the log.
    fn advance(&mut self) -> Step {
        let (Some(feed), Some(group)) = (&self.feed, self.group) else { return Step::Wait };
        let (mut entries, before) = (Vec::new(), (self.frame, self.offset));
        let Some(page) = feed.page(group, self.frame, &mut entries) else { return Step::Broken };
        for entry in entries {
            match entry {
                LogEntry::Object { strand: 0, head, payload, .. } => {
                    if self.last.is_some_and(|last| head.id > last) {
                        return Step::End;
                    }
                    if head.id > self.frame {
                        if self.offset < self.size {
                            return Step::Broken;
                        }
                        (self.frame, self.offset) = (head.id, 0);
                    }
                    (self.size, self.has_begun) = (head.size, true);
                    self.piece(0, &payload);
                }
                LogEntry::Data { strand: 0, object, offset, payload, .. } if object == self.frame => {
                    self.piece(offset, &payload);
                }
                LogEntry::Finish { strand: 0, .. } => return Step::End,
                LogEntry::Reset { strand: 0, .. } => return Step::Broken,
                _ => {}
            }
        }
        let is_last = self.last == Some(self.frame) && self.offset >= self.size && self.has_begun;
        match page.next {
            _ if is_last => Step::End,
            Some(_) => Step::More,
            None if (self.frame, self.offset) != before => Step::More,
            None => Step::Wait,
        }
    }

    /// Queues the bytes of a piece at offset `at` of the frame that were not read before.
    fn piece(&mut self, at: u64, payload: &Bytes) {
        let known = self.offset.saturating_sub(at);
        if let Some(known) = usize::try_from(known).ok().filter(|known| *known < payload.len()) {
            self.ready.push_back(payload.slice(known..));
            self.offset = at + payload.len() as u64;
        }
    }
}

impl BodySource for FetchReader {
    async fn next(&mut self) -> Option<Result<Bytes, Interrupted>> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                self.reader.sent += piece.len() as u64;
                return Some(Ok(piece));
            }
            if self.is_done {
                return None;
            }
            if self.apply_changes().is_err() {
                return Some(Err(Interrupted));
            }
            if self.is_lost {
                match self.locate() {
                    Ok(true) => {}
                    Ok(false) => {
                        self.reader.changed().await;
                        continue;
                    }
                    Err(_) => return Some(Err(Interrupted)),
                }
            }
            let has_ended = self.feed.as_ref().is_some_and(|feed| feed.head().1);
            match self.advance() {
                Step::More => {}
                Step::End => self.is_done = true,
                Step::Broken => return Some(Err(Interrupted)),
                Step::Wait if has_ended => return Some(Err(Interrupted)),
                Step::Wait => self.reader.changed().await,
            }
        }
    }
}
