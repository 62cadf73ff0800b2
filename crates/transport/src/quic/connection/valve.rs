//! Limit of unsent and unacknowledged bytes of a connection.

/// Bytes that the valve admits above 5/4 of the congestion window, for the next flush.
const VALVE_SLACK: u64 = 32 * 1024;
/// Bytes of control data admitted above the valve, bounded for peers that acknowledge nothing.
const CONTROL_SLACK: u64 = 256 * 1024;

/// Send valve: limits unsent and unacknowledged bytes to little more than the congestion window, so that the
/// choice of what to send takes effect within a round trip. Never below the window, which would stop its growth.
#[derive(Debug, Default)]
pub(super) struct SendValve {
    /// Whether writes may use the slack of control data.
    is_exempt: bool,
    /// Whether a write was short or blocked since the last `Room`.
    is_starved: bool,
}

impl SendValve {
    /// Returns the send window in bytes for a congestion window of `window` bytes.
    #[inline]
    pub(super) fn limit(&self, window: u64) -> u64 {
        let valve = (window / 4).saturating_add(window).saturating_add(VALVE_SLACK);
        let slack = if self.is_exempt { CONTROL_SLACK } else { 0 };
        valve.saturating_add(slack)
    }

    /// Sets whether writes may use the slack of control data.
    #[inline]
    pub(super) fn exempt(&mut self, on: bool) {
        self.is_exempt = on;
    }

    /// Notes that `written` of `offered` bytes were accepted.
    #[inline]
    pub(super) fn wrote(&mut self, written: usize, offered: usize) {
        self.is_starved |= written < offered;
    }

    /// Returns whether a write was short or blocked since the last call.
    #[inline]
    pub(super) fn take_starved(&mut self) -> bool {
        std::mem::take(&mut self.is_starved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_above_the_congestion_window() {
        let mut valve = SendValve::default();
        assert_eq!(valve.limit(40_000), 50_000 + VALVE_SLACK);
        valve.exempt(true);
        assert_eq!(valve.limit(40_000), 50_000 + VALVE_SLACK + CONTROL_SLACK);
        assert_eq!(valve.limit(u64::MAX), u64::MAX);
        valve.exempt(false);
        assert_eq!(valve.limit(0), VALVE_SLACK);
    }

    #[test]
    fn short_write_is_reported_once() {
        let mut valve = SendValve::default();
        valve.wrote(10, 10);
        assert!(!valve.take_starved());
        valve.wrote(9, 10);
        valve.wrote(10, 10);
        assert!(valve.take_starved());
        assert!(!valve.take_starved());
    }
}
