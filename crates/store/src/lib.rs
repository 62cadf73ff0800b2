//! The data plane: logs of groups, the announce board, one byte budget.
//!
//! A [`Log`] holds one track of one incarnation of a broadcast, under one lock, in two indexes: the *journal*
//! (arrival order, bounded, only while it has readers) and the *sequence* (held groups by number, for late
//! joiners). A [`Writer`] stages the data of one turn and makes it visible with one [`Writer::commit`]; a
//! [`Feed`] is one worker's cursor into the journal.
//!
//! No worker is woken while a log is locked: a commit collects workers into [`Rings`], [`Store::ring`] wakes
//! them once a turn, and a woken worker takes the list of changed logs from its [`Bell`].
//!
//! Lock order: a sweep holds the sweep lock while it takes the log table's, logs' and bells' locks, one at a
//! time. No other code holds two locks of this crate.

mod absent;
mod bell;
mod board;
mod bounds;
mod budget;
mod entry;
mod evict;
mod feed;
mod figures;
mod group;
mod journal;
mod log;
mod release;
mod shared;
mod state;
mod store;
mod sync;
mod writer;

pub use bell::{Bell, Rings};
pub use board::{Advert, Board, Candidate, Change, PATH_CHANGES_PER_SECOND, Step, Visited, Watch};
pub use budget::Budget;
pub use entry::{CompleteGroup, End, Entry, Head, HeldGroup, Lookup, ObjectHead, Resume, Status};
pub use feed::{Feed, Pulled};
pub use figures::Figures;
pub use group::FETCHED;
pub use log::Log;
pub use store::{Config, Counts, Store};
pub use writer::{WriteError, Writer};

#[cfg(all(test, not(shuttle)))]
mod tests;

#[cfg(test)]
mod wakeups;
