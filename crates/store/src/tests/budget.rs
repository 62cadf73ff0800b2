//! Eviction by age and by budget, and the absence of leaks.

use relay_model::{TrackInfo, limits};

use super::*;

const FRAME: usize = 1_000;
/// Bytes charged for a group of one frame.
const GROUP: u64 = FRAME as u64
    + crate::bounds::GROUP_OVERHEAD
    + crate::bounds::OBJECT_OVERHEAD
    + crate::bounds::PIECE_OVERHEAD;

fn fill(f: &mut Fixture, groups: std::ops::Range<u64>) {
    for sequence in groups {
        f.group(sequence, &[&[0; FRAME]]);
        f.writer.finish(sequence, 0);
        f.commit();
    }
}

fn evicted(entries: &[LogEntry]) -> Vec<u64> {
    let groups = entries.iter().filter_map(|entry| match entry {
        LogEntry::Evicted { group } => Some(*group),
        _ => None,
    });
    groups.collect()
}

/// Another log of the same store.
fn second(f: &Fixture) -> (Arc<Log>, Writer) {
    let log = f.store.create(LogId(2));
    let writer = log.writer(Epoch(1)).unwrap();
    (log, writer)
}

#[test]
fn a_group_superseded_longer_than_the_tracks_age_goes() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.writer.info(TrackInfo { max_age_ms: 2_000, ..TrackInfo::default() });
    fill(&mut f, 0..2);
    f.later(2_000);
    fill(&mut f, 2..3);
    assert_eq!(held(&feed.head()), [0, 1, 2], "at the limit it stays");
    f.later(1);
    fill(&mut f, 3..4);
    assert_eq!(held(&feed.head()), [1, 2, 3]);
    assert_eq!(evicted(&pull(&mut feed)), [0]);
    assert_eq!(replay(&feed, 0), None);
}

#[test]
fn the_configured_age_bounds_the_tracks_own() {
    let mut f = Fixture::new();
    f.writer.info(TrackInfo { max_age_ms: u64::MAX, ..TrackInfo::default() });
    fill(&mut f, 0..2);
    f.later(30_001);
    fill(&mut f, 2..3);
    assert_eq!(held(&f.log.feed(W0).1), [1, 2]);
}

#[test]
fn the_latest_group_never_ages() {
    let mut f = Fixture::new();
    fill(&mut f, 0..1);
    f.later(1_000_000);
    f.writer.datagram(0, 0, Bytes::new());
    f.commit();
    assert_eq!(held(&f.log.feed(W0).1), [0]);
}

#[test]
fn a_late_group_ages_from_its_arrival() {
    let mut f = Fixture::new();
    fill(&mut f, 5..6);
    f.later(60_000);
    fill(&mut f, 3..4);
    assert_eq!(held(&f.log.feed(W0).1), [3, 5]);
    f.later(30_001);
    f.writer.datagram(0, 0, Bytes::new());
    f.commit();
    assert_eq!(held(&f.log.feed(W0).1), [5]);
}

#[test]
fn an_evicted_group_takes_nothing_more() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(0, &[b"a"]);
    f.group(1, &[]);
    f.commit();
    f.later(30_001);
    f.commit();
    f.object(0, 1, b"b");
    f.commit();
    f.object(0, 2, b"c");
    f.commit();
    let entries = pull(&mut feed);
    assert_eq!(evicted(&entries), [0]);
    assert_eq!(entries.last(), Some(&LogEntry::Evicted { group: 0 }));
}

#[test]
fn over_capacity_the_oldest_superseded_groups_of_the_log_go() {
    let mut f = Fixture::with(4 * GROUP, 100 * GROUP);
    let (mut feed, _) = f.log.feed(W0);
    fill(&mut f, 0..4);
    pull(&mut feed);
    assert_eq!(held(&feed.head()), [0, 1, 2, 3], "at the limit all stay");
    fill(&mut f, 4..5);
    let entries = pull(&mut feed);
    assert_eq!(evicted(&entries), [0]);
    drop(entries);
    assert_eq!(held(&feed.head()), [1, 2, 3, 4]);
    assert!(!f.store.budget().over_capacity());
}

