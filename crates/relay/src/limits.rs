//! What the machine allows: open files and memory.

pub mod memory;
pub mod payload;
pub mod rlimit;
