//! `load`: runs the load generator against any relay.

use std::{io::Write, time::Duration};

use clap::Args;
use relay_client::{Error, lite::Version};
use relay_load::{
    run::{self, LoadOptions},
    scenario::Scenario,
};

use crate::{
    args::{HowArgs, duration},
    connect::RelayAddress,
    exit::{EXIT_CODES, Exit, Failure},
    progress::note,
    stop::Stop,
};

/// Puts load on a relay and prints what came of it: every frame is checked at every viewer.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = EXIT_CODES)]
pub struct LoadArgs {
    /// Scenario to run
    scenario: Scenario,

    /// The relay: https://HOST:PORT/PATH (WebTransport), moqt://HOST:PORT/PATH (raw QUIC), wss:// or
    /// ws://HOST:PORT/PATH (WebSocket), tcp://HOST:PORT/PATH or unix:///FILE:/PATH
    #[arg(long, value_name = "URL")]
    url: String,

    #[command(flatten)]
    how: HowArgs,

    /// Length of the measured window
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "15s")]
    window: Duration,

    /// Time over which the viewers connect
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "3s")]
    ramp: Duration,

    /// Viewers, instead of the scenario's number
    #[arg(long, value_name = "N")]
    subscribers: Option<u32>,

    /// The relay's process on this machine, to measure its CPU and memory
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,

    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: &LoadArgs) -> Result<Exit, Failure> {
    let mut stop = Stop::listen()?;
    let place = RelayAddress::of(&args.url)?;
    let publishers = args.scenario.shape().publishers;
    if let Some(few) = args.subscribers.filter(|subscribers| *subscribers < publishers) {
        let name = args.scenario.name();
        let message = format!(
            "{name} has {publishers} publishers, each of which needs a subscriber: --subscribers {few} is too few"
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    let options = LoadOptions {
        url: args.url.clone(),
        version: args.how.protocol.unwrap_or(Version::V05),
        window: args.window,
        ramp: args.ramp,
        viewers: args.subscribers,
        pid: args.pid,
        certs: args.how.certs(&place)?,
    };
    note(format_args!(
        "{} against {}: viewers connect for {:.1} s or more, then {:.1} s are measured",
        args.scenario.name(),
        place.display_url,
        args.ramp.as_secs_f64(),
        args.window.as_secs_f64()
    ));
    let report = tokio::select! {
        report = run::run(args.scenario, &options) => report,
        exit = stop.asked() => return Ok(exit),
    };
    let report = report.map_err(|error| {
        let is_refused = error.downcast_ref::<Error>().is_some_and(Error::is_unauthorized);
        let exit = if is_refused { Exit::Refused } else { Exit::Unreachable };
        Failure::new(exit, format!("nothing was measured: {error:#}"))
    })?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let line = serde_json::to_string(&report).map_err(|e| Failure::new(Exit::Failed, e.to_string()))?;
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "{report}")?;
    }
    if report.is_clean() {
        Ok(Exit::Done)
    } else {
        Err(Failure::new(Exit::Incomplete, "not every frame arrived"))
    }
}
