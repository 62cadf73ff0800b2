//! Incremental reader of an accepted CONNECT stream: capsules inside DATA frames (RFC 9297 §3).

use web_transport_proto::{Capsule, Frame, VarInt};

/// Capsule type WT_CLOSE_SESSION, formerly CLOSE_WEBTRANSPORT_SESSION (draft-ietf-webtrans-http3-13 §6).
const CLOSE: u64 = 0x2843;
/// Longest close reason in bytes (draft-ietf-webtrans-http3-13 §6).
const REASON_BYTES: usize = 1_024;
/// Bytes of a close capsule that are kept: code and reason.
const CLOSE_BYTES: usize = 4 + REASON_BYTES;

/// Close of the session by the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Close {
    pub(super) code: u32,
    pub(super) reason: String,
}

/// Reader of frames, and of the capsules in DATA frames; buffers at most one close capsule.
#[derive(Default)]
pub(super) struct CapsuleReader {
    frame: TlvReader,
    capsule: TlvReader,
    close: Vec<u8>,
}

/// Type-length-value being read.
#[derive(Default)]
struct TlvReader {
    head: [u8; 16],
    held: usize,
    /// Type and bytes of the value not yet read.
    body: Option<(u64, u64)>,
}

impl TlvReader {
    /// Appends one byte of the head; sets `body` once type and length are complete.
    fn push(&mut self, byte: u8) {
        if let Some(place) = self.head.get_mut(self.held) {
            *place = byte;
            self.held += 1;
        }
        let mut rest = self.head.get(..self.held).unwrap_or_default();
        let pair = VarInt::decode(&mut rest).and_then(|kind| Ok((kind, VarInt::decode(&mut rest)?)));
        if let Ok((kind, len)) = pair {
            self.body = Some((kind.into_inner(), len.into_inner()));
            self.held = 0;
        }
    }

    /// Takes the bytes of the body off the front of `bytes`.
    fn cut<'a>(&mut self, bytes: &mut &'a [u8]) -> &'a [u8] {
        let Some((_, left)) = &mut self.body else { return &[] };
        let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
        let (piece, rest) = bytes.split_at(count);
        *left -= count as u64;
        *bytes = rest;
        piece
    }

    fn is_done(&self) -> bool {
        self.body.is_some_and(|(_, left)| left == 0)
    }
}

impl CapsuleReader {
    /// Processes the next bytes of the stream; `Some` once the peer has closed the session.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Option<Close> {
        while let Some((first, rest)) = bytes.split_first() {
            match self.frame.body {
                None => {
                    bytes = rest;
                    self.frame.push(*first);
                }
                Some((kind, _)) => {
                    let piece = self.frame.cut(&mut bytes);
                    if kind == Frame::DATA.0.into_inner()
                        && let Some(close) = self.data(piece)
                    {
                        return Some(close);
                    }
                }
            }
            if self.frame.is_done() {
                self.frame = TlvReader::default();
            }
        }
        None
    }

    fn data(&mut self, mut bytes: &[u8]) -> Option<Close> {
        while let Some((first, rest)) = bytes.split_first() {
            match self.capsule.body {
                None => {
                    bytes = rest;
                    self.capsule.push(*first);
                }
                Some((kind, _)) => {
                    let piece = self.capsule.cut(&mut bytes);
                    if kind == CLOSE {
                        let room = CLOSE_BYTES.saturating_sub(self.close.len()).min(piece.len());
                        self.close.extend_from_slice(piece.get(..room).unwrap_or_default());
                    }
                }
            }
            if self.capsule.is_done() {
                let closed = self.capsule.body.is_some_and(|(kind, _)| kind == CLOSE);
                self.capsule = TlvReader::default();
                if closed {
                    return Some(self.take_close());
                }
            }
        }
        None
    }

    fn take_close(&mut self) -> Close {
        let bytes = std::mem::take(&mut self.close);
        match bytes.split_first_chunk::<4>() {
            Some((code, reason)) => Close {
                code: u32::from_be_bytes(*code),
                reason: String::from_utf8_lossy(reason).into_owned(),
            },
            None => Close { code: 0, reason: String::new() },
        }
    }
}

/// Encodes a DATA frame with a close capsule; a long reason is truncated.
pub(super) fn close(code: u32, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = reason.get(..end).unwrap_or_default().to_owned();
    let mut capsule = Vec::new();
    Capsule::CloseWebTransportSession { code, reason }.encode(&mut capsule);
    let mut out = Vec::with_capacity(capsule.len() + 4);
    Frame::DATA.encode(&mut out);
    VarInt::from_u32(capsule.len() as u32).encode(&mut out);
    out.extend_from_slice(&capsule);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u32, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        VarInt::from_u32(kind).encode(&mut out);
        VarInt::from_u32(body.len() as u32).encode(&mut out);
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn a_close_is_found_however_it_is_cut() {
        let whole = [
            frame(0x21, b"grease"),
            frame(0, &[]),
            frame(0, &frame(0x17, b"an unknown capsule")),
            close(0x1234, "bye"),
        ]
        .concat();
        for step in [1, 2, 3, 7, whole.len()] {
            let mut reader = CapsuleReader::default();
            let mut found = None;
            for piece in whole.chunks(step) {
                assert_eq!(found, None);
                found = reader.push(piece);
            }
            assert_eq!(found, Some(Close { code: 0x1234, reason: "bye".into() }), "pieces of {step}");
        }
    }

    #[test]
    fn a_capsule_may_span_frames() {
        let capsule = frame(CLOSE as u32, &[0, 0, 0, 9, b'x', b'y']);
        let (a, b) = capsule.split_at(5);
        let mut reader = CapsuleReader::default();
        assert_eq!(reader.push(&frame(0, a)), None);
        assert_eq!(reader.push(&frame(0, b)), Some(Close { code: 9, reason: "xy".into() }));
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut reader = CapsuleReader::default();
        let huge = frame(CLOSE as u32, &vec![b'z'; 60_000]);
        let found = reader.push(&frame(0, &huge)).unwrap();
        assert_eq!(found.reason.len(), REASON_BYTES);
        let cut = close(1, &"é".repeat(2_000));
        assert_eq!(CapsuleReader::default().push(&cut).unwrap().reason.len(), REASON_BYTES);
    }
}
