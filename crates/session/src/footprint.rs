//! Memory held by the relay for one session besides payload, in bytes.
//!
//! Computed from counters kept as the session's state changes, never by walking that state. The constants are
//! the measured growth of resident memory per item, with the allocator of the binary, rounded up; they include
//! every crate that keeps part of the item (session, core, store).

/// An idle session: its own tables, its entries in the worker, in core and in the gate.
pub(crate) const SESSION: u64 = 6 * 1024;
/// A stream opened by the peer: both halves in the transport, and its role here.
pub(crate) const STREAM: u64 = 1_536;
/// An announced broadcast besides its path and hop chain: entries of the session, of core's route table and of
/// the announce board.
pub(crate) const ANNOUNCE: u64 = 1_280;
/// One hop of a chain.
pub(crate) const HOP: u64 = 8;
/// A subscription, FETCH or TRACK request besides its names: the reader, the log with its indexes in core and
/// in the store, and the request to the publisher.
pub(crate) const SUBSCRIPTION: u64 = 8 * 1024;
/// A message in flight to core.
pub(crate) const ASK: u64 = 256;
/// A request that waits for the peer's stream credit.
pub(crate) const WAITING: u64 = 64;

/// Memory held for one session by class, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// The connection with its transport buffers, and the session's fixed part.
    pub connection: u64,
    /// Streams opened by the peer, and unparsed control bytes.
    pub streams: u64,
    /// Control messages not yet acknowledged by the peer.
    pub control: u64,
    /// Broadcasts announced by the peer.
    pub announces: u64,
    /// Subscriptions, track requests and fetches.
    pub subscriptions: u64,
    /// Announce requests of the peer, and the paths advertised on them.
    pub watches: u64,
}

impl Footprint {
    /// Names of the classes, in the order of [`Self::classes`].
    pub const NAMES: [&str; 6] =
        ["connections", "streams", "control", "announces", "subscriptions", "watches"];

    /// Bytes of each class.
    pub fn classes(&self) -> [u64; 6] {
        let Self { connection, streams, control, announces, subscriptions, watches } = *self;
        [connection, streams, control, announces, subscriptions, watches]
    }

    /// Bytes of all classes together.
    pub fn total(&self) -> u64 {
        self.classes().iter().sum()
    }
}
