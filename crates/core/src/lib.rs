//! The control-plane state machine: who announces what, who wants what, which route serves it.
//!
//! Sans-IO: [`Core::handle`] takes what sessions ask, [`Core::poll_action`] says what to do about it,
//! [`Core::next_deadline`] when to call [`Core::handle_timeout`]. No socket, clock, lock or payload;
//! positions in a log are the store's business.
//!
//! Rules, each kept in one place:
//! - routes of a path are ordered the same way on every relay (`route`);
//! - however many readers, a track is asked for once (`subscribe`);
//! - two logs of one track that come to one writer become one (`merge`);
//! - a log's upstream follows the best route of its publisher, not a session (`upstream`);
//! - who vanishes without a word is expected back for a while (`ghost`);
//! - a path belongs to who took it while it was free (`route`);
//! - requests for tracks that are missing are not repeated, and brake the session that makes them (`brake`);
//! - however many wait for an old group, its publisher is asked once (`pull`);
//! - a permit may change while its session lives, and nothing outlives it (`revise`).

mod announce;
mod brake;
mod check;
mod core;
mod event;
mod ghost;
mod inspect;
mod log;
mod merge;
mod missing;
mod outbox;
mod pull;
mod revise;
mod route;
mod session;
mod subscribe;
#[cfg(test)]
mod tests;
mod timers;
mod union;
mod upstream;

pub use crate::{
    core::{Config, Core, Takeover},
    event::{Action, Counts, Event, Tally},
    inspect::{BroadcastSeen, Listing, Look, TrackSeen},
};
