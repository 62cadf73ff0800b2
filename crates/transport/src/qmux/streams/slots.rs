//! Stream ids and stream limits of both ends (RFC 9000 §2.1, §4.6).

use relay_model::{limits as model, transport::Dir};

use crate::qmux::{
    limits,
    stream_limits::{Ours, Theirs, dir_of, index},
    violation::Violation,
};

/// Streams opened by each end, by direction.
#[derive(Debug)]
pub(super) struct StreamSlots {
    is_client: bool,
    /// Whether the framing has no stream credit.
    is_legacy: bool,
    ours: [Ours; 2],
    theirs: [Theirs; 2],
}

impl StreamSlots {
    /// `most`: limit up to which the peer's stream credit grows, per direction.
    pub(super) fn new(is_legacy: bool, is_client: bool, most: Option<u64>) -> Self {
        let [bi, uni] =
            [model::BIDI_STREAMS_MAX, model::UNI_STREAMS_MAX].map(|most_by| most.unwrap_or(most_by));
        let (open, theirs) = if is_legacy {
            (limits::LEGACY_STREAMS, [Theirs::untold(bi), Theirs::untold(uni)])
        } else {
            (0, [Theirs::new(model::BIDI_STREAMS, bi), Theirs::new(model::UNI_STREAMS, uni)])
        };
        Self { is_client, is_legacy, ours: [Ours::new(open), Ours::new(open)], theirs }
    }

    /// Applies the peer's initial limits on bidirectional and unidirectional streams.
    pub(super) fn set_peer(&mut self, bi: u64, uni: u64) {
        self.ours = [Ours::new(bi), Ours::new(uni)];
    }

    /// Allocates the id of a local stream; `None` at the peer's limit.
    pub(super) fn open(&mut self, dir: Dir) -> Option<u64> {
        let number = self.ours.get_mut(index(dir))?.open()?;
        Some((number << 2) | ((index(dir) as u64) << 1) | u64::from(!self.is_client))
    }

    /// Resolves the stream of a frame that only the sender of its data sends. Returns whether it is a new stream of
    /// the peer.
    pub(super) fn receivable(&mut self, id: u64) -> Result<bool, Violation> {
        if dir_of(id) == Dir::Uni && self.is_ours(id) {
            return Err(Violation::state("data on a send-only stream"));
        }
        self.resolve(id)
    }

    /// Resolves the stream of a frame that only the receiver of its data sends. Returns whether it is a new stream
    /// of the peer.
    pub(super) fn sendable(&mut self, id: u64) -> Result<bool, Violation> {
        if dir_of(id) == Dir::Uni && !self.is_ours(id) {
            return Err(Violation::state("credit or stop for a receive-only stream"));
        }
        self.resolve(id)
    }

    /// A stream of the peer may be new, a local one must have been opened.
    fn resolve(&mut self, id: u64) -> Result<bool, Violation> {
        let (slot, number) = (index(dir_of(id)), id >> 2);
        if self.is_ours(id) {
            let opened = self.ours.get(slot).map_or(0, |ours| ours.opened);
            return if number < opened {
                Ok(false)
            } else {
                Err(Violation::state("frame for an unopened stream"))
            };
        }
        self.theirs.get_mut(slot).map_or(Ok(false), |theirs| theirs.meet(number))
    }

    /// Frees the slot of a stream whose halves are gone. Returns the direction in which a refused open may be
    /// retried.
    pub(super) fn retire(&mut self, id: u64) -> Option<Dir> {
        let dir = dir_of(id);
        if !self.is_ours(id) {
            self.theirs.get_mut(index(dir))?.retire();
            return None;
        }
        (self.is_legacy && self.ours.get_mut(index(dir))?.retire()).then_some(dir)
    }

    /// Applies MAX_STREAMS (RFC 9000 §19.11); returns whether a refused open may be retried.
    pub(super) fn allow(&mut self, dir: Dir, max: u64) -> bool {
        self.ours.get_mut(index(dir)).is_some_and(|ours| ours.allow(max))
    }

    /// Applies STREAMS_BLOCKED (RFC 9000 §19.14).
    pub(super) fn blocked(&mut self, dir: Dir, limit: u64) {
        if let Some(theirs) = self.theirs.get_mut(index(dir)) {
            theirs.blocked(limit);
        }
    }

    /// Returns whether [`Self::take_credit`] would return a limit.
    pub(super) fn has_credit(&self) -> bool {
        self.theirs.iter().any(Theirs::is_due)
    }

    /// Takes the next limit to announce to the peer, with its direction.
    pub(super) fn take_credit(&mut self) -> Option<(Dir, u64)> {
        [Dir::Bi, Dir::Uni]
            .into_iter()
            .find_map(|dir| Some((dir, self.theirs.get_mut(index(dir))?.credit()?)))
    }

    fn is_ours(&self, id: u64) -> bool {
        (id & 1 == 0) == self.is_client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_direction_and_opener() {
        let mut server = StreamSlots::new(false, false, None);
        assert_eq!(server.open(Dir::Bi), None, "no credit yet");
        server.set_peer(2, 1);
        let ids = [Dir::Bi, Dir::Bi, Dir::Bi, Dir::Uni].map(|dir| server.open(dir));
        assert_eq!(ids, [Some(0b001), Some(0b101), None, Some(0b011)]);
        assert!(server.allow(Dir::Bi, 3));
        assert_eq!(server.open(Dir::Bi), Some(0b1001));
    }

    #[test]
    fn stream_of_the_peer_is_new_once() {
        let mut server = StreamSlots::new(false, false, None);
        assert!(server.receivable(0).unwrap());
        assert!(!server.receivable(0).unwrap());
        assert!(server.sendable(4).unwrap());
        assert!(server.receivable(model::BIDI_STREAMS << 2).is_err(), "above the limit");
    }

    #[test]
    fn frames_against_the_direction_are_violations() {
        let mut server = StreamSlots::new(false, false, None);
        server.set_peer(1, 1);
        assert!(server.receivable(0b001).is_err(), "unopened");
        let own = server.open(Dir::Uni).unwrap();
        assert!(server.receivable(own).is_err());
        assert!(!server.sendable(own).unwrap());
        assert!(server.sendable(0b010).is_err());
    }

    #[test]
    fn retired_streams_return_credit() {
        let mut server = StreamSlots::new(false, false, Some(4));
        assert!(!server.has_credit());
        for number in 0..4 {
            server.receivable((number << 2) | 0b10).unwrap();
            assert_eq!(server.retire((number << 2) | 0b10), None);
        }
        assert_eq!(server.take_credit(), Some((Dir::Uni, 8)));
        assert!(!server.has_credit());
    }

    #[test]
    fn refused_open_is_retried_without_credit() {
        let mut client = StreamSlots::new(true, true, None);
        let opened: Vec<u64> = std::iter::from_fn(|| client.open(Dir::Uni)).collect();
        assert_eq!(opened.len() as u64, limits::LEGACY_STREAMS);
        assert_eq!(client.retire(opened[0]), Some(Dir::Uni));
        assert!(client.open(Dir::Uni).is_some());
    }
}
