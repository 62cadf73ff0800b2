//! Control-plane state machine: announced routes, subscriptions, and the route that serves each of them.
//!
//! Sans-IO: [`Core::handle`] takes requests of sessions, [`Core::poll_action`] returns the resulting actions,
//! [`Core::next_deadline`] the time of the next [`Core::handle_timeout`]. No socket, clock, lock or payload;
//! positions in a log belong to the store.
//!
//! [`Core`] dispatches events to parts that have their own state:
//! - `session_table`: permits, excluded hops, and the requests that `throttle` delays;
//! - `route_table`: the routes of each path, ordered the same way on every relay (`route`), and the standing of
//!   each (`standing`, decided in `reconcile`); a vanished publisher is expected back for a while;
//! - `log_table`: logs by track (`track_index`) and by session (`log_sessions`), and the time that a log without readers lingers;
//! - `missing`: tracks that publishers recently reported as missing;
//! - `output`: actions for the caller, and counts.
//!
//! Rules across parts, each kept in one place:
//! - a track is requested upstream once, regardless of its number of readers (`subscribe`);
//! - a log's upstream follows the best route of its publisher, not a session, and two logs of one track with the
//!   same writer are merged (`upstream`);
//! - an old group is requested from its publisher once, regardless of how many wait for it (`log_orders`);
//! - a path belongs to the subject that took it while it was free (`reconcile`);
//! - a permit may change while its session lives, and ends all that it no longer allows (`core`).

#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::needless_pass_by_ref_mut,
        clippy::manual_let_else
    )
)]
#![warn(unused_qualifications, unnameable_types)]

mod check;
mod config;
mod core;
mod deadlines;
mod event;
mod inspect;
mod log;
mod log_orders;
mod log_sessions;
mod log_table;
mod missing;
mod output;
mod path_routes;
mod publisher;
mod reconcile;
mod route;
mod route_table;
mod session_table;
mod standing;
mod subscribe;
#[cfg(test)]
mod tests;
mod throttle;
mod track_index;
mod union;
mod upstream;

pub use crate::{
    config::{CoreConfig, Takeover},
    core::Core,
    event::{Action, CoreCounts, CoreEvent, CoreTally},
    inspect::{BroadcastSeen, Listing, ListingQuery, TrackSeen},
};
