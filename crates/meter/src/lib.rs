//! Plain per-worker counters and histograms. Depends on no other crate of the relay.
//!
//! A worker owns its [`Worker`] and counts with plain additions. A few times a second it
//! [publishes](CounterBoard::publish) a copy, and readers use copies only: no other thread touches the data of the
//! packet path.

mod board;
mod histogram;
mod worker;

pub use board::CounterBoard;
pub use histogram::Histogram;
pub use worker::Worker;
