//! Outcome of a drill: its row in the table, and the rules it broke.

use crate::{
    attack::Attack,
    healthy::Figures,
    host::{Host, Metrics},
};

/// Delay of healthy sessions that always counts as unharmed, ms.
const UNHARMED_MS: f64 = 20.0;
/// Longest time for which a ready session may wait for its worker, ms.
const WAIT_MS: f64 = 50.0;
const MIB: f64 = 1_048_576.0;

/// Columns of the table.
pub(crate) const HEAD: &str = "| drill | attack | memory before, peak, limit (MiB) | groups lost | p99 alone, beside (ms) | longest wait for a worker (ms) | refused or ended |";

/// Outcome of one drill.
#[derive(Debug)]
pub(crate) struct Outcome {
    name: &'static str,
    cells: Vec<String>,
    /// Broken rules.
    pub(crate) failures: Vec<String>,
}

impl Outcome {
    #[expect(clippy::too_many_arguments, reason = "everything that one drill measured, once")]
    pub(crate) fn new(
        attack: &Attack,
        host: &Host,
        (before, peak): (u64, u64),
        alone: &Figures,
        beside: &Figures,
        metrics: Metrics,
        lives: bool,
        said: String,
    ) -> Self {
        let mut failures = Vec::new();
        if !lives {
            failures.push(format!("the relay ended: {}", host.log()));
        }
        if host.panics() > 0 {
            failures.push(format!("{} panics", host.panics()));
        }
        if beside.lost > 0 || beside.ended > 0 {
            failures.push(format!("healthy sessions lost {} groups, {} ended", beside.lost, beside.ended));
        }
        let bound = UNHARMED_MS.max(2.0 * alone.p99_ms);
        if beside.p99_ms > bound {
            failures.push(format!("p99 {:.1} ms, at most {bound:.1} ms", beside.p99_ms));
        }
        let wait_ms =
            metrics.iter().find(|(name, _)| name.contains("ready_wait")).map(|(_, us)| us / 1_000.0);
        if wait_ms.is_some_and(|wait| wait > WAIT_MS) {
            failures.push(format!("a ready session waited {:.1} ms", wait_ms.unwrap_or_default()));
        }
        let refused: Vec<String> = metrics
            .iter()
            .filter(|(name, value)| {
                **value > 0.0
                    && ["refused", "limited", "shed", "share"].iter().any(|part| name.contains(part))
            })
            .map(|(name, value)| format!("{} {value}", name.trim_start_matches("moq_relay_")))
            .collect();
        let mib = |bytes: u64| format!("{:.0}", bytes as f64 / MIB);
        let cells = vec![
            said,
            format!("{}, {}, {}", mib(before), mib(peak), mib(attack.memory)),
            format!("{} of {}", beside.lost, beside.groups * 20),
            format!("{:.1}, {:.1}", alone.p99_ms, beside.p99_ms),
            wait_ms.map_or("not measured".to_owned(), |wait| format!("{wait:.1}")),
            if refused.is_empty() { "none".to_owned() } else { refused.join(", ") },
        ];
        Self { name: attack.name, cells, failures }
    }

    /// The row of the table.
    pub(crate) fn row(&self) -> String {
        format!("| {} | {} |", self.name, self.cells.join(" | "))
    }
}
