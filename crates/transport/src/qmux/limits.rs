//! Limits of a qmux connection, with their reasons.

use std::time::Duration;

/// Idle timeout: the value of all known peers.
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// Interval of WebSocket pings: the value of all known peers; keeps proxies from closing the connection.
pub(super) const WEBSOCKET_PING: Duration = Duration::from_secs(5);
/// Interval of qmux-01 pings: the value of the Rust peers; also the maximum age of the round-trip time.
pub(super) const PING: Duration = Duration::from_secs(1);
/// Time for a close to reach the peer before the socket is dropped.
pub(super) const FAREWELL: Duration = Duration::from_secs(1);
/// Largest accepted record, and the default limit of a peer (draft-ietf-quic-qmux-01 §5.2). Known peers never
/// exceed it.
pub(super) const RECORD_BYTES: u64 = 16_382;
/// Largest WebSocket message in framings with one frame per message. Browsers send at most 16 KiB; only
/// stream data, which is not reassembled, may be large.
pub(super) const MESSAGE_BYTES: u64 = 1024 * 1024;
/// Largest frame without stream data (transport parameters, close reason): the size of a record.
pub(super) const FRAME_BYTES: usize = RECORD_BYTES as usize;
/// Most stream data in one sent frame: released peers reject a frame above 16,384 bytes, head included,
/// regardless of the limit they advertise.
pub(super) const PAYLOAD_BYTES: usize = 16_384 - HEAD_BYTES;
/// Bytes reserved for the head of a STREAM frame: a type and three integers, rounded up.
pub(super) const HEAD_BYTES: usize = 32;
/// Largest payload piece that is copied into the head's buffer: a separate chunk costs the kernel more.
pub(super) const JOIN_BYTES: usize = 1_200;
/// Limit of unsent media bytes, small so that the order of groups is decided late.
pub(super) const UNSENT_MEDIA: u64 = 64 * 1024;
/// Limit of unsent control bytes: room for the longest list of broadcasts of a session.
pub(super) const UNSENT_CONTROL: u64 = 1024 * 1024;
/// Limit of queued resets and stops; above it the input is not read (a peer that does not read responses).
pub(super) const ANSWERS: usize = 1_024;
/// Limit of queued ping responses; the oldest are dropped.
pub(super) const PONGS: usize = 8;
/// Limit of outstanding pings; the oldest are dropped.
pub(super) const PINGS: usize = 32;
/// Limit of unread stream data without credit, over all streams; above it the carrier is not read.
pub(super) const LEGACY_UNREAD: u64 = relay_model::limits::STREAM_WINDOW;
/// Streams of each direction opened at a time when the framing has no credit: what other peers grant.
pub(super) const LEGACY_STREAMS: u64 = 1_024;
/// Received stream data is merged into pieces up to this size; on average a piece holds at least half of it.
pub(super) const PIECE_BYTES: usize = 16 * 1024;
/// Credit is announced once it grew by this fraction of the window, which saves frames without stalling.
pub(super) const CREDIT_SHARE: u64 = 8;
/// Limit of names in a peer's protocol list: three times the longest known list.
pub(super) const PROTOCOLS: usize = 64;
/// Longest close reason sent, in bytes.
pub(super) const REASON_BYTES: usize = 1_024;
