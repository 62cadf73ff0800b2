//! What carries a session: ordered byte streams and datagrams, events pulled, nothing wakes.
//!
//! Implementations live in `relay-transport` (QUIC, WebTransport) and in [`crate::pair`] (in
//! memory, for tests). All calls are synchronous; time is an argument.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use relay_model::{SessionCode, StreamCode};

/// Key of a stream. Opaque to the session: only the transport that made it knows what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stream(pub u64);

/// Direction of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dir {
    /// Both ends write.
    Bi,
    /// Only the opener writes.
    Uni,
}

/// What happened since the last poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The session may be used (handshake, and CONNECT where there is one, are done). First event.
    Ready,
    /// The peer opened a stream. Read it at once: no `Readable` is promised for what came with it.
    Opened(Stream, Dir),
    /// More to read, or its end.
    Readable(Stream),
    /// A write that returned `Blocked` may be tried again.
    Writable(Stream),
    /// The peer sent STOP_SENDING. Answer with [`Transport::reset`]; a stream already finished may
    /// get this too.
    Stopped(Stream, StreamCode),
    /// An [`Transport::open`] that returned `None` may be tried again.
    Openable(Dir),
    /// A datagram can be taken with [`Transport::recv_datagram`].
    Datagram,
    /// Acknowledgements freed room: backlogged streams may be written again.
    Room,
    /// The peer moved to another address.
    Moved(SocketAddr),
    /// The session is over, whoever ended it. Last event.
    Closed(Closed),
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The peer's application closed it.
    ByPeer(SessionCode, String),
    /// We closed it.
    ByUs,
    /// The transport gave up: idle timeout, reset, protocol error; in words.
    Lost(String),
}

/// Why a read gave no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nothing yet; `Readable` follows.
    #[error("no bytes yet")]
    Blocked,
    /// The peer reset the stream; it is gone.
    #[error("stream reset by the peer: {0}")]
    Reset(StreamCode),
    /// No such stream (any more).
    #[error("no such stream")]
    Gone,
}

/// Why a write took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// No credit or no room; `Writable` follows.
    #[error("stream blocked")]
    Blocked,
    /// The peer does not want it (STOP_SENDING); reset it.
    #[error("stream stopped by the peer: {0}")]
    Stopped(StreamCode),
    /// No such stream (any more).
    #[error("no such stream")]
    Gone,
}

/// Why a datagram was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// The peer takes none.
    #[error("peer takes no datagrams")]
    Unsupported,
    /// Larger than [`Transport::max_datagram`].
    #[error("datagram too large")]
    TooLarge,
}

/// Path figures; `None` where the transport cannot know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Smoothed round trip time.
    pub rtt: Option<Duration>,
    /// What the congestion controller would carry, bits a second.
    pub bitrate: Option<u64>,
}

/// One end of a session's carrier.
pub trait Transport {
    /// Next event, or `None` until the carrier got more input.
    fn poll(&mut self) -> Option<Event>;
    /// Opens a stream. `None`: no stream credit; `Openable` follows.
    fn open(&mut self, dir: Dir, priority: i32) -> Option<Stream>;
    /// Up to `max` bytes in order; `Ok(None)` = the peer finished the stream, which is then gone
    /// on the receiving side.
    fn read(&mut self, stream: Stream, max: usize) -> Result<Option<Bytes>, ReadError>;
    /// Hands over what fits, front first: whole chunks taken are left empty, a chunk taken in part
    /// is left with its rest. Returns the bytes taken, at least 1 unless all chunks were empty. A
    /// short count arms no event: `Room` tells when to go on.
    fn write(&mut self, stream: Stream, chunks: &mut [Bytes]) -> Result<usize, WriteError>;
    /// Ends the sending side after what was written.
    fn finish(&mut self, stream: Stream);
    /// Abandons the sending side. Unknown streams are ignored.
    fn reset(&mut self, stream: Stream, code: StreamCode);
    /// Asks the peer to stop sending. Unknown streams are ignored.
    fn stop(&mut self, stream: Stream, code: StreamCode);
    /// Coarse: larger goes first. Control is [`PRIORITY_CONTROL`].
    fn set_priority(&mut self, stream: Stream, priority: i32);
    /// Queues a datagram; the oldest queued are dropped past the limit.
    fn send_datagram(&mut self, datagram: Bytes) -> Result<(), DatagramError>;
    /// Next received datagram.
    fn recv_datagram(&mut self) -> Option<Bytes>;
    /// Largest datagram the peer takes now, bytes; 0 = none.
    fn max_datagram(&self) -> usize;
    /// While on, writes pass the valve that keeps little unsent (control does, media does not).
    fn exempt(&mut self, on: bool);
    /// Path figures now.
    fn stats(&self) -> Stats;
    /// Ends the session; `Closed(ByUs)` follows.
    fn close(&mut self, now: Instant, code: SessionCode, reason: &str);
}

/// Priority of control streams: above any media (`1 + subscriber priority`).
pub const PRIORITY_CONTROL: i32 = 1_000;
