//! Content of a frame, by which a viewer verifies it.

use bytes::{Bytes, BytesMut};

/// Size of the head before the filling, bytes.
pub const HEAD_BYTES: usize = 36;
/// Size of the head without its checksum, which is last and covers everything else.
const CHECKED_HEAD_BYTES: usize = HEAD_BYTES - 4;

/// Head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Index of its publisher.
    pub publisher: u32,
    /// Length of the whole frame, bytes.
    pub len: u32,
    /// Sequence of its group.
    pub group: u64,
    /// Index in its group.
    pub index: u64,
    /// Time of sending, ns on the process's clock.
    pub sent_ns: u64,
}

impl Stamp {
    fn to_bytes(self) -> [u8; CHECKED_HEAD_BYTES] {
        let mut out = [0; CHECKED_HEAD_BYTES];
        let (publisher, rest) = out.split_at_mut(4);
        let (len, rest) = rest.split_at_mut(4);
        let (group, rest) = rest.split_at_mut(8);
        let (index, sent) = rest.split_at_mut(8);
        publisher.copy_from_slice(&self.publisher.to_le_bytes());
        len.copy_from_slice(&self.len.to_le_bytes());
        group.copy_from_slice(&self.group.to_le_bytes());
        index.copy_from_slice(&self.index.to_le_bytes());
        sent.copy_from_slice(&self.sent_ns.to_le_bytes());
        out
    }

    fn from_bytes(head: &[u8; HEAD_BYTES]) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        Self {
            publisher: u32_at(0),
            len: u32_at(4),
            group: u64_at(8),
            index: u64_at(16),
            sent_ns: u64_at(24),
        }
    }
}

/// Filling of frames: bytes without a pattern, so that any shift or gap is detected.
#[derive(Debug)]
pub struct Filling(Vec<u8>);

impl Filling {
    /// Creates a filling for frames of up to `len` bytes.
    pub fn new(len: usize) -> Self {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let bytes = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        });
        Self(bytes.take(len).collect())
    }

    /// Builds the frame that `stamp` describes.
    pub fn frame(&self, stamp: Stamp) -> Bytes {
        let filling = (stamp.len as usize).saturating_sub(HEAD_BYTES);
        let filling = &self.0[..filling.min(self.0.len())];
        let head = stamp.to_bytes();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head);
        crc.update(filling);
        let mut out = BytesMut::with_capacity(HEAD_BYTES + filling.len());
        out.extend_from_slice(&head);
        out.extend_from_slice(&crc.finalize().to_le_bytes());
        out.extend_from_slice(filling);
        out.freeze()
    }
}

/// Verifies one frame as its pieces arrive.
#[derive(Debug)]
pub struct FrameVerifier {
    head: [u8; HEAD_BYTES],
    received: usize,
    size: u64,
    crc: crc32fast::Hasher,
}

impl FrameVerifier {
    /// Begins a frame of `size` bytes.
    pub fn new(size: u64) -> Self {
        Self { head: [0; HEAD_BYTES], received: 0, size, crc: crc32fast::Hasher::new() }
    }

    /// Adds the next bytes.
    pub fn push(&mut self, piece: &[u8]) {
        let mut piece = piece;
        if self.received < HEAD_BYTES {
            let (head, rest) = piece.split_at(piece.len().min(HEAD_BYTES - self.received));
            self.head[self.received..self.received + head.len()].copy_from_slice(head);
            self.received += head.len();
            if self.received == HEAD_BYTES {
                self.crc.update(&self.head[..CHECKED_HEAD_BYTES]);
            }
            piece = rest;
        }
        self.crc.update(piece);
        self.received += piece.len();
    }

    /// Whether all declared bytes were received.
    pub fn is_whole(&self) -> bool {
        self.received as u64 >= self.size
    }

    /// Head of the frame, if the frame is intact.
    pub fn finish(self) -> Option<Stamp> {
        let stamp = Stamp::from_bytes(&self.head);
        let declared = u32::from_le_bytes(std::array::from_fn(|i| self.head[CHECKED_HEAD_BYTES + i]));
        let intact = self.received >= HEAD_BYTES
            && self.received as u64 == self.size
            && u64::from(stamp.len) == self.size
            && self.crc.finalize() == declared;
        intact.then_some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { publisher: 3, len: 500, group: 7, index: 2, sent_ns: u64::MAX - 5 };

    fn check(pieces: &[&[u8]], size: u64) -> Option<Stamp> {
        let mut check = FrameVerifier::new(size);
        pieces.iter().for_each(|piece| check.push(piece));
        check.finish()
    }

    #[test]
    fn a_frame_is_recognised_however_it_is_cut() {
        let frame = Filling::new(500).frame(STAMP);
        assert_eq!(frame.len(), 500);
        for cut in 0..=frame.len() {
            let (a, b) = frame.split_at(cut);
            assert_eq!(check(&[a, b], 500), Some(STAMP));
        }
    }

    #[test]
    fn any_damage_is_seen() {
        let frame = Filling::new(500).frame(STAMP);
        for at in 0..frame.len() {
            let mut damaged = frame.to_vec();
            damaged[at] ^= 0x10;
            assert_eq!(check(&[&damaged], 500), None, "byte {at}");
        }
        assert_eq!(check(&[&frame[..499]], 499), None);
        let mut swapped = frame.to_vec();
        swapped.swap(100, 101);
        assert!(swapped[..] == frame[..] || check(&[&swapped], 500).is_none());
        assert_eq!(check(&[&[0; HEAD_BYTES]], HEAD_BYTES as u64), None);
    }
}
