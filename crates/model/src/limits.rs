//! Every bound on what a peer can make us hold or do, with its reason (`design` section 9).

use std::time::Duration;

/// Longest control message body, bytes: hop chains and paths fit many times over.
pub const CONTROL_MESSAGE_BYTES: usize = 64 * 1024;
/// Longest path, bytes.
pub const PATH_BYTES: usize = 1_024;
/// Most segments of a path; what the protocol allows.
pub const PATH_SEGMENTS: usize = 32;
/// Longest track name, bytes.
pub const TRACK_NAME_BYTES: usize = 256;
/// Most parameters in one message.
pub const PARAMETERS: usize = 64;
/// Longest hop chain; a longer one is a loop.
pub const HOPS: usize = 32;
/// Handshake plus setup must be done by then.
pub const SETUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Who decides about a session must have answered by then.
pub const AUTH_TIMEOUT: Duration = Duration::from_secs(5);
/// The header of a stream must arrive this soon after it opens.
pub const STREAM_HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bidirectional streams a peer may open at first; grown when half used.
pub const BIDI_STREAMS: u64 = 64;
/// Unidirectional streams a peer may open at first; grown when half used.
pub const UNI_STREAMS: u64 = 16;
/// Where growth of bidirectional streams stops.
pub const BIDI_STREAMS_MAX: u64 = 2_048;
/// Where growth of unidirectional streams stops.
pub const UNI_STREAMS_MAX: u64 = 1_024;
/// Receive window of a connection, bytes.
pub const CONNECTION_WINDOW: u64 = 16 * 1024 * 1024;
/// Receive window of a stream, bytes.
pub const STREAM_WINDOW: u64 = 2 * 1024 * 1024;
/// Received datagrams held for one connection, bytes; the oldest go first.
pub const DATAGRAM_BUFFER: usize = 256 * 1024;
/// Outgoing datagrams held for one connection, bytes; the oldest go first.
pub const DATAGRAM_QUEUE: usize = 64 * 1024;
/// Largest datagram payload of moq-lite, bytes.
pub const DATAGRAM_PAYLOAD: usize = 1_200;
/// Handshakes not yet validated before Retry is asked.
pub const UNVALIDATED_HANDSHAKES: usize = 256;
/// Handshakes of unproved addresses that a worker begins at once before Retry is asked, whether or not they fail.
pub const HANDSHAKE_BURST: u32 = 256;
/// The same a second, once [`HANDSHAKE_BURST`] is spent: what a few percent of a core do. Beyond it a client is let in
/// one round trip later.
pub const HANDSHAKE_RATE: u32 = 200;
/// Default of [`SessionLimits::announces`].
pub const ANNOUNCES: usize = 1_000;
/// Default of [`SessionLimits::subscriptions`].
pub const SUBSCRIPTIONS: usize = 1_000;
/// Default of [`SessionLimits::fetches`]: a player seeks in a handful of tracks.
pub const FETCHES: usize = 64;
/// Default of [`SessionLimits::requests`].
pub const REQUEST_RATE: u32 = 200;
/// Seconds of [`SessionLimits::requests`] that may come at once. With the defaults 2,400 requests: a TRACK
/// and a SUBSCRIBE for each of [`SUBSCRIPTIONS`] tracks at join, and some to spare.
pub const REQUEST_BURST_SECS: u32 = 12;
/// Control requests at once with the default rate.
pub const REQUEST_BURST: u32 = REQUEST_RATE * REQUEST_BURST_SECS;
/// How long a session may ask faster than [`REQUEST_RATE`] without a pause before it is closed.
pub const REQUEST_FLOOD: Duration = Duration::from_secs(10);
/// Requests toward one peer that wait for its stream credit; one more is refused to who asked.
pub const WAITING_REQUESTS: usize = 1_024;
/// TRACK requests toward one publisher that it has not answered; the next one waits for its turn. The
/// publisher takes its requests in the order of their streams, so this is what one session can put ahead
/// of another's request.
pub const UNANSWERED_REQUESTS: usize = 256;
/// How long it is remembered that a publisher has no such track.
pub const MISSING_TIME: Duration = Duration::from_secs(1);
/// Missing tracks remembered at a time, over all publishers; the oldest are forgotten.
pub const MISSING_TRACKS: usize = 4_096;
/// Requests of one session for missing tracks, lately, from which on its requests are braked, if they are
/// more than half of what it asked publishers for: no client asks for as many that are not there.
pub const BRAKE_MISSES: u32 = 32;
/// Interval in which half of what a session asked for and missed is forgotten.
pub const BRAKE_HALF_LIFE: Duration = Duration::from_secs(5);
/// Interval between two requests to publishers for a braked session.
pub const BRAKE_INTERVAL: Duration = Duration::from_millis(50);
/// Requests of one braked session that wait: [`WAITING_TIMEOUT`] at one in [`BRAKE_INTERVAL`]; one more is
/// refused.
pub const BRAKE_WAITING: usize = 200;
/// How long a request may wait for the peer's stream credit.
pub const WAITING_TIMEOUT: Duration = Duration::from_secs(10);
/// Live announce requests of one session: a client watches a handful of prefixes.
pub const ANNOUNCE_REQUESTS: usize = 64;
/// Messages of one session on their way to core; past it its control streams are not read.
pub const ASKS_IN_FLIGHT: u32 = 64;
/// Control bytes the peer's credit refuses, held for [`CONTROL_STALL`].
pub const CONTROL_QUEUE: usize = 64 * 1024;
/// How long control bytes may wait for the peer's credit.
pub const CONTROL_STALL: Duration = Duration::from_secs(10);
/// Open group cursors of one reader.
pub const READER_GROUPS: usize = 32;
/// Unsent bytes of older open groups of one reader; the oldest is reset past it.
pub const READER_LAG_BYTES: usize = 4 * 1024 * 1024;
/// Largest frame, bytes: past it the stream is refused.
pub const FRAME_BYTES: u64 = 16 * 1024 * 1024;
/// Largest group held, bytes: past it the group loses its head.
pub const GROUP_BYTES: u64 = 32 * 1024 * 1024;
/// Groups of one upstream subscription being received at once.
pub const UPSTREAM_GROUPS: usize = 1_024;
/// How long a vanished publisher keeps its path, and an unread log its upstream subscription.
pub const LINGER: Duration = Duration::from_secs(5);
/// How long the routes shown to others stay as they were when a publisher vanishes: a failover or a
/// quick return is then one update or none.
pub const HOLD_BACK: Duration = Duration::from_millis(300);
/// A track asked for longer ago than this was answered by whoever was announced when it was asked for.
pub const DOUBT: Duration = Duration::from_secs(2);
/// How long two logs of one track may come to one writer before their readers share one: by then the one
/// that came last has caught up, and nobody misses anything.
pub const MERGE: Duration = Duration::from_secs(2);
/// How long clients have to move when the relay is told to stop.
pub const DRAIN: Duration = Duration::from_secs(10);
/// Longest URI of a GOAWAY, bytes; what the protocol allows.
pub const GOAWAY_URI_BYTES: usize = 8_192;
/// Interval between two log lines of one kind about one session.
pub const SESSION_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Most workers: the steering byte of a connection id.
pub const WORKERS: usize = 256;

/// Limits of one session that the configuration sets (`[limits]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Announces routed at a time. As many again are remembered, to be routed when an earlier one ends.
    pub announces: usize,
    /// Subscriptions, TRACK requests and FETCH requests open at a time.
    pub subscriptions: usize,
    /// FETCH requests open at a time.
    pub fetches: usize,
    /// Control requests a second, after a burst of [`Self::burst`].
    pub requests: u32,
}

impl SessionLimits {
    /// No limits: a relay of the same cluster acts for all of its own sessions.
    pub const NONE: Self =
        Self { announces: usize::MAX, subscriptions: usize::MAX, fetches: usize::MAX, requests: u32::MAX };

    /// Control requests that may come at once.
    pub fn burst(&self) -> u32 {
        self.requests.saturating_mul(REQUEST_BURST_SECS)
    }
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self { announces: ANNOUNCES, subscriptions: SUBSCRIPTIONS, fetches: FETCHES, requests: REQUEST_RATE }
    }
}
