//! Worker threads, one per core: epoll loop, sockets, packet steering, batching.
//!
//! [`Relay`] starts all threads. A worker is an [`engine::Worker`] on its own thread with its own
//! [`socket::Socket`]; the control thread runs core and executes its actions.
//!
//! Invariants: a connection lives on one worker from first packet to last; no lock is shared with
//! another worker per packet; a panic costs one connection; no member of a socket group is closed
//! while another serves. Absent: tokio, tasks, channels per session.

mod arrival;
mod control;
pub mod engine;
pub mod gate;
mod inspect;
pub mod ledger;
mod line;
pub mod mailbox;
pub mod outbox;
mod pulse;
mod relay;
mod run;
mod seat;
pub mod slots;
pub mod socket;
pub mod wheel;

pub use arrival::{Arrivals, Link, Newcomer, Place, Socket, Turned, Verdict};
pub use control::carry_out;
pub use engine::{Fault, IDENTITY_CHANGED, Stage};
pub use gate::{Answer, Denial, Ended, EndedBy, Gate, Reply, Request, Role, Sessions, WallClock, Which};
pub use inspect::{
    Asked, Inspector, Reply as InspectReply, SESSIONS_LISTED, SessionList, SessionSeen, Traffic, Wanted,
};
pub use ledger::{Charge, Ledger, StateCounts, StateLimits};
pub use relay::{Counts, Options, Relay, RunError, StartError};
pub use relay_core::{BroadcastSeen, Listing, Look, Takeover, TrackSeen};
pub use relay_session::Footprint;
pub use relay_transport::quic::{
    Clients, Congestion, PeerCertificate, RootsError, Tickets, Tuning, Version, mtu,
};
pub use seat::{Asker, Seat, Told};
pub use socket::{BUFFER_BYTES, BindError, Buffers, Steering, probe};
