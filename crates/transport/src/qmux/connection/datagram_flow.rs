//! Datagrams of a connection in both directions (draft-ietf-quic-qmux-01).

use bytes::Bytes;
use relay_model::{limits as model, transport::DatagramError};
use relay_wire::varint;

use crate::qmux::{datagrams::DatagramQueue, limits};

/// Received and queued datagrams, and their share of the output.
#[derive(Debug)]
pub(super) struct DatagramFlow {
    received: DatagramQueue,
    queued: DatagramQueue,
    /// Whether stream data precedes a datagram in the next unit.
    is_media_next: bool,
    /// Largest datagram frame and largest record that the peer accepts.
    peer_frame: u64,
    peer_record: u64,
}

impl DatagramFlow {
    /// Creates the flow of a new connection, which accepts none before the peer's parameters.
    pub(super) fn new() -> Self {
        Self {
            received: DatagramQueue::default(),
            queued: DatagramQueue::default(),
            is_media_next: false,
            peer_frame: 0,
            peer_record: limits::RECORD_BYTES,
        }
    }

    /// Applies the peer's limits in bytes, on a datagram frame and on a record.
    pub(super) fn set_peer(&mut self, frame: u64, record: u64) {
        (self.peer_frame, self.peer_record) = (frame, record);
    }

    /// Largest record in bytes that the peer accepts.
    pub(super) fn peer_record(&self) -> u64 {
        self.peer_record
    }

    /// Largest payload in bytes that the peer accepts; 0: none.
    pub(super) fn largest(&self) -> usize {
        let frame = self.peer_frame.min(self.peer_record);
        let payload = frame.saturating_sub((varint::size(frame) as u64).saturating_add(1));
        usize::try_from(payload).unwrap_or(usize::MAX).min(model::DATAGRAM_QUEUE / 2)
    }

    /// Queues a datagram of at most `max` bytes; above the limit of the queue the oldest are dropped.
    pub(super) fn send(&mut self, datagram: Bytes, max: usize) -> Result<(), DatagramError> {
        match max {
            0 => Err(DatagramError::Unsupported),
            max if datagram.len() > max => Err(DatagramError::TooLarge),
            _ => {
                self.queued.push(datagram, model::DATAGRAM_QUEUE);
                Ok(())
            }
        }
    }

    /// Takes the next datagram to send, in turn with stream data. `is_urgent`: the next stream data precedes any
    /// datagram. `has_packet`: there is stream data.
    pub(super) fn next(&mut self, is_urgent: bool, has_packet: bool) -> Option<Bytes> {
        let is_stream_next = is_urgent || (self.is_media_next && has_packet);
        let datagram = if is_stream_next { None } else { self.queued.pop() };
        self.is_media_next = datagram.is_some();
        datagram
    }

    /// Returns whether datagrams are to be sent.
    pub(super) fn has_output(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Stores a received datagram; returns whether it is the first since there were none.
    pub(super) fn receive(&mut self, payload: &[u8]) -> bool {
        let is_first = self.received.is_empty();
        self.received.push(Bytes::copy_from_slice(payload), model::DATAGRAM_BUFFER);
        is_first
    }

    /// Takes the next received datagram.
    pub(super) fn take_received(&mut self) -> Option<Bytes> {
        self.received.pop()
    }

    /// Drops the datagrams to be sent.
    pub(super) fn clear_output(&mut self) {
        self.queued = DatagramQueue::default();
    }

    /// Drops the received datagrams.
    pub(super) fn clear_received(&mut self) {
        self.received = DatagramQueue::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> DatagramFlow {
        let mut flow = DatagramFlow::new();
        flow.set_peer(100, limits::RECORD_BYTES);
        flow
    }

    #[test]
    fn datagrams_and_stream_data_take_turns() {
        let mut flow = flow();
        for _ in 0..3 {
            flow.send(Bytes::from_static(b"a"), 10).unwrap();
        }
        assert!(flow.next(true, true).is_none(), "urgent stream data is first");
        assert!(flow.next(false, true).is_some());
        assert!(flow.next(false, true).is_none());
        assert!(flow.next(false, true).is_some());
        assert!(flow.next(false, false).is_some(), "there is no stream data");
        assert!(!flow.has_output());
    }

    #[test]
    fn size_is_limited_by_the_peer() {
        assert_eq!(DatagramFlow::new().largest(), 0);
        let mut flow = flow();
        let max = flow.largest();
        assert_eq!(max, 100 - 1 - 2);
        assert_eq!(flow.send(Bytes::from(vec![0; max + 1]), max), Err(DatagramError::TooLarge));
        assert_eq!(flow.send(Bytes::new(), 0), Err(DatagramError::Unsupported));
        assert_eq!(flow.send(Bytes::from(vec![0; max]), max), Ok(()));
        flow.clear_output();
        assert!(!flow.has_output());
    }

    #[test]
    fn first_received_datagram_is_reported() {
        let mut flow = flow();
        assert!(flow.receive(b"a"));
        assert!(!flow.receive(b"b"));
        assert_eq!(flow.take_received().as_deref(), Some(&b"a"[..]));
        flow.clear_received();
        assert!(flow.receive(b"c"));
    }
}
