//! The two indexes: arrival order for followers, sequence for late joiners.

use relay_model::{StreamCode, limits};

use super::*;
use crate::Pulled;

#[test]
fn out_of_order_groups_keep_arrival_order() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    for sequence in [7, 3, 9, 4] {
        f.group(sequence, &[b"x"]);
        f.writer.finish(sequence, 0);
    }
    f.commit();
    let groups: Vec<u64> = pull(&mut feed)
        .iter()
        .filter_map(|entry| match entry {
            LogEntry::Group { sequence } => Some(*sequence),
            _ => None,
        })
        .collect();
    assert_eq!(groups, [7, 3, 9, 4]);
    let head = feed.head();
    assert_eq!((head.latest, held(&head)), (Some(9), vec![3, 4, 7, 9]));
}

#[test]
fn late_joiner_gets_replay_then_journal() {
    let mut f = Fixture::new();
    f.group(1, &[b"ab"]);
    f.partial(1, 1, 4, b"cd");
    f.commit();
    let (mut feed, head) = f.log.feed(W0);
    assert_eq!(held(&head), [1]);
    let entries = replay(&feed, 1).unwrap();
    assert_eq!(entries[..2], [opened(1), object(1, 0, b"ab")]);
    assert_eq!(entries.len(), 3);
    let rest = f.chunk(b"ef");
    f.writer.data(1, 0, rest);
    f.writer.finish(1, 0);
    f.commit();
    assert_eq!(pull(&mut feed), [data(1, 1, 2, b"ef"), finish(1)]);
}

#[test]
fn a_datagram_is_journal_only() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(1, &[]);
    let payload = f.chunk(b"d");
    f.writer.datagram(9, 4, payload);
    f.writer.dropped(2, 3, 70);
    f.commit();
    let datagram = LogEntry::Datagram { group: 9, tick: 4, payload: Bytes::from_static(b"d") };
    let dropped = LogEntry::Dropped { start: 2, end: 3, code: 70 };
    assert_eq!(pull(&mut feed), [opened(1), datagram, dropped]);
    let head = feed.head();
    assert_eq!((head.latest, held(&head)), (Some(1), vec![1]));
}

#[test]
fn a_commit_takes_one_lock_and_a_pull_one() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    let before = f.log.lock_count();
    f.group(1, &[b"a", b"b"]);
    f.group(2, &[b"a", b"b"]);
    f.commit();
    assert_eq!(f.log.lock_count(), before + 1);
    assert_eq!(feed.pull(&mut Vec::new()), Pulled { more: false, lagged: false });
    assert_eq!(f.log.lock_count(), before + 2);
}

#[test]
fn commit_marks_each_worker_once_until_it_takes() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    let _other = f.log.feed(W1);
    f.group(1, &[]);
    f.commit();
    f.object(1, 0, b"a");
    f.commit();
    assert!(f.wakes.contains(W0) && f.wakes.contains(W1) && !f.wakes.contains(WorkerId(2)));
    let mut logs = Vec::new();
    assert!(f.store.ready_list(W0).is_pending());
    assert!(!f.store.ready_list(W0).take(&mut logs), "the board did not change");
    assert_eq!(logs, [LogId(1)]);
    assert!(!f.store.ready_list(W0).is_pending());
    assert_eq!(pull(&mut feed).len(), 2);
    f.object(1, 1, b"b");
    f.commit();
    f.store.ready_list(W0).take(&mut logs);
    assert_eq!(logs, [LogId(1), LogId(1)]);
    f.store.ready_list(WorkerId(2)).take(&mut logs);
    assert_eq!(logs.len(), 2, "a worker without readers is not marked");
}

#[test]
fn a_commit_that_adds_nothing_wakes_nobody() {
    let mut f = Fixture::new();
    let _feed = f.log.feed(W0);
    f.object(8, 0, b"group that is not held");
    f.commit();
    assert!(f.wakes.is_empty());
}

#[test]
fn ringing_skips_the_worker_that_asks() {
    let mut f = Fixture::new();
    let _feeds = (f.log.feed(W0), f.log.feed(W1));
    let woken = Arc::new(std::sync::Mutex::new(Vec::new()));
    for worker in [W0, W1] {
        let woken = Arc::clone(&woken);
        f.store.ready_list(worker).set_waker(Box::new(move || woken.lock().unwrap().push(worker)));
    }
    f.group(1, &[]);
    f.commit();
    f.store.wake(&mut f.wakes, Some(W1));
    f.store.wake(&mut f.wakes, None);
    assert_eq!(*woken.lock().unwrap(), [W0]);
    assert!(f.wakes.is_empty());
}

