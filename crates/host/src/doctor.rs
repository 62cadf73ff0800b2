//! Checks of the machine and the configuration, with their remedies.
//!
//! Reading the machine (`probe`, `reach`) is separate from judging the readings (`verdict`), so that every verdict
//! can be tested on any machine.

mod probe;
mod reach;
pub mod reading;
mod show;
mod stream_listeners;
pub mod verdict;

use std::{net::SocketAddr, path::Path};

use relay_config::{Config, Resolution, SettingOverrides};
use relay_worker::probe as sockets;

pub use show::DoctorReport;

use self::{reading::Port, show::Finding, verdict::CheckVerdict};
use crate::{
    limits::{memory, payload::Plan},
    machine::{cores, has_ipv6_sockets, workers},
};

/// Configuration as resolved for the checks.
struct Subject {
    /// The adapted configuration; a development relay's if it was refused.
    config: Config,
    /// Configured UDP address, before the adaptation to a machine without IPv6.
    asked: SocketAddr,
    /// Verdict on the configuration itself.
    finding: Finding,
}

impl Subject {
    fn resolve(file: Option<&Path>, overrides: &SettingOverrides) -> Self {
        let resolved = Config::resolve(file, overrides).and_then(Resolution::into_config);
        let (config, refusal) = match resolved {
            Ok(config) => (config, None),
            Err(error) => (Config::development(), Some(error.to_string())),
        };
        let asked = config.bind;
        let verdict = verdict::configuration(file, refusal.as_deref());
        let finding = Finding { check: "configuration", verdict };
        Self { config: config.for_machine(has_ipv6_sockets()), asked, finding }
    }
}

/// Runs all checks, in the order of their dependencies.
pub fn examine(file: Option<&Path>, overrides: &SettingOverrides) -> DoctorReport {
    let Subject { config, asked, finding } = Subject::resolve(file, overrides);
    let mut findings = vec![finding];
    findings.extend(machine(&config));
    let verdicts = probe::certificates(&config).iter().flat_map(verdict::certificate).collect::<Vec<_>>();
    findings.extend(verdicts.into_iter().map(|verdict| Finding { check: "certificate", verdict }));
    findings.push(Finding { check: "keys", verdict: verdict::keys(&probe::keys(&config)) });
    let port = reach::port(config.bind);
    findings.extend(network(asked, &port));
    let others = stream_listeners::all(&config, &port);
    findings.extend(others.iter().map(|one| Finding { check: "listener", verdict: verdict::listener(one) }));
    DoctorReport { findings }
}

/// Checks only whether a relay answers at its address, and with the configured certificate.
pub fn examine_running(file: Option<&Path>, overrides: &SettingOverrides) -> DoctorReport {
    let Subject { config, finding, .. } = Subject::resolve(file, overrides);
    let port = reach::port(config.bind);
    let shown = probe::running(&config, &port);
    let shown = shown.map(|shown| Finding { check: "certificate", verdict: verdict::in_use(&shown) });
    let port = Finding { check: "port", verdict: verdict::running(&port) };
    DoctorReport { findings: [finding, port].into_iter().chain(shown).collect() }
}

fn machine(config: &Config) -> Vec<Finding> {
    let workers = workers(config);
    let memory = memory::read();
    let cache = Plan::new(&config.cache, memory.limit).limits(0, 0, &memory).capacity;
    let buffers = sockets::buffers().map_or_else(|error| verdict::no_socket(&error), verdict::buffers);
    let offload = sockets::offload();
    let offload = offload.map_or_else(|error| verdict::no_socket(&error), |found| verdict::offload(&found));
    let verdicts: [(&'static str, CheckVerdict); 7] = [
        ("cores", verdict::cores(cores(), workers)),
        ("memory", verdict::memory(&memory, cache)),
        ("open files", verdict::files(&probe::files(workers))),
        ("clock", verdict::clock(&probe::clock(Path::new("/")))),
        ("buffers", buffers),
        ("offload", offload),
        ("steering", verdict::steering(&sockets::steering())),
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
