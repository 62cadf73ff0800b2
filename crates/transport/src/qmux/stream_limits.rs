//! Stream limits of both ends (RFC 9000 §4.6).

use relay_model::transport::Dir;
use std::collections::BTreeSet;

use super::{limits, violation::Violation};

/// Locally opened streams of one direction.
#[derive(Debug)]
pub(super) struct Ours {
    pub(super) opened: u64,
    /// Cumulative limit granted by the peer.
    limit: u64,
    /// Streams closed so far; counted only without credit.
    retired: u64,
    /// Whether an open was refused since the limit last grew.
    wanted: bool,
}

impl Ours {
    pub(super) fn new(limit: u64) -> Self {
        Self { opened: 0, limit, retired: 0, wanted: false }
    }

    /// Allocates the next stream number; `None` at the limit.
    pub(super) fn open(&mut self) -> Option<u64> {
        if self.opened >= self.limit.saturating_add(self.retired) {
            self.wanted = true;
            return None;
        }
        self.opened += 1;
        Some(self.opened - 1)
    }

    /// Applies the peer's limit; returns whether a refused open may be retried.
    pub(super) fn allow(&mut self, limit: u64) -> bool {
        let grown = limit > self.limit;
        self.limit = self.limit.max(limit);
        grown && std::mem::take(&mut self.wanted)
    }

    /// Counts a closed stream, when only the local limit applies; returns whether a refused open may be retried.
    pub(super) fn retire(&mut self) -> bool {
        self.retired += 1;
        std::mem::take(&mut self.wanted)
    }
}

/// Streams of one direction opened by the peer.
#[derive(Debug)]
pub(super) struct Theirs {
    /// One past the highest number seen.
    opened: u64,
    /// Numbers below `opened` not seen yet, since peers send urgent streams first. At most as many as may be
    /// open.
    unseen: BTreeSet<u64>,
    retired: u64,
    /// Number of streams that may be open at a time.
    allowed: u64,
    /// Upper bound of `allowed`.
    most: u64,
    /// Cumulative limit announced to the peer.
    announced: u64,
    /// Whether the peer reported that it is blocked.
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

    /// Creates the counter for framings without announced limits: `most` streams at once.
    pub(super) fn untold(most: u64) -> Self {
        Self { announced: u64::MAX, ..Self::new(most, most) }
    }

    /// Registers a frame of stream `number`; returns whether the stream is new.
    pub(super) fn meet(&mut self, number: u64) -> Result<bool, Violation> {
        if number < self.opened {
            return Ok(self.unseen.remove(&number));
        }
        let is_untold = self.announced == u64::MAX;
        let bound = if is_untold { self.retired.saturating_add(self.allowed) } else { self.announced };
        if number >= bound {
            return Err(Violation::limit("stream limit exceeded"));
        }
        self.unseen.extend(self.opened..number);
        self.opened = number + 1;
        let open = self.opened.saturating_sub(self.retired);
        if !is_untold && open.saturating_mul(2) >= self.allowed && self.allowed < self.most {
            // Grow ahead of need, to four times the open streams, so that few round trips are spent on credit.
            self.allowed = open.saturating_mul(4).clamp(self.allowed, self.most);
        }
        Ok(true)
    }

    /// Handles STREAMS_BLOCKED at `limit` (RFC 9000 §19.14): raises the limit, and lets any credit, however
    /// small, be announced.
    pub(super) fn blocked(&mut self, limit: u64) {
        if self.announced != u64::MAX && limit >= self.announced {
            self.allowed = self.allowed.saturating_mul(2).min(self.most);
            self.is_wanted = true;
        }
    }

    /// Counts a stream closed on both sides.
    pub(super) fn retire(&mut self) {
        self.retired += 1;
    }

    /// Returns the new limit if the growth is worth a frame, and records it as announced.
    pub(super) fn credit(&mut self) -> Option<u64> {
        let is_due = self.is_due();
        let limit = self.retired.saturating_add(self.allowed);
        if is_due {
            (self.announced, self.is_wanted) = (limit, false);
        }
        is_due.then_some(limit)
    }

    /// Returns whether [`Self::credit`] would return a limit.
    pub(super) fn is_due(&self) -> bool {
        let limit = self.retired.saturating_add(self.allowed);
        let worth = if self.is_wanted { 1 } else { (self.allowed / limits::CREDIT_SHARE).max(1) };
        limit.saturating_sub(self.announced) >= worth
    }
}

/// Index of a direction, equal to its bit in a stream id.
pub(super) fn index(dir: Dir) -> usize {
    usize::from(dir == Dir::Uni)
}

/// Direction of a stream id (RFC 9000 §2.1).
pub(super) fn dir_of(id: u64) -> Dir {
    if id & 2 == 0 { Dir::Bi } else { Dir::Uni }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_waits_for_the_peers_limit() {
        let mut ours = Ours::new(1);
        assert_eq!((ours.open(), ours.open()), (Some(0), None));
        assert!(!ours.allow(1), "not raised");
        assert!(ours.allow(2));
        assert!(!ours.allow(3), "no open was refused since");
        assert_eq!(ours.open(), Some(1));
    }

    #[test]
    fn streams_may_arrive_out_of_order_once() {
        let mut theirs = Theirs::new(8, 8);
        assert_eq!(theirs.meet(2), Ok(true));
        assert_eq!((theirs.meet(0), theirs.meet(0), theirs.meet(2)), (Ok(true), Ok(false), Ok(false)));
        assert_eq!(theirs.meet(1), Ok(true));
        assert!(theirs.meet(8).is_err());
    }

    #[test]
    fn blocked_peer_gets_any_credit() {
        let mut theirs = Theirs::new(16, 16);
        theirs.meet(0).unwrap();
        theirs.retire();
        assert_eq!(theirs.credit(), None, "less than an eighth");
        theirs.blocked(15);
        assert_eq!(theirs.credit(), None, "blocked below the present limit");
        theirs.blocked(16);
        assert_eq!((theirs.credit(), theirs.credit()), (Some(17), None));
    }

    #[test]
    fn without_credit_only_open_streams_count() {
        let mut theirs = Theirs::untold(2);
        assert!(theirs.meet(0).is_ok() && theirs.meet(1).is_ok() && theirs.meet(2).is_err());
        theirs.retire();
        assert_eq!((theirs.meet(2), theirs.credit()), (Ok(true), None));
    }
}
