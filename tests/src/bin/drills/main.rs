//! Drills: attacks from outside against a relay binary that runs inside a memory limit, with healthy sessions
//! beside that must lose nothing. `.ci/long drills` runs all of them; needs root for the memory cgroup.
//!
//! Three processes: this one, the relay, and one for the healthy sessions; the attack runs in a fourth with a lower
//! scheduling priority, so that the attacker's CPU time does not delay the relay.

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

mod attack;
mod healthy;
mod host;
mod report;
mod weigh;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};

use host::{Host, Limits};

/// Time for which the healthy sessions run alone, to measure their own delay.
const ALONE: Duration = Duration::from_secs(6);
/// Time for which they continue after an attack.
const AFTER: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match act(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("drills: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn act(arguments: &[String]) -> Result<bool> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["healthy", url] => runtime()?.block_on(healthy::run(url)).map(|()| true),
        ["attack", name, target] => {
            let attack = attack::find(name)?;
            rustix::process::nice(10).context("lower the priority")?;
            let target = serde_json::from_str(target)?;
            println!("{}", runtime()?.block_on(attack.run(&target))?);
            Ok(true)
        }
        ["--relay", relay, "weigh"] => weigh::run(relay),
        ["--relay", relay, names @ ..] => run(relay, names),
        _ => bail!("usage: drills --relay BINARY [weigh | DRILL...]; drills are: {}", attack::names()),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Runs the named drills, or all of them. `false`: one of them failed.
fn run(relay: &str, names: &[&str]) -> Result<bool> {
    let chosen: Vec<_> = if names.is_empty() {
        attack::ALL.iter().collect()
    } else {
        names.iter().map(|name| attack::find(name)).collect::<Result<_>>()?
    };
    let (mut passed, mut failed) = (0, 0);
    println!("figure: {}", report::HEAD);
    for attack in chosen {
        let outcome = drill(relay, attack).with_context(|| attack.name.to_owned())?;
        println!("figure: {}", outcome.row());
        for failure in &outcome.failures {
            println!("FAIL {}: {failure}", attack.name);
        }
        if outcome.failures.is_empty() { passed += 1 } else { failed += 1 }
    }
    println!("drills: {passed} passed, {failed} failed");
    Ok(failed == 0)
}

fn drill(relay: &str, attack: &attack::Attack) -> Result<report::Outcome> {
    let mut host = Host::start(relay, &Limits { memory: attack.memory, files: attack.files })?;
    let alone = {
        let healthy = host.healthy()?;
        std::thread::sleep(ALONE);
        healthy.end()?
    };
    let before = host.memory();
    host.reset_peak();
    let healthy = host.healthy()?;
    let said = host.attack(attack);
    std::thread::sleep(AFTER);
    let beside = healthy.end()?;
    let lives = host.lives();
    let metrics = if lives { host.metrics()? } else { Default::default() };
    Ok(report::Outcome::new(attack, &host, (before, host.peak()), &alone, &beside, metrics, lives, said))
}
