//! Benchmark of a relay binary, with a table of medians: the relay on one core, the load on another, a new process for
//! every run.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use relay_client::lite::Version;

use crate::{calibrate::Calibration, join, report::Report, scenario::Scenario};

/// Time for the relay to accept sessions after its start.
const START: Duration = Duration::from_secs(10);
/// Time for the relay to end after SIGTERM.
const STOP: Duration = Duration::from_secs(10);
/// Largest median and 99th percentile of the publish-to-delivery latency, ms: CPU must not be saved by delay.
const LATENCY_P50_MS: f64 = 2.0;
const LATENCY_P99_MS: f64 = 10.0;
/// Largest memory per connection.
const CONNECTION_KIB: f64 = 50.0;

/// Parameters of a benchmark.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The relay's binary.
    pub relay: PathBuf,
    /// Its arguments, with `{port}` (UDP), `{ws}`, `{wss}` and `{tcp}` (TCP) and `{workers}`.
    pub relay_args: String,
    /// Runs of each row.
    pub runs: u32,
    /// Length of the window, s.
    pub seconds: f64,
    /// Time over which viewers connect, s.
    pub ramp: f64,
    /// Workers of the relay.
    pub workers: u32,
    /// Cores of the relay, in the format of taskset.
    pub relay_cores: String,
    /// Cores of the load.
    pub load_cores: String,
    /// Scenarios to run.
    pub scenarios: Vec<Scenario>,
    /// URL schemes, one per transport.
    pub schemes: Vec<&'static str>,
    /// Protocol version of publishers and viewers.
    pub version: Version,
}

/// Results of all runs.
#[derive(Debug, Default)]
pub struct BenchOutcome {
    calibrations: Vec<Calibration>,
    /// By scenario and transport, in order of measurement.
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    scenario: Scenario,
    transport: &'static str,
    reports: Vec<Report>,
    /// Errors of runs without a measurement.
    failed: Vec<String>,
}

/// Runs all combinations, alternating transports and scenarios; `each` receives every report as it is made.
pub fn run(bench: &Bench, mut each: impl FnMut(&Report) -> Result<()>) -> Result<BenchOutcome> {
    let mut outcome = BenchOutcome::default();
    let mut rows: BTreeMap<(usize, usize), Row> = BTreeMap::new();
    for _ in 0..bench.runs {
        outcome.calibrations.push(calibrate(&bench.relay_cores)?);
        for (s, scenario) in bench.scenarios.iter().enumerate() {
            for (t, scheme) in bench.schemes.iter().enumerate() {
                let row = rows.entry((s, t)).or_insert_with(|| Row {
                    scenario: *scenario,
                    transport: crate::run::transport(&format!("{scheme}:")),
                    reports: Vec::new(),
                    failed: Vec::new(),
                });
                match once(bench, *scenario, scheme) {
                    Ok(report) => {
                        each(&report)?;
                        row.reports.push(report);
                    }
                    Err(error) => row.failed.push(format!("{error:#}")),
                }
            }
        }
    }
    outcome.rows = rows.into_values().collect();
    Ok(outcome)
}

fn calibrate(cores: &str) -> Result<Calibration> {
    let output = on_cores(cores, std::env::current_exe()?)
        .args(["calibrate", "--json"])
        .stderr(Stdio::inherit())
        .output()
        .context("calibrate")?;
    serde_json::from_slice(&output.stdout).context("calibrate printed no result")
}

