//! The sending half of a stream.

use std::collections::VecDeque;

use bytes::Bytes;
use relay_model::StreamCode;

/// Sending half of a stream. Dropped when all data was sent or the stream was reset, since the carrier is
/// reliable.
#[derive(Debug)]
pub(super) struct SendHalf {
    pub(super) priority: i32,
    /// Position among the streams of one priority, which are served round-robin. 0: not scheduled.
    pub(super) turn: u64,
    queue: VecDeque<Bytes>,
    /// Bytes in `queue`.
    pub(super) unsent: u64,
    /// Part of `unsent` that passed the media valve.
    media: u64,
    /// Bytes accepted in total.
    pub(super) written: u64,
    /// The peer's credit, an upper bound of `written`.
    pub(super) limit: u64,
    pub(super) is_finished: bool,
    pub(super) stopped: Option<StreamCode>,
    /// Set after a refused write, until the stream is reported writable.
    pub(super) parked: Option<Parked>,
}

/// Refused write of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parked {
    /// Whether the write was exempt from the media valve.
    pub(super) exempt: bool,
    /// Position among the streams that wait for room in the connection; `None`: the stream waits for credit of
    /// its own.
    pub(super) place: Option<u64>,
}

/// Data of one STREAM frame taken from the queue.
#[derive(Debug)]
pub(super) struct StreamPacket {
    pub(super) offset: u64,
    pub(super) size: usize,
    /// Last data of the stream.
    pub(super) fin: bool,
    /// Part of `size` that passed the media valve.
    pub(super) media: u64,
}

impl SendHalf {
    pub(super) fn new(priority: i32, limit: u64) -> Self {
        Self {
            priority,
            turn: 0,
            queue: VecDeque::new(),
            unsent: 0,
            media: 0,
            written: 0,
            limit,
            is_finished: false,
            stopped: None,
            parked: None,
        }
    }

    /// Takes `fit` bytes off the front of `chunks`, which holds at least that many.
    pub(super) fn take(&mut self, chunks: &mut [Bytes], fit: usize, is_media: bool) {
        let mut left = fit;
        for chunk in chunks {
            let piece = if chunk.len() <= left { std::mem::take(chunk) } else { chunk.split_to(left) };
            left -= piece.len();
            if !piece.is_empty() {
                self.queue.push_back(piece);
            }
            if left == 0 {
                break;
            }
        }
        self.written += fit as u64;
        self.unsent += fit as u64;
        if is_media {
            self.media += fit as u64;
        }
    }

    /// Bytes that the peer's credit for the stream allows.
    pub(super) fn credit(&self) -> u64 {
        self.limit.saturating_sub(self.written)
    }

    pub(super) fn has_output(&self) -> bool {
        self.unsent > 0 || self.is_finished
    }

    /// Unsent bytes: (media, control).
    pub(super) fn waiting(&self) -> (u64, u64) {
        (self.media, self.unsent - self.media)
    }

    /// Bytes sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.written - self.unsent
    }

    /// Takes the next packet of at most `max` bytes; its pieces are passed to `out`.
    pub(super) fn packet(&mut self, max: usize, mut out: impl FnMut(Bytes)) -> StreamPacket {
        let offset = self.sent();
        let mut left = max;
        while left > 0
            && let Some(chunk) = self.queue.front_mut()
        {
            let piece = if chunk.len() <= left {
                self.queue.pop_front().unwrap_or_default()
            } else {
                chunk.split_to(left)
            };
            left -= piece.len();
            out(piece);
        }
        let size = max - left;
        self.unsent -= size as u64;
        let media = self.media.min(size as u64);
        self.media -= media;
        StreamPacket { offset, size, fin: self.is_finished && self.unsent == 0, media }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half(chunks: &[&'static str]) -> SendHalf {
        let mut half = SendHalf::new(0, 100);
        let mut chunks: Vec<Bytes> =
            chunks.iter().map(|chunk| Bytes::from_static(chunk.as_bytes())).collect();
        let size = chunks.iter().map(Bytes::len).sum();
        half.take(&mut chunks, size, true);
        assert!(chunks.iter().all(Bytes::is_empty));
        half
    }

    #[test]
    fn packets_cut_chunks_at_their_size() {
        let mut half = half(&["abc", "def"]);
        half.is_finished = true;
        let mut sent = Vec::new();
        let first = half.packet(4, |piece| sent.extend_from_slice(&piece));
        assert_eq!((first.offset, first.size, first.fin, first.media), (0, 4, false, 4));
        let last = half.packet(4, |piece| sent.extend_from_slice(&piece));
        assert_eq!((last.offset, last.size, last.fin), (4, 2, true));
        assert_eq!((sent.as_slice(), half.sent()), (&b"abcdef"[..], 6));
    }

    #[test]
    fn partly_taken_chunk_keeps_its_rest() {
        let mut half = half(&["ab"]);
        let mut chunks = [Bytes::from_static(b"cd"), Bytes::from_static(b"ef")];
        half.take(&mut chunks, 3, false);
        assert_eq!(chunks, [Bytes::new(), Bytes::from_static(b"f")]);
        assert_eq!((half.waiting(), half.credit()), ((2, 3), 95));
    }

    #[test]
    fn finished_half_without_data_has_output() {
        let mut half = SendHalf::new(0, 0);
        assert!(!half.has_output());
        half.is_finished = true;
        assert!(half.has_output() && half.packet(10, |_| {}).fin);
    }
}
