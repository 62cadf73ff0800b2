//! Promise: whatever publishers, subscribers, relays and their links do, and in whatever order the news
//! of it arrive, readers get what one publisher said, once and whole, and nothing is left behind.
//!
//! `SIM_SEED=n` runs one story again; `SIM_SEEDS=n` runs that many of each kind.

#![allow(missing_docs)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use relay_sim::history::Story;

/// Stories of each kind, by default.
const SEEDS: u64 = 1_000;
/// Things that happen in a story.
const STORM: usize = 14;
const CALM: usize = 4;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Runs the stories; the seed of each that fails is named, and the first failure shown.
fn stories(kind: &str, tell: impl Fn(&mut Story)) {
    if let Some(seed) = number("SIM_SEED") {
        return tell(&mut Story::new(seed));
    }
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let failed: Vec<u64> = (0..seeds)
        .filter(|seed| catch_unwind(AssertUnwindSafe(|| tell(&mut Story::new(*seed)))).is_err())
        .collect();
    assert!(failed.is_empty(), "{kind}: {} of {seeds} stories failed: seeds {failed:?}", failed.len());
}

#[test]
fn whatever_happens_readers_get_the_truth_and_it_works_again_afterwards() {
    stories("storm", |story| story.storm(STORM));
}

#[test]
fn one_change_is_one_update() {
    stories("calm", |story| story.calm(CALM));
}
