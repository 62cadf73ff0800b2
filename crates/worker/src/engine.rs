//! Engine of a worker: everything between its socket and its sessions, one turn at a time.
//!
//! [`Worker::turn`] takes the time and an [`Io`](crate::socket::Io), so a test drives it without epoll. The steps of a
//! turn: receive and feed; process peers that were fed or are due; messages of other threads; changes of logs, once a
//! log for all its readers here; flush every connection that has something to send; send events to core and
//! wake other workers. Each step has a [`share`] of the turn that the others cannot use up; the rest
//! of a step comes next turn, in the order in which it came. A session has a budget of work for each call
//! ([`Work`](relay_session::Work)): a session that has used it up waits behind all that have not.
//!
//! Three layers, each of which uses only those below: [`Worker`] takes turns, `SessionHost` creates, admits and ends
//! sessions, `PeerSet` holds connections with their queues and timers. Each connection's share runs guarded: a
//! panic costs that connection only.

mod carrier;
mod change_queue;
mod charge_queue;
mod core_queue;
mod drain;
mod expiry;
mod flush_queue;
mod guard;
mod hop_stamps;
mod host;
mod marks;
mod peer;
mod peer_timers;
mod peers;
mod quic_endpoint;
mod ready_queue;
mod session_list;
mod share;
mod shared;
mod stream;
#[cfg(test)]
mod tests;
mod trace;
mod turn_clock;
mod udp_port;
mod worker;

pub use shared::{Fault, TurnStage, WorkerShared};
pub use trace::SESSIONS;
pub use worker::{NextTurn, Worker};
