//! Input queue between received datagrams and the QUIC state machine, with a bounded share per settling.

use quinn_proto::ConnectionEvent;

use super::{QuicConnection, QuicPhase};

/// Datagrams of one connection processed between two settlings, so that one peer cannot delay the others.
pub(in crate::quic) const DATAGRAMS: usize = 64;
/// Limit of queued datagrams of one connection: as many as a fast path delivers during a long worker turn.
pub(in crate::quic) const WAITING: usize = 1_024;

/// Outcome of a received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::quic) enum DatagramOutcome {
    /// It was processed.
    Fed,
    /// It was queued for a later settling.
    Waits,
    /// It was dropped: the queue is full.
    Dropped,
}

impl QuicConnection {
    /// Processes an event of the endpoint, which holds `bytes` of a datagram.
    #[inline]
    pub(in crate::quic) fn feed(&mut self, event: ConnectionEvent, bytes: usize) {
        self.fed += 1;
        self.inflow.fed(bytes);
        self.quic.handle_event(event);
    }

    /// Returns whether a datagram is processed at once, as the first [`DATAGRAMS`] since the last settling are.
    #[inline]
    pub(in crate::quic) fn takes_datagram(&self) -> bool {
        self.fed < DATAGRAMS && !self.is_behind && self.waiting.is_empty()
    }

    /// Queues a datagram of `bytes` for a later settling, or drops it above [`WAITING`]. `may_wait`: the endpoint
    /// allows another queued datagram.
    pub(in crate::quic) fn queue_datagram(
        &mut self,
        event: ConnectionEvent,
        bytes: usize,
        may_wait: bool,
    ) -> DatagramOutcome {
        if !may_wait || self.waiting.len() >= WAITING {
            return DatagramOutcome::Dropped;
        }
        self.waiting.push_back((event, bytes));
        self.waiting_bytes += bytes as u64;
        DatagramOutcome::Waits
    }

    /// Processes queued datagrams, unless the session still has events of earlier ones to poll. Returns their
    /// number.
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

    /// Number of queued datagrams.
    pub(in crate::quic) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns whether the next settling would process queued datagrams, so that it is due without new input.
    pub fn has_input(&self) -> bool {
        !self.waiting.is_empty() && !self.is_behind
    }

    /// Queues input until the session has polled all events.
    pub fn hold_input(&mut self) {
        self.is_behind = matches!(self.life, QuicPhase::Ready);
    }
}
