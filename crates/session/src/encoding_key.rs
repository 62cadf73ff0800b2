//! Key of an encoding of a group: readers with the same key share its bytes.

use crate::dialect::ObjectFraming;

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
