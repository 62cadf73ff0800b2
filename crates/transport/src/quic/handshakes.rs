//! Load by handshakes with unvalidated addresses: their number in progress and their rate.

use std::time::{Duration, Instant};

use relay_model::limits;

/// Refill interval of one handshake in the token bucket.
const INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / limits::HANDSHAKE_RATE as u64);

/// Decides when Retry is required (RFC 9000 §8.1.2). The rate also counts handshakes that fail in their first
/// packet, which cost as much as others but are never in progress.
#[derive(Debug, Default)]
pub(super) struct HandshakeLimiter {
    in_progress: usize,
    /// Time at which the bucket of [`limits::HANDSHAKE_BURST`] handshakes is full again; each handshake delays it
    /// by [`INTERVAL`].
    full_at: Option<Instant>,
}

impl HandshakeLimiter {
    /// Returns whether the next unvalidated address must be validated by Retry first.
    pub(super) fn is_crowded(&self, now: Instant) -> bool {
        let debt = self.full_at.map_or(Duration::ZERO, |full| full.saturating_duration_since(now));
        self.in_progress >= limits::UNVALIDATED_HANDSHAKES
            || debt + INTERVAL > INTERVAL * limits::HANDSHAKE_BURST
    }

    /// Counts a started handshake in the rate.
    pub(super) fn begin(&mut self, now: Instant) {
        self.full_at = Some(self.full_at.map_or(now, |full| full.max(now)) + INTERVAL);
    }

    /// Counts a handshake in progress.
    pub(super) fn enter(&mut self) {
        self.in_progress = self.in_progress.saturating_add(1);
    }

    /// Ends a handshake in progress: the address was validated, or the connection removed.
    pub(super) fn leave(&mut self) {
        self.in_progress = self.in_progress.saturating_sub(1);
    }
}
