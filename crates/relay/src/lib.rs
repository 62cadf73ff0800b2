//! The relay as a library: its own verbs, the log, and the wiring of its parts.

// These macros panic when standard output or error is closed.
#![deny(clippy::print_stderr, clippy::print_stdout)]

pub mod banner;
pub mod cli;
pub mod inspect;
pub mod log;
mod maintenance;
mod serve;
mod web;

pub use serve::run;
