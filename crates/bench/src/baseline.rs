//! Comparison of delivery costs with two references: release 0.1 and the last finished step.

use std::{collections::BTreeMap, ffi::OsStr, fs, io::Write, path::Path, process::ExitCode};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    profile::{Layer, Profile},
    run::DeliveryOutcome,
    scenario::DeliveryScenario,
};

const SCENARIOS: [DeliveryScenario; 4] =
    [DeliveryScenario::Video, DeliveryScenario::Hd, DeliveryScenario::Audio, DeliveryScenario::Chat];
/// Limit on the increase over release 0.1, percent. Its figures are never updated.
const TOTAL: f64 = 3.0;
/// Limit on the increase of instructions over the last finished step, percent.
const STEP: f64 = 1.0;
/// The same limit for chat, whose allocator share varies between runs by about 1 %.
const STEP_CHAT: f64 = 2.0;
/// Limit on the allocation sites printed.
const SITES: usize = 40;

/// Cost of one delivery, by scenario.
type Table = BTreeMap<DeliveryScenario, DeliveryCost>;

/// Cost of one delivery, in instructions except for `allocations`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct DeliveryCost {
    /// Total of a worker's turns.
    instructions: f64,
    /// Share of the crates of the workspace.
    ours: f64,
    quic: f64,
    crypto: f64,
    allocator: f64,
    /// Share of the C library, for copying and clearing memory.
    libc: f64,
    other: f64,
    /// Number of blocks allocated or reallocated.
    allocations: f64,
}

impl DeliveryCost {
    fn of(outcome: &DeliveryOutcome, profile: &Profile) -> Self {
        let each = |count: u64| round(count as f64 / outcome.deliveries as f64);
        Self {
            instructions: each(profile.total),
            ours: each(profile.ours()),
            quic: each(profile.layer(Layer::Quic)),
            crypto: each(profile.layer(Layer::Crypto)),
            allocator: each(profile.layer(Layer::Allocator)),
            libc: each(profile.layer(Layer::Libc)),
            other: each(profile.layer(Layer::Other)),
            allocations: each(profile.allocations),
        }
    }
}

/// Reference figures of a comparison.
#[derive(Debug)]
pub(crate) struct References<'a> {
    /// Frozen figures of release 0.1.
    pub(crate) release: &'a Path,
    /// Figures of the last finished step.
    pub(crate) previous: &'a Path,
}

impl DeliveryCost {
    /// Instructions without those of the allocator, which vary in chat between 600 and 1,700 per delivery
    /// from run to run of one binary. Allocations are compared separately.
    fn judged(&self) -> f64 {
        round(self.instructions - self.allocator)
    }
}

