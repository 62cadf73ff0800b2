//! Several relays, publishers and subscribers in one process, on a virtual clock, from a seed.
//!
//! The relays are real: core, store, sessions and fan-out, with the workers' loop around them played by
//! a few lines that deliver messages between the planes in any order the real channels allow. The
//! clients are scripted, speak the wire themselves and write down what they hear. A [`world::World`]
//! moves them all; a [`history::Story`] decides what happens to them and says what must hold. The same
//! seed gives the same run.

pub mod content;
pub mod history;
pub mod peer;
pub mod relay;
pub mod world;
