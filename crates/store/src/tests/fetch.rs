//! Groups that came by FETCH, absent groups, and lookups of groups.

use relay_model::{StreamCode, TrackInfo};

use super::*;
use crate::{FETCHED, HeldGroup, LogEnd, Lookup};

const NOT_FOUND: Lookup = Lookup::Absent(StreamCode::NOT_FOUND);

impl Fixture {
    /// Stages the response to a fetch: one-piece objects, not finished.
    fn fetch(&mut self, sequence: u64, objects: &[&[u8]]) {
        self.writer.fetched_group(sequence);
        for (id, payload) in (0..).zip(objects) {
            self.fetched(sequence, id, payload);
        }
    }

    fn fetched(&mut self, group: u64, id: u64, payload: &[u8]) {
        let payload = self.chunk(payload);
        self.writer.object(group, FETCHED, ObjectHead::frame(id, None, payload.len() as u64), payload);
    }

    fn lookup(&self, sequence: u64) -> Lookup {
        self.log.feed(W1).0.lookup(sequence, 0)
    }

    fn end(&mut self, final_group: Option<u64>, code: Option<StreamCode>) {
        self.writer.end(LogEnd { final_group, code });
        self.commit();
    }
}

/// A log with live groups 5 (whole) and 6 (open), and a feed that has read it.
fn live() -> (Fixture, Feed) {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(5, &[b"a"]);
    f.writer.finish(5, 0);
    f.group(6, &[b"b"]);
    f.commit();
    pull(&mut feed);
    (f, feed)
}

#[test]
fn a_fetched_group_is_held_and_followed_but_not_announced() {
    let (mut f, mut feed) = live();
    f.fetch(3, &[b"x", b"y"]);
    f.writer.finish(3, FETCHED);
    f.commit();
    assert_eq!(pull(&mut feed), [object(3, 0, b"x"), object(3, 1, b"y"), finish(3)]);
    assert_eq!(replay(&feed, 3).unwrap(), [opened(3), object(3, 0, b"x"), object(3, 1, b"y"), finish(3)]);
    let head = feed.head();
    assert_eq!((head.latest, held(&head)), (Some(6), vec![3, 5, 6]));
}

#[test]
fn head_reports_age_and_origin_of_groups() {
    let (mut f, feed) = live();
    let superseded = Some(f.now);
    f.later(100);
    f.fetch(3, &[]);
    f.commit();
    let fetched = HeldGroup { sequence: 3, superseded: Some(f.now), fetched: true };
    let before = HeldGroup { sequence: 5, superseded, fetched: false };
    let latest = HeldGroup { sequence: 6, superseded: None, fetched: false };
    assert_eq!(feed.head().groups, [fetched, before, latest]);
}

#[test]
fn fetched_group_ages_from_its_fetch_and_is_never_latest() {
    let (mut f, mut feed) = live();
    f.fetch(9, &[b"x"]);
    f.writer.finish(9, FETCHED);
    f.commit();
    assert_eq!((feed.head().latest, f.log.resume().unwrap().group), (Some(6), 6));
    f.later(30_001);
    f.writer.datagram(0, 0, Bytes::new());
    f.commit();
    assert_eq!(held(&feed.head()), [6]);
    assert_eq!(pull(&mut feed).last(), Some(&LogEntry::Evicted { group: 9 }));
}

#[test]
fn a_fetch_does_not_age_while_it_is_under_way() {
    let (mut f, feed) = live();
    f.writer.info(TrackInfo { max_age_ms: 1_000, ..TrackInfo::default() });
    f.fetch(3, &[b"x"]);
    f.commit();
    f.later(5_000);
    f.fetched(3, 1, b"y");
    f.commit();
    assert_eq!(held(&feed.head()), [3, 6]);
    f.writer.finish(3, FETCHED);
    f.commit();
    f.later(1_000);
    f.writer.datagram(0, 0, Bytes::new());
    f.commit();
    assert_eq!(held(&feed.head()), [3, 6], "aging has started");
    f.later(1);
    f.writer.datagram(0, 0, Bytes::new());
    f.commit();
    assert_eq!(held(&feed.head()), [6]);
}