#[test]
fn other_logs_are_evicted_least_recently_read_first() {
    let mut f = Fixture::with(6 * GROUP, 100 * GROUP);
    let (other, mut writer) = second(&f);
    fill(&mut f, 0..3);
    for sequence in 0..3 {
        let payload = f.chunk(&[0; FRAME]);
        writer.open_group(sequence);
        writer.object(sequence, 0, ObjectHead::frame(0, None, FRAME as u64), payload);
    }
    writer.commit(f.now, &mut f.wakes).unwrap();
    f.later(10);
    let third = f.store.create(LogId(3));
    let mut newest = third.writer(Epoch(1)).unwrap();
    newest.datagram(0, 0, Bytes::new());
    newest.commit(f.now, &mut f.wakes).unwrap();
    drop(f.log.feed(W0));
    let payload = f.chunk(&[0; FRAME]);
    newest.open_group(0);
    newest.object(0, 0, ObjectHead::frame(0, None, FRAME as u64), payload);
    newest.commit(f.now, &mut f.wakes).unwrap();
    let groups = |log: &Arc<Log>| held(&log.feed(W1).1);
    assert_eq!((groups(&f.log).len(), groups(&other), groups(&third)), (3, vec![2], vec![0]));
}

#[test]
fn a_sweep_wakes_the_readers_of_the_logs_it_evicts_from() {
    let mut f = Fixture::with(3 * GROUP, 100 * GROUP);
    let (mut feed, _) = f.log.feed(W1);
    fill(&mut f, 0..2);
    pull(&mut feed);
    let (_, mut writer) = second(&f);
    let payload = f.chunk(&[0; 2 * FRAME]);
    writer.open_group(0);
    writer.object(0, 0, ObjectHead::frame(0, None, 2 * FRAME as u64), payload);
    let mut wakes = WakeSet::new();
    f.store.ready_list(W1).take(&mut Vec::new());
    writer.commit(f.now, &mut wakes).unwrap();
    assert!(wakes.contains(W1));
    assert_eq!(pull(&mut feed), [LogEntry::Evicted { group: 0 }]);
}

#[test]
fn the_latest_group_stays_until_the_ceiling_is_met() {
    let mut f = Fixture::with(GROUP / 2, 2 * GROUP + 1);
    fill(&mut f, 0..1);
    let (_, mut writer) = second(&f);
    let payload = f.chunk(&[0; FRAME]);
    writer.open_group(0);
    writer.object(0, 0, ObjectHead::frame(0, None, FRAME as u64), payload);
    writer.commit(f.now, &mut f.wakes).unwrap();
    assert_eq!(f.store.budget().used(), 2 * GROUP);
    assert_eq!(held(&f.log.feed(W0).1), [0], "over capacity, below the ceiling");
}

#[test]
fn ceiling_evicts_latest_groups_least_recently_read_first() {
    let mut f = Fixture::with(GROUP, 2 * GROUP);
    let (mut feed, _) = f.log.feed(W0);
    fill(&mut f, 0..1);
    pull(&mut feed);
    f.later(10);
    let (other, mut writer) = second(&f);
    writer.datagram(0, 0, Bytes::new());
    writer.commit(f.now, &mut f.wakes).unwrap();
    let (reader, _) = other.feed(W1);
    let payload = f.chunk(&[0; FRAME]);
    writer.open_group(0);
    writer.object(0, 0, ObjectHead::frame(0, None, FRAME as u64), payload);
    writer.commit(f.now, &mut f.wakes).unwrap();
    drop(reader);
    let head = f.log.feed(W1).1;
    assert_eq!((head.latest, held(&head)), (Some(0), vec![]));
    assert_eq!(held(&other.feed(W1).1), [0]);
    assert_eq!(pull(&mut feed), [LogEntry::Evicted { group: 0 }]);
    f.object(0, 1, b"more of it");
    f.commit();
    assert!(pull(&mut feed).is_empty());
    f.group(1, &[b"n"]);
    f.commit();
    assert_eq!(held(&f.log.feed(W1).1), [1]);
}

