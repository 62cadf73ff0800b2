//! Object framing, the only difference between protocol versions on the hot path.

use relay_store::ObjectHead;

use super::lite::framing;

/// Layout of a group's objects on a stream. Readers with the same framing share the encoded bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ObjectFraming {
    /// Before moq-lite-05: size, payload.
    LiteBare,
    /// moq-lite-05 and 06: zigzag timestamp delta, size, payload.
    LiteTimed,
}

impl ObjectFraming {
    /// Appends an object's header; `previous` is the tick of the preceding object on the stream. Returns the
    /// tick for the next header.
    pub(crate) fn head(self, previous: i64, head: &ObjectHead, out: &mut Vec<u8>) -> i64 {
        match self {
            Self::LiteBare => framing::bare_head(previous, head, out),
            Self::LiteTimed => framing::timed_head(previous, head, out),
        }
    }
}