#[test]
fn fetch_keeps_whole_and_live_groups() {
    let (mut f, mut feed) = live();
    for group in [5, 6] {
        f.fetch(group, &[b"other", b"bytes"]);
        f.writer.finish(group, FETCHED);
    }
    f.object(6, 1, b"c");
    f.commit();
    assert_eq!(pull(&mut feed), [object(6, 1, b"c")]);
    assert!(feed.head().groups.iter().all(|group| !group.fetched));
}

#[test]
fn live_stream_does_not_write_to_a_group_being_fetched() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(2, &[]);
    f.partial(2, 0, 4, b"ab");
    f.group(7, &[]);
    f.commit();
    f.later(30_001);
    f.writer.datagram(0, 0, Bytes::new());
    f.commit();
    assert_eq!(pull(&mut feed).last().unwrap(), &LogEntry::Evicted { group: 2 });
    f.fetch(2, &[]);
    let late = f.chunk(b"cd");
    f.writer.data(2, 0, late);
    f.object(2, 1, b"more");
    f.writer.finish(2, 0);
    f.commit();
    assert!(pull(&mut feed).is_empty());
    f.fetched(2, 0, b"abcd");
    f.commit();
    assert_eq!(pull(&mut feed), [object(2, 0, b"abcd")]);
}

#[test]
fn a_fetch_replaces_what_was_cut_short_or_lost_its_head() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(1, &[b"a"]);
    f.writer.reset(1, 0, StreamCode(70));
    f.writer.open_group_at(2, 4);
    f.object(2, 4, b"e");
    f.writer.finish(2, 0);
    f.group(3, &[]);
    f.commit();
    pull(&mut feed);
    for group in [1, 2] {
        assert_eq!(f.lookup(group), Lookup::Unknown);
        f.fetch(group, &[b"x"]);
        f.commit();
        assert_eq!(pull(&mut feed), [LogEntry::Evicted { group }, object(group, 0, b"x")]);
        assert_eq!(f.lookup(group), Lookup::Held);
    }
    assert_eq!(held(&feed.head()), [1, 2, 3]);
}

#[test]
fn fetch_does_not_interrupt_readers_of_a_headless_group() {
    let mut f = Fixture::new();
    let (mut feed, _) = f.log.feed(W0);
    f.group(2, &[]);
    f.object(2, 4, b"e");
    f.fetch(2, &[b"x"]);
    f.object(2, 5, b"f");
    f.commit();
    assert_eq!(pull(&mut feed), [opened(2), object(2, 4, b"e"), object(2, 5, b"f")]);
}

#[test]
fn fetch_without_its_writer_restarts() {
    let (mut f, mut feed) = live();
    f.fetch(3, &[b"x"]);
    f.commit();
    f.writer = f.log.writer(Epoch(2)).unwrap();
    assert_eq!(f.lookup(3), Lookup::Unknown);
    f.fetch(3, &[b"x", b"y"]);
    f.commit();
    let anew = [object(3, 0, b"x"), LogEntry::Evicted { group: 3 }, object(3, 0, b"x"), object(3, 1, b"y")];
    assert_eq!(pull(&mut feed), anew);
}

#[test]
fn a_fetch_asked_again_skips_what_the_first_brought() {
    let (mut f, mut feed) = live();
    f.fetch(3, &[b"x"]);
    f.commit();
    f.fetch(3, &[b"x", b"y"]);
    f.commit();
    assert_eq!(pull(&mut feed), [object(3, 0, b"x"), object(3, 1, b"y")]);
}

#[test]
fn fetched_group_that_goes_live_is_delivered_whole() {
    let (mut f, mut feed) = live();
    let (mut waiting, _) = f.log.feed(W1);
    f.fetch(7, &[b"x"]);
    let half = f.chunk(b"y");
    f.writer.object(7, FETCHED, ObjectHead::frame(1, None, 2), half);
    f.commit();
    let head = ObjectHead::frame(1, None, 2);
    let half = LogEntry::Object { group: 7, strand: 0, head, payload: Bytes::from_static(b"y") };
    let so_far = [object(7, 0, b"x"), half];
    assert_eq!(pull(&mut waiting), so_far);
    assert_eq!(pull(&mut feed), so_far);
    f.writer.open_group(7);
    f.object(7, 0, b"x");
    f.object(7, 1, b"yz");
    let more = f.chunk(b"z");
    f.writer.data(7, FETCHED, more);
    f.writer.finish(7, FETCHED);
    f.object(7, 2, b"w");
    f.writer.finish(7, 0);
    f.commit();
    let mut expected = vec![opened(7)];
    expected.extend(so_far);
    expected.extend([data(7, 1, 1, b"z"), object(7, 2, b"w"), finish(7)]);
    assert_eq!(pull(&mut feed), expected);
    let head = feed.head();
    assert_eq!(head.latest, Some(7));
    let groups: Vec<_> = head.groups.iter().map(|group| (group.sequence, group.fetched)).collect();
    assert_eq!(groups, [(5, false), (6, false), (7, false)]);
    assert_eq!(head.groups.last().unwrap().superseded, None);
    f.later(60_000);
    f.writer.datagram(0, 0, Bytes::new());
    f.commit();
    assert_eq!(held(&feed.head()), [7], "as the latest it does not age");
}

