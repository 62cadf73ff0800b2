//! `relay-load`: puts load on a relay and measures its cost.

use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use relay_client::{Certs, lite::Version};
use relay_load::{
    bench::{self, Bench},
    calibrate::calibrate,
    run::{self, LoadOptions},
    scenario::Scenario,
};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Version of all published figures so far.
const DEFAULT_VERSION: &str = "moq-lite-05";

/// Load on a Media over QUIC relay, honest by construction: every frame is checked at every viewer.
#[derive(Debug, Parser)]
#[command(name = "relay-load", version, about)]
struct LoadCli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs one scenario against a relay. Exits 1 when a frame was lost or a client dropped
    Run {
        /// Scenario to run
        scenario: Scenario,
        /// The relay: https://HOST:PORT/PATH (WebTransport), moqt://HOST:PORT/PATH (raw QUIC), wss:// or
        /// ws://HOST:PORT/PATH (WebSocket), tcp://HOST:PORT/PATH or unix:///FILE:/PATH
        #[arg(long)]
        url: String,
        /// Speak this, whatever the scheme of the URL
        #[arg(long)]
        transport: Option<LoadTransport>,
        /// Protocol version of publishers and viewers
        #[arg(long, value_name = "NAME", value_parser = version, default_value = DEFAULT_VERSION)]
        version: Version,
        /// Length of the measured window
        #[arg(long, default_value_t = 15.0)]
        seconds: f64,
        /// Seconds over which the viewers connect
        #[arg(long, default_value_t = 3.0)]
        ramp: f64,
        /// Viewers, instead of the scenario's number
        #[arg(long, value_name = "N")]
        subscribers: Option<u32>,
        /// The relay's process, to measure its CPU and memory
        #[arg(long)]
        pid: Option<u32>,
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Measures this core: sealing and sending, two seconds
    Calibrate {
        /// Prints JSON
        #[arg(long)]
        json: bool,
    },
    /// Measures a relay binary: starts it on one core and the load on another, and prints a table
    Bench(BenchArgs),
}

#[derive(Debug, clap::Args)]
struct BenchArgs {
    /// The relay to start, afresh for every run
    #[arg(long, value_name = "FILE")]
    relay: PathBuf,
    /// Arguments to start it with; {port}, {ws}, {wss}, {tcp} (ports) and {workers} are filled in
    #[arg(long, default_value = "--bind 127.0.0.1:{port} --workers {workers}", allow_hyphen_values = true)]
    relay_args: String,
    /// Runs of each row; the table has their medians
    #[arg(long, default_value_t = 5)]
    runs: u32,
    /// Length of the measured window
    #[arg(long, default_value_t = 15.0)]
    seconds: f64,
    /// Seconds over which the viewers connect
    #[arg(long, default_value_t = 3.0)]
    ramp: f64,
    /// Workers of the relay
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// Cores of the relay, as taskset takes them
    #[arg(long, default_value = "0")]
    relay_cores: String,
    /// Cores of the load, as taskset takes them
    #[arg(long, default_value = "1")]
    load_cores: String,
    /// Protocol version of publishers and viewers
    #[arg(long, value_name = "NAME", value_parser = version, default_value = DEFAULT_VERSION)]
    version: Version,
    /// Only these scenarios
    #[arg(long, value_delimiter = ',')]
    scenarios: Vec<Scenario>,
    /// Only these transports; without it WebTransport and raw QUIC, and of ws, wss and tcp those that
    /// --relay-args has a port for
    #[arg(long, value_delimiter = ',')]
    transports: Vec<LoadTransport>,
    /// Prints every run as a line of JSON too
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LoadTransport {
    /// WebTransport.
    Wt,
    /// MoQ on raw QUIC.
    Raw,
    /// WebSocket.
    Ws,
    /// WebSocket on TLS.
    Wss,
    /// TCP.
    Tcp,
}

impl LoadTransport {
    fn scheme(self) -> &'static str {
        match self {
            Self::Wt => "https",
            Self::Raw => "moqt",
            Self::Ws => "ws",
            Self::Wss => "wss",
            Self::Tcp => "tcp",
        }
    }
}

fn main() -> Result<ExitCode> {
    match LoadCli::parse().command {
        Command::Run { scenario, url, transport, version, seconds, ramp, subscribers, pid, json } => {
            let options = LoadOptions {
                url: with_transport(url, transport)?,
                version,
                window: duration(seconds)?,
                ramp: duration(ramp)?,
                viewers: subscribers,
                pid,
                certs: Certs::Any,
            };
            let report = runtime()?.block_on(run::run(scenario, &options))?;
            print(&report, json)?;
            Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Calibrate { json } => {
            print(&calibrate()?, json)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Bench(args) => bench(args),
    }
}

fn bench(args: BenchArgs) -> Result<ExitCode> {
    let relay_args = args.relay_args.clone();
    let bench = Bench {
        relay: args.relay,
        relay_args: args.relay_args,
        runs: args.runs.max(1),
        seconds: args.seconds,
        ramp: args.ramp,
        workers: args.workers,
        relay_cores: args.relay_cores,
        load_cores: args.load_cores,
        version: args.version,
        scenarios: if args.scenarios.is_empty() { Scenario::ALL.to_vec() } else { args.scenarios },
        schemes: if args.transports.is_empty() {
            let ports = |scheme: &&str| relay_args.contains(&format!("{{{scheme}}}"));
            ["https", "moqt"].into_iter().chain(["ws", "wss", "tcp"].into_iter().filter(ports)).collect()
        } else {
            args.transports.iter().map(|transport| transport.scheme()).collect()
        },
    };
    let each = |report: &_| if args.json { print(report, true) } else { Ok(()) };
    let outcome = bench::run(&bench, each)?;
    writeln!(std::io::stdout(), "{outcome}")?;
    Ok(if outcome.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Creates a runtime with one thread: the generator uses one core.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn duration(seconds: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(seconds).with_context(|| format!("{seconds} is not a duration"))
}

/// Parses a version name such as `moq-lite-06`.
fn version(name: &str) -> Result<Version, String> {
    Version::from_alpn(name).ok_or_else(|| {
        let known: Vec<_> = Version::ALL.iter().map(|version| version.alpn()).collect();
        format!("not one of {}", known.join(", "))
    })
}

fn with_transport(url: String, transport: Option<LoadTransport>) -> Result<String> {
    let Some(transport) = transport else { return Ok(url) };
    let (_, rest) = url.split_once("://").with_context(|| format!("{url} is not a URL"))?;
    Ok(format!("{}://{rest}", transport.scheme()))
}

fn print<T: Serialize + std::fmt::Display>(value: &T, json: bool) -> Result<()> {
    let mut out = std::io::stdout();
    if json {
        writeln!(out, "{}", serde_json::to_string(value)?)?;
    } else {
        writeln!(out, "{value}")?;
    }
    Ok(())
}
