//! State that core, the workers and status requests share.

use std::sync::Arc;

use parking_lot::Mutex;
use relay_store::Store;

use crate::ledger::MemoryLedger;

/// Published counts of core.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CoreSnapshot {
    /// Sizes of its tables.
    pub counts: relay_core::CoreCounts,
    /// Refused and dropped requests.
    pub tally: relay_core::CoreTally,
}

/// Store and memory accounting of a relay, and the published counts of core; a handle.
#[derive(Clone)]
pub(crate) struct SharedPlanes {
    pub(crate) store: Arc<Store>,
    pub(crate) ledger: Arc<MemoryLedger>,
    pub(crate) core: Arc<Mutex<CoreSnapshot>>,
}

impl SharedPlanes {
    /// Combines a store and a ledger; core has published nothing yet.
    pub(crate) fn new(store: Arc<Store>, ledger: Arc<MemoryLedger>) -> Self {
        Self { store, ledger, core: Arc::default() }
    }
}
