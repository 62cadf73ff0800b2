//! Log lines of lasting failures: one for each failure, and one when it has ended.

use tracing::{info, warn};

/// The failure of one source that was logged last, if it lasts.
#[derive(Debug)]
pub(super) struct LogOnce {
    recovery: &'static str,
    last: Option<String>,
}

impl LogOnce {
    /// No failure so far; `recovery` is logged when one has ended.
    pub(super) fn new(recovery: &'static str) -> Self {
        Self { recovery, last: None }
    }

    /// Logs the failure `what`, unless it was logged last.
    pub(super) fn failed(&mut self, what: &str) {
        if self.last.as_deref() != Some(what) {
            warn!("{what}");
            self.last = Some(what.to_owned());
        }
    }

    /// Logs the recovery, if a failure lasted.
    pub(super) fn recovered(&mut self) {
        if self.last.take().is_some() {
            info!("{}", self.recovery);
        }
    }

    /// [`Self::failed`] with `what`, or [`Self::recovered`] without.
    pub(super) fn update(&mut self, what: Option<&str>) {
        match what {
            Some(what) => self.failed(what),
            None => self.recovered(),
        }
    }
}
