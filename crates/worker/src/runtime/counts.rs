//! Sizes and counters of a relay.

use std::fmt;

use relay_meter::{CounterBoard, Worker as Meter};

use super::planes::{CoreSnapshot, SharedPlanes};
use crate::ledger::StateCounts;

/// Sizes and counters of a relay.
#[derive(Clone, Debug)]
pub struct RelayCounts {
    /// Counters by worker, at most a quarter of a second old.
    pub workers: Vec<Meter>,
    /// Sizes of the store now.
    pub store: relay_store::StoreCounts,
    /// Memory of sessions now.
    pub state: StateCounts,
    /// Sizes of core after its last event.
    pub core: relay_core::CoreCounts,
    /// Requests refused or dropped by core.
    pub tally: relay_core::CoreTally,
}

impl RelayCounts {
    /// Combines the published counters of the workers, the store, the ledger and core.
    pub(crate) fn of(board: &CounterBoard, planes: &SharedPlanes) -> Self {
        let CoreSnapshot { counts, tally } = *planes.core.lock();
        let (workers, store, state) = (board.workers(), planes.store.counts(), planes.ledger.counts());
        Self { workers, store, state, core: counts, tally }
    }

    /// Sum of the counters of all workers.
    pub fn total(&self) -> Meter {
        let mut total = Meter::default();
        self.workers.iter().for_each(|worker| total.add(worker));
        total
    }

    /// Connections and sessions refused, for any reason.
    pub fn refused(&self) -> u64 {
        let total = self.total();
        total.refused_unauthorized
            + total.refused_unavailable
            + total.refused_auth_timeout
            + total.refused_malformed
            + total.refused_setup_timeout
            + total.refused_version
            + total.refused_full
            + total.refused_draining
            + total.refused_memory
    }

    /// Panics caught in all stages of all workers.
    pub fn panics(&self) -> u64 {
        let total = self.total();
        total.panics_feed
            + total.panics_input
            + total.panics_timeout
            + total.panics_order
            + total.panics_news
            + total.panics_flush
            + total.panics_endpoint
    }
}

impl fmt::Display for RelayCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        write!(
            f,
            "{} sessions, {} broadcasts, {} tracks, {} subscriptions, {} KiB cached, \
             {} frames in, {} deliveries, {} stale routes, {} takeovers held, {} refused, {} panics",
            total.sessions,
            self.store.board_paths,
            self.core.logs,
            self.core.readers,
            self.store.bytes / 1024,
            total.frames_in,
            total.deliveries,
            self.core.stale_routes,
            self.tally.takeover_held,
            self.refused(),
            self.panics(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(worker: Meter) -> RelayCounts {
        RelayCounts {
            workers: vec![worker],
            store: relay_store::StoreCounts::default(),
            state: StateCounts::default(),
            core: relay_core::CoreCounts::default(),
            tally: relay_core::CoreTally::default(),
        }
    }

    fn named(prefix: &str) -> u64 {
        Meter::default().counters().filter(|(name, _)| name.starts_with(prefix)).count() as u64
    }

    #[test]
    fn every_kind_of_refusal_is_summed() {
        let meter = Meter {
            refused_unauthorized: 1,
            refused_unavailable: 1,
            refused_auth_timeout: 1,
            refused_malformed: 1,
            refused_setup_timeout: 1,
            refused_version: 1,
            refused_full: 1,
            refused_draining: 1,
            refused_memory: 1,
            ..Meter::default()
        };
        assert_eq!(counts(meter).refused(), named("refused_"));
    }

    #[test]
    fn panics_of_every_stage_are_summed() {
        let meter = Meter {
            panics_feed: 1,
            panics_input: 1,
            panics_timeout: 1,
            panics_order: 1,
            panics_news: 1,
            panics_flush: 1,
            panics_endpoint: 1,
            ..Meter::default()
        };
        assert_eq!(counts(meter).panics(), named("panics_"));
    }
}
