//! Writer fencing, and the end of a log.

use relay_model::{StreamCode, TrackInfo};

use super::*;
use crate::{CommitError, LogEnd};

#[test]
fn a_later_writer_fences_the_earlier_one() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    let mut second = f.log.writer(Epoch(2)).unwrap();
    f.writer.open_group(1);
    assert_eq!(f.writer.commit(f.now, &mut f.wakes), Err(CommitError::Fenced));
    assert!(!f.writer.is_dirty());
    second.open_group(2);
    second.commit(f.now, &mut f.wakes).unwrap();
    assert_eq!(pull(&mut feed), [opened(2)]);
}

#[test]
fn a_fenced_epoch_is_neither_claimed_nor_committed() {
    let mut f = Fixture::new();
    assert!(f.store.fence(LogId(1), Epoch(3)));
    f.writer.open_group(1);
    assert_eq!(f.writer.commit(f.now, &mut f.wakes), Err(CommitError::Fenced));
    assert!(f.log.writer(Epoch(2)).is_none());
    assert!(f.log.writer(Epoch(3)).is_some());
    assert!(!f.store.fence(LogId(9), Epoch(1)), "an unknown log is reported");
}

#[test]
fn an_epoch_has_one_writer_at_a_time() {
    let f = Fixture::new();
    assert!(f.log.writer(Epoch(1)).is_none());
    drop(f.writer);
    assert!(f.log.writer(Epoch(1)).is_some());
}

#[test]
fn dropping_a_stale_writer_does_not_unseat_the_new_one() {
    let mut f = Fixture::new();
    f.group(1, &[]);
    f.commit();
    let mut second = f.log.writer(Epoch(2)).unwrap();
    second.open_group(1);
    second.commit(f.now, &mut f.wakes).unwrap();
    drop(std::mem::replace(&mut f.writer, second));
    f.object(1, 0, b"a");
    f.commit();
    let (feed, _) = f.log.feed(W0);
    assert_eq!(replay(&feed, 1).unwrap(), [opened(1), object(1, 0, b"a")]);
}

#[test]
fn nothing_is_visible_before_the_commit() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(1, &[b"a"]);
    assert!(f.writer.is_dirty() && pull(&mut feed).is_empty());
    drop(f.writer);
    assert!(pull(&mut feed).is_empty() && f.log.feed(W1).1.latest.is_none());
}

#[test]
fn the_end_is_the_last_entry_and_later_appends_are_ignored() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    let end = LogEnd { final_group: Some(2), code: None };
    f.group(1, &[b"a"]);
    f.writer.finish(1, 0);
    f.writer.end(end);
    f.group(2, &[b"b"]);
    f.writer.info(TrackInfo::default());
    f.writer.datagram(3, 0, Bytes::new());
    f.writer.end(LogEnd { final_group: None, code: None });
    f.commit();
    assert_eq!(pull(&mut feed), [opened(1), object(1, 0, b"a"), finish(1), LogEntry::End(end)]);
    assert_eq!(feed.head().end, Some(end));
    f.group(2, &[]);
    f.commit();
    assert!(pull(&mut feed).is_empty());
    drop(f.writer);
    assert!(f.log.writer(Epoch(2)).is_none(), "an ended log takes no writer");
    assert!(replay(&feed, 1).is_some(), "held groups of an ended log can be read");
}

#[test]
fn open_groups_are_reset_at_the_end() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(1, &[b"a"]);
    f.commit();
    pull(&mut feed);
    let end = LogEnd { final_group: None, code: Some(StreamCode::UNROUTABLE) };
    assert!(f.store.end(LogId(1), end, f.now, &mut f.wakes));
    assert_eq!(pull(&mut feed), [reset(1, StreamCode::UNROUTABLE), LogEntry::End(end)]);
    assert!(f.wakes.contains(W0));
}

#[test]
fn a_held_object_of_another_size_ends_the_track_as_malformed() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(1, &[b"abc", b"d"]);
    f.object(1, 0, b"ab");
    assert_eq!(f.writer.commit(f.now, &mut f.wakes), Err(CommitError::Malformed));
    let code = StreamCode::MALFORMED_TRACK;
    let end = LogEntry::End(LogEnd { final_group: None, code: Some(code) });
    let entries = pull(&mut feed);
    assert_eq!(entries[3..], [reset(1, code), end]);
}

#[test]
fn one_strand_past_the_limit_is_malformed() {
    let mut f = Fixture::new();
    for strand in 0..crate::bounds::GROUP_STRANDS as u64 {
        f.writer.open_strand(1, strand);
    }
    f.commit();
    f.writer.open_strand(1, crate::FETCHED - 1);
    assert_eq!(f.writer.commit(f.now, &mut f.wakes), Err(CommitError::Malformed));
}

#[test]
fn a_retired_log_is_gone_for_writers_and_the_table() {
    let mut f = Fixture::new();
    assert!(f.store.retire(LogId(1)) && !f.store.retire(LogId(1)));
    assert!(f.store.log(LogId(1)).is_none());
    f.writer.open_group(1);
    assert_eq!(f.writer.commit(f.now, &mut f.wakes), Err(CommitError::Fenced));
    assert!(f.log.writer(Epoch(9)).is_none());
}

#[test]
fn info_is_set_once() {
    let mut f = Fixture::new();
    let (mut feed, head) = f.log.feed(W0);
    assert_eq!(head.info, None);
    let info = TrackInfo { priority: 3, ..TrackInfo::default() };
    f.writer.info(info);
    f.writer.info(TrackInfo::default());
    f.commit();
    assert_eq!(pull(&mut feed), [LogEntry::Info(info)]);
    assert_eq!(feed.head().info, Some(info));
}
