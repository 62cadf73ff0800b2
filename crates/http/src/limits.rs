//! Limits per peer and in all, each with its reason.

use std::time::Duration;

/// Request line and headers, bytes: a token of a few KiB fits, with the headers that a browser adds.
pub const HEADER_BYTES: usize = 16 * 1024;
/// Time for the headers of a request to arrive.
pub const HEADER_TIME: Duration = Duration::from_secs(5);
/// Time for the TLS handshake and the header of a proxy, together.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Number of headers of a request: several proxies in a row add some each, and their bytes are bounded already.
pub const HEADERS: usize = 256;
/// Time without a request after which a connection is closed. Announced as `Keep-Alive: timeout=`.
pub const IDLE_TIME: Duration = Duration::from_secs(30);
/// The same for trusted proxies: load balancers reuse connections for up to 60 s, and answer 502 when one is closed
/// during reuse.
pub const PROXY_IDLE_TIME: Duration = Duration::from_secs(75);
/// Time until an answer begins.
pub const REQUEST_TIME: Duration = Duration::from_secs(30);
/// Time without progress after which a peer that is sent data is disconnected.
pub const STALL_TIME: Duration = Duration::from_secs(30);
/// Request body, bytes, on routes that read one.
pub const BODY_BYTES: usize = 64 * 1024;
/// Concurrent connections; an idle one takes some KiB.
pub const CONNECTIONS: usize = 8_192;
/// Connections of the private listener, out of [`CONNECTIONS`]: an operator with a dashboard and a few scripts.
pub const INTERNAL_CONNECTIONS: usize = 64;
/// Connections from one address (a /64 of IPv6), out of all: many clients behind one router fit. Loopback and trusted
/// proxies are exempt. Half of the total where descriptors allow fewer.
pub const CONNECTIONS_PER_ADDRESS: usize = 512;
/// Concurrent readers of `/fetch` and `/announced`: each holds a position in a log or on the announce board.
pub const READERS: usize = 1_024;
/// Number of readers from which an address (a /64 of IPv6; behind a trusted proxy, the client's) gets no more than
/// [`READERS_PER_ADDRESS`]: below it one address may have many, and no address takes the last quarter.
pub const READERS_CONTENDED: usize = READERS / 4 * 3;
/// Readers of one address from [`READERS_CONTENDED`] on.
pub const READERS_PER_ADDRESS: usize = 64;
/// Bytes of a plain request that are read after the answer that the port serves HTTPS.
pub const PLAIN_BYTES: usize = 64 * 1024;
/// Configured networks of trusted proxies.
pub const PROXIES: usize = 256;
/// Subprotocols of a WebSocket request that are examined: twice as many as today's clients offer.
pub const SUBPROTOCOLS: usize = 128;
/// Interval of comments on an idle stream of events: proxies close silent connections.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Pause of the accept loop when the process is out of descriptors.
pub const NO_FILES_PAUSE: Duration = Duration::from_millis(100);
