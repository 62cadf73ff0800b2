//! `delivery`: cost of one delivered frame for the relay, counted instead of timed.
//!
//! A worker with its real endpoint, sessions and store serves one publisher and a few viewers in
//! memory, on a clock that only moves from one event to the next. Callgrind counts the worker's
//! turns (`relay_side`), not the clients and not the kernel; the counts hardly differ between runs,
//! so a change of a few percent is a change of the code. `.ci/delivery` runs it.

mod baseline;
mod client;
mod identity;
mod link;
mod profile;
mod publisher;
mod relay;
mod run;
mod scenario;
mod viewer;

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{baseline::References, run::DeliveryOptions, scenario::DeliveryScenario};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Counts the cost of a delivery.
#[derive(Debug, Parser)]
#[command(name = "delivery")]
struct DeliveryCli {
    #[command(subcommand)]
    command: DeliveryCommand,
}

#[derive(Debug, Subcommand)]
enum DeliveryCommand {
    /// Runs one scenario and prints its outcome as JSON; meant to run under callgrind
    Run {
        /// Scenario to run
        scenario: DeliveryScenario,
        /// Viewers, all on the worker
        #[arg(long, default_value_t = 20)]
        viewers: u32,
        /// Frames to count, instead of the scenario's number
        #[arg(long)]
        frames: Option<u64>,
    },
    /// Compares callgrind's counts with both references. Exits 1 if a delivery exceeds a limit
    Compare {
        /// Folder of NAME.NUMBER.json (from `run`) and NAME.NUMBER.callgrind (from callgrind)
        results: PathBuf,
        /// Figures of release 0.1, never updated
        #[arg(long, default_value = "crates/bench/baseline-0.1.json")]
        release: PathBuf,
        /// Figures of the last finished step of work
        #[arg(long, default_value = "crates/bench/previous.json")]
        previous: PathBuf,
        /// Writes the results as the figures of the last finished step
        #[arg(long)]
        update: bool,
    },
    /// Prints the call sites of allocations in one profile, most frequent first
    Allocations {
        /// Profile, taken with `--separate-callers=N` to see more than the direct callers
        profile: PathBuf,
        /// Output of `run`
        outcome: PathBuf,
    },
}

fn main() -> ExitCode {
    match act(DeliveryCli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("delivery: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(command: DeliveryCommand) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match command {
        DeliveryCommand::Run { scenario, viewers, frames } => {
            let outcome = run::run(&DeliveryOptions { scenario, viewers, counted: frames })?;
            writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
            Ok(ExitCode::SUCCESS)
        }
        DeliveryCommand::Compare { results, release, previous, update } => {
            let references = References { release: &release, previous: &previous };
            baseline::compare(&results, &references, update, &mut out)
        }
        DeliveryCommand::Allocations { profile, outcome } => {
            baseline::allocations(&profile, &outcome, &mut out)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