#[test]
fn pinned_bytes_do_not_trigger_a_sweep_per_commit() {
    let mut f = Fixture::with(3 * GROUP, 100 * GROUP);
    let pinned = f.chunk(&vec![0; 10 * GROUP as usize]);
    let (_, mut writer) = second(&f);
    fill(&mut f, 0..2);
    let before = f.log.lock_count();
    for _ in 0..10 {
        writer.datagram(0, 0, Bytes::new());
        writer.commit(f.now, &mut f.wakes).unwrap();
    }
    assert!(f.log.lock_count() - before <= 1, "one sweep at most while nothing grew");
    drop(pinned);
    fill(&mut f, 2..4);
    assert_eq!(held(&f.log.feed(W0).1).last(), Some(&3));
}

#[test]
fn empty_groups_are_not_free() {
    let mut f = Fixture::with(1 << 16, 1 << 20);
    for sequence in 0..1_000 {
        f.writer.open_group(sequence);
    }
    f.commit();
    assert!(f.store.budget().used() <= 1 << 16);
    assert!(held(&f.log.feed(W0).1).len() < 1_000);
}

#[test]
fn a_log_holds_so_many_groups_and_one_past_drops_the_oldest() {
    let mut f = Fixture::new();
    let limit = crate::bounds::LOG_GROUPS as u64;
    (0..limit).for_each(|sequence| f.writer.open_group(sequence));
    f.commit();
    assert_eq!(held(&f.log.feed(W0).1).len() as u64, limit);
    f.writer.open_group(limit);
    f.commit();
    let head = f.log.feed(W0).1;
    assert_eq!((held(&head).len() as u64, held(&head).first()), (limit, Some(&1)));
}

#[test]
fn dropping_every_handle_leaves_nothing() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    let watch = f.store.board().watch(W0, relay_model::Path::root());
    fill(&mut f, 0..20);
    f.group(20, &[]);
    let large = f.chunk(&vec![0; limits::FRAME_BYTES as usize]);
    f.writer.object(20, 0, ObjectHead::frame(0, None, large.len() as u64), large);
    f.commit();
    let entries = pull(&mut feed);
    let Fixture { store, log, writer, .. } = f;
    assert_eq!((store.counts().logs, store.counts().feeds, store.counts().watches), (1, 1, 1));
    drop((writer, feed, watch));
    store.retire(LogId(1));
    drop(log);
    assert!(store.counts().bytes >= limits::FRAME_BYTES, "a slow holder keeps its bytes counted");
    drop(entries);
    assert!(store.counts().is_empty());
}

#[test]
fn store_with_untaken_changes_is_freed() {
    let mut f = Fixture::new();
    let (feed, _) = f.log.feed(W0);
    fill(&mut f, 0..3);
    let Fixture { store, log, writer, .. } = f;
    let (weak, budget) = (Arc::downgrade(&log), Arc::clone(store.budget()));
    drop((writer, feed, log, store));
    assert!(weak.upgrade().is_none());
    assert_eq!(budget.used(), 0);
}

#[test]
fn limits_that_shrink_are_honoured_by_the_next_commit_or_trim() {
    let mut f = Fixture::with(100 * GROUP, 200 * GROUP);
    fill(&mut f, 0..8);
    f.store.budget().set_limits(4 * GROUP, 8 * GROUP);
    assert_eq!(f.store.budget().used(), 8 * GROUP, "lowering the limits evicts nothing by itself");
    fill(&mut f, 8..9);
    assert_eq!(held(&f.log.feed(W0).1), [5, 6, 7, 8]);
    f.store.budget().set_limits(2 * GROUP, 0);
    assert_eq!(f.store.budget().ceiling(), 2 * GROUP, "the ceiling is never below the capacity");
    f.store.budget().set_limits(2 * GROUP, 4 * GROUP);
    let (mut feed, _) = f.log.feed(W1);
    f.store.trim(f.now, &mut f.wakes);
    assert_eq!(held(&f.log.feed(W0).1), [8], "somewhat below the capacity");
    assert_eq!(evicted(&pull(&mut feed)), [5, 6, 7]);
    assert!(f.wakes.contains(W1));
}

