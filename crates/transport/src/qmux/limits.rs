//! Every bound of a connection over a stream socket, with its reason.

use std::time::Duration;

/// Silence after which a peer is given up: what all known peers ask for.
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// Between two pings of the WebSocket: what all known peers do; keeps proxies from giving up.
pub(super) const WEBSOCKET_PING: Duration = Duration::from_secs(5);
/// Between two pings of qmux-01: what the Rust peers do; the round trip time is never older.
pub(super) const PING: Duration = Duration::from_secs(1);
/// How long a farewell may travel before the socket goes.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);
/// Largest record taken, and what a peer that says nothing takes: the protocol's default, which known
/// peers never pass.
pub(super) const RECORD_BYTES: u64 = 16_382;
/// Largest WebSocket message where each is one frame. Browsers cut at 16 KiB; only its stream data, which
/// is never gathered, may be large.
pub(super) const MESSAGE_BYTES: u64 = 1024 * 1024;
/// Largest frame that is no stream data (transport parameters, a reason): as much as a record holds.
pub(super) const FRAME_BYTES: usize = RECORD_BYTES as usize;
/// Most stream data in one frame sent: released peers refuse a frame above 16,384 bytes, head included,
/// whatever they advertise.
pub(super) const PAYLOAD_BYTES: usize = 16_384 - HEAD_BYTES;
/// Room left for the head of a frame of stream data: a type, three integers, and some to spare.
pub(super) const HEAD_BYTES: usize = 32;
/// Payload handles up to this are copied together: a chunk of its own costs the kernel more.
pub(super) const JOIN_BYTES: usize = 1_200;
/// Media handed over but not sent: little enough that a decision is on the wire soon.
pub(super) const UNSENT_MEDIA: u64 = 64 * 1024;
/// Control handed over but not sent: the longest list of broadcasts a session may have.
pub(super) const UNSENT_CONTROL: u64 = 1024 * 1024;
/// Resets, stops and credits that wait to be sent; past it nothing is read: a peer that only asks.
pub(super) const ANSWERS: usize = 1_024;
/// Pings of the peer whose answer waits to be sent; the oldest are forgotten.
pub(super) const PONGS: usize = 8;
/// Pings of ours whose answer is awaited.
pub(super) const PINGS: usize = 32;
/// Unread stream data without credit, all streams together: past it the carrier is not read.
pub(super) const LEGACY_UNREAD: u64 = relay_model::limits::STREAM_WINDOW;
/// Streams of each direction that we open at a time where the peer gives no credit: what others grant.
pub(super) const LEGACY_STREAMS: u64 = 1_024;
/// Stream data received is held in pieces of at least about half of this, however small it comes.
pub(super) const PIECE_BYTES: usize = 16 * 1024;
/// Credit is announced once it grew by this part of the window: fewer frames, never a stall.
pub(super) const CREDIT_SHARE: u64 = 8;
/// Names in a peer's list of protocols: three times what any known peer speaks.
pub(super) const PROTOCOLS: usize = 64;
/// Longest reason of a close that is sent, bytes: it goes to a log.
pub(super) const REASON_BYTES: usize = 1_024;
