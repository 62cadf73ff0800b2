//! The relay as a library: configuration, certificates, what the machine allows, the log, and wire-up.

mod access;
pub mod banner;
pub mod certificate;
mod check;
mod chores;
pub mod cli;
pub mod config;
mod demo;
pub mod doctor;
pub mod limits;
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