#[test]
fn a_shortfall_under_other_limits_does_not_hold_up_a_sweep() {
    let mut f = Fixture::with(GROUP, 100 * GROUP);
    let pinned = f.chunk(&vec![0; 10 * GROUP as usize]);
    fill(&mut f, 0..1);
    f.store.trim(f.now, &mut f.wakes);
    assert_eq!(held(&f.log.feed(W0).1), [0], "over capacity, below the ceiling");
    f.store.budget().set_limits(GROUP, 5 * GROUP);
    f.store.trim(f.now, &mut f.wakes);
    assert_eq!(held(&f.log.feed(W0).1), []);
    drop(pinned);
}

#[test]
fn trim_ages_idle_logs_except_their_latest_group() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    fill(&mut f, 0..3);
    pull(&mut feed);
    f.later(30_000);
    f.store.trim(f.now, &mut f.wakes);
    assert_eq!(held(&feed.head()), [0, 1, 2], "at the limit they stay");
    f.later(1);
    f.store.trim(f.now, &mut f.wakes);
    assert_eq!(held(&feed.head()), [2]);
    assert_eq!(evicted(&pull(&mut feed)), [0, 1]);
    assert_eq!(f.store.budget().used(), GROUP);
}

/// Stages a fetch of one frame.
fn fetch(f: &mut Fixture, sequence: u64) {
    let payload = f.chunk(&[0; FRAME]);
    f.writer.fetched_group(sequence);
    f.writer.object(sequence, crate::FETCHED, ObjectHead::frame(0, None, FRAME as u64), payload);
    f.commit();
}

#[test]
fn group_being_fetched_is_evicted_after_superseded_ones() {
    let mut f = Fixture::with(4 * GROUP, 100 * GROUP);
    fill(&mut f, 5..7);
    fetch(&mut f, 0);
    fill(&mut f, 7..10);
    assert_eq!(held(&f.log.feed(W0).1), [0, 7, 8, 9]);
    f.store.budget().set_limits(GROUP, 100 * GROUP);
    f.store.trim(f.now, &mut f.wakes);
    assert_eq!(held(&f.log.feed(W0).1), [0, 9], "over capacity, below the ceiling");
    f.writer.finish(0, crate::FETCHED);
    f.commit();
    assert_eq!(held(&f.log.feed(W0).1), [9], "a finished fetch is evicted like other groups");
}

#[test]
fn ceiling_evicts_groups_being_fetched_before_latest_ones() {
    let mut f = Fixture::with(GROUP, 10 * GROUP);
    fill(&mut f, 5..6);
    fetch(&mut f, 0);
    f.store.budget().set_limits(GROUP, 2 * GROUP);
    assert!(f.store.budget().at_ceiling());
    f.store.trim(f.now, &mut f.wakes);
    assert_eq!(held(&f.log.feed(W0).1), [5]);
}

#[test]
fn evicted_groups_are_counted() {
    let mut f = Fixture::with(2 * GROUP, 100 * GROUP);
    fill(&mut f, 0..5);
    f.later(60_000);
    f.store.trim(f.now, &mut f.wakes);
    let counts = f.store.counts();
    assert_eq!((counts.evicted_groups, counts.evicted_bytes), (4, 4 * GROUP));
    assert_eq!((counts.capacity, counts.ceiling), (2 * GROUP, 100 * GROUP));
    assert!(!counts.is_empty());
}
