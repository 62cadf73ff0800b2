//! How many streams each end may open.

use std::collections::BTreeSet;

use relay_session::transport::Dir;

use super::{limits, violation::Violation};

/// Streams of one direction that we open.
#[derive(Debug)]
pub(super) struct Ours {
    pub(super) opened: u64,
    /// How many we may ever open.
    limit: u64,
    /// Without credit: how many are gone.
    retired: u64,
    /// An open was refused.
    wanted: bool,
}

impl Ours {
    pub(super) fn new(limit: u64) -> Self {
        Self { opened: 0, limit, retired: 0, wanted: false }
    }

    /// The number of the next stream.
    pub(super) fn open(&mut self) -> Option<u64> {
        if self.opened >= self.limit.saturating_add(self.retired) {
            self.wanted = true;
            return None;
        }
        self.opened += 1;
        Some(self.opened - 1)
    }

    /// The peer's word; whether an open may be tried again.
    pub(super) fn allow(&mut self, limit: u64) -> bool {
        let grown = limit > self.limit;
        self.limit = self.limit.max(limit);
        grown && std::mem::take(&mut self.wanted)
    }

    /// One is gone, where only our own bound counts; whether an open may be tried again.
    pub(super) fn retire(&mut self) -> bool {
        self.retired += 1;
        std::mem::take(&mut self.wanted)
    }
}

/// Streams of one direction that the peer opens.
#[derive(Debug)]
pub(super) struct Theirs {
    /// One past the highest number seen.
    opened: u64,
    /// Numbers below that were not seen: peers send what is urgent first. Never more than may be open.
    unseen: BTreeSet<u64>,
    retired: u64,
    /// How many may be open at a time.
    allowed: u64,
    /// Where that stops growing.
    most: u64,
    /// How many the peer knows it may ever open.
    announced: u64,
    /// The peer waits for more.
    is_wanted: bool,
}

impl Theirs {
    pub(super) fn new(first: u64, most: u64) -> Self {
        let allowed = first.min(most);
        Self {
            opened: 0,
            unseen: BTreeSet::new(),
            retired: 0,
            allowed,
            most,
            announced: allowed,
            is_wanted: false,
        }
    }

    /// Where the peer is told no limit: all at once.
    pub(super) fn untold(most: u64) -> Self {
        Self { announced: u64::MAX, ..Self::new(most, most) }
    }

    /// A frame of stream `number`: whether it is a new one.
    pub(super) fn meet(&mut self, number: u64) -> Result<bool, Violation> {
        if number < self.opened {
            return Ok(self.unseen.remove(&number));
        }
        let is_untold = self.announced == u64::MAX;
        let bound = if is_untold { self.retired.saturating_add(self.allowed) } else { self.announced };
        if number >= bound {
            return Err(Violation::limit("more streams than allowed"));
        }
        self.unseen.extend(self.opened..number);
        self.opened = number + 1;
        let open = self.opened.saturating_sub(self.retired);
        if !is_untold && open.saturating_mul(2) >= self.allowed && self.allowed < self.most {
            // Ahead of need: four times what is open, so that few round trips pass until there are enough.
            self.allowed = open.saturating_mul(4).clamp(self.allowed, self.most);
        }
        Ok(true)
    }

    /// The peer has to wait for more streams than `limit` (STREAMS_BLOCKED, RFC 9000 section 19.14): it gets
    /// more, and what it may have already is announced however little it is.
    pub(super) fn blocked(&mut self, limit: u64) {
        if self.announced != u64::MAX && limit >= self.announced {
            self.allowed = self.allowed.saturating_mul(2).min(self.most);
            self.is_wanted = true;
        }
    }

    /// One is gone on both sides.
    pub(super) fn retire(&mut self) {
        self.retired += 1;
    }

    /// The new limit, once that is worth a frame.
    pub(super) fn credit(&mut self) -> Option<u64> {
        let is_due = self.is_due();
        let limit = self.retired.saturating_add(self.allowed);
        if is_due {
            (self.announced, self.is_wanted) = (limit, false);
        }
        is_due.then_some(limit)
    }

    /// Whether [`Self::credit`] would tell one.
    pub(super) fn is_due(&self) -> bool {
        let limit = self.retired.saturating_add(self.allowed);
        let worth = if self.is_wanted { 1 } else { (self.allowed / limits::CREDIT_SHARE).max(1) };
        limit.saturating_sub(self.announced) >= worth
    }
}

/// Index of a direction; the bit of it in an id.
pub(super) fn index(dir: Dir) -> usize {
    usize::from(dir == Dir::Uni)
}

/// The direction of a stream's id.
pub(super) fn dir_of(id: u64) -> Dir {
    if id & 2 == 0 { Dir::Bi } else { Dir::Uni }
}
