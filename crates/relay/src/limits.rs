//! Resource limits of the machine: open files and memory.

mod kept;
pub mod memory;
pub mod payload;
pub mod rlimit;
