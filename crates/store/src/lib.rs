//! The data plane: logs of groups, the announce board, one byte budget.
//!
//! A [`Log`] holds one track of one incarnation of a broadcast, under one lock, in two indexes:
//! the *journal* (arrival order, bounded, only while somebody follows) and the *sequence* (held
//! groups by number, for late joiners). A [`Writer`] stages what one turn brings and makes it
//! visible with one [`Writer::commit`]; a [`Feed`] is one worker's cursor into the journal.
//!
//! Nothing here wakes anybody while a log is locked: a commit collects workers into [`Rings`],
//! [`Store::ring`] rings them once a turn, and a woken worker asks its [`Bell`] which logs have
//! news.
//!
//! Lock order: the sweep lock, then the log table, then nothing else; a log's lock and a bell's
//! are never held together with any other lock.

mod bell;
mod board;
mod bounds;
mod budget;
mod entry;
mod evict;
mod feed;
mod group;
mod journal;
mod log;
mod shared;
mod state;
mod store;
mod sync;
mod writer;

pub use bell::{Bell, Rings};
pub use board::{Board, Change, Watch};
pub use budget::Budget;
pub use entry::{End, Entry, Head, ObjectHead, Status};
pub use feed::{Feed, Pulled};
pub use log::Log;
pub use store::{Config, Counts, Store};
pub use writer::{WriteError, Writer};

#[cfg(test)]
mod tests;
