//! Joining of small pieces into one handle, and writes that are accepted in part.

use relay_store::{LogEntry, ObjectHead};

use super::*;
use crate::{dialect::ObjectFraming, sink::Sink};

const STREAM: Stream = Stream(2);
const HEADER: &[u8] = b"header";

fn key() -> EncodingKey {
    EncodingKey::whole(ObjectFraming::LiteBare)
}

/// A group with a piece of its own for every frame, because the lane is read after each; and its bytes.
fn group(sizes: &[usize]) -> (Rc<LocalGroup>, Vec<u8>) {
    let group = LocalGroup::new(0);
    group.add_encoding(key());
    let mut bytes = Vec::new();
    for (id, size) in (0..).zip(sizes) {
        let head = ObjectHead::frame(id, None, *size as u64);
        let payload: Bytes = vec![id as u8; *size].into();
        ObjectFraming::LiteBare.head(0, &head, &mut bytes);
        bytes.extend_from_slice(&payload);
        group.apply(&LogEntry::Object { group: 0, strand: 0, head, payload });
        group.with_encoding(key(), |_| ());
    }
    (group, bytes)
}

fn cursor(group: &Rc<LocalGroup>) -> GroupCursor {
    let mut cursor = GroupCursor::new(Rc::clone(group), key());
    cursor.opened(STREAM, Bytes::from_static(HEADER));
    cursor
}

/// Advances until all available data is written, with `allowance` bytes a call.
fn drain(cursor: &mut GroupCursor, sink: &mut Sink, meter: &mut Meter, allowance: usize) {
    for _ in 0..100_000 {
        let mut left = allowance;
        match cursor.advance(sink, meter, &mut left) {
            CursorStep::Idle | CursorStep::Done => return,
            CursorStep::Short | CursorStep::Spent => {}
            step => panic!("{step:?}"),
        }
    }
    panic!("it never ends");
}

#[test]
fn consecutive_small_pieces_are_written_as_one_handle() {
    let (group, bytes) = group(&[20; 40]);
    let (mut sink, mut meter) = (Sink::default(), Meter::default());
    drain(&mut cursor(&group), &mut sink, &mut meter, usize::MAX);
    assert_eq!(sink.handles, [HEADER.len(), bytes.len()]);
    assert_eq!(sink.taken[&STREAM], [HEADER, &bytes].concat());
    assert_eq!((meter.deliveries, meter.payload_out), (40, bytes.len() as u64));
    // Few pieces are not worth a copy.
    let (group, _) = self::group(&[20; JOINED - 1]);
    let mut sink = Sink::default();
    drain(&mut cursor(&group), &mut sink, &mut meter, usize::MAX);
    assert_eq!(sink.handles.len(), JOINED);
}

#[test]
fn joined_handle_is_bounded_and_keeps_the_order() {
    // Large pieces among small ones, and runs longer than a joined handle.
    let sizes: Vec<usize> = (0..600).map(|id| if id % 150 == 149 { 2_000 } else { 60 }).collect();
    let (group, bytes) = group(&sizes);
    let (mut sink, mut meter) = (Sink::default(), Meter::default());
    drain(&mut cursor(&group), &mut sink, &mut meter, usize::MAX);
    assert_eq!(sink.taken[&STREAM], [HEADER, &bytes].concat());
    assert_eq!((meter.deliveries, meter.payload_out), (600, bytes.len() as u64));
    assert!(sink.handles.iter().all(|bytes| *bytes <= JOINED_BYTES));
    assert!(sink.handles.len() < 40, "{} handles", sink.handles.len());
}

#[test]
fn write_accepted_in_part_resumes_within_joined_pieces() {
    let sizes: Vec<usize> = (0..200).map(|id| if id % 50 == 49 { 700 } else { 1 + id % 120 }).collect();
    let (group, bytes) = group(&sizes);
    for room in [1, 7, 50, 333, 4_095, 5_000] {
        for allowance in [100, 64 * 1024] {
            let (mut sink, mut meter) = (Sink { room: Some(room), ..Sink::default() }, Meter::default());
            let mut cursor = cursor(&group);
            drain(&mut cursor, &mut sink, &mut meter, allowance);
            assert!(sink.taken[&STREAM] == [HEADER, &bytes].concat(), "{room} bytes a write");
            let counts = (meter.deliveries, meter.payload_out);
            assert_eq!(counts, (200, bytes.len() as u64), "{room} bytes a write");
            assert_eq!((cursor.unsent(), cursor.is_runnable(), sink.finished.len()), (0, false, 0));
        }
    }
    group.apply(&LogEntry::Finish { group: 0, strand: 0 });
    let mut sink = Sink { room: Some(333), ..Sink::default() };
    drain(&mut cursor(&group), &mut sink, &mut Meter::default(), 64 * 1024);
    assert!(sink.finished == [STREAM] && sink.taken[&STREAM].len() == HEADER.len() + bytes.len());
}
