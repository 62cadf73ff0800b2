//! Estimate of stream data that was received and not read.
//!
//! The library does not expose what its streams buffer, so it is derived from what passes by: bytes of
//! datagrams that carried stream data come in, bytes that the session reads go out. What is left are bytes
//! behind a gap, and bytes of streams that the session does not read now.

use relay_model::limits;

/// Bytes of each datagram that are no stream data: header, authentication tag, frame heads. More than honest
/// peers need, so that what they send in order never adds up; a peer that hides data behind small packets
/// hides no more than this of each.
const OVERHEAD: u64 = 64;
/// Bytes taken off the estimate for each byte that is read. More than one: repeated data comes in and is never read,
/// and as much of it as of new data is usual on a slow or lossy path. A peer can hide data behind gaps only by sending
/// as much in order that is read.
const FORGIVEN: u64 = 2;
/// Bytes from which on the frames are counted too: the library keeps an entry for each frame behind a gap.
const COUNTED: u64 = 64 * 1024;
/// Memory of such an entry, bytes.
const ENTRY: u64 = 64;

/// Bytes in and out of a connection's receive buffers.
#[derive(Debug, Default)]
pub(super) struct Inflow {
    /// Since the last estimate: bytes of datagrams without overhead, and bytes read.
    fed: u64,
    read: u64,
    /// Stream data came in one of them.
    has_streams: bool,
    held: u64,
    /// Stream frames received when the estimate was last zero.
    frames: u64,
}

impl Inflow {
    /// A datagram came.
    pub(super) fn fed(&mut self, bytes: usize) {
        self.fed += (bytes as u64).saturating_sub(OVERHEAD);
    }

    /// The library said that stream data has come since.
    pub(super) fn stream_data(&mut self) {
        self.has_streams = true;
    }

    /// The session took bytes.
    pub(super) fn read(&mut self, bytes: usize) {
        self.read += bytes as u64;
    }

    /// Bytes that are held now. `frames` gives the stream frames received so far; it is asked for rarely.
    pub(super) fn held(&mut self, frames: impl FnOnce() -> u64) -> u64 {
        let (fed, read) = (std::mem::take(&mut self.fed), std::mem::take(&mut self.read));
        if std::mem::take(&mut self.has_streams) {
            self.held += fed;
        }
        self.held = self.held.saturating_sub(read.saturating_mul(FORGIVEN)).min(limits::CONNECTION_WINDOW);
        if self.held < COUNTED {
            self.frames = 0;
            return self.held;
        }
        let frames = frames();
        if self.frames == 0 {
            self.frames = frames;
        }
        // A frame behind a gap holds a byte at least.
        self.held + frames.saturating_sub(self.frames).min(self.held) * ENTRY
    }

    /// No stream of the peer is open: nothing can be held.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_read_in_order_is_not_held() {
        let mut inflow = Inflow::default();
        for _ in 0..1_000 {
            inflow.fed(1_252);
            inflow.stream_data();
            inflow.read(1_200);
            assert!(inflow.held(|| 0) < 100);
        }
    }

    #[test]
    fn repeated_data_does_not_add_up() {
        let mut inflow = Inflow::default();
        for _ in 0..1_000 {
            // As much again as is new.
            (0..2).for_each(|_| inflow.fed(1_252));
            inflow.stream_data();
            inflow.read(1_200);
            assert!(inflow.held(|| 0) < 1_300);
        }
    }

    #[test]
    fn data_behind_a_gap_is_held_until_it_is_read() {
        let mut inflow = Inflow::default();
        for _ in 0..10 {
            inflow.fed(1_064);
            inflow.stream_data();
        }
        assert_eq!(inflow.held(|| 0), 10_000);
        inflow.read(10_000);
        assert_eq!(inflow.held(|| 0), 0);
    }

    #[test]
    fn datagrams_without_stream_data_are_not_held() {
        let mut inflow = Inflow::default();
        (0..100).for_each(|_| inflow.fed(1_200));
        assert_eq!(inflow.held(|| 0), 0);
    }

    #[test]
    fn many_small_frames_behind_a_gap_are_charged_by_entry() {
        let mut inflow = Inflow::default();
        let mut feed = |frames: u64| {
            (0..100).for_each(|_| inflow.fed(1_064));
            inflow.stream_data();
            inflow.held(|| frames)
        };
        assert_eq!(feed(24_000), 100_000);
        assert_eq!(feed(48_000), 200_000 + 24_000 * ENTRY);
    }
}
