//! Streams without credit: the work of one grant, and order.

use std::time::Duration;

use super::*;
use crate::sink::Sink;

/// Answers on `count` streams without credit: two messages each, then the end.
fn blocked(count: u64) -> (ControlQueue, Sink, Instant) {
    let (mut control, mut sink, now) = (ControlQueue::default(), Sink::blocked(), Instant::now());
    for stream in (0..count).map(Stream) {
        control.send(&mut sink, now, stream, vec![1, 2]);
        control.send(&mut sink, now, stream, vec![3]);
        control.finish(&mut sink, stream);
    }
    sink.writes = 0;
    (control, sink, now)
}

#[test]
fn credit_of_one_stream_retries_that_stream_only() {
    let (mut control, mut sink, now) = blocked(2_000);
    for round in 1..=3 {
        for stream in (0..2_000).map(Stream) {
            sink.grant(stream, 1);
            let (before, mut work) = (sink.writes, Work::of(8));
            control.writable(&mut sink, now, stream, &mut work);
            assert!(sink.writes - before <= 2 && !work.is_spent());
        }
        assert_eq!(control.bytes, 2_000 * (3 - round));
    }
    assert!((0..2_000).all(|n| sink.taken[&Stream(n)] == [1, 2, 3]), "in order");
    assert_eq!(sink.finished.len(), 2_000);
    assert!(control.is_empty() && control.footprint() == 0 && control.deadline().is_none());
}

#[test]
fn room_retries_a_bounded_number_of_streams_in_turn() {
    let (mut control, mut sink, now) = blocked(3 * RETRIES as u64);
    assert!(!control.flush(&mut sink, now, &mut Work::new()));
    assert_eq!(sink.writes, 0, "no room was reported");
    let last = Stream(3 * RETRIES as u64 - 1);
    sink.grant(last, 3);
    for round in 1..=3 {
        control.room();
        assert!(!control.flush(&mut sink, now, &mut Work::new()));
        // The stream with credit does not count.
        assert!(sink.writes <= round * RETRIES + 2, "{}", sink.writes);
    }
    assert_eq!(sink.finished, [last]);
}

#[test]
fn flush_leaves_the_rest_when_work_is_spent() {
    let (mut control, mut sink, now) = blocked(100);
    (0..100).for_each(|n| sink.grant(Stream(n), 3));
    control.room();
    let mut calls = 1;
    while control.flush(&mut sink, now, &mut Work::of(20)) {
        calls += 1;
        assert!(sink.writes <= calls * 12);
    }
    assert!(calls >= 20, "{calls}");
    assert!(control.is_empty() && sink.finished.len() == 100);
}

#[test]
fn reset_of_the_last_blocked_stream_ends_the_stall() {
    let (mut control, mut sink, now) = blocked(1);
    assert!(control.deadline().is_some() && !control.is_stuck(now));
    assert!(control.is_stuck(now + limits::CONTROL_STALL + Duration::from_secs(1)));
    control.reset(&mut sink, Stream(0), StreamCode::CANCEL);
    assert!(control.is_empty() && control.has_room() && control.deadline().is_none());
}
