//! Transport without a peer, for unit tests of what reads and writes streams.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;
use relay_model::{
    SessionCode, StreamCode,
    transport::{DatagramError, Dir, PathStats, ReadError, Stream, Transport, TransportEvent, WriteError},
};

/// Streams that record what is written to them, and return what was fed to them. Datagrams are absent.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    /// Limit on the bytes that one write accepts; `None`: unlimited.
    pub(crate) room: Option<usize>,
    /// Remaining credit of each stream, in bytes; `None`: unlimited.
    pub(crate) credit: Option<HashMap<Stream, usize>>,
    pub(crate) taken: HashMap<Stream, Vec<u8>>,
    /// Sizes of the handles that were offered.
    pub(crate) handles: Vec<usize>,
    pub(crate) finished: Vec<Stream>,
    pub(crate) resets: Vec<(Stream, StreamCode)>,
    /// Calls of `write`.
    pub(crate) writes: usize,
    /// Streams that may be opened.
    pub(crate) openable: u64,
    pub(crate) opened: u64,
    pub(crate) incoming: HashMap<Stream, VecDeque<Bytes>>,
}

impl Sink {
    /// Streams without credit.
    pub(crate) fn blocked() -> Self {
        Self { credit: Some(HashMap::new()), ..Self::default() }
    }

    /// Feeds bytes of the peer to a stream.
    pub(crate) fn feed(&mut self, stream: Stream, bytes: Vec<u8>) {
        self.incoming.entry(stream).or_default().push_back(bytes.into());
    }

    /// Sets the credit of a stream.
    pub(crate) fn grant(&mut self, stream: Stream, bytes: usize) {
        self.credit.get_or_insert_default().insert(stream, bytes);
    }
}

impl Transport for Sink {
    fn write(&mut self, stream: Stream, chunks: &mut [Bytes]) -> Result<usize, WriteError> {
        self.writes += 1;
        let credit = self.credit.as_mut().map(|credit| credit.entry(stream).or_default());
        let limit = credit.as_deref().copied().unwrap_or(usize::MAX).min(self.room.unwrap_or(usize::MAX));
        let taken = self.taken.entry(stream).or_default();
        let mut room = limit;
        for chunk in chunks {
            self.handles.push(chunk.len());
            let part = chunk.split_to(chunk.len().min(room));
            room -= part.len();
            taken.extend_from_slice(&part);
        }
        if let Some(credit) = credit {
            *credit -= limit - room;
        }
        if limit == 0 { Err(WriteError::Blocked) } else { Ok(limit - room) }
    }

    fn finish(&mut self, stream: Stream) {
        self.finished.push(stream);
    }

    fn poll(&mut self) -> Option<TransportEvent> {
        None
    }

    fn open(&mut self, _: Dir, _: i32) -> Option<Stream> {
        if self.opened == self.openable {
            return None;
        }
        self.opened += 1;
        Some(Stream(1_000 + self.opened))
    }

    fn read(&mut self, stream: Stream, max: usize) -> Result<Option<Bytes>, ReadError> {
        let Some(chunks) = self.incoming.get_mut(&stream) else { return Err(ReadError::Gone) };
        let Some(mut chunk) = chunks.pop_front() else { return Err(ReadError::Blocked) };
        let part = chunk.split_to(chunk.len().min(max));
        if !chunk.is_empty() {
            chunks.push_front(chunk);
        }
        Ok(Some(part))
    }

    fn reset(&mut self, stream: Stream, code: StreamCode) {
        self.resets.push((stream, code));
    }

    fn stop(&mut self, _: Stream, _: StreamCode) {}

    fn set_priority(&mut self, _: Stream, _: i32) {}

    fn send_datagram(&mut self, _: Bytes) -> Result<(), DatagramError> {
        Err(DatagramError::Unsupported)
    }

    fn recv_datagram(&mut self) -> Option<Bytes> {
        None
    }

    fn max_datagram(&self) -> usize {
        0
    }

    fn exempt(&mut self, _: bool) {}

    fn stats(&self) -> PathStats {
        PathStats::default()
    }

    fn close(&mut self, _: Instant, _: SessionCode, _: &str) {}
}
