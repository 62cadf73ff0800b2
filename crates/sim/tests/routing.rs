//! Promise: whatever publishers, subscribers, relays and their links do, and in whatever order these events
//! arrive, readers receive the content of one publisher, once and complete, and nothing is left behind.
//!
//! `SIM_SEED=n` runs one story again; `SIM_SEEDS=n` runs that many of each kind.

#![allow(missing_docs)]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use relay_sim::history::Story;

/// Number of stories of each kind, by default.
const SEEDS: u64 = 1_000;
/// Number of events in a story.
const STORM: usize = 14;
const CALM: usize = 4;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs the stories on all cores, and reports the seeds of failed ones.
fn stories(kind: &str, count: u64, tell: impl Fn(&mut Story) + Sync) {
    if let Some(seed) = number("SIM_SEED") {
        return tell(&mut Story::new(seed));
    }
    let seeds = number("SIM_SEEDS").unwrap_or(count);
    let next = AtomicU64::new(0);
    let some = || {
        let mine = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < seeds));
        mine.filter(|seed| catch_unwind(AssertUnwindSafe(|| tell(&mut Story::new(*seed)))).is_err()).collect()
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut failed: Vec<u64> = thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        all.into_iter()
            .flat_map(|each: thread::ScopedJoinHandle<'_, Vec<u64>>| each.join().expect("caught"))
            .collect()
    });
    failed.sort_unstable();
    assert!(failed.is_empty(), "{kind}: {} of {seeds} stories failed: seeds {failed:?}", failed.len());
}

#[test]
fn storms_deliver_correct_content_and_recover() {
    stories("storm", SEEDS, |story| story.storm(STORM));
}

#[test]
fn permission_changes_deliver_correct_content_and_recover() {
    stories("judged", SEEDS / 3, |story| story.run_with_permits(STORM));
}

#[test]
fn one_change_is_one_update() {
    stories("calm", SEEDS, |story| story.calm(CALM));
}
