//! How fast a connection delivers, for PROBE.

use std::time::{Duration, Instant};

/// Shortest span measured.
const SPAN: Duration = Duration::from_millis(250);

/// The best delivery rate seen lately. The library has no rate sampler: sent bytes less lost ones
/// stand for delivered ones.
pub(super) struct Rate {
    since: Instant,
    bytes: u64,
    /// Bytes a second, fading by a sixteenth a span.
    best: u64,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0, best: 0 }
    }

    /// Called often; measures once a span.
    pub(super) fn sample(&mut self, now: Instant, quic: &quinn_proto::Connection) {
        let span = now.saturating_duration_since(self.since);
        if span < SPAN {
            return;
        }
        let stats = quic.stats();
        let bytes = stats.udp_tx.bytes.saturating_sub(stats.path.lost_bytes);
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX).max(1);
        let rate = bytes.saturating_sub(self.bytes).saturating_mul(1_000_000) / micros;
        self.best = rate.max(self.best - self.best / 16);
        self.since = now;
        self.bytes = bytes;
    }

    /// Bits a second the congestion window would carry, at most twice the best delivered:
    /// window over round trip is absurd on a short path and stale on an idle one.
    pub(super) fn bitrate(&self, window: u64, rtt: Duration) -> Option<u64> {
        if self.best == 0 {
            return None;
        }
        let micros = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX).max(1);
        let carried = window.saturating_mul(1_000_000) / micros;
        Some(carried.min(self.best.saturating_mul(2)).saturating_mul(8))
    }
}