#[test]
fn a_fetched_group_that_comes_live_late_ages_from_then() {
    let (mut f, mut feed) = live();
    f.fetch(3, &[b"x"]);
    f.writer.finish(3, FETCHED);
    f.commit();
    pull(&mut feed);
    f.later(20_000);
    f.group(3, &[b"x"]);
    f.commit();
    assert_eq!(pull(&mut feed), [opened(3), object(3, 0, b"x"), finish(3)]);
    f.later(20_000);
    f.writer.datagram(0, 0, Bytes::new());
    f.commit();
    assert_eq!((feed.head().latest, held(&feed.head())), (Some(6), vec![3, 6]));
}

#[test]
fn damaged_fetched_group_restarts_when_it_goes_live() {
    let (mut f, mut feed) = live();
    f.fetch(7, &[b"x"]);
    f.writer.reset(7, FETCHED, StreamCode::CANCEL);
    f.commit();
    pull(&mut feed);
    f.group(7, &[b"x"]);
    f.commit();
    assert_eq!(pull(&mut feed), [LogEntry::Evicted { group: 7 }, opened(7), object(7, 0, b"x")]);
    assert_eq!(f.lookup(7), Lookup::Held);
}

#[test]
fn long_fetched_group_restarts_when_it_goes_live() {
    let (mut f, mut feed) = live();
    f.fetch(7, &[]);
    for id in 0..=crate::bounds::REPLAY_OBJECTS as u64 {
        f.fetched(7, id, b"x");
    }
    f.commit();
    pull(&mut feed);
    f.group(7, &[b"x"]);
    f.commit();
    assert_eq!(pull(&mut feed), [LogEntry::Evicted { group: 7 }, opened(7), object(7, 0, b"x")]);
}

#[test]
fn absent_group_is_remembered_until_it_arrives() {
    let (mut f, mut feed) = live();
    assert_eq!(f.lookup(8), Lookup::Unknown);
    f.writer.absent(8, StreamCode::NOT_FOUND);
    f.writer.absent(2, StreamCode::NOT_FOUND);
    f.writer.fetch_failed(3, StreamCode::CONTROL_TIMEOUT);
    f.writer.dropped(4, 4, 70);
    f.commit();
    let told = |group, code| LogEntry::Absent { group, code };
    let expected = [
        told(8, StreamCode::NOT_FOUND),
        told(2, StreamCode::NOT_FOUND),
        told(3, StreamCode::CONTROL_TIMEOUT),
        LogEntry::Dropped { start: 4, end: 4, code: 70 },
    ];
    assert_eq!(pull(&mut feed), expected);
    assert_eq!((f.lookup(8), f.lookup(2)), (NOT_FOUND, NOT_FOUND));
    assert_eq!((f.lookup(3), f.lookup(4)), (Lookup::Unknown, Lookup::Unknown));
    f.group(8, &[]);
    f.fetch(2, &[]);
    f.commit();
    assert_eq!((f.lookup(8), f.lookup(2)), (Lookup::Held, Lookup::Held));
    f.group(9, &[]);
    f.commit();
    f.later(30_001);
    f.writer.datagram(0, 0, Bytes::new());
    f.commit();
    assert_eq!(f.lookup(8), Lookup::Unknown, "it existed");
}

