//! `moq-relay doctor`: looks at the machine and the configuration, and says what is wrong and what to do.
//!
//! Reading the machine (`probe`, `reach`) is kept apart from judging what was read (`verdict`), so that every
//! verdict has a test, whatever machine the test runs on.

mod probe;
mod reach;
pub mod reading;
mod show;
pub mod verdict;

use std::{
    env,
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    num::NonZeroU16,
    path::{Path, PathBuf},
};

use anyhow::Result;
use clap::Args as ClapArgs;
use relay_worker::probe as sockets;

use self::{
    reading::Port,
    show::{Finding, Report},
    verdict::Verdict,
};
use crate::{
    config::Config,
    limits::{memory, payload::Plan},
    serve::{cores, workers},
};

/// What to look at.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct Args {
    /// Configuration file (TOML) of the relay in question
    #[arg(value_name = "FILE", env = "MOQ_CONFIG")]
    pub file: Option<PathBuf>,

    /// UDP address it listens on, instead of the configured one
    #[arg(long, value_name = "IP:PORT", env = "MOQ_BIND")]
    pub bind: Option<SocketAddr>,

    /// Worker threads it has; the default is one a core
    #[arg(long, value_name = "N", env = "MOQ_WORKERS", value_parser = crate::cli::workers)]
    pub workers: Option<NonZeroU16>,

    /// Only whether a relay answers at its address, as a health check asks
    #[arg(long)]
    pub running: bool,

    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

/// Looks, and prints what it found to standard output. Whether a relay can run here: warnings do not keep it
/// from that, failures do.
///
/// # Errors
/// Nobody takes the output.
pub fn run(args: &Args) -> Result<bool> {
    let colour = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let report = Report { findings: look(args), colour };
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", report.json())?;
    } else {
        write!(out, "{report}")?;
    }
    out.flush()?;
    Ok(report.counts().1 == 0)
}

/// Everything, in the order in which one thing needs another.
fn look(args: &Args) -> Vec<Finding> {
    let (config, refusal) = match args.file.as_deref().map(Config::load) {
        Some(Ok(config)) => (config, None),
        Some(Err(error)) => (Config::development(), Some(error.to_string())),
        None => (Config::development(), None),
    };
    let bind = args.bind.unwrap_or(config.bind);
    let reach = || reach::port(bind);
    let configuration = Finding {
        check: "configuration",
        verdict: verdict::configuration(args.file.as_deref(), refusal.as_deref()),
    };
    if args.running {
        return vec![configuration, Finding { check: "port", verdict: verdict::running(&reach()) }];
    }
    let mut findings = vec![configuration];
    findings.extend(machine(args.workers, &config));
    findings.extend(
        verdict::certificate(&probe::certificate(&config.tls))
            .into_iter()
            .map(|verdict| Finding { check: "certificate", verdict }),
    );
    findings.extend(network(bind, &reach()));
    findings
}

fn machine(asked: Option<NonZeroU16>, config: &Config) -> Vec<Finding> {
    let workers = workers(asked);
    let memory = memory::read();
    let cache = Plan::new(&config.cache, memory.limit).limits(0, 0, &memory).capacity;
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let verdicts: [(&'static str, Verdict); 7] = [
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
