//! Load generator for relays, which verifies every frame.
//!
//! - Every frame carries its publisher, group, index, send time, length and checksum. A frame that is
//!   missing, doubled, out of order or corrupt at any viewer is lost.
//! - A run is judged by a window: every frame sent within it must reach every viewer, however late.
//! - A viewer that drops, at any time, fails the run.
//! - Every simulated client has its own socket, and all of them share one thread, so that the generator needs exactly
//!   one core. It reports its own share of that core: close to 1, it measured itself.
//! - Latency is measured from publishing a frame to the arrival of its last byte at the viewer's socket, by the
//!   kernel's time stamp: viewers that share a core wait for each other, real ones do not. The time until the viewer
//!   has verified it, that queue included, is reported beside it.

mod arrival;
pub mod bench;
pub mod calibrate;
pub mod frame;
mod join;
pub mod process;
mod publisher;
pub mod report;
pub mod run;
pub mod scenario;
pub mod tally;
mod viewer;
