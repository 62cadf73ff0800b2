//! The process on its machine: limits of files and memory, signals, the service manager, errors of starting with
//! their remedies, and the checks of `doctor`.

// These macros panic when standard output or error is closed.
#![deny(clippy::print_stderr, clippy::print_stdout)]

pub mod diagnostics;
pub mod doctor;
pub mod limits;
pub mod machine;
pub mod notify;
pub mod signals;
