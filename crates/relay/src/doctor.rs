//! The verb `doctor`: checks the machine and the configuration, and reports problems with their remedies.
//!
//! Reading the machine (`probe`, `reach`) is separate from judging the readings (`verdict`), so that every verdict
//! can be tested on any machine.

mod probe;
mod reach;
pub mod reading;
mod show;
mod stream_listeners;
pub mod verdict;

use std::{
    env,
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::Args as ClapArgs;
use relay_worker::probe as sockets;

use self::{
    reading::Port,
    show::{DoctorReport, Finding},
    verdict::CheckVerdict,
};
use crate::{
    cli::RunArgs,
    limits::{memory, payload::Plan},
    serve::{cores, has_ipv6_sockets, workers},
};
use relay_config::{Config, Resolution};

/// Arguments of the verb `doctor`.
#[derive(Clone, Debug, Default, ClapArgs)]
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
    let colour = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let report = DoctorReport { findings: run_checks(args), colour };
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", report.json())?;
    } else {
        write!(out, "{report}")?;
    }
    out.flush()?;
    Ok(report.counts().1 == 0)
}

/// Runs all checks, in the order of their dependencies.
fn run_checks(args: &DoctorArgs) -> Vec<Finding> {
    let file = args.relay.config_file().map(PathBuf::as_path);
    let resolved = Config::resolve(file, &args.relay.overrides()).and_then(Resolution::into_config);
    let (config, refusal) = match resolved {
        Ok(config) => (config, None),
        Err(error) => (Config::development(), Some(error.to_string())),
    };
    let asked = config.bind;
    let config = config.for_machine(has_ipv6_sockets());
    let bind = config.bind;
    let reach = || reach::port(bind);
    let configuration =
        Finding { check: "configuration", verdict: verdict::configuration(file, refusal.as_deref()) };
    if args.running {
        let port = reach();
        let shown = probe::running(&config, &port);
        let shown = shown.map(|shown| Finding { check: "certificate", verdict: verdict::in_use(&shown) });
        let port = Finding { check: "port", verdict: verdict::running(&port) };
        return [configuration, port].into_iter().chain(shown).collect();
    }
    let mut findings = vec![configuration];
    findings.extend(machine(&config));
    let verdicts = probe::certificates(&config).iter().flat_map(verdict::certificate).collect::<Vec<_>>();
    findings.extend(verdicts.into_iter().map(|verdict| Finding { check: "certificate", verdict }));
    findings.push(Finding { check: "keys", verdict: verdict::keys(&probe::keys(&config)) });
    let port = reach();
    findings.extend(network(asked, &port));
    let others = stream_listeners::all(&config, &port);
    findings.extend(others.iter().map(|one| Finding { check: "listener", verdict: verdict::listener(one) }));
    findings
}

fn machine(config: &Config) -> Vec<Finding> {
    let workers = workers(config);
    let memory = memory::read();
    let cache = Plan::new(&config.cache, memory.limit).limits(0, 0, &memory).capacity;
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let verdicts: [(&'static str, CheckVerdict); 7] = [
        ("cores", verdict::cores(cores(), workers)),
        ("memory", verdict::memory(&memory, cache)),
        ("open files", verdict::files(&probe::files(workers))),
        ("clock", verdict::clock(&probe::clock(Path::new("/")))),
        ("buffers", verdict::buffers(&sockets::buffers().map_err(|error| words(&error)))),
        ("offload", verdict::offload(&sockets::offload().map_err(|error| words(&error)))),
        ("steering", verdict::steering(&sockets::steering().map_err(|error| words(&error)))),
    ];
    verdicts.map(|(check, verdict)| Finding { check, verdict }).into()
}

fn network(bind: SocketAddr, port: &Port) -> [Finding; 2] {
    [
        Finding { check: "IPv6", verdict: verdict::ipv6(&probe::ipv6(), bind) },
        Finding { check: "port", verdict: verdict::port(port) },
    ]
}

#[cfg(test)]
mod tests;
