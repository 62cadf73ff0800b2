//! Worker threads, one per core: epoll loop, sockets, packet steering, batching.
//!
//! [`Relay`] starts all threads. A worker is an [`engine::Worker`] on its own thread with its own
//! [`socket::WorkerSocket`]; the control thread runs core and executes its actions.
//!
//! Invariants: a connection lives on one worker from first packet to last; no lock is shared with
//! another worker per packet; a panic costs one connection; no member of a socket group is closed
//! while another serves. Absent: tokio, tasks, channels per session.
//!
//! Modules use those below them only, without circles: [`runtime`] the [`engine`], and both the messages and
//! interfaces beneath ([`mailbox`], [`gate`], [`admission`], [`ledger`], [`socket`]). Within the engine, `Worker` uses
//! `SessionHost`, which uses `PeerSet`; files of one `impl` use the type of their parent module.

mod accept;
pub mod admission;
mod conn_info;
pub mod engine;
pub mod gate;
pub mod ledger;
pub mod mailbox;
pub mod outbox;
mod query;
pub mod runtime;
mod session_control;
pub mod slots;
pub mod socket;
mod stream_socket;
pub mod wheel;

pub use accept::{
    AcceptedSocket, Admission, AdmissionCallback, AdmittedSocket, PendingSession, RejectReason,
};
pub use admission::{
    AdmissionEnd, CloseReason, Denial, IDENTITY_CHANGED, PermitFilter, Rejection, Revision, SessionAdmission,
};
pub use conn_info::ConnInfo;
pub use engine::{Fault, TurnStage};
pub use gate::{AdmissionRequest, EndedBy, Gate, GateAnswer, GateReply, Role, SessionEnded, WallClock};
pub use ledger::{Charge, MemoryLedger, StateCounts, StateLimits};
pub use query::{
    QueryReply as InspectReply, SESSIONS_LISTED, SessionList, SessionQuery, SessionSeen, WorkerQuery,
    WorkerTraffic,
};
pub use relay_core::{BroadcastSeen, Listing, ListingQuery, Takeover, TrackSeen};
pub use relay_session::Footprint;
pub use relay_transport::quic::{
    Clients, Congestion, PeerCertificate, QuicTuning, RootsError, Tickets, Version, mtu,
};
pub use runtime::{
    AcceptQueue, CacheLimits, Inspector, Relay, RelayCounts, RelayOptions, RelayStartError, RunError,
    SendOutcome, VirtualWorker, carry_out,
};
pub use session_control::SessionControl;
pub use socket::{BUFFER_BYTES, BindError, Buffers, Steering, probe};
