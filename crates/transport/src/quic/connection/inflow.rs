//! Estimate of stream data that was received and not read.
//!
//! The library does not expose the size of its stream buffers, so the estimate is derived: bytes of datagrams
//! with stream data are added, bytes read by the session subtracted. The difference is data behind a gap, and
//! data of streams that the session does not read at present.

use relay_model::limits;

/// Bytes per datagram that are not stream data: header, authentication tag, frame heads. More than honest peers
/// need, so that their in-order data never accumulates; a peer can hide at most this much per datagram.
const OVERHEAD: u64 = 64;
/// Bytes subtracted from the estimate per byte read. More than one, because retransmitted data is received but
/// never read, and slow or lossy paths may carry as much of it as new data. A peer can hide data behind gaps
/// only by sending as much in-order data that is read.
const FORGIVEN: u64 = 2;
/// Estimate in bytes above which frames are charged too: the library keeps an entry per frame behind a gap.
const COUNTED: u64 = 64 * 1024;
/// Memory of such an entry in bytes.
const ENTRY: u64 = 64;

/// Estimator of a connection's receive buffers.
#[derive(Debug, Default)]
pub(super) struct Inflow {
    /// Since the last estimate: bytes of datagrams without [`OVERHEAD`], and bytes read.
    fed: u64,
    read: u64,
    /// Whether stream data was received since the last estimate.
    has_streams: bool,
    held: u64,
    /// STREAM frames received when the estimate last reached [`COUNTED`]; 0 below it.
    frames: u64,
}

impl Inflow {
    /// Counts a received datagram.
    pub(super) fn fed(&mut self, bytes: usize) {
        self.fed += (bytes as u64).saturating_sub(OVERHEAD);
    }

    /// Notes that stream data was received.
    pub(super) fn stream_data(&mut self) {
        self.has_streams = true;
    }

    /// Counts bytes read by the session.
    pub(super) fn read(&mut self, bytes: usize) {
        self.read += bytes as u64;
    }

    /// Returns the estimate in bytes. `frames` returns the number of STREAM frames received; called rarely.
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
        // A frame behind a gap has at least one byte.
        self.held + frames.saturating_sub(self.frames).min(self.held) * ENTRY
    }

    /// Resets the estimate when no stream of the peer is open.
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
            // As much repeated as new data.
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
