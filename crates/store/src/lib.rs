//! The data plane: logs of groups, the announce board, one byte budget.
//!
//! A [`Log`] holds one track of one incarnation of a broadcast, under one lock, in two indexes: the *journal*
//! (arrival order, bounded, only while it has readers) and the *sequence* (held groups by number, for late
//! joiners). A [`Writer`] stages the data of one turn and makes it visible with one [`Writer::commit`]; a
//! [`Feed`] is one worker's cursor into the journal.
//!
//! No worker is woken while a log is locked: a commit collects workers into [`WakeSet`], [`Store::wake`] wakes
//! them once a turn, and a woken worker takes the list of changed logs from its [`ReadyList`].
//!
//! Lock order: a sweep holds the sweep lock while it takes the log table's, logs' and ready lists' locks, one at a
//! time. No other code holds two locks of this crate.

#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::needless_pass_by_ref_mut,
        clippy::manual_let_else
    )
)]
#![warn(unused_qualifications, unnameable_types)]

mod absent;
mod board;
mod bounds;
mod budget;
mod entry;
mod evict;
mod feed;
mod group;
mod journal;
mod log;
mod ready_list;
mod release;
mod shared;
mod slots;
mod state;
mod stats;
mod store;
mod sync;
mod writer;

pub use board::{
    Advert, AnnounceBoard, BoardWatch, LivePath, PATH_CHANGES_PER_SECOND, VisitStep, Visited, WatchCandidate,
};
pub use budget::Budget;
pub use entry::{
    CompleteGroup, HeldGroup, LogEnd, LogEntry, LogHead, Lookup, ObjectHead, ObjectStatus, Resume,
};
pub use feed::{Feed, GroupPage};
pub use group::FETCHED;
pub use journal::Pulled;
pub use log::Log;
pub use ready_list::{ReadyList, WakeSet};
pub use stats::LogStats;
pub use store::{Store, StoreConfig, StoreCounts};
pub use writer::{CommitError, Writer};

#[cfg(all(test, not(shuttle)))]
mod tests;

#[cfg(test)]
mod wakeups_tests;
