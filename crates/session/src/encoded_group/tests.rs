//! Joining of small frames in a lane.

use super::*;
use crate::dialect::ObjectFraming;

fn key() -> EncodingKey {
    EncodingKey::whole(ObjectFraming::LiteBare)
}

/// Payload of object `id`.
fn payload(id: u64, size: usize) -> Bytes {
    vec![id as u8; size].into()
}

/// An object of declared size `size` with the first bytes `payload`.
fn object(id: u64, size: usize, payload: Bytes) -> LogEntry {
    LogEntry::Object { group: 0, strand: 0, head: ObjectHead::frame(id, None, size as u64), payload }
}

fn whole(id: u64, size: usize) -> LogEntry {
    object(id, size, payload(id, size))
}

/// Bytes of a frame on a stream.
fn framed(id: u64, size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    ObjectFraming::LiteBare.head(0, &ObjectHead::frame(id, None, size as u64), &mut out);
    out.extend_from_slice(&payload(id, size));
    out
}

fn group() -> Rc<LocalGroup> {
    let group = LocalGroup::new(0);
    group.add_encoding(key());
    group
}

/// Reads the lane: its pieces, and their total size as the lane counts it.
fn read(group: &LocalGroup) -> (Vec<EncodedPiece>, u64) {
    group.with_encoding(key(), |encoding| (encoding.pieces().to_vec(), encoding.bytes())).unwrap()
}

fn joined(pieces: &[EncodedPiece]) -> Vec<u8> {
    pieces.iter().flat_map(|piece| &piece.bytes).copied().collect()
}

#[test]
fn small_frames_between_two_reads_become_one_piece() {
    let group = group();
    (0..3).for_each(|id| group.apply(&whole(id, 10)));
    let (pieces, bytes) = read(&group);
    assert_eq!((pieces.len(), pieces[0].frames, bytes), (1, 3, 3 * 11));
    (3..5).for_each(|id| group.apply(&whole(id, 10)));
    let (pieces, bytes) = read(&group);
    let frames: Vec<u32> = pieces.iter().map(|piece| piece.frames).collect();
    assert_eq!((frames, bytes), (vec![3, 2], 5 * 11), "what was read before is not changed");
    assert_eq!(joined(&pieces), (0..5).flat_map(|id| framed(id, 10)).collect::<Vec<_>>());
}

#[test]
fn frames_of_all_sizes_keep_order_and_count() {
    let group = group();
    let large = JOINED_FRAME as usize;
    let sizes = [10, large, 5, large + 1, 7, 0, 300, 3, 4 * large, 2];
    for (id, size) in (0..).zip(sizes) {
        if size == 300 {
            // It arrives in parts, the first of them empty.
            group.apply(&object(id, size, Bytes::new()));
            for offset in [0, 100, 200] {
                let payload = payload(id, 100);
                group.apply(&LogEntry::Data { group: 0, strand: 0, object: id, offset, payload });
            }
        } else {
            group.apply(&whole(id, size));
        }
    }
    let (pieces, bytes) = read(&group);
    let expected: Vec<u8> = (0..).zip(sizes).flat_map(|(id, size)| framed(id, size)).collect();
    assert_eq!(joined(&pieces), expected);
    assert_eq!(bytes, expected.len() as u64);
    assert_eq!(pieces.iter().map(|piece| piece.frames).sum::<u32>(), sizes.len() as u32);
    assert!(pieces.iter().all(|piece| !piece.bytes.is_empty()));
}

#[test]
fn piece_of_joined_frames_is_bounded() {
    let group = group();
    let size = 100;
    let count = 3 * TAIL / size;
    (0..count as u64).for_each(|id| group.apply(&whole(id, size)));
    let (pieces, _) = read(&group);
    assert!(pieces.iter().all(|piece| piece.bytes.len() <= TAIL + HEAD));
    let (_last, full) = pieces.split_last().unwrap();
    assert!(full.len() >= 3 && full.iter().all(|piece| piece.bytes.len() > TAIL - size), "{}", full.len());
    assert_eq!(pieces.iter().map(|piece| piece.frames).sum::<u32>(), count as u32);
}

#[test]
fn lane_cut_short_holds_no_bytes() {
    let group = group();
    group.apply(&whole(0, 10));
    read(&group);
    group.apply(&whole(1, 10));
    group.fail(StreamCode::EVICTED);
    group.apply(&whole(2, 10));
    assert!(read(&group).0.is_empty());
    assert_eq!(
        group.with_encoding(key(), EncodedGroup::end),
        Some(Some(EncodingEnd::Reset(StreamCode::EVICTED)))
    );
}
