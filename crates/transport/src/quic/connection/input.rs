//! Datagrams of the peer on their way into the QUIC state machine: a share of them between two settlings.

use quinn_proto::ConnectionEvent;

use super::{Connection, Life};

/// Datagrams of one connection that take effect between two settlings: what one peer sends at a time must not
/// hold up the others.
pub(in crate::quic) const DATAGRAMS: usize = 64;
/// Datagrams of one connection that wait beyond that: what a fast path brings while a worker takes a long turn.
pub(in crate::quic) const WAITING: usize = 1_024;

/// Outcome for a received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::quic) enum Datagram {
    /// It took effect.
    Fed,
    /// It takes effect in a later settling.
    Waits,
    /// Too many wait.
    Dropped,
}

impl Connection {
    /// Takes an event of the endpoint; `bytes` of a datagram are in it.
    #[inline]
    pub(in crate::quic) fn feed(&mut self, event: ConnectionEvent, bytes: usize) {
        self.fed += 1;
        self.inflow.fed(bytes);
        self.quic.handle_event(event);
    }

    /// Whether a datagram takes effect at once: the first [`DATAGRAMS`] since the last settling do.
    #[inline]
    pub(in crate::quic) fn takes_datagram(&self) -> bool {
        self.fed < DATAGRAMS && !self.is_behind && self.waiting.is_empty()
    }

    /// Keeps a datagram of `bytes` for a later settling. What is beyond [`WAITING`] is lost like any datagram.
    /// `may_wait`: the endpoint has room for one that waits.
    pub(in crate::quic) fn queue_datagram(
        &mut self,
        event: ConnectionEvent,
        bytes: usize,
        may_wait: bool,
    ) -> Datagram {
        if !may_wait || self.waiting.len() >= WAITING {
            return Datagram::Dropped;
        }
        self.waiting.push_back((event, bytes));
        self.waiting_bytes += bytes as u64;
        Datagram::Waits
    }

    /// Feeds datagrams that waited, unless the session has events of earlier ones to take. Returns how many.
    #[inline]
    pub(in crate::quic) fn feed_waiting(&mut self) -> usize {
        if self.waiting.is_empty() { 0 } else { self.feed_some_waiting() }
    }

    fn feed_some_waiting(&mut self) -> usize {
        let mut count = 0;
        while count < DATAGRAMS
            && !self.is_behind
            && let Some((event, bytes)) = self.waiting.pop_front()
        {
            self.waiting_bytes -= bytes as u64;
            self.feed(event, bytes);
            count += 1;
        }
        count
    }

    /// Datagrams that wait.
    pub(in crate::quic) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether datagrams wait that the next settling would feed: it must not wait for another one.
    pub fn has_input(&self) -> bool {
        !self.waiting.is_empty() && !self.is_behind
    }

    /// The session has not taken all events: what comes waits until it has.
    pub fn hold_input(&mut self) {
        self.is_behind = matches!(self.life, Life::Ready);
    }
}
