//! What a delivery costs, now and when somebody last looked.

use std::{collections::BTreeMap, fs, io::Write, path::Path, process::ExitCode};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    profile::{Layer, Profile},
    run::Outcome,
    scenario::Scenario,
};

const SCENARIOS: [Scenario; 4] = [Scenario::Video, Scenario::Hd, Scenario::Audio, Scenario::Chat];
/// How much dearer a delivery may get, percent.
const TOLERANCE: f64 = 3.0;
/// How much cheaper it must be for the baseline to be worth an update, percent.
const WORTH: f64 = 1.0;
/// Sites of allocations that are shown.
const SITES: usize = 40;

/// What one delivery costs, by scenario.
type Table = BTreeMap<Scenario, Cost>;

/// What one delivery costs. All but allocations in instructions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Cost {
    /// All of a worker's turns.
    instructions: f64,
    /// Of the crates of the workspace.
    ours: f64,
    quic: f64,
    crypto: f64,
    allocator: f64,
    /// Copying and clearing memory.
    libc: f64,
    other: f64,
    /// Blocks allocated or reallocated.
    allocations: f64,
}

impl Cost {
    fn of(outcome: &Outcome, profile: &Profile) -> Self {
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

    /// What is judged. Crypto is counted as an emulated processor runs it.
    fn judged(&self) -> [(&'static str, f64); 3] {
        [
            ("instructions", self.instructions),
            ("instructions of ours", self.ours),
            ("allocations", self.allocations),
        ]
    }
}

/// Reads `results`, prints them as a table and compares them with `baseline`, or writes that.
pub(crate) fn compare(
    results: &Path,
    baseline: &Path,
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
        let cost = Cost::of(&outcome, &profile);
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
        fs::write(baseline, serde_json::to_string_pretty(&table)? + "\n")?;
        writeln!(out, "written to {}", baseline.display())?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = fs::read_to_string(baseline).with_context(|| baseline.display().to_string())?;
    let verdict = judge(&serde_json::from_str(&text)?, &table);
    for line in &verdict.lines {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "cost: {} passed, {} failed", verdict.passed, verdict.failed)?;
    Ok(if verdict.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints where the allocations of `profile` come from.
pub(crate) fn allocations(profile: &Path, outcome: &Path, out: &mut impl Write) -> Result<()> {
    let outcome: Outcome = serde_json::from_str(&fs::read_to_string(outcome)?)?;
    let profile = Profile::parse(&fs::read_to_string(profile)?)?;
    let mut sites: Vec<_> = profile.sites.into_iter().collect();
    sites.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    for (site, count) in sites.into_iter().take(SITES) {
        writeln!(out, "{:>8.3}  {site}", count as f64 / outcome.deliveries as f64)?;
    }
    Ok(())
}

fn read(results: &Path, scenario: Scenario) -> Result<(Outcome, Profile)> {
    let file = |extension: &str| {
        let path = results.join(scenario.name()).with_extension(extension);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let outcome: Outcome = serde_json::from_str(&file("json")?)?;
    ensure!(outcome.scenario == scenario && outcome.deliveries > 0, "not a run of {}", scenario.name());
    let profile = Profile::parse(&file("callgrind")?)?;
    ensure!(profile.layer(Layer::Ours("bench")) < profile.total / 100, "the count has left the relay's side");
    Ok((outcome, profile))
}

/// What a comparison came to.
#[derive(Debug, Default)]
struct Verdict {
    lines: Vec<String>,
    passed: u64,
    failed: u64,
}

fn judge(before: &Table, now: &Table) -> Verdict {
    let mut verdict = Verdict::default();
    let mut cheaper = false;
    for (scenario, now) in now {
        let name = scenario.name();
        let Some(before) = before.get(scenario) else {
            verdict.failed += 1;
            verdict.lines.push(format!("{name}: not in the baseline"));
            continue;
        };
        for ((what, before), (_, now)) in before.judged().into_iter().zip(now.judged()) {
            let change = (now / before - 1.0) * 100.0;
            let line = format!("{name}: {before} -> {now} {what} a delivery ({change:+.1} %)");
            if change > TOLERANCE {
                verdict.failed += 1;
                verdict.lines.push(format!("DEARER {line}"));
                continue;
            }
            verdict.passed += 1;
            if change < -WORTH {
                cheaper = true;
                verdict.lines.push(format!("cheaper {line}"));
            }
        }
    }
    if cheaper && verdict.failed == 0 {
        verdict.lines.push("keep what was gained: .ci/delivery --update".to_owned());
    }
    verdict
}

/// To a hundredth: a baseline that people read.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(instructions: f64, allocations: f64) -> Table {
        let cost = Cost {
            instructions,
            ours: 100.0,
            quic: 0.0,
            crypto: 0.0,
            allocator: 0.0,
            libc: 0.0,
            other: 0.0,
            allocations,
        };
        Table::from([(Scenario::Chat, cost)])
    }

    #[test]
    fn dearer_than_the_tolerance_fails() {
        let before = table(1_000.0, 10.0);
        assert_eq!(judge(&before, &table(1_029.0, 10.2)).failed, 0);
        assert_eq!(judge(&before, &table(1_031.0, 10.0)).failed, 1);
        assert_eq!(judge(&before, &table(1_000.0, 10.4)).failed, 1);
        assert_eq!(judge(&Table::new(), &before).failed, 1);
    }

    #[test]
    fn cheaper_passes_and_asks_for_an_update() {
        let verdict = judge(&table(1_000.0, 10.0), &table(900.0, 10.0));
        assert_eq!((verdict.passed, verdict.failed), (3, 0));
        assert!(verdict.lines.iter().any(|line| line.contains("--update")));
        assert!(judge(&table(1_000.0, 10.0), &table(1_000.0, 10.0)).lines.is_empty());
    }
}
