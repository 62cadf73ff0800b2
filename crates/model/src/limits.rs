//! Bounds on the state and work a peer can cause, each with its reason (`design` section 9).

use std::time::Duration;

/// Longest control message body, bytes; ample for the longest hop chain and path.
pub const CONTROL_MESSAGE_BYTES: usize = 64 * 1024;
/// Longest path, bytes.
pub const PATH_BYTES: usize = 1_024;
/// Most segments of a path; the protocol's own limit.
pub const PATH_SEGMENTS: usize = 32;
/// Longest track name, bytes.
pub const TRACK_NAME_BYTES: usize = 256;
/// Most parameters in one message.
pub const PARAMETERS: usize = 64;
/// Longest hop chain; a longer one is a loop.
pub const HOPS: usize = 32;
/// Time limit for handshake and setup together.
pub const SETUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for the authorisation decision of a session.
pub const AUTH_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit from the opening of a stream to the end of its header.
pub const STREAM_HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Initial limit on bidirectional streams opened by a peer; grown when half used.
pub const BIDI_STREAMS: u64 = 64;
/// Initial limit on unidirectional streams opened by a peer; grown when half used.
pub const UNI_STREAMS: u64 = 16;
/// Upper bound of the grown bidirectional stream limit.
pub const BIDI_STREAMS_MAX: u64 = 2_048;
/// Upper bound of the grown unidirectional stream limit.
pub const UNI_STREAMS_MAX: u64 = 1_024;
/// Receive window of a connection, bytes.
pub const CONNECTION_WINDOW: u64 = 16 * 1024 * 1024;
/// Receive window of a stream, bytes.
pub const STREAM_WINDOW: u64 = 2 * 1024 * 1024;
/// Received datagrams buffered for one connection, bytes; the oldest are dropped first.
pub const DATAGRAM_BUFFER: usize = 256 * 1024;
/// Outgoing datagrams queued for one connection, bytes; the oldest are dropped first.
pub const DATAGRAM_QUEUE: usize = 64 * 1024;
/// Largest datagram payload of moq-lite, bytes.
pub const DATAGRAM_PAYLOAD: usize = 1_200;
/// Handshakes from unvalidated addresses in progress before a Retry is required.
pub const UNVALIDATED_HANDSHAKES: usize = 256;
/// Burst of handshakes from unvalidated addresses that a worker starts without a Retry, whether or not they
/// fail.
pub const HANDSHAKE_BURST: u32 = 256;
/// Handshakes from unvalidated addresses per second without a Retry once [`HANDSHAKE_BURST`] is spent: a few
/// percent of one core. Beyond it a client needs one more round trip.
pub const HANDSHAKE_RATE: u32 = 200;
/// Default of [`SessionLimits::announces`].
pub const ANNOUNCES: usize = 1_000;
/// Default of [`SessionLimits::subscriptions`].
pub const SUBSCRIPTIONS: usize = 1_000;
/// Default of [`SessionLimits::fetches`]: a player seeks in a handful of tracks.
pub const FETCHES: usize = 64;
/// Default of [`SessionLimits::requests`].
pub const REQUEST_RATE: u32 = 200;
/// Burst size in seconds of [`SessionLimits::requests`]. With the defaults 2,400 requests: a TRACK and a
/// SUBSCRIBE for each of [`SUBSCRIPTIONS`] tracks at join, with a margin.
pub const REQUEST_BURST_SECS: u32 = 12;
/// Control requests in one burst at the default rate.
pub const REQUEST_BURST: u32 = REQUEST_RATE * REQUEST_BURST_SECS;
/// Longest time a session may exceed [`REQUEST_RATE`] without a pause before it is closed.
pub const REQUEST_FLOOD: Duration = Duration::from_secs(10);
/// Requests to one peer that wait for its stream credit; one more is refused to its requester. Room for two sessions
/// with a TRACK and a SUBSCRIBE for each of [`SUBSCRIPTIONS`] tracks.
pub const WAITING_REQUESTS: usize = 4 * SUBSCRIPTIONS;
/// TRACK requests to one publisher that it has not answered; the next one waits for its turn. A publisher takes
/// requests in stream order, so this bounds how many requests of one session delay another's.
pub const UNANSWERED_REQUESTS: usize = 256;
/// Lifetime of a cached "no such track" answer of a publisher.
pub const MISSING_TIME: Duration = Duration::from_secs(1);
/// Cached "no such track" answers over all publishers; the oldest are evicted first.
pub const MISSING_TRACKS: usize = 4_096;
/// Recent requests of one session for missing tracks above which its requests are throttled, if they are more
/// than half of its requests to publishers. No regular client misses as many.
pub const BRAKE_MISSES: u32 = 32;
/// Half-life of a session's counts of requested and missed tracks.
pub const BRAKE_HALF_LIFE: Duration = Duration::from_secs(5);
/// Interval between two requests to publishers on behalf of a throttled session.
pub const BRAKE_INTERVAL: Duration = Duration::from_millis(50);
/// Waiting requests of one throttled session: [`WAITING_TIMEOUT`] divided by [`BRAKE_INTERVAL`]; one more is
/// refused.
pub const BRAKE_WAITING: usize = 200;
/// Longest time a request waits for the peer's stream credit.
pub const WAITING_TIMEOUT: Duration = Duration::from_secs(10);
/// Open announce requests of one session; a client watches a handful of prefixes.
pub const ANNOUNCE_REQUESTS: usize = 64;
/// Messages of one session in flight to core; above it the session's control streams are not read.
pub const ASKS_IN_FLIGHT: u32 = 64;
/// Control bytes queued for lack of the peer's credit, at most for [`CONTROL_STALL`].
pub const CONTROL_QUEUE: usize = 64 * 1024;
/// Longest time control bytes wait for the peer's credit.
pub const CONTROL_STALL: Duration = Duration::from_secs(10);
/// Open group cursors of one reader.
pub const READER_GROUPS: usize = 32;
/// Unsent bytes of older open groups of one reader; above it the oldest group is reset.
pub const READER_LAG_BYTES: usize = 4 * 1024 * 1024;
/// Largest frame, bytes; above it the stream is refused.
pub const FRAME_BYTES: u64 = 16 * 1024 * 1024;
/// Largest cached group, bytes; above it the group loses its head.
pub const GROUP_BYTES: u64 = 32 * 1024 * 1024;
/// Groups of one upstream subscription in reception at a time.
pub const UPSTREAM_GROUPS: usize = 1_024;
/// Time a path outlives its lost publisher, and an upstream subscription its last reader.
pub const LINGER: Duration = Duration::from_secs(5);
/// Time the advertised routes stay unchanged after a publisher is lost, so that a failover or a quick return
/// causes one update or none.
pub const HOLD_DOWN: Duration = Duration::from_millis(300);
/// Window in which a track request is ambiguous when the publisher of its path changes: an older request was
/// answered by the publisher that was announced when it was made.
pub const OWNER_CHANGE_WINDOW: Duration = Duration::from_secs(2);
/// Time two logs of one track stay with one writer before their readers share one log: by then the newer log
/// has caught up, and no reader loses data.
pub const MERGE: Duration = Duration::from_secs(2);
/// Time clients have to move once the relay is stopping.
pub const DRAIN: Duration = Duration::from_secs(10);
/// Longest URI of a GOAWAY, bytes; the protocol's own limit.
pub const GOAWAY_URI_BYTES: usize = 8_192;
/// Interval between two log lines of one kind about one session.
pub const SESSION_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Most workers; bounded by the steering byte of a connection id.
pub const WORKERS: usize = 256;

/// Limits of one session that the configuration sets (`[limits]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Announces routed at a time. The same number again is kept unrouted, to be routed when an earlier one
    /// ends.
    pub announces: usize,
    /// Subscriptions, TRACK requests and FETCH requests open at a time.
    pub subscriptions: usize,
    /// FETCH requests open at a time.
    pub fetches: usize,
    /// Control requests per second, after a burst of [`Self::burst`].
    pub requests: u32,
}

impl SessionLimits {
    /// No limits, for a relay of the same cluster, which already limits each of its own sessions.
    pub const NONE: Self =
        Self { announces: usize::MAX, subscriptions: usize::MAX, fetches: usize::MAX, requests: u32::MAX };

    /// Control requests in one burst.
    pub fn burst(&self) -> u32 {
        self.requests.saturating_mul(REQUEST_BURST_SECS)
    }
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { announces: ANNOUNCES, subscriptions: SUBSCRIPTIONS, fetches: FETCHES, requests: REQUEST_RATE }
    }
}
