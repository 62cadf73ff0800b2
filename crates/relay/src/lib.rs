//! The relay as a library: verbs, configuration, certificates, access, resource limits, the log, and wiring.

// These macros panic when standard output or error is closed.
#![deny(clippy::print_stderr, clippy::print_stdout)]

pub mod banner;
pub mod certificate;
mod check;
pub mod cli;
mod demo;
pub mod diagnostics;
pub mod doctor;
pub mod inspect;
pub mod limits;
mod listeners;
pub mod log;
mod maintenance;
pub mod notify;
mod serve;
pub mod signals;
pub mod token;
mod web;

pub use check::check;
pub use demo::run as demo;
pub use serve::run;
