//! Listings of served broadcasts.

use super::*;
use crate::{BroadcastSeen, Listing, ListingQuery};

fn look(prefix: &str, after: Option<&str>, broadcasts: usize) -> ListingQuery {
    ListingQuery { prefix: path(prefix), after: after.map(path), broadcasts, tracks: 10 }
}

fn all(bench: &Bench) -> Listing {
    bench.core.look(&look("", None, 100))
}

fn paths(listing: &Listing) -> Vec<&str> {
    listing.broadcasts.iter().map(|broadcast| broadcast.path.as_str()).collect()
}

#[test]
fn listing_shows_the_publisher_and_counts_viewers() {
    let mut bench = Bench::new();
    (1..=3).for_each(|session| bench.open(session));
    bench.announce(1, "a", &[7], 1);
    let since = bench.now;
    bench.pass(TICK);
    let log = bench.attached(2, 1, "a");
    bench.attached(2, 2, "a");
    bench.attached(3, 1, "a");
    bench.subscribe_as(1, 1, "a", Prefs::default(), Want::Info);
    let listing = all(&bench);
    let [BroadcastSeen { path, since: shown, publisher, viewers, tracks }] = &listing.broadcasts[..] else {
        panic!("{listing:?}")
    };
    assert_eq!((path.as_str(), *shown, *publisher), ("a", Some(since), Some(SessionId(1))));
    assert_eq!(*viewers, 2, "sessions, not subscriptions, and not who asks for properties");
    let [seen] = &tracks[..] else { panic!("{tracks:?}") };
    assert_eq!((&seen.name, seen.viewers, seen.logs[0]), (&track("video"), 2, log));
    bench.close(3);
    assert_eq!(all(&bench).broadcasts[0].viewers, 1);
    bench.everyone_leaves();
}

#[test]
fn unserved_broadcasts_are_not_listed() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.announce(1, "a", &[7], 1);
    bench.announce(1, "b", &[7], 1);
    bench.unannounce(1, "a");
    assert_eq!(paths(&all(&bench)), ["b"]);
    // Expected back, but not served.
    bench.vanish(1);
    assert_eq!(all(&bench), Listing::default());
    bench.everyone_leaves();
}

#[test]
fn a_listing_is_cut_in_the_order_of_paths_and_still_counts_all() {
    let mut bench = Bench::new();
    bench.open(1);
    for raw in ["b", "a/2", "c", "a/1", "ab", "a"] {
        bench.announce(1, raw, &[7], 1);
    }
    let listing = bench.core.look(&look("", None, 3));
    assert_eq!((paths(&listing), listing.total), (vec!["a", "a/1", "a/2"], 6));
    let listing = bench.core.look(&look("", Some("a/2"), 2));
    assert_eq!((paths(&listing), listing.total), (vec!["ab", "b"], 6));
    let listing = bench.core.look(&look("a", None, 9));
    assert_eq!((paths(&listing), listing.total), (vec!["a", "a/1", "a/2"], 3));
    bench.everyone_leaves();
}

#[test]
fn tracks_are_cut_over_all_broadcasts_and_viewers_are_not() {
    let mut bench = Bench::new();
    bench.open(1);
    bench.open(2);
    for (sub, raw) in [(1, "a"), (2, "b")] {
        bench.announce(1, raw, &[7], 1);
        bench.attached(2, sub, raw);
    }
    let listing = bench.core.look(&ListingQuery { tracks: 1, ..look("", None, 9) });
    let tracks: Vec<(usize, usize)> =
        listing.broadcasts.iter().map(|seen| (seen.tracks.len(), seen.viewers)).collect();
    assert_eq!(tracks, [(1, 1), (0, 1)]);
    bench.everyone_leaves();
}
