//! The relay as a library: configuration, certificates, what the machine allows, and wire-up.

pub mod banner;
pub mod certificate;
pub mod cli;
pub mod config;
mod demo;
pub mod limits;
mod serve;
pub mod signals;

pub use demo::run as demo;
pub use serve::run;
