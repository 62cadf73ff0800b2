//! The verb `doctor`: checks the machine and the configuration, and reports problems with their remedies.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Result;
use clap::Args;
use relay_host::doctor;

use super::RunArgs;

/// Arguments of the verb `doctor`.
#[derive(Clone, Debug, Default, Args)]
pub struct DoctorArgs {
    /// Only whether a relay answers at its address, as a health check asks
    #[arg(long)]
    pub running: bool,

    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,

    /// Settings of the relay.
    #[command(flatten)]
    pub relay: RunArgs,
}

/// Runs the checks and prints the findings to standard output. Returns whether a relay can run here: failures
/// prevent it, warnings do not.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &DoctorArgs) -> Result<bool> {
    let (file, overrides) = (args.relay.config_file().map(PathBuf::as_path), args.relay.overrides());
    let report = if args.running {
        doctor::examine_running(file, &overrides)
    } else {
        doctor::examine(file, &overrides)
    };
    // Removes the colours where standard output is no terminal.
    let mut out = anstream::AutoStream::auto(io::stdout().lock());
    if args.json {
        writeln!(out, "{:#}", report.json())?;
    } else {
        write!(out, "{report}")?;
    }
    out.flush()?;
    Ok(!report.has_failure())
}
