//! Isolation of panics.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// A guarded call panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Panicked;

/// Runs `share`. State that it borrowed may be inconsistent after a panic: the caller drops it.
pub(super) fn guard<R>(share: impl FnOnce() -> R) -> Result<R, Panicked> {
    catch_unwind(AssertUnwindSafe(share)).map_err(|_| Panicked)
}
