//! Several relays, publishers and subscribers in one process, on a virtual clock, from a seed.
//!
//! The relays are real: core, store, sessions and fan-out. A few lines replace the workers' loop and deliver
//! messages between the planes in any order that the real channels allow. The clients are scripted, have
//! their own protocol code, and record what they receive. A [`world::World`] runs them all; a
//! [`history::Story`] chooses the events and checks the invariants. Equal seeds give equal runs.

pub mod content;
pub mod history;
pub mod peer;
pub mod relay;
pub mod world;
