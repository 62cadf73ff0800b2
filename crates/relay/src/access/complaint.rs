//! What is wrong, said once for as long as it lasts.

use tracing::warn;

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Complaint(Option<String>);

impl Complaint {
    /// What is wrong now, if anything, goes to the log unless it is there already. Whether all is well again.
    pub(super) fn now(&mut self, what: Option<&str>) -> bool {
        if let Some(what) = what.filter(|what| self.0.as_deref() != Some(*what)) {
            warn!("{what}");
        }
        let before = std::mem::replace(&mut self.0, what.map(str::to_owned));
        what.is_none() && before.is_some()
    }
}