/// Runs one scenario against a new relay.
fn once(bench: &Bench, scenario: Scenario, scheme: &str) -> Result<Report> {
    let relay = RelayProcess::start(bench)?;
    let output = on_cores(&bench.load_cores, std::env::current_exe()?)
        .args(["run", scenario.name(), "--json"])
        .args(["--url", &format!("{scheme}://127.0.0.1:{}/", relay.port_of(scheme))])
        .args(["--version", bench.version.alpn()])
        .args(["--pid", &relay.child.id().to_string()])
        .args(["--seconds", &bench.seconds.to_string()])
        .args(["--ramp", &bench.ramp.to_string()])
        .output()
        .context("run")?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

fn on_cores(cores: &str, program: PathBuf) -> Command {
    let mut command = Command::new("taskset");
    // taskset executes the program in place, so the child's id is the program's.
    command.args(["-c", cores]).arg(program);
    command
}

struct RelayProcess {
    child: Child,
    port: u16,
    /// TCP port of each scheme over stream sockets.
    tcp: [(&'static str, u16); 3],
}

impl RelayProcess {
    fn start(bench: &Bench) -> Result<Self> {
        let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut tcp = [("ws", 0), ("wss", 0), ("tcp", 0)];
        let held: Vec<TcpListener> =
            tcp.iter().map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
        for (place, listener) in tcp.iter_mut().zip(&held) {
            place.1 = listener.local_addr()?.port();
        }
        drop(held);
        let mut filled = bench
            .relay_args
            .replace("{port}", &port.to_string())
            .replace("{workers}", &bench.workers.to_string());
        for (name, port) in tcp {
            filled = filled.replace(&format!("{{{name}}}"), &port.to_string());
        }
        let child = on_cores(&bench.relay_cores, bench.relay.clone())
            .args(filled.split_whitespace())
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", bench.relay.display()))?;
        let mut relay = Self { child, port, tcp };
        relay.wait_ready(bench.version)?;
        Ok(relay)
    }

    /// Port of the listener for a scheme.
    fn port_of(&self, scheme: &str) -> u16 {
        self.tcp.iter().find(|(name, _)| *name == scheme).map_or(self.port, |(_, port)| *port)
    }

    /// Waits until the relay accepts a session.
    fn wait_ready(&mut self, version: Version) -> Result<()> {
        let deadline = Instant::now() + START;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let url = format!("moqt://127.0.0.1:{}/", self.port);
        loop {
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("the relay ended with {status}");
            }
            let config = relay_client::ClientConfig {
                version,
                connect_timeout: Duration::from_millis(500),
                ..relay_client::ClientConfig::default()
            };
            let connected = runtime.block_on(async {
                let client = relay_client::Client::connect(&url, config).await?;
                client.close(relay_model::SessionCode::NONE, "").await;
                client.drained().await;
                Ok::<(), relay_client::Error>(())
            });
            match connected {
                Ok(()) => return Ok(()),
                Err(error) => ensure!(Instant::now() < deadline, "the relay does not answer: {error}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the relay by SIGTERM; kills it if it does not end.
    fn stop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Row {
    fn median(&self, value: impl Fn(&Report) -> Option<f64>) -> f64 {
        let mut values: Vec<f64> = self.reports.iter().filter_map(value).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn is_clean(&self) -> bool {
        self.failed.is_empty() && self.reports.iter().all(Report::is_clean)
    }

    /// The row's figure, its target and its unit.
    fn figure(&self) -> (f64, f64, &'static str) {
        let cpu =
            |target| (self.median(|r| r.relay.map(|relay| relay.cpu_us_per_delivery)), target, "us/delivery");
        match self.scenario {
            Scenario::Video => cpu(28.0),
            Scenario::Hd => cpu(125.0),
            Scenario::Audio => cpu(18.0),
            Scenario::Chat => cpu(22.0),
            Scenario::Memory => {
                let kib = self.median(|r| r.relay.map(|relay| relay.rss_per_connection_kib));
                (kib, CONNECTION_KIB, "KiB/connection")
            }
            Scenario::Join => {
                let beyond = self.median(|r| r.join.map(|join| join.beyond_two_rtt_ms.p99));
                (beyond, join::ALLOWANCE_MS, "ms beyond 2 RTT, p99")
            }
        }
    }

    /// Missed targets; empty when the row passes.
    fn misses(&self) -> Vec<&'static str> {
        let (figure, target, _) = self.figure();
        let p50 = self.median(|r| Some(r.latency_ms.p50));
        let p99 = self.median(|r| Some(r.latency_ms.p99));
        let misses = |value: f64, target: f64| value.is_nan() || value > target;
        let mut out = Vec::new();
        if misses(figure, target) {
            out.push("figure");
        }
        // On stream sockets the kernel gives no arrival time: the latency includes the check, to which the target does
        // not apply.
        let is_stamped = ["wt", "raw"].contains(&self.transport);
        if is_stamped && misses(p50, LATENCY_P50_MS) {
            out.push("p50");
        }
        if misses(p99, LATENCY_P99_MS) {
            out.push("p99");
        }
        if !self.is_clean() {
            out.push("losses");
        }
        out
    }
}

impl BenchOutcome {
    /// Whether every run delivered all frames. Missed targets are in the table only.
    pub fn is_clean(&self) -> bool {
        self.rows.iter().all(Row::is_clean)
    }
}

impl fmt::Display for BenchOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Calibration of the relay's core, one a round:")?;
        for calibration in &self.calibrations {
            writeln!(f, "- {calibration}")?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "| scenario | transport | runs | figure | target | p50 ms | p99 ms | checked p50/p99 ms | delivered | lost | drops | relay core | load core | verdict |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
        for row in &self.rows {
            let (figure, target, unit) = row.figure();
            let misses = row.misses();
            let verdict =
                if misses.is_empty() { "pass".to_owned() } else { format!("miss: {}", misses.join(", ")) };
            writeln!(
                f,
                "| {} | {} | {} | {figure:.1} {unit} | {target:.0} | {:.2} | {:.2} | {:.1} / {:.1} | {} | {} | {} | {:.0} % | {:.0} % | {verdict} |",
                row.scenario.name(),
                row.transport,
                row.reports.len(),
                row.median(|r| Some(r.latency_ms.p50)),
                row.median(|r| Some(r.latency_ms.p99)),
                row.median(|r| Some(r.checked_ms.p50)),
                row.median(|r| Some(r.checked_ms.p99)),
                row.reports.iter().map(|r| r.tally.delivered).sum::<u64>(),
                row.reports.iter().map(|r| r.tally.lost).sum::<u64>(),
                row.reports.iter().map(|r| r.dropped.len()).sum::<usize>(),
                row.median(|r| r.relay.map(|relay| relay.cpu_share * 100.0)),
                row.median(|r| Some(r.generator.cpu_share * 100.0)),
            )?;
        }
        for row in &self.rows {
            for why in &row.failed {
                writeln!(
                    f,
                    "\n{} over {}: a run measured nothing: {why}",
                    row.scenario.name(),
                    row.transport
                )?;
            }
        }
        Ok(())
    }
}
