//! Shared vocabulary of the relay: ids, paths, priorities, codes, limits, the messages between the control plane
//! and the data plane, and the interface between a session and its transport. No I/O.

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

pub mod code;
pub mod id;
pub mod limits;
pub mod name;
pub mod path;
pub mod pattern;
pub mod plane;
mod role;
pub mod route;
pub mod scope;
pub mod track;
pub mod transport;

pub use code::{SessionCode, StreamCode};
pub use id::{Epoch, LogId, SessionId, SubId, WorkerId};
pub use path::{Path, PathError};
pub use pattern::{Pattern, PatternError};
pub use plane::{Ask, Order, Want};
pub use role::Role;
pub use route::{Cost, Hop, Hops, Route};
pub use scope::Scope;
pub use track::{Prefs, Start, TrackInfo, TrackName};
