//! Load that handshakes of unproved addresses are: those in progress, and how fast new ones are begun.

use std::time::{Duration, Instant};

use relay_model::limits;

/// Share of one handshake in the rate that is allowed.
const INTERVAL: Duration = Duration::from_nanos(1_000_000_000 / limits::HANDSHAKE_RATE as u64);

/// Decides when Retry is asked. A handshake that fails in its first packet costs as much as one that goes on, and
/// is never in progress: so it is counted as begun as well.
#[derive(Debug, Default)]
pub(super) struct Handshakes {
    in_progress: usize,
    /// When the bucket of [`limits::HANDSHAKE_BURST`] handshakes will be full again: each moves it by [`INTERVAL`].
    full_at: Option<Instant>,
}

impl Handshakes {
    /// Whether the next address must be proved before anything is spent on it.
    pub(super) fn is_crowded(&self, now: Instant) -> bool {
        let debt = self.full_at.map_or(Duration::ZERO, |full| full.saturating_duration_since(now));
        self.in_progress >= limits::UNVALIDATED_HANDSHAKES
            || debt + INTERVAL > INTERVAL * limits::HANDSHAKE_BURST
    }

    /// One is begun, whatever becomes of it.
    pub(super) fn begin(&mut self, now: Instant) {
        self.full_at = Some(self.full_at.map_or(now, |full| full.max(now)) + INTERVAL);
    }

    /// One that was begun is in progress.
    pub(super) fn enter(&mut self) {
        self.in_progress = self.in_progress.saturating_add(1);
    }

    /// One is no longer in progress: the address is proved, or the connection is gone.
    pub(super) fn leave(&mut self) {
        self.in_progress = self.in_progress.saturating_sub(1);
    }
}
