//! Two [`Transport`] ends in memory, on a virtual clock: for tests and simulation.
//!
//! A pair behaves like QUIC as far as a session can observe: credit, stream limits, a valve, loss that delays
//! one stream but not its neighbours, priorities on a slow link, resets that overtake data. Nothing happens
//! until [`Pair::advance`] is called, and the same seed and calls give the same run. A stream has the same key
//! at both ends.

mod link;
mod rng;
mod side;
mod streams;

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use relay_model::{
    SessionCode, StreamCode, limits,
    transport::{DatagramError, Dir, PathStats, ReadError, Stream, Transport, TransportEvent, WriteError},
};

pub use self::rng::Rng;
use self::{link::PairLink, side::PairSide};

/// Sending behaviour of one end, and its limits for the peer.
#[derive(Clone, Debug)]
pub struct PairOptions {
    /// One-way delay of packets from this end.
    pub latency: Duration,
    /// Bytes per second sent by this end; `None` = unlimited, 0 = nothing is sent.
    pub rate: Option<u64>,
    /// Share of this end's packets that are lost, `0.0..1.0`: stream bytes arrive late, datagrams never.
    pub loss: f64,
    /// Largest payload of a packet, bytes, at least 1.
    pub mtu: usize,
    /// The valve: unsent and unacknowledged stream bytes that writes may accumulate.
    pub send_window: u64,
    /// Share of writes that accept fewer bytes than would fit (never none), `0.0..=1.0`.
    pub partial: f64,
    /// Unread bytes the peer may send on each stream.
    pub stream_window: u64,
    /// Unread bytes the peer may send on all streams together.
    pub connection_window: u64,
    /// Bidirectional streams the peer may have open at once.
    pub bidi_streams: u64,
    /// Unidirectional streams the peer may have open at once.
    pub uni_streams: u64,
    /// Largest datagram accepted by this end, bytes; 0 = none.
    pub max_datagram: usize,
    /// Whether this end reports path statistics.
    pub measures: bool,
}

impl Default for PairOptions {
    /// A fast, clean link to a generous peer.
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(5),
            rate: None,
            loss: 0.0,
            mtu: 1_200,
            send_window: u64::MAX,
            partial: 0.0,
            stream_window: limits::STREAM_WINDOW,
            connection_window: limits::CONNECTION_WINDOW,
            bidi_streams: limits::BIDI_STREAMS,
            uni_streams: limits::UNI_STREAMS,
            max_datagram: limits::DATAGRAM_PAYLOAD + 32,
            measures: true,
        }
    }
}

/// Both ends of a transport.
#[derive(Debug)]
pub struct Pair {
    /// One end.
    pub a: PairEnd,
    /// The other.
    pub b: PairEnd,
}

impl Pair {
    /// A pair with equal options at both ends.
    pub fn new(seed: u64, options: PairOptions) -> Self {
        Self::with(seed, options.clone(), options)
    }

    /// A pair with different options for each end.
    pub fn with(seed: u64, a: PairOptions, b: PairOptions) -> Self {
        let link = Rc::new(RefCell::new(PairLink::new(seed, a, b)));
        Self { a: PairEnd { link: link.clone(), side: 0 }, b: PairEnd { link, side: 1 } }
    }

    /// Advances the clock to `now` and processes all departures and arrivals until then. Data written since the
    /// last call departs at the time of that call. A clock that goes backwards has no effect.
    pub fn advance(&mut self, now: Instant) {
        self.a.link.borrow_mut().advance(now);
    }

    /// Time of the next departure or arrival; `None` when nothing is in flight.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.a.link.borrow().next()
    }

    /// Breaks the connection: both ends get `TransportClosed(Lost)` at once.
    pub fn cut(&mut self, why: &str) {
        self.a.link.borrow_mut().cut(why);
    }
}

/// One end of a [`Pair`].
///
/// `Readable` is certain after a read that returned `Blocked` and for the first bytes of a response, and
/// possible at other times.
#[derive(Debug)]
pub struct PairEnd {
    link: Rc<RefCell<PairLink>>,
    side: usize,
}

impl PairEnd {
    /// Changes the options of this end. Windows and stream limits take effect for streams opened later; use
    /// [`PairEnd::allow`] to raise a stream limit.
    pub fn tune(&mut self, change: impl FnOnce(&mut PairOptions)) {
        self.with(|side, _| change(&mut side.options));
    }

    /// Allows the peer `more` concurrent streams.
    pub fn allow(&mut self, dir: Dir, more: u64) {
        self.with(|side, _| side.allow(dir, more));
    }

    /// While on, this end grants no credit for bytes or streams. Withheld credit is sent afterwards.
    pub fn hold_credit(&mut self, on: bool) {
        self.with(|side, _| side.hold_credit(on));
    }

    /// Stream bytes written here that the peer has not acknowledged.
    pub fn outstanding(&self) -> u64 {
        self.link.borrow().sides[self.side].outstanding()
    }

    /// Stream halves alive at this end: (sending, receiving).
    pub fn live_streams(&self) -> (usize, usize) {
        self.link.borrow().sides[self.side].live()
    }

    fn with<R>(&mut self, work: impl FnOnce(&mut PairSide, &mut Rng) -> R) -> R {
        let link = &mut *self.link.borrow_mut();
        work(&mut link.sides[self.side], &mut link.rng)
    }
}

impl Transport for PairEnd {
    fn poll(&mut self) -> Option<TransportEvent> {
        self.with(|side, _| side.poll())
    }

    fn open(&mut self, dir: Dir, priority: i32) -> Option<Stream> {
        self.with(|side, _| side.open(dir, priority))
    }

    fn read(&mut self, stream: Stream, max: usize) -> Result<Option<Bytes>, ReadError> {
        self.with(|side, _| side.read(stream, max))
    }

    fn write(&mut self, stream: Stream, chunks: &mut [Bytes]) -> Result<usize, WriteError> {
        self.with(|side, rng| side.write(stream, chunks, rng))
    }

    fn finish(&mut self, stream: Stream) {
        self.with(|side, _| side.finish(stream));
    }

    fn reset(&mut self, stream: Stream, code: StreamCode) {
        self.with(|side, _| side.reset(stream, code));
    }

    fn stop(&mut self, stream: Stream, code: StreamCode) {
        self.with(|side, _| side.stop(stream, code));
    }

    fn set_priority(&mut self, stream: Stream, priority: i32) {
        self.with(|side, _| side.set_priority(stream, priority));
    }

    fn send_datagram(&mut self, datagram: Bytes) -> Result<(), DatagramError> {
        self.with(|side, _| side.send_datagram(datagram))
    }

    fn recv_datagram(&mut self) -> Option<Bytes> {
        self.with(|side, _| side.recv_datagram())
    }

    fn max_datagram(&self) -> usize {
        self.link.borrow().sides[self.side].max_datagram()
    }

    fn exempt(&mut self, on: bool) {
        self.with(|side, _| side.exempt(on));
    }

    fn stats(&self) -> PathStats {
        self.link.borrow().stats(self.side)
    }

    fn close(&mut self, _now: Instant, code: SessionCode, reason: &str) {
        self.with(|side, _| side.close(code, reason));
    }
}

#[cfg(test)]
mod tests;
