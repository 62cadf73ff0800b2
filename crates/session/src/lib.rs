//! The session engine: dialects, egress, fan-out, on any transport. Sans-IO.
//!
//! A [`Session`] is one peer: publisher and subscriber at once. It polls events from its
//! [`Transport`](relay_model::transport::Transport), appends the peer's published objects to logs in the store, writes the tracks the
//! peer subscribed to, and sends policy questions to core through [`SessionOutput`]. A [`Fanout`] pulls each log once
//! for all sessions of a worker.
//!
//! Deliberately absent: sockets, clocks, tasks, channels, and any queue of media per subscriber.

mod control;
mod control_stream;
mod cursor;
mod dialect;
mod egress;
mod encoded_group;
mod fanout;
mod fetch;
mod footprint;
mod groups;
mod ingest;
mod inspect;
mod intake;
mod negotiation;
pub mod pair;
mod paused_input;
mod peer_announces;
mod probe;
mod pull;
mod request_limiter;
mod request_queue;
mod requests;
mod revise;
mod serve;
mod session;
#[cfg(test)]
mod sink;
mod stream_table;
mod sub;
mod tracks;
mod upstream;
mod upstream_request;
mod watch;
mod work;

pub use dialect::ObjectFraming;
pub use encoded_group::LocalGroup;
pub use fanout::{Batch, Fanout, LocalReader};
pub use footprint::Footprint;
pub use session::{Cx, Session, SessionConfig, SessionGrant, SessionOutput};
pub use work::Work;
