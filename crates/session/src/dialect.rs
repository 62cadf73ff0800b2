//! Object framing, the only difference between protocol versions on the hot path.

use bytes::Bytes;
use relay_store::ObjectHead;
use relay_wire::lite;

/// Frames up to this size, in bytes, are sent as one chunk, header and payload together: the send buffer scans
/// chunk by chunk, and a small copy is cheaper than a second handle.
pub(crate) const JOINED_FRAME: u64 = 1_200;

/// Layout of a group's objects on a stream. Readers with the same framing share the encoded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectFraming {
    /// Before moq-lite-05: size, payload.
    LiteBare,
    /// moq-lite-05 and 06: zigzag timestamp delta, size, payload.
    LiteTimed,
}

impl ObjectFraming {
    /// The framing of a moq-lite version.
    pub fn of(version: lite::Version) -> Self {
        if version.has_timestamps() { Self::LiteTimed } else { Self::LiteBare }
    }

    /// Appends an object's header; `previous` is the tick of the preceding object on the stream. Returns the
    /// tick for the next header.
    pub(crate) fn head(self, previous: i64, head: &ObjectHead, out: &mut Vec<u8>) -> i64 {
        let tick = head.tick.unwrap_or(previous);
        let frame = lite::FrameHead { tick: Some(tick), size: head.size };
        let version = match self {
            Self::LiteBare => lite::Version::V04,
            Self::LiteTimed => lite::Version::V05,
        };
        lite::put_frame_head(version, previous, frame, out);
        tick
    }
}

/// Part of a group carried by a stream, and its framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EncodingKey {
    pub(crate) framing: ObjectFraming,
    /// First object.
    pub(crate) first: u64,
    /// Last object, inclusive: the stream is finished after it.
    pub(crate) last: u64,
}

impl EncodingKey {
    /// The whole group.
    pub(crate) fn whole(framing: ObjectFraming) -> Self {
        Self { framing, first: 0, last: u64::MAX }
    }

    pub(crate) fn is_whole(self) -> bool {
        self == Self::whole(self.framing)
    }
}

/// The start of a group stream: type and GROUP message.
pub(crate) fn group_header(version: lite::Version, subscribe: u64, sequence: u64, first_frame: u64) -> Bytes {
    let mut out = Vec::with_capacity(16);
    lite::put_group_header(version, &lite::Group { subscribe, sequence, first_frame }, &mut out);
    out.into()
}
