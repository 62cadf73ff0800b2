//! Transport of a session: ordered byte streams and datagrams; events are polled, and nothing wakes the caller.
//!
//! Implementations: `relay-transport` (QUIC, WebTransport, qmux), and `relay_session::pair` in memory for tests.
//! All calls are synchronous; time is an argument.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{SessionCode, StreamCode};
use bytes::Bytes;

/// Key of a stream. Opaque to the session: only meaningful to the transport that made it.
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

/// Event of a transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportEvent {
    /// The session may be used: the handshake, and CONNECT if there is one, are done. First event.
    Ready,
    /// The peer opened a stream. Read it at once: no `Readable` is promised for data already received.
    Opened(Stream, Dir),
    /// The stream has more to read, or its end.
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
    /// The session has ended, by either side. Last event.
    Closed(TransportClosed),
}

/// Reason a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportClosed {
    /// The peer's application closed it.
    ByPeer(SessionCode, String),
    /// We closed it.
    ByUs,
    /// The connection was lost: idle timeout, reset or protocol error, as text.
    Lost(String),
}

/// Reason a read returned no bytes.
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

/// Reason a write accepted nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// No credit or no room; `Writable` follows.
    #[error("stream blocked")]
    Blocked,
    /// The peer sent STOP_SENDING; reset the stream.
    #[error("stream stopped by the peer: {0}")]
    Stopped(StreamCode),
    /// No such stream (any more).
    #[error("no such stream")]
    Gone,
}

/// Reason a datagram was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// The peer accepts none.
    #[error("datagrams not supported by the peer")]
    Unsupported,
    /// Larger than [`Transport::max_datagram`].
    #[error("datagram too large")]
    TooLarge,
}

/// Path statistics; `None` where the transport cannot measure them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathStats {
    /// Smoothed round trip time.
    pub rtt: Option<Duration>,
    /// Estimated rate of the congestion controller, bits per second.
    pub bitrate: Option<u64>,
}

/// One end of a session's transport.
pub trait Transport {
    /// Next event, or `None` until the transport got more input.
    fn poll(&mut self) -> Option<TransportEvent>;
    /// Opens a stream. `None`: no stream credit; `Openable` follows.
    fn open(&mut self, dir: Dir, priority: i32) -> Option<Stream>;
    /// Reads up to `max` bytes in order; `Ok(None)` = the peer finished the stream, whose receiving side is
    /// then gone.
    fn read(&mut self, stream: Stream, max: usize) -> Result<Option<Bytes>, ReadError>;
    /// Writes what fits, front first: a chunk taken completely is left empty, one taken in part keeps its rest.
    /// Returns the bytes taken, at least 1 unless all chunks were empty. A short count arms no `Writable`
    /// event; wait for `Room`.
    fn write(&mut self, stream: Stream, chunks: &mut [Bytes]) -> Result<usize, WriteError>;
    /// Finishes the sending side after the bytes written.
    fn finish(&mut self, stream: Stream);
    /// Resets the sending side. Unknown streams are ignored.
    fn reset(&mut self, stream: Stream, code: StreamCode);
    /// Asks the peer to stop sending. Unknown streams are ignored.
    fn stop(&mut self, stream: Stream, code: StreamCode);
    /// Sets a stream's priority: larger is sent first. Control uses [`PRIORITY_CONTROL`].
    fn set_priority(&mut self, stream: Stream, priority: i32);
    /// Queues a datagram; the oldest queued are dropped past the limit.
    fn send_datagram(&mut self, datagram: Bytes) -> Result<(), DatagramError>;
    /// Next received datagram.
    fn recv_datagram(&mut self) -> Option<Bytes>;
    /// Largest datagram the peer currently accepts, bytes; 0 = none.
    fn max_datagram(&self) -> usize;
    /// While on, writes bypass the valve that limits unsent bytes (for control messages, not for media).
    fn exempt(&mut self, on: bool);
    /// Current path statistics.
    fn stats(&self) -> PathStats;
    /// Ends the session; `TransportClosed(ByUs)` follows.
    fn close(&mut self, now: Instant, code: SessionCode, reason: &str);
}

/// Priority of control streams: above any media (`1 + subscriber priority`).
pub const PRIORITY_CONTROL: i32 = 1_000;
