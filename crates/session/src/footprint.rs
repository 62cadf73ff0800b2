//! Memory that the relay holds for one session, in bytes, beside payload.
//!
//! Computed from counters that the session keeps as its state changes, never by walking that state. The
//! constants are the growth of a relay's resident memory for each item, measured with the allocator of the
//! binary and rounded up; they cover every crate that keeps a part of the item (session, core, store).

use crate::{session::Session, watch::Watching};

/// A session with nothing on it: its own tables, its entries with the worker, in core and in the gate.
pub(crate) const SESSION: u64 = 6 * 1024;
/// A stream that the peer opened: both halves in the transport, and its role here.
pub(crate) const STREAM: u64 = 1_536;
/// An announced broadcast beside its path and hop chain: entries of the session, of core's route table and of
/// the announce board.
pub(crate) const ANNOUNCE: u64 = 1_280;
/// One hop of a chain.
pub(crate) const HOP: u64 = 8;
/// A subscription, FETCH or TRACK request beside its names: the reader, the log with its indexes in core and in
/// the store, and the request toward the publisher.
pub(crate) const SUBSCRIPTION: u64 = 8 * 1024;
/// A message on its way to core.
const ASK: u64 = 256;
/// A request that waits for stream credit of the peer.
const WAITING: u64 = 64;

/// Memory held for one session, in bytes, by what holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// The connection itself and what its transport buffers, and the session's fixed part.
    pub connection: u64,
    /// Streams that the peer opened, and unparsed control bytes.
    pub streams: u64,
    /// Control messages that the peer has not taken yet.
    pub control: u64,
    /// Broadcasts that the peer announces.
    pub announces: u64,
    /// Subscriptions, track requests and fetches.
    pub subscriptions: u64,
    /// Announce requests of the peer, and what was advertised on them.
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

impl Session {
    /// Memory held for this session, without that of its transport. Constant time but for the announce
    /// requests, which are few.
    pub fn footprint(&self) -> Footprint {
        Footprint {
            connection: SESSION,
            streams: self.streams.bytes(),
            control: self.control.footprint() + u64::from(self.in_flight) * ASK,
            announces: self.heard.bytes(),
            subscriptions: self.egress.footprint(),
            watches: self.watches.iter().map(Watching::footprint).sum::<u64>()
                + self.wanting.len() as u64 * WAITING,
        }
    }
}
