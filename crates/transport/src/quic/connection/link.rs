//! The QUIC state machine of a connection together with its send valve, stream credit and receive estimate.

use bytes::Bytes;
use quinn_proto::{Dir, SendDatagramError, StreamId, VarInt};
use relay_model::{
    StreamCode,
    transport::{DatagramError, ReadError, Stream, WriteError},
};

use super::{CloseFrame, inflow::Inflow, stream_credit::StreamCredit, stream_id, valve::SendValve};
use crate::quic::{code, config::Most};

/// QUIC state machine with the limits that the relay sets on it. Streams are those of QUIC; the session layer
/// is above.
pub(in crate::quic) struct QuicLink {
    pub(in crate::quic) quic: quinn_proto::Connection,
    valve: SendValve,
    credit: StreamCredit,
    /// Estimate of the receive buffers.
    inflow: Inflow,
}

impl QuicLink {
    /// Wraps the state machine of a new connection, whose peer may get stream credit up to `most`.
    pub(super) fn new(quic: quinn_proto::Connection, most: Most) -> Self {
        Self { quic, valve: SendValve::default(), credit: StreamCredit::new(most), inflow: Inflow::default() }
    }

    /// Sets the send window to the limit of the valve.
    #[inline]
    pub(super) fn set_valve(&mut self) {
        let window = self.quic.congestion_state().window();
        self.quic.set_send_window(self.valve.limit(window));
    }

    /// Sets whether writes are exempt from the valve, up to the slack of control data.
    pub(super) fn exempt(&mut self, on: bool) {
        self.valve.exempt(on);
        self.set_valve();
    }

    /// Runs `act`, whose few writes are exempt from the valve.
    pub(super) fn unlimited<R>(&mut self, act: impl FnOnce(&mut quinn_proto::Connection) -> R) -> R {
        self.quic.set_send_window(u64::MAX);
        let result = act(&mut self.quic);
        self.set_valve();
        result
    }

    /// Returns whether a write was short or blocked since the last call.
    #[inline]
    pub(super) fn take_starved(&mut self) -> bool {
        self.valve.take_starved()
    }

    /// Processes an event of the endpoint, which holds `bytes` of a datagram.
    #[inline]
    pub(super) fn feed(&mut self, event: quinn_proto::ConnectionEvent, bytes: usize) {
        self.inflow.fed(bytes);
        self.quic.handle_event(event);
    }

    /// Notes that stream data was received.
    #[inline]
    pub(super) fn note_stream_data(&mut self) {
        self.inflow.stream_data();
    }

    /// Estimates the bytes received on streams and not read.
    pub(super) fn unread(&mut self) -> u64 {
        let Self { quic, inflow, .. } = self;
        let is_idle = [Dir::Bi, Dir::Uni].into_iter().all(|dir| quic.streams().remote_open_streams(dir) == 0);
        if is_idle {
            inflow.clear();
        }
        inflow.held(|| quic.stats().frame_rx.stream)
    }

    /// Raises the peer's stream limit after new streams, if necessary.
    pub(super) fn grow_credit(&mut self, dir: Dir) {
        let open = self.quic.streams().remote_open_streams(dir);
        if let Some(grown) = self.credit.grown(dir, open, self.quic.max_concurrent_streams(dir)) {
            self.quic.set_max_concurrent_streams(dir, VarInt::from_u64(grown).unwrap_or(VarInt::MAX));
        }
    }

    /// Returns whether an open had no credit since the last call.
    pub(super) fn take_refused(&mut self, dir: Dir) -> bool {
        self.credit.take_refused(dir)
    }

    /// Opens a stream; `None` without credit.
    pub(super) fn open(&mut self, dir: Dir, priority: i32) -> Option<StreamId> {
        let Some(id) = self.quic.streams().open(dir) else {
            self.credit.refuse(dir);
            return None;
        };
        // Cannot fail: the stream was just opened.
        let _ = self.quic.send_stream(id).set_priority(priority);
        Some(id)
    }

