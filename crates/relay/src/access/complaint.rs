//! Log lines of lasting failures, written once per failure.

use tracing::warn;

/// The failure logged last, if it lasts.
#[derive(Debug, Default)]
pub(super) struct Complaint(Option<String>);

impl Complaint {
    /// Logs the current failure `what` unless it was logged last. Returns whether a logged failure has ended.
    pub(super) fn now(&mut self, what: Option<&str>) -> bool {
        if let Some(what) = what.filter(|what| self.0.as_deref() != Some(*what)) {
            warn!("{what}");
        }
        let before = std::mem::replace(&mut self.0, what.map(str::to_owned));
        what.is_none() && before.is_some()
    }
}
