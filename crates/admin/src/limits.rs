//! What one peer may take, each with its reason.

use std::time::Duration;

/// A request line and its headers: a token of a few KiB fits, and whatever a browser adds.
pub const HEADER_BYTES: usize = 16 * 1024;
/// How long the headers of a request may take to come.
pub const HEADER_TIME: Duration = Duration::from_secs(5);
/// How long the handshake of TLS and the header of a proxy may take, together.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Headers of a request: several proxies in a row add some each, and their bytes are bounded already.
pub const HEADERS: usize = 256;
/// How long a connection is kept between requests. Announced as `Keep-Alive: timeout=`.
pub const IDLE_TIME: Duration = Duration::from_secs(30);
/// The same for trusted proxies: balancers reuse connections for up to 60 s, and answer 502 when one is closed
/// under them.
pub const PROXY_IDLE_TIME: Duration = Duration::from_secs(75);
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
/// From so many readers on, an address (a /64 of IPv6; behind a trusted proxy, the client's) gets no more than
/// [`READERS_PER_ADDRESS`]: while there is room a crowd behind one address is welcome, and no address takes the
/// last quarter.
pub const READERS_CONTENDED: usize = READERS / 4 * 3;
/// Readers of one address when places run short.
pub const READERS_PER_ADDRESS: usize = 64;
/// Bytes of a plain request that are read before it is told that a port speaks HTTPS.
pub const PLAIN_BYTES: usize = 64 * 1024;
/// Networks of trusted proxies.
pub const PROXIES: usize = 256;
/// Protocols that a WebSocket offers, of which the first so many are looked at: what clients send today fits
/// twice.
pub const SUBPROTOCOLS: usize = 128;
/// How often a stream of events that has nothing to say says so: proxies give up on who is silent.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long a stopped accept loop waits when the process has no more files.
pub const NO_FILES_PAUSE: Duration = Duration::from_millis(100);
