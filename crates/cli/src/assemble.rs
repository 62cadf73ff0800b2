//! Pieces of groups become what is written, each byte once, also when a group is begun again.

use bytes::{Bytes, BytesMut};
use relay_client::Piece;

use crate::framing::Framing;

/// Where in a group one is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Position {
    /// Frames begun.
    frames: u64,
    /// Bytes of the last one.
    offset: u64,
    /// Bytes of the last one in all.
    size: u64,
}

/// What of one group was written, and how the next piece of it is.
#[derive(Debug)]
pub(crate) struct Assembler {
    framing: Framing,
    /// The furthest that was taken.
    done: Position,
    /// Where the present reading of the group is; behind `done` only in a second one.
    at: Position,
    /// The frame begun, where frames go out whole.
    held: BytesMut,
    /// Whole frames that went out.
    pub(crate) whole: u64,
}

impl Assembler {
    pub(crate) fn new(framing: Framing) -> Self {
        let (done, at) = (Position::default(), Position::default());
        Self { framing, done, at, held: BytesMut::new(), whole: 0 }
    }

    /// The group is read again from its start.
    pub(crate) fn again(&mut self) {
        self.at = Position::default();
    }

    /// What to write of `piece`.
    pub(crate) fn push(&mut self, piece: Piece) -> Option<Bytes> {
        match piece {
            Piece::Frame { size, .. } => {
                self.at = Position { frames: self.at.frames + 1, offset: 0, size };
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
        // Of a second reading, what the first one had is left out.
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
            (Framing::Raw(None), &b"abcde"[..], &b"fg"[..]),
            (Framing::Lines, b"abc\n\n", b"def\ng\n"),
            (Framing::LengthPrefixed, b"\0\0\0\x03abc\0\0\0\0", b"\0\0\0\x03def\0\0\0\x01g"),
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
