//! Type of an HTTP/3 stream, and session id of a WebTransport stream: its first varints.

use web_transport_proto::VarInt;

/// Signal value of a bidirectional WebTransport stream, WT_STREAM (draft-ietf-webtrans-http3-13 §4.2).
pub(super) const BIDI: u64 = 0x41;
/// Type of a unidirectional WebTransport stream (draft-ietf-webtrans-http3-13 §4.1).
pub(super) const UNI: u64 = 0x54;

/// Most bytes of a head: two varints.
const MOST: usize = 16;

/// Collector of the start of a stream, which never takes more bytes than needed.
#[derive(Clone, Copy, Default)]
pub(super) struct StreamHead {
    bytes: [u8; MOST],
    len: usize,
}

/// Kind of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum H3StreamKind {
    /// Stream of the WebTransport session with this CONNECT stream id.
    Session(u64),
    /// Other stream of this type, or a request whose first frame has this type.
    Other(u64),
}

impl StreamHead {
    /// Number of bytes still needed; 0 once [`StreamHead::kind`] is known.
    pub(super) fn missing(&self, session_type: u64) -> usize {
        let rest = match self.first() {
            Err(missing) => return missing,
            Ok((kind, _)) if kind != session_type => return 0,
            Ok((_, rest)) => rest,
        };
        size(rest).saturating_sub(rest.len())
    }

    /// Appends bytes, at most [`StreamHead::missing`].
    pub(super) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = *byte;
                self.len += 1;
            }
        }
    }

    /// Returns the kind of the stream; `None` while bytes are missing.
    pub(super) fn kind(&self, session_type: u64) -> Option<H3StreamKind> {
        let (kind, rest) = self.first().ok()?;
        if kind != session_type {
            return Some(H3StreamKind::Other(kind));
        }
        let mut rest = rest;
        VarInt::decode(&mut rest).ok().map(|id| H3StreamKind::Session(id.into_inner()))
    }

    /// Collected bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Returns the type and the bytes after it, or the number of missing bytes of the type.
    fn first(&self) -> Result<(u64, &[u8]), usize> {
        let mut rest = self.bytes();
        let missing = size(rest).saturating_sub(rest.len());
        match VarInt::decode(&mut rest) {
            Ok(kind) if missing == 0 => Ok((kind.into_inner(), rest)),
            _ => Err(missing.max(1)),
        }
    }
}

/// Length in bytes of the varint at the front.
fn size(bytes: &[u8]) -> usize {
    bytes.first().map_or(1, |first| 1 << (first >> 6))
}

/// Encodes the head of a locally opened stream.
pub(super) fn prefix(stream_type: u64, session: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(MOST);
    for value in [stream_type, session] {
        VarInt::from_u64(value).unwrap_or(VarInt::MAX).encode(&mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_head_is_never_overread() {
        for session in [0, 4, 64 * 4, 1 << 20] {
            let bytes = prefix(BIDI, session);
            let mut head = StreamHead::default();
            let mut at = 0;
            while head.missing(BIDI) > 0 {
                assert_eq!(head.kind(BIDI), None);
                assert!(head.missing(BIDI) <= bytes.len() - at);
                head.push(&bytes[at..=at]);
                at += 1;
            }
            assert_eq!(head.kind(BIDI), Some(H3StreamKind::Session(session)));
            assert_eq!(at, bytes.len());
        }
    }

    #[test]
    fn other_types_end_after_the_type() {
        let mut head = StreamHead::default();
        head.push(&[0x01]);
        assert_eq!((head.missing(BIDI), head.kind(BIDI)), (0, Some(H3StreamKind::Other(1))));
        let mut head = StreamHead::default();
        head.push(&[0x40]);
        assert_eq!((head.missing(UNI), head.kind(UNI)), (1, None));
        head.push(&[0x41]);
        assert_eq!(head.kind(UNI), Some(H3StreamKind::Other(0x41)));
    }
}
