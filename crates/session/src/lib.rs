//! The session engine: dialects, egress, fan-out, on any transport. Sans-IO.
//!
//! A [`Session`] is one peer: publisher and subscriber at once. It polls events from its
//! [`Transport`](relay_model::transport::Transport), appends the peer's published objects to logs in the store, writes the tracks the
//! peer subscribed to, and sends policy questions to core through [`SessionOutput`]. A [`Fanout`] pulls each log once
//! for all sessions of a worker.
//!
//! A session is composed of parts: what the sides share (`state`), input left unread (`backlog`), the publisher
//! side (`publisher`), the subscriber side (`subscriber`), and the `dialect`, the only part that knows a wire
//! format. The engine and the dialect exchange requests and replies (`request`).
//!
//! Deliberately absent: sockets, clocks, tasks, channels, and any queue of media per subscriber.

mod advertise_policy;
mod backlog;
mod context;
mod control;
mod control_stream;
mod cursor;
mod dialect;
mod egress;
mod encoded_group;
mod encoding_key;
mod fanout;
mod footprint;
mod ingest;
pub mod pair;
mod peer_announces;
mod phase;
mod probe;
mod publisher;
mod request;
mod request_limiter;
mod request_queue;
mod session;
#[cfg(test)]
mod sink;
mod state;
mod streams;
mod sub;
mod subscriber;
mod turn;
#[cfg(test)]
#[path = "tests/turn_fixture.rs"]
mod turn_fixture;
mod upstream;
mod upstream_request;
mod watches;
mod work;

pub use context::{Cx, SessionConfig, SessionOutput};
pub use encoded_group::LocalGroup;
pub use fanout::{Batch, Fanout, LocalReader};
pub use footprint::Footprint;
pub use session::Session;
pub use work::Work;
