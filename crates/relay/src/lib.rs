//! The relay as a library: configuration, certificates, what the machine allows, and wire-up.

pub mod banner;
pub mod certificate;
mod check;
pub mod cli;
pub mod config;
pub mod limits;
mod serve;
pub mod signals;

pub use check::check;
pub use serve::run;
