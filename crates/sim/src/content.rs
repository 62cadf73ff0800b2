//! Content of publishers: one track whose frames name themselves, so that a reader can verify them.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

/// Bytes of a frame's name: incarnation, group, frame.
const NAME: usize = 24;

/// One incarnation of a track, shared by publishers that stand in for each other.
pub type SharedContent = Rc<RefCell<Content>>;

/// Groups of an incarnation so far.
#[derive(Debug)]
pub struct Content {
    /// Unique within a run.
    pub incarnation: u64,
    /// Groups by sequence, at most the last 64.
    pub groups: BTreeMap<u64, ContentGroup>,
    next: u64,
    /// Whether the track has ended.
    pub ended: bool,
}

/// One group as published.
#[derive(Clone, Debug, Default)]
pub struct ContentGroup {
    /// Frames so far.
    pub frames: u64,
    /// Whether the group is complete.
    pub finished: bool,
}

/// Name carried by a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// Incarnation of the track.
    pub incarnation: u64,
    /// Sequence of the group.
    pub group: u64,
    /// Its index in the group.
    pub frame: u64,
}

impl Content {
    /// Creates an incarnation whose first group is `first`.
    pub fn new(incarnation: u64, first: u64) -> SharedContent {
        Rc::new(RefCell::new(Self { incarnation, groups: BTreeMap::new(), next: first, ended: false }))
    }

    /// Adds a frame, and begins a new group every `frames` frames.
    pub fn grow(&mut self, frames: u64) {
        if self.ended {
            return;
        }
        let open = self.groups.last_entry().filter(|last| !last.get().finished);
        let group = match open {
            Some(last) => last.into_mut(),
            None => {
                let at = self.next;
                self.next += 1;
                self.groups.entry(at).or_default()
            }
        };
        group.frames += 1;
        group.finished = group.frames >= frames;
        while self.groups.len() > 64 {
            self.groups.pop_first();
        }
    }

    /// Completes the last group and ends the track.
    pub fn end(&mut self) {
        self.ended = true;
        if let Some(mut last) = self.groups.last_entry() {
            last.get_mut().finished = true;
        }
    }

    /// Highest group.
    pub fn latest(&self) -> Option<u64> {
        self.groups.last_key_value().map(|(at, _)| *at)
    }

    /// One past the highest group.
    pub fn bound(&self) -> u64 {
        self.latest().map_or(0, |latest| latest + 1)
    }
}

impl Name {
    /// Payload of the frame: its name, and a few more bytes so that frames differ in length.
    pub fn payload(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(NAME + 8);
        for field in [self.incarnation, self.group, self.frame] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        out.resize(NAME + (self.frame % 8) as usize, 0x5a);
        out
    }

    /// Parses a payload. `None` if it is not one of ours, or was altered.
    pub fn of(payload: &[u8]) -> Option<Self> {
        let field = |at: usize| Some(u64::from_be_bytes(payload.get(at..at + 8)?.try_into().ok()?));
        let name = Self { incarnation: field(0)?, group: field(8)?, frame: field(16)? };
        (name.payload() == payload).then_some(name)
    }
}