    /// Reads up to `max` bytes.
    #[inline]
    pub(super) fn read(&mut self, stream: Stream, max: usize) -> Result<Option<Bytes>, ReadError> {
        let id = self.receivable(stream).ok_or(ReadError::Gone)?;
        let mut recv = self.quic.recv_stream(id);
        let mut chunks = recv.read(true).map_err(|_| ReadError::Gone)?;
        match chunks.next(max) {
            Ok(chunk) => {
                self.inflow.read(chunk.as_ref().map_or(0, |chunk| chunk.bytes.len()));
                Ok(chunk.map(|chunk| chunk.bytes))
            }
            Err(quinn_proto::ReadError::Blocked) => Err(ReadError::Blocked),
            Err(quinn_proto::ReadError::Reset(code)) => Err(ReadError::Reset(code::stream_from_wire(code))),
        }
    }

    /// Writes what fits of `chunks`, `offered` bytes in total.
    #[inline]
    pub(super) fn write(
        &mut self,
        id: StreamId,
        chunks: &mut [Bytes],
        offered: usize,
    ) -> Result<usize, WriteError> {
        match self.quic.send_stream(id).write_chunks(chunks) {
            Ok(written) => {
                self.valve.wrote(written.bytes, offered);
                Ok(written.bytes)
            }
            Err(quinn_proto::WriteError::Blocked) => Err(self.refuse_write(offered)),
            Err(quinn_proto::WriteError::Stopped(code)) => {
                Err(WriteError::Stopped(code::stream_from_wire(code)))
            }
            Err(quinn_proto::WriteError::ClosedStream) => Err(WriteError::Gone),
        }
    }

    /// Notes a blocked write of `offered` bytes.
    pub(super) fn refuse_write(&mut self, offered: usize) -> WriteError {
        self.valve.wrote(0, offered);
        WriteError::Blocked
    }

    /// Asks the peer to stop sending.
    pub(super) fn stop(&mut self, stream: Stream, code: StreamCode) {
        if let Some(id) = self.receivable(stream) {
            // Fails if the stream has ended.
            let _ = self.quic.recv_stream(id).stop(code::stream_to_wire(code));
        }
    }

    /// Sets the priority of a stream.
    pub(super) fn set_priority(&mut self, stream: Stream, priority: i32) {
        if let Some(id) = self.sendable(stream) {
            // Fails if the stream has ended.
            let _ = self.quic.send_stream(id).set_priority(priority);
        }
    }

    /// Queues a datagram.
    pub(super) fn send_datagram(&mut self, datagram: Bytes) -> Result<(), DatagramError> {
        self.quic.datagrams().send(datagram, true).map_err(|error| match error {
            SendDatagramError::TooLarge | SendDatagramError::Blocked(_) => DatagramError::TooLarge,
            SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => DatagramError::Unsupported,
        })
    }

    /// Takes the next received datagram.
    pub(super) fn recv_datagram(&mut self) -> Option<Bytes> {
        let datagram = self.quic.datagrams().recv()?;
        self.inflow.read(datagram.len());
        Some(datagram)
    }

    /// Closes the connection.
    pub(super) fn close(&mut self, now: std::time::Instant, close: CloseFrame) {
        self.quic.close(now, close.code, close.reason);
    }

    /// Returns the QUIC id of a stream that this end may write.
    pub(super) fn sendable(&self, stream: Stream) -> Option<StreamId> {
        let id = stream_id(stream)?;
        (id.dir() == Dir::Bi || id.initiator() == self.quic.side()).then_some(id)
    }

    /// Returns the QUIC id of a stream that this end may read.
    fn receivable(&self, stream: Stream) -> Option<StreamId> {
        let id = stream_id(stream)?;
        (id.dir() == Dir::Bi || id.initiator() != self.quic.side()).then_some(id)
    }
}
