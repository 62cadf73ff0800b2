//! Control-plane state machine: announced routes, subscriptions, and the route that serves each of them.
//!
//! Sans-IO: [`Core::handle`] takes requests of sessions, [`Core::poll_action`] returns the resulting actions,
//! [`Core::next_deadline`] the time of the next [`Core::handle_timeout`]. No socket, clock, lock or payload;
//! positions in a log belong to the store.
//!
//! Rules, each kept in one place:
//! - routes of a path are ordered the same way on every relay (`route`);
//! - a track is requested upstream once, regardless of its number of readers (`subscribe`);
//! - two logs of one track with the same writer are merged (`merge`);
//! - a log's upstream follows the best route of its publisher, not a session (`upstream`);
//! - a vanished publisher is expected back for a while (`ghost`);
//! - a path belongs to the subject that took it while it was free (`route`);
//! - requests for missing tracks are not repeated, and brake the session that sends them (`brake`);
//! - an old group is requested from its publisher once, regardless of how many wait for it (`pull`);
//! - a permit may change while its session lives, and ends all that it no longer allows (`revise`).

mod action_queue;
mod announce;
mod brake;
mod check;
mod core;
mod event;
mod inspect;
mod log;
mod merge;
mod missing;
mod pull;
mod revise;
mod route;
mod session;
mod stale;
mod subscribe;
#[cfg(test)]
mod tests;
mod timers;
mod union;
mod upstream;

pub use crate::{
    core::{Core, CoreConfig, Takeover},
    event::{Action, CoreCounts, CoreEvent, CoreTally},
    inspect::{BroadcastSeen, Listing, ListingQuery, TrackSeen},
};