/// Prints the counts in `results` as a table, and compares them with the references or saves them as those of
/// the last finished step (`update`).
pub(crate) fn compare(
    results: &Path,
    references: &References<'_>,
    update: bool,
    out: &mut impl Write,
) -> Result<ExitCode> {
    let mut table = Table::new();
    writeln!(
        out,
        "per delivery {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}   turns  packets in/out",
        "instr.", "ours", "quic", "crypto", "alloc", "libc", "other", "allocs"
    )?;
    for scenario in SCENARIOS {
        let (outcome, profile) = read(results, scenario)?;
        let cost = DeliveryCost::of(&outcome, &profile);
        let each = |count: u64| count as f64 / outcome.deliveries as f64;
        writeln!(
            out,
            "{:<12} {:>8.0} {:>8.0} {:>8.0} {:>8.0} {:>8.0} {:>8.0} {:>8.0} {:>8.2} {:>7.2} {:>7.2} {:>6.2}",
            scenario.name(),
            cost.instructions,
            cost.ours,
            cost.quic,
            cost.crypto,
            cost.allocator,
            cost.libc,
            cost.other,
            cost.allocations,
            each(outcome.turns),
            each(outcome.datagrams_in),
            each(outcome.datagrams_out),
        )?;
        table.insert(scenario, cost);
    }
    if update {
        fs::write(references.previous, serde_json::to_string_pretty(&table)? + "\n")?;
        writeln!(out, "written to {}", references.previous.display())?;
        return Ok(ExitCode::SUCCESS);
    }
    let verdict = judge(&load(references.release)?, &load(references.previous)?, &table);
    for line in &verdict.lines {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "cost: {} passed, {} failed", verdict.passed, verdict.failed)?;
    Ok(if verdict.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the call sites of the allocations in `profile`.
pub(crate) fn allocations(profile: &Path, outcome: &Path, out: &mut impl Write) -> Result<()> {
    let outcome: DeliveryOutcome = serde_json::from_str(&fs::read_to_string(outcome)?)?;
    let profile = Profile::parse(&fs::read_to_string(profile)?)?;
    let mut sites: Vec<_> = profile.sites.into_iter().collect();
    sites.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    for (site, count) in sites.into_iter().take(SITES) {
        writeln!(out, "{:>8.3}  {site}", count as f64 / outcome.deliveries as f64)?;
    }
    Ok(())
}

fn load(path: &Path) -> Result<Table> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// Reads the run of `scenario` with the median of judged instructions in `results`, whose files are named
/// `SCENARIO.NUMBER.callgrind` and `.json`.
fn read(results: &Path, scenario: DeliveryScenario) -> Result<(DeliveryOutcome, Profile)> {
    let mut runs = Vec::new();
    for entry in fs::read_dir(results).with_context(|| results.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let number = name.strip_prefix(scenario.name()).and_then(|rest| rest.strip_suffix(".callgrind"));
        if number.is_some_and(|number| number.starts_with('.')) {
            runs.push(read_run(&path, scenario)?);
        }
    }
    ensure!(!runs.is_empty(), "{}: no run of {}", results.display(), scenario.name());
    runs.sort_by_key(|(_, profile)| profile.total - profile.layer(Layer::Allocator));
    Ok(runs.swap_remove(runs.len() / 2))
}

fn read_run(callgrind: &Path, scenario: DeliveryScenario) -> Result<(DeliveryOutcome, Profile)> {
    let text = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
    let outcome: DeliveryOutcome = serde_json::from_str(&text(&callgrind.with_extension("json"))?)?;
    ensure!(outcome.scenario == scenario && outcome.deliveries > 0, "not a run of {}", scenario.name());
    let profile = Profile::parse(&text(callgrind)?)?;
    ensure!(profile.layer(Layer::Ours("bench")) < profile.total / 100, "the count has left the relay's side");
    Ok((outcome, profile))
}

/// Result of a comparison.
#[derive(Debug, Default)]
struct BaselineComparison {
    lines: Vec<String>,
    passed: u64,
    failed: u64,
}

fn judge(release: &Table, previous: &Table, now: &Table) -> BaselineComparison {
    let mut verdict = BaselineComparison::default();
    for (scenario, now) in now {
        let name = scenario.name();
        let (Some(release), Some(previous)) = (release.get(scenario), previous.get(scenario)) else {
            verdict.failed += 1;
            verdict.lines.push(format!("{name}: missing in a reference"));
            continue;
        };
        let step = if *scenario == DeliveryScenario::Chat { STEP_CHAT } else { STEP };
        let compared = [
            ("instructions", "the last step", previous.judged(), now.judged(), step),
            ("instructions", "release 0.1", release.judged(), now.judged(), TOTAL),
            ("allocations", "release 0.1", release.allocations, now.allocations, TOTAL),
        ];
        for (what, reference, before, now, limit) in compared {
            let change = (now / before - 1.0) * 100.0;
            let exceeds = change > limit;
            *if exceeds { &mut verdict.failed } else { &mut verdict.passed } += 1;
            let mark = if exceeds { "DEARER " } else { "" };
            verdict.lines.push(format!(
                "{mark}{name}: {before} -> {now} {what} a delivery, {change:+.2} % of {reference} (limit {limit:+} %)"
            ));
        }
    }
    verdict
}

/// Rounds to hundredths, for readable reference files.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(instructions: f64, allocations: f64) -> Table {
        let cost = DeliveryCost {
            instructions,
            ours: 100.0,
            quic: 0.0,
            crypto: 0.0,
            allocator: 0.0,
            libc: 0.0,
            other: 0.0,
            allocations,
        };
        Table::from([(DeliveryScenario::Chat, cost)])
    }

    #[test]
    fn increase_past_a_limit_fails() {
        let (release, previous) = (table(1_000.0, 10.0), table(1_005.0, 10.0));
        let failed = |now: Table| judge(&release, &previous, &now).failed;
        assert_eq!(failed(table(1_024.0, 10.2)), 0);
        assert_eq!(failed(table(1_026.0, 10.2)), 1, "past the step");
        assert_eq!(failed(table(1_031.0, 10.0)), 2, "past the total too");
        assert_eq!(failed(table(1_000.0, 10.4)), 1, "allocations");
        assert_eq!(judge(&Table::new(), &previous, &release).failed, 1, "no reference");
    }

    #[test]
    fn decrease_passes() {
        let verdict = judge(&table(1_000.0, 10.0), &table(1_000.0, 10.0), &table(900.0, 9.0));
        assert_eq!((verdict.passed, verdict.failed), (3, 0));
    }
}
