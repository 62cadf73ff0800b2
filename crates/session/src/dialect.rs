//! What differs between protocol versions on the hot path: how objects are framed.

use bytes::Bytes;
use relay_store::ObjectHead;
use relay_wire::lite;

/// Frames up to this size leave as one chunk, header and payload together: the send buffer scans
/// chunk by chunk, and a small copy is cheaper than a second handle. Bytes.
pub(crate) const JOINED_FRAME: u64 = 1_200;

/// How the objects of a group are laid out on a stream. Readers with the same framing share the
/// encoded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// moq-lite-05: zigzag timestamp delta, size, payload.
    LiteTimed,
}

impl Framing {
    /// The framing of a moq-lite version.
    pub fn of(version: lite::Version) -> Self {
        match version {
            lite::Version::V05 => Self::LiteTimed,
        }
    }

    /// Appends an object's header; `previous` is the tick of the object before it on the stream.
    /// Returns the tick the next header counts from.
    pub(crate) fn head(self, previous: i64, head: &ObjectHead, out: &mut Vec<u8>) -> i64 {
        match self {
            Self::LiteTimed => {
                let tick = head.tick.unwrap_or(previous);
                let frame = lite::FrameHead { tick, size: head.size };
                lite::put_frame_head(lite::Version::V05, previous, frame, out);
                tick
            }
        }
    }
}

/// The start of a group stream: type and GROUP message.
pub(crate) fn group_header(version: lite::Version, subscribe: u64, sequence: u64) -> Bytes {
    let mut out = Vec::with_capacity(16);
    lite::put_group_header(version, &lite::Group { subscribe, sequence }, &mut out);
    out.into()
}
