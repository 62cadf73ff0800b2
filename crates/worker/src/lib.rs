//! Worker threads, one per core: epoll loop, sockets, packet steering, batching.
//!
//! [`Relay`] starts all threads. A worker is an [`engine::Worker`] on its own thread with its own
//! [`socket::AcceptedSocket`]; the control thread runs core and executes its actions.
//!
//! Invariants: a connection lives on one worker from first packet to last; no lock is shared with
//! another worker per packet; a panic costs one connection; no member of a socket group is closed
//! while another serves. Absent: tokio, tasks, channels per session.

mod accept;
mod conn_info;
mod control;
pub mod engine;
pub mod gate;
mod inspect;
pub mod ledger;
pub mod mailbox;
pub mod outbox;
mod pulse;
mod relay;
mod run;
mod seat;
pub mod slots;
pub mod socket;
mod stream_socket;
pub mod wheel;

pub use accept::{
    AcceptQueue, AcceptedSocket, Admission, AdmissionCallback, AdmittedSocket, PendingSession, RejectReason,
};
pub use conn_info::ConnInfo;
pub use control::carry_out;
pub use engine::{Fault, IDENTITY_CHANGED, TurnStage};
pub use gate::{
    AdmissionRequest, Denial, EndedBy, Gate, GateAnswer, GateReply, PermitFilter, Role, SessionControl,
    SessionEnded, WallClock,
};
pub use inspect::{
    Inspector, QueryReply as InspectReply, SESSIONS_LISTED, SessionList, SessionQuery, SessionSeen,
    WorkerQuery, WorkerTraffic,
};
pub use ledger::{Charge, MemoryLedger, StateCounts, StateLimits};
pub use relay::{Relay, RelayCounts, RelayOptions, RelayStartError, RunError};
pub use relay_core::{BroadcastSeen, Listing, ListingQuery, Takeover, TrackSeen};
pub use relay_session::Footprint;
pub use relay_transport::quic::{
    Clients, Congestion, PeerCertificate, QuicTuning, RootsError, Tickets, Version, mtu,
};
pub use seat::{SendOutcome, VirtualWorker};
pub use socket::{BUFFER_BYTES, BindError, Buffers, Steering, probe};
