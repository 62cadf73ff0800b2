//! Headers of objects and groups on data streams.

use bytes::Bytes;
use relay_store::ObjectHead;
use relay_wire::lite::{self, FrameHead, Version};

/// Appends an object's header without a timestamp: its size.
pub(crate) fn bare_head(previous: i64, head: &ObjectHead, out: &mut Vec<u8>) -> i64 {
    put_head(Version::V04, previous, head, out)
}

/// Appends an object's header with a timestamp: zigzag delta to `previous`, size.
pub(crate) fn timed_head(previous: i64, head: &ObjectHead, out: &mut Vec<u8>) -> i64 {
    put_head(Version::V05, previous, head, out)
}

fn put_head(version: Version, previous: i64, head: &ObjectHead, out: &mut Vec<u8>) -> i64 {
    let tick = head.tick.unwrap_or(previous);
    let frame = FrameHead { tick: Some(tick), size: head.size };
    lite::put_frame_head(version, previous, frame, out);
    tick
}

/// The start of a group stream: type and GROUP message.
pub(super) fn group_header(version: Version, alias: u64, group: u64, first: u64) -> Bytes {
    let mut out = Vec::with_capacity(16);
    let header = lite::Group { subscribe: alias, sequence: group, first_frame: first };
    lite::put_group_header(version, &header, &mut out);
    out.into()
}
