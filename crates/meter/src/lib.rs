//! Plain per-worker counters and histograms. Uses nothing, used by all.
//!
//! A worker owns its [`Worker`] and counts with plain additions. A few times a second it
//! [publishes](Board::publish) a copy, and readers look at copies only: nobody but the worker
//! touches what the packet path touches.

mod board;
mod histogram;
mod worker;

pub use board::Board;
pub use histogram::Histogram;
pub use worker::Worker;
