//! The relay as a library: configuration, certificates, what the machine allows, the log, and wire-up.

// They panic when nobody takes what they print.
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod access;
pub mod banner;
pub mod certificate;
mod check;
mod chores;
pub mod cli;
pub mod config;
mod demo;
pub mod doctor;
pub mod inspect;
pub mod limits;
mod listeners;
pub mod log;
pub mod notify;
mod serve;
pub mod signals;
pub mod token;
pub mod trouble;
mod web;

pub use check::check;
pub use demo::run as demo;
pub use serve::run;