#[test]
fn absent_ranges_are_charged_and_bounded() {
    let mut f = Fixture::new();
    for group in 0..=crate::bounds::ABSENT_RANGES as u64 {
        f.writer.absent(group * 2, StreamCode::NOT_FOUND);
    }
    f.commit();
    let all = crate::bounds::ABSENT_RANGES as u64 * crate::bounds::RANGE_OVERHEAD;
    assert_eq!(f.store.budget().used(), all);
    assert_eq!((f.lookup(0), f.lookup(2)), (Lookup::Unknown, NOT_FOUND));
}

#[test]
fn clean_end_marks_later_groups_absent() {
    let (mut f, feed) = live();
    f.writer.finish(6, 0);
    f.end(Some(7), None);
    assert_eq!((f.lookup(6), f.lookup(7), f.lookup(u64::MAX)), (Lookup::Held, NOT_FOUND, NOT_FOUND));
    assert_eq!(f.lookup(4), Lookup::Absent(StreamCode::EVICTED));
    assert_eq!(feed.lookup(6, 100), Lookup::Held, "a group's end can be read as well");
}

#[test]
fn replayable_group_is_held_while_open_or_finished() {
    let mut f = Fixture::new();
    f.group(1, &[b"a"]);
    f.writer.reset(1, 0, StreamCode(70));
    f.group(2, &[]);
    f.object(2, 3, b"d");
    f.group(3, &[b"a", b"b"]);
    f.commit();
    let (feed, _) = f.log.feed(W0);
    let before = f.log.lock_count();
    assert_eq!(feed.lookup(1, 0), Lookup::Unknown);
    assert_eq!(f.log.lock_count(), before + 1);
    assert_eq!((feed.lookup(2, 2), feed.lookup(2, 3)), (Lookup::Unknown, Lookup::Held));
    assert!(feed.group_from(2, 3, &mut Vec::new()) && !feed.group_from(2, 2, &mut Vec::new()));
    assert_eq!((feed.lookup(3, 0), feed.lookup(3, 9)), (Lookup::Held, Lookup::Held));
    assert_eq!(feed.lookup(4, 0), Lookup::Unknown);
    f.end(None, Some(StreamCode::UNROUTABLE));
    assert_eq!(feed.lookup(1, 0), Lookup::Absent(StreamCode(70)));
    assert_eq!(feed.lookup(3, 0), Lookup::Absent(StreamCode::UNROUTABLE));
    assert_eq!(feed.lookup(4, 0), NOT_FOUND);
}

#[test]
fn lost_objects_are_evicted_once_the_log_has_ended() {
    let mut f = Fixture::new();
    f.group(2, &[]);
    f.object(2, 3, b"d");
    f.writer.finish(2, 0);
    f.commit();
    assert_eq!(f.lookup(2), Lookup::Unknown);
    f.end(Some(3), None);
    assert_eq!(f.lookup(2), Lookup::Absent(StreamCode::EVICTED));
}

#[test]
fn nothing_is_fetched_into_a_log_that_ended() {
    let (mut f, mut feed) = live();
    f.end(None, None);
    pull(&mut feed);
    f.fetch(3, &[b"x"]);
    f.writer.absent(4, StreamCode::NOT_FOUND);
    f.commit();
    assert!(pull(&mut feed).is_empty());
    assert_eq!(f.lookup(3), Lookup::Absent(StreamCode::EVICTED));
}

#[test]
fn complete_group_is_known_without_reading_it() {
    let (mut f, feed) = live();
    let bytes = |sequence, first| feed.complete(sequence, first).map(|group| group.bytes);
    assert_eq!((bytes(5, 0), bytes(5, 7)), (Some(Some(1)), Some(Some(1))));
    assert_eq!((bytes(6, 0), bytes(4, 0)), (None, None), "one is open, one is not held");
    f.fetch(3, &[b"x", b"yz"]);
    f.commit();
    assert_eq!(bytes(3, 0), None, "it is arriving");
    f.writer.finish(3, FETCHED);
    f.writer.reset(6, 0, StreamCode::CANCEL);
    f.commit();
    assert_eq!((bytes(3, 0), bytes(6, 0)), (Some(Some(3)), None));
}

#[test]
fn epoch_is_that_of_the_latest_writer() {
    let (f, feed) = live();
    assert_eq!(feed.epoch(), Epoch(1));
    f.log.fence(Epoch(2));
    assert_eq!(feed.epoch(), Epoch(2), "before the writer appends");
}
