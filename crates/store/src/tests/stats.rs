//! Statistics of a log.

use super::*;

#[test]
fn figures_count_committed_and_held_data() {
    let mut f = Fixture::new();
    assert_eq!(f.log.figures(), crate::LogStats::default());
    f.group(0, &[b"abc", b"de"]);
    assert_eq!(f.log.figures().frames, 0, "nothing is counted before the commit");
    f.writer.finish(0, 0);
    f.group(1, &[b"fghi"]);
    f.commit();
    let figures = f.log.figures();
    assert_eq!((figures.groups, figures.frames, figures.bytes), (2, 3, 9));
    assert_eq!((figures.latest, figures.cached_groups), (Some(1), 2));
    assert!(figures.cached_bytes >= 9, "{figures:?}");
    // Totals are kept when groups are evicted.
    f.later(31_000);
    f.store.trim(f.now, &mut f.wakes);
    let after = f.log.figures();
    assert_eq!((after.groups, after.frames, after.bytes), (2, 3, 9));
    assert_eq!((after.latest, after.cached_groups), (Some(1), 1));
    assert!(after.cached_bytes < figures.cached_bytes);
}

#[test]
fn data_staged_by_a_fenced_writer_is_not_counted() {
    let mut f = Fixture::new();
    f.group(0, &[b"abc"]);
    let _later = f.log.writer(Epoch(2)).unwrap();
    f.writer.commit(f.now, &mut f.wakes).unwrap_err();
    assert_eq!(f.log.figures(), crate::LogStats::default());
}
