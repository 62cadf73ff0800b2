//! Continuing the strands of an earlier writer, and streams with wrong sizes.

use relay_model::StreamCode;

use super::*;
use crate::Resume;

/// A log with objects 0 and 1 committed completely, whose writer is then replaced by one of epoch 2.
fn suspended() -> (Fixture, Feed) {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(5, &[b"abc", b"de"]);
    f.commit();
    pull(&mut feed);
    take_over(&mut f);
    (f, feed)
}

fn take_over(f: &mut Fixture) {
    let epoch = Epoch(f.writer.epoch().0 + 1);
    f.writer = f.log.writer(epoch).unwrap();
}

#[test]
fn suspending_a_log_adds_no_entry() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(5, &[b"abc"]);
    f.commit();
    pull(&mut feed);
    drop(f.writer);
    assert!(pull(&mut feed).is_empty());
    assert_eq!(feed.head().end, None);
}

#[test]
fn the_next_object_continues_a_suspended_strand() {
    let (mut f, mut feed) = suspended();
    f.writer.open_group(5);
    f.object(5, 2, b"f");
    f.writer.finish(5, 0);
    f.commit();
    assert_eq!(pull(&mut feed), [object(5, 2, b"f"), finish(5)]);
}

#[test]
fn an_earlier_object_skips_what_is_held() {
    let (mut f, mut feed) = suspended();
    f.writer.open_group(5);
    f.object(5, 0, b"abc");
    f.partial(5, 1, 2, b"d");
    let rest = f.chunk(b"e");
    f.writer.data(5, 0, rest);
    f.object(5, 2, b"f");
    f.commit();
    assert_eq!(pull(&mut feed), [object(5, 2, b"f")]);
}

#[test]
fn half_an_object_is_completed_with_the_bytes_that_are_missing() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(5, &[]);
    f.partial(5, 0, 6, b"abc");
    f.commit();
    pull(&mut feed);
    take_over(&mut f);
    f.writer.open_group(5);
    f.partial(5, 0, 6, b"ab");
    let rest = f.chunk(b"cdef");
    f.writer.data(5, 0, rest);
    f.writer.finish(5, 0);
    f.commit();
    assert_eq!(pull(&mut feed), [data(5, 0, 3, b"def"), finish(5)]);
    let entries = replay(&feed, 5).unwrap();
    assert_eq!(entries[2..], [data(5, 0, 3, b"def"), finish(5)]);
}

#[test]
fn a_later_object_resets_the_readers_and_marks_the_head_missing() {
    let (mut f, mut feed) = suspended();
    f.writer.open_group(5);
    f.object(5, 3, b"x");
    f.commit();
    assert_eq!(pull(&mut feed), [reset(5, StreamCode::OLD)]);
    assert_eq!(replay(&feed, 5), None);
    assert_eq!(held(&f.log.feed(W1).1), [] as [u64; 0]);
    f.object(5, 4, b"y");
    f.commit();
    assert!(pull(&mut feed).is_empty());
}

#[test]
fn an_object_after_one_that_stays_incomplete_is_later_than_next() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(5, &[]);
    f.partial(5, 0, 6, b"abc");
    f.commit();
    pull(&mut feed);
    take_over(&mut f);
    f.object(5, 1, b"x");
    f.commit();
    assert_eq!(pull(&mut feed), [reset(5, StreamCode::OLD)]);
}

#[test]
fn gaps_are_legal_within_one_writers_stream() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(5, &[b"a"]);
    f.object(5, 7, b"b");
    f.commit();
    assert_eq!(pull(&mut feed), [opened(5), object(5, 0, b"a"), object(5, 7, b"b")]);
}

#[test]
fn the_same_object_again_is_skipped() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(5, &[b"a", b"b"]);
    f.object(5, 0, b"a");
    f.commit();
    assert_eq!(pull(&mut feed), [opened(5), object(5, 0, b"a"), object(5, 1, b"b")]);
}

#[test]
fn a_stream_that_ends_within_an_object_never_looks_finished() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(5, &[]);
    f.partial(5, 0, 4, b"abc");
    f.writer.finish(5, 0);
    f.commit();
    assert_eq!(pull(&mut feed).last(), Some(&reset(5, StreamCode::WRONG_SIZE)));
    assert_eq!(replay(&feed, 5).unwrap().last(), Some(&reset(5, StreamCode::WRONG_SIZE)));
}

#[test]
fn object_after_an_incomplete_one_resets_the_strand() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(5, &[]);
    f.partial(5, 0, 4, b"abc");
    f.object(5, 1, b"x");
    f.commit();
    assert_eq!(pull(&mut feed)[2..], [reset(5, StreamCode::WRONG_SIZE)]);
}

#[test]
fn more_than_the_declared_size_resets_the_strand() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(5, &[]);
    f.partial(5, 0, 3, b"abc");
    let more = f.chunk(b"d");
    f.writer.data(5, 0, more);
    f.group(6, &[]);
    f.partial(6, 0, 3, b"abcd");
    f.commit();
    let entries = pull(&mut feed);
    assert_eq!(entries[2..], [reset(5, StreamCode::WRONG_SIZE), opened(6), reset(6, StreamCode::WRONG_SIZE)]);
}

