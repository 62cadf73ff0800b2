//! Load on a relay, honest by construction.
//!
//! - Every frame carries its publisher, group, index, send time, length and checksum. A frame that is
//!   missing, doubled, out of order or corrupt at any viewer is lost.
//! - What counts is a window: every frame sent within it must reach every viewer, however late.
//! - A viewer that drops, at any time, fails the run.
//! - Every simulated client has its own socket, and all of them share one thread, so that the generator
//!   needs one core and no more. It reports its own share of that core: close to 1, it measured itself.
//! - Latency is from the moment a publisher hands a frame over to the moment its last byte arrives at
//!   the viewer's socket, by the kernel's time stamp: viewers that share a core wait for each other, real
//!   ones do not. How long until the viewer has checked it, that queue included, is reported beside it.

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
