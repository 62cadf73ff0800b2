//! Selection of permits to revoke.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use relay_auth::Permit;

/// Filter for permits.
#[derive(Clone)]
pub struct PermitFilter(Arc<dyn Fn(&Permit) -> bool + Send + Sync>);

impl PermitFilter {
    /// Creates a filter that matches where `matches` returns true, and where it panics.
    pub fn new(matches: impl Fn(&Permit) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(matches))
    }

    /// Whether `permit` matches.
    pub fn matches(&self, permit: &Permit) -> bool {
        catch_unwind(AssertUnwindSafe(|| (self.0)(permit))).unwrap_or(true)
    }
}

impl fmt::Debug for PermitFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PermitFilter").finish_non_exhaustive()
    }
}