#[test]
fn continuation_shorter_than_held_data_is_reset() {
    let (mut f, mut feed) = suspended();
    f.writer.open_group(5);
    f.object(5, 0, b"abc");
    f.writer.finish(5, 0);
    f.commit();
    assert_eq!(pull(&mut feed), [reset(5, StreamCode::WRONG_SIZE)]);
}

#[test]
fn a_suspended_strand_is_reset_once_it_is_superseded() {
    let (mut f, mut feed) = suspended();
    f.group(6, &[]);
    f.commit();
    assert_eq!(pull(&mut feed), [reset(5, StreamCode::OLD), opened(6)]);
}

#[test]
fn a_reset_or_finished_strand_takes_nothing_more() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(1, &[b"a"]);
    f.writer.finish(1, 0);
    f.group(2, &[]);
    f.writer.reset(2, 0, StreamCode(70));
    f.commit();
    pull(&mut feed);
    f.object(1, 1, b"x");
    f.writer.reset(1, 0, StreamCode::CANCEL);
    f.object(2, 0, b"x");
    f.writer.finish(2, 0);
    f.commit();
    assert!(pull(&mut feed).is_empty());
}

#[test]
fn the_resume_point_is_the_first_object_that_is_not_held_whole() {
    let mut f = Fixture::new();
    let resume = |f: &Fixture| f.log.resume();
    assert_eq!(resume(&f), None, "nothing came live");
    f.writer.fetched_group(9);
    f.commit();
    assert_eq!(resume(&f), None, "nothing came live");
    f.group(5, &[]);
    f.commit();
    assert_eq!(resume(&f), Some(Resume { group: 5, object: 0, finished: false }));
    f.object(5, 0, b"a");
    f.commit();
    assert_eq!(resume(&f), Some(Resume { group: 5, object: 1, finished: false }));
    f.partial(5, 1, 2, b"b");
    f.commit();
    assert_eq!(
        resume(&f),
        Some(Resume { group: 5, object: 1, finished: false }),
        "a partial object does not count"
    );
    let rest = f.chunk(b"c");
    f.writer.data(5, 0, rest);
    f.writer.finish(5, 0);
    f.group(4, &[]);
    f.commit();
    assert_eq!(resume(&f), Some(Resume { group: 5, object: 2, finished: true }));
    f.group(6, &[]);
    f.writer.reset(6, 0, StreamCode(70));
    f.commit();
    assert_eq!(
        resume(&f),
        Some(Resume { group: 6, object: 0, finished: true }),
        "a reset group takes no more objects"
    );
}

#[test]
fn there_is_no_resume_point_once_the_latest_group_is_gone() {
    let mut f = Fixture::with(1, 2);
    f.group(5, &[b"a"]);
    f.commit();
    assert_eq!((f.log.resume(), f.log.feed(W0).1.latest), (None, Some(5)));
}

#[test]
fn writer_at_the_resume_point_loses_and_repeats_nothing() {
    let (mut f, mut feed) = suspended();
    f.partial(5, 2, 4, b"fg");
    f.commit();
    pull(&mut feed);
    take_over(&mut f);
    let at = f.log.resume().unwrap();
    f.writer.open_group_at(at.group, at.object);
    f.partial(5, at.object, 4, b"fghi");
    f.object(5, 3, b"j");
    f.writer.finish(5, 0);
    f.commit();
    assert_eq!(pull(&mut feed), [data(5, 2, 2, b"hi"), object(5, 3, b"j"), finish(5)]);
}

#[test]
fn group_joined_midway_is_delivered_but_not_replayed() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.writer.open_group_at(5, 3);
    f.object(5, 3, b"d");
    f.object(5, 4, b"e");
    f.group(6, &[]);
    f.object(6, 2, b"c");
    f.commit();
    let live = pull(&mut feed);
    assert_eq!(live, [opened(5), object(5, 3, b"d"), object(5, 4, b"e"), opened(6), object(6, 2, b"c")]);
    assert_eq!((replay(&feed, 5), replay(&feed, 6)), (None, None));
    let head = feed.head();
    assert_eq!((head.latest, held(&head)), (Some(6), vec![]));
    let mut tail = Vec::new();
    assert!(feed.group_from(5, 3, &mut tail));
    assert_eq!(tail, live[..3]);
    assert_eq!(f.log.resume(), Some(Resume { group: 6, object: 3, finished: false }));
}

#[test]
fn empty_stream_past_the_resume_point_resets_the_strand() {
    let (mut f, mut feed) = suspended();
    f.writer.open_group_at(5, 3);
    f.writer.finish(5, 0);
    f.commit();
    assert_eq!(pull(&mut feed), [reset(5, StreamCode::OLD)]);
    assert_eq!(replay(&feed, 5), None);
    f.writer.open_group_at(6, 3);
    f.writer.finish(6, 0);
    f.commit();
    assert_eq!(pull(&mut feed), [opened(6), finish(6)]);
    assert_eq!(replay(&feed, 6), None, "the objects before its end are missing");
}

#[test]
fn group_without_objects_restarts_at_object_zero() {
    let mut f = Fixture::new();
    let (feed, _) = f.log.feed(W0);
    f.writer.open_group_at(5, 3);
    f.commit();
    take_over(&mut f);
    f.group(5, &[b"a"]);
    f.commit();
    assert_eq!(replay(&feed, 5).unwrap(), [opened(5), object(5, 0, b"a")]);
}