#[test]
fn lagging_feed_catches_up_by_replay() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(1, &[]);
    for id in 0..crate::bounds::JOURNAL_ENTRIES as u64 {
        f.object(1, id, b"x");
    }
    f.commit();
    let mut out = Vec::new();
    assert_eq!(feed.pull(&mut out), Pulled { more: true, lagged: true });
    assert!(out.is_empty());
    let entries = replay(&feed, 1).unwrap();
    assert_eq!(entries.len(), crate::bounds::JOURNAL_ENTRIES + 1);
    assert_eq!(pull(&mut feed)[..], entries[1..]);
}

#[test]
fn a_long_replay_comes_in_pages_and_in_order() {
    let mut f = Fixture::new();
    let objects = crate::bounds::REPLAY_OBJECTS as u64 * 2 + 1;
    f.writer.open_group(1);
    for id in 0..objects {
        f.object(1, id, b"x");
    }
    f.writer.finish(1, 0);
    f.commit();
    let (feed, _) = f.log.feed(W0);
    let before = f.log.lock_count();
    let entries = replay(&feed, 1).unwrap();
    assert_eq!(f.log.lock_count(), before + 3);
    let ids = entries.iter().filter_map(|entry| match entry {
        LogEntry::Object { head, .. } => Some(head.id),
        _ => None,
    });
    assert!(ids.eq(0..objects));
    assert_eq!(entries.last(), Some(&finish(1)));
}

#[test]
fn a_group_at_its_limit_is_whole_and_one_past_loses_its_head() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    let piece = 1 << 20;
    let each = piece + crate::bounds::OBJECT_OVERHEAD + crate::bounds::PIECE_OVERHEAD;
    let room = limits::GROUP_BYTES - crate::bounds::GROUP_OVERHEAD;
    let payload = Bytes::from(vec![0; piece as usize]);
    f.writer.open_group(1);
    for id in 0..room / each {
        f.writer.object(1, 0, ObjectHead::frame(id, None, piece), payload.clone());
    }
    f.commit();
    assert_eq!(held(&feed.head()), [1]);
    pull(&mut feed);
    f.writer.object(1, 0, ObjectHead::frame(room / each, None, piece), payload);
    f.object(1, room / each + 1, b"live");
    f.commit();
    let head = feed.head();
    assert_eq!((head.latest, held(&head)), (Some(1), vec![]));
    assert_eq!(replay(&feed, 1), None);
    let live = pull(&mut feed);
    assert!(
        live.iter().any(|entry| *entry == object(1, room / each + 1, b"live")),
        "a reader past the head continues"
    );
    let mut tail = Vec::new();
    assert!(feed.group_from(1, 1, &mut tail));
    assert_eq!(tail.len() as u64, 1 + room / each + 1);
}

#[test]
fn one_object_larger_than_a_group_keeps_flowing_but_is_not_held() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    let piece = Bytes::from(vec![0; 1 << 20]);
    let pieces = limits::GROUP_BYTES / piece.len() as u64 + 1;
    f.writer.open_group(1);
    f.writer.object(1, 0, ObjectHead::frame(0, None, pieces << 20), Bytes::new());
    let mut seen = 0;
    for _ in 0..pieces {
        f.writer.data(1, 0, piece.clone());
        f.commit();
        seen += pull(&mut feed).iter().map(LogEntry::bytes).sum::<u64>();
    }
    f.writer.finish(1, 0);
    f.commit();
    assert_eq!(seen, pieces << 20);
    assert_eq!(pull(&mut feed), [finish(1)]);
    assert_eq!(replay(&feed, 1), None);
    let held: u64 = f.log.lock().groups.values().map(|group| group.payload).sum();
    assert_eq!(held, 0);
}

#[test]
fn strands_of_a_group_are_independent() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.writer.open_strand(1, 4);
    f.writer.object(1, 4, ObjectHead::frame(8, Some(-3), 1), Bytes::from_static(b"a"));
    f.writer.object(1, 6, ObjectHead::frame(2, None, 1), Bytes::from_static(b"b"));
    f.writer.finish(1, 4);
    f.writer.reset(1, 6, StreamCode::OLD);
    f.commit();
    let live = pull(&mut feed);
    assert_eq!(live.len(), 5);
    let mut held = replay(&feed, 1).unwrap();
    held.sort_by_key(|entry| live.iter().position(|other| other == entry));
    assert_eq!(held, live);
}
