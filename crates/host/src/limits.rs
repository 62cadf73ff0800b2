//! Resource limits of the machine: open files and memory.

pub mod memory;
pub mod payload;
mod proc_file;
pub mod rlimit;
