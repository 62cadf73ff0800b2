//! Stream limits of both ends (RFC 9000 §4.6).

use quinn_proto::Dir;

use super::index;
use crate::quic::config::Most;

/// Stream credit of a connection: the growth of the peer's limit, and opens refused by the peer's own.
#[derive(Debug)]
pub(super) struct StreamCredit {
    /// Limits up to which the peer's stream credit grows.
    most: Most,
    /// Whether an open had no credit, by direction.
    refused: [bool; 2],
}

impl StreamCredit {
    /// Creates the credit of a new connection, which grows up to `most`.
    pub(super) fn new(most: Most) -> Self {
        Self { most, refused: [false; 2] }
    }

    /// Returns the new number of streams that the peer may have open at a time, after new streams of it; `None`
    /// if the present number, `allowed`, still suffices for the `open` streams.
    pub(super) fn grown(&self, dir: Dir, open: u64, allowed: u64) -> Option<u64> {
        let most = self.most.towards(dir);
        if open.saturating_mul(2) < allowed || allowed >= most {
            return None;
        }
        // Grow ahead of need, to four times the open streams, so that few round trips are spent on credit and
        // peers are not blocked. The library does not announce a last step of less than an eighth.
        let ahead = open.saturating_mul(4);
        Some(if ahead >= most.saturating_sub(most / 4) { most } else { ahead.max(allowed) })
    }

    /// Notes that an open had no credit.
    pub(super) fn refuse(&mut self, dir: Dir) {
        if let Some(refused) = self.refused.get_mut(index(dir)) {
            *refused = true;
        }
    }

    /// Returns whether an open had no credit since the last call.
    pub(super) fn take_refused(&mut self, dir: Dir) -> bool {
        self.refused.get_mut(index(dir)).is_some_and(std::mem::take)
    }
}

#[cfg(test)]
mod tests {
    use relay_model::limits;

    use super::*;

    #[test]
    fn credit_grows_to_four_times_the_open_streams() {
        let credit = StreamCredit::new(Most::default());
        assert_eq!(credit.grown(Dir::Uni, 7, 16), None, "less than half is used");
        assert_eq!(credit.grown(Dir::Uni, 8, 16), Some(32));
        assert_eq!(credit.grown(Dir::Uni, 2, 4), Some(8));
        assert_eq!(credit.grown(Dir::Bi, u64::MAX, 16), Some(limits::BIDI_STREAMS_MAX));
        assert_eq!(credit.grown(Dir::Uni, u64::MAX, limits::UNI_STREAMS_MAX), None, "at the limit");
    }

    #[test]
    fn refused_open_is_reported_once_by_direction() {
        let mut credit = StreamCredit::new(Most::default());
        assert!(!credit.take_refused(Dir::Uni));
        credit.refuse(Dir::Uni);
        assert!(!credit.take_refused(Dir::Bi));
        assert!(credit.take_refused(Dir::Uni));
        assert!(!credit.take_refused(Dir::Uni));
    }
}
