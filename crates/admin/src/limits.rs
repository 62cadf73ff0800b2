//! What one peer may take, each with its reason.

use std::time::Duration;

/// A request line and its headers: a token of a few KiB fits, and whatever a browser adds.
pub const HEADER_BYTES: usize = 16 * 1024;
/// How long the headers of a request may take to come.
pub const HEADER_TIME: Duration = Duration::from_secs(5);
/// How long the handshake of TLS and the header of a proxy may take, together.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// How long a connection is kept that asks nothing.
pub const IDLE_TIME: Duration = Duration::from_secs(30);
/// How long an answer may take to begin.
pub const REQUEST_TIME: Duration = Duration::from_secs(30);
/// How long somebody who is sent something may take none of it.
pub const STALL_TIME: Duration = Duration::from_secs(30);
/// What a request may bring along, where anything is read of it.
pub const BODY_BYTES: usize = 64 * 1024;
/// Connections at once: some KiB each while they ask nothing.
pub const CONNECTIONS: usize = 8_192;
/// Of them, those of the private listener: an operator with a dashboard and a few scripts.
pub const INTERNAL_CONNECTIONS: usize = 64;
/// Of all of them, from one address (a /64 of IPv6): a crowd behind one router fits. Loopback and trusted proxies are
/// exempt. Half of all there are where descriptors allow fewer.
pub const CONNECTIONS_PER_ADDRESS: usize = 512;
/// Readers of `/fetch` and `/announced` at once: each holds a place in a log or on the announce board.
pub const READERS: usize = 1_024;
/// Networks of trusted proxies.
pub const PROXIES: usize = 256;
/// Protocols that a WebSocket offers, of which the first so many are looked at: what clients send today fits
/// twice.
pub const SUBPROTOCOLS: usize = 128;
/// How often a stream of events that has nothing to say says so: proxies give up on who is silent.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long a stopped accept loop waits when the process has no more files.
pub const NO_FILES_PAUSE: Duration = Duration::from_millis(100);
