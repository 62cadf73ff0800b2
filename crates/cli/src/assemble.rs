//! Converts the pieces of groups to output, each byte once, even if a group is read again from its start.

use bytes::{Bytes, BytesMut};
use relay_client::Piece;

use crate::framing::ByteFraming;

/// Position in a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct GroupPosition {
    /// Frames begun.
    frames: u64,
    /// Bytes read of the last frame.
    offset: u64,
    /// Declared size of the last frame, bytes.
    size: u64,
}

/// Output state of one group.
#[derive(Debug)]
pub(crate) struct Assembler {
    framing: ByteFraming,
    /// Furthest position that was written.
    done: GroupPosition,
    /// Position of the current read; behind `done` only in a second read of the group.
    at: GroupPosition,
    /// Incomplete frame, where frames are written whole.
    held: BytesMut,
    /// Number of complete frames.
    pub(crate) whole: u64,
}

impl Assembler {
    pub(crate) fn new(framing: ByteFraming) -> Self {
        let (done, at) = (GroupPosition::default(), GroupPosition::default());
        Self { framing, done, at, held: BytesMut::new(), whole: 0 }
    }

    /// Starts a second read of the group from its beginning.
    pub(crate) fn again(&mut self) {
        self.at = GroupPosition::default();
    }

    /// Returns the output for `piece`, if any.
    pub(crate) fn push(&mut self, piece: Piece) -> Option<Bytes> {
        match piece {
            Piece::Frame { size, .. } => {
                self.at = GroupPosition { frames: self.at.frames + 1, offset: 0, size };
                if self.at.frames <= self.done.frames {
                    return None;
                }
                self.done = self.at;
                if size == 0 { self.end_frame() } else { None }
            }
            Piece::Payload(bytes) => self.payload(bytes),
        }
    }

    fn payload(&mut self, mut bytes: Bytes) -> Option<Bytes> {
        let from = self.at.offset;
        self.at.offset += bytes.len() as u64;
        if self.at.frames < self.done.frames || self.at.offset <= self.done.offset {
            return None;
        }
        // In a second read, bytes that the first one had are skipped.
        let had = usize::try_from(self.done.offset.saturating_sub(from)).unwrap_or(usize::MAX);
        bytes = bytes.slice(had.min(bytes.len())..);
        self.done.offset = self.at.offset;
        let is_whole = self.at.offset >= self.at.size;
        if self.framing.is_raw() {
            self.whole += u64::from(is_whole);
            return Some(bytes);
        }
        if is_whole && self.held.is_empty() {
            self.whole += 1;
            return Some(self.framing.wrap(&bytes));
        }
        self.held.extend_from_slice(&bytes);
        if is_whole { self.end_frame() } else { None }
    }

    fn end_frame(&mut self) -> Option<Bytes> {
        self.whole += 1;
        let frame = self.held.split();
        (!self.framing.is_raw()).then(|| self.framing.wrap(&frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(size: u64) -> Piece {
        Piece::Frame { tick: None, size }
    }

    fn data(text: &'static str) -> Piece {
        Piece::Payload(text.into())
    }

    fn all(assembler: &mut Assembler, pieces: Vec<Piece>) -> Vec<u8> {
        pieces.into_iter().filter_map(|piece| assembler.push(piece)).flatten().collect()
    }

    #[test]
    fn a_group_begun_again_goes_on_where_it_broke_off() {
        for (framing, first, second) in [
            (ByteFraming::Raw(None), &b"abcde"[..], &b"fg"[..]),
            (ByteFraming::Lines, b"abc\n\n", b"def\ng\n"),
            (ByteFraming::LengthPrefixed, b"\0\0\0\x03abc\0\0\0\0", b"\0\0\0\x03def\0\0\0\x01g"),
        ] {
            let mut assembler = Assembler::new(framing);
            let broken = vec![frame(3), data("ab"), data("c"), frame(0), frame(3), data("de")];
            assert_eq!(all(&mut assembler, broken), first, "{framing:?}");
            assembler.again();
            let whole =
                vec![frame(3), data("abc"), frame(0), frame(3), data("d"), data("ef"), frame(1), data("g")];
            assert_eq!(all(&mut assembler, whole), second, "{framing:?}");
            assert_eq!(assembler.whole, 4);
        }
    }
}
