//! Threads of a relay: supervisor, reactors of the workers, control thread, and the handles that other threads hold.
//!
//! Uses the engine, which knows nothing of it.

mod accept_queue;
mod control;
mod counts;
mod inspector;
mod liveness;
mod options;
mod planes;
mod reactor;
mod supervisor;
mod virtual_worker;

pub use accept_queue::AcceptQueue;
pub use control::carry_out;
pub use counts::RelayCounts;
pub use inspector::Inspector;
pub use options::{CacheLimits, RelayOptions};
pub use supervisor::{Relay, RelayStartError, RunError};
pub use virtual_worker::{SendOutcome, VirtualWorker};
