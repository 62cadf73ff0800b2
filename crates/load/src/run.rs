//! One measurement: ramp up, measure a window, drain, judge.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use relay_client::{Certs, Client, ClientConfig, SocketFactory, lite::Version};
use tokio::time::{sleep, sleep_until, timeout};

use crate::{
    arrival::{self, Clock, LastArrival},
    join, process,
    publisher::Publisher,
    report::{Generator, RelayFigures, Report},
    scenario::{Scenario, Shape},
    tally::{Spread, Tally, Times},
    viewer::Viewer,
};

/// Shortest time between two connecting viewers: two cores manage no more.
const HANDSHAKE: Duration = Duration::from_millis(5);
/// Time after the ramp within which every viewer must receive frames.
const READY: Duration = Duration::from_secs(15);
/// Pause between the last viewer and the window.
const WINDOW_DELAY: Duration = Duration::from_millis(500);
/// Time after the window in which its frames may still arrive.
const DRAIN: Duration = Duration::from_secs(3);
/// Interval at which conditions are polled.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Time for the last packets to be sent.
const FLUSH_TIME: Duration = Duration::from_millis(100);

/// Parameters of a measurement.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// URL of the relay: `https://` for WebTransport, `moqt://` for raw QUIC, `ws://` and `wss://` for a WebSocket,
    /// `tcp://`, `unix://`.
    pub url: String,
    /// Protocol version of publishers and viewers.
    pub version: Version,
    /// Length of the window.
    pub window: Duration,
    /// Time over which the viewers connect.
    pub ramp: Duration,
    /// Viewers, instead of the scenario's number.
    pub viewers: Option<u32>,
    /// Id of the relay's process, to measure its CPU and memory.
    pub pid: Option<u32>,
    /// Certificates of the relay that are trusted.
    pub certs: Certs,
}

/// Connection parameters of every simulated client.
#[derive(Clone)]
pub(crate) struct RunTarget {
    url: String,
    version: Version,
    /// Path prefix of this run, so that broadcasts of other runs are not mistaken for its own.
    prefix: String,
    clock: Clock,
    certs: Certs,
}

impl RunTarget {
    /// Connects a session; returns it with the arrival time of its socket.
    pub(crate) async fn connect(&self) -> Result<(Client, LastArrival), relay_client::Error> {
        let (clock, last) = (self.clock, LastArrival::default());
        let told = last.clone();
        let socket: SocketFactory = Arc::new(move |socket| arrival::wrap(socket, clock, told.clone()));
        let config = ClientConfig {
            version: self.version,
            socket: Some(socket),
            certs: self.certs.clone(),
            ..ClientConfig::default()
        };
        Ok((Client::connect(&self.url, config).await?, last))
    }

    /// Path of the `index`-th publisher's broadcast.
    pub(crate) fn path(&self, index: u32) -> String {
        format!("{}/{index}", self.prefix)
    }
}

/// Clients of a run.
pub(crate) struct RunClients {
    pub(crate) target: RunTarget,
    pub(crate) clock: Clock,
    pub(crate) shape: Shape,
    pub(crate) publishers: Vec<Publisher>,
    pub(crate) viewers: Vec<Viewer>,
}

/// Runs `scenario` once. An error means that nothing was measured; losses and drops are in the report.
pub async fn run(scenario: Scenario, options: &LoadOptions) -> Result<Report> {
    process::raise_file_limit();
    let mut shape = scenario.shape();
    shape.viewers = options.viewers.unwrap_or(shape.viewers);
    ensure!(shape.viewers > 0, "at least one viewer is needed");
    let prefix = format!("load/{:016x}", RandomState::new().build_hasher().finish());
    let clock = Clock::new();
    let (url, certs) = (options.url.clone(), options.certs.clone());
    let target = RunTarget { url, version: options.version, prefix, clock, certs };
    let mut stage = RunClients { target, clock, shape, publishers: Vec::new(), viewers: Vec::new() };
    stage.publish().await?;
    let rss_before = options.pid.map(process::rss_kib).transpose()?;
    let mut report = match scenario {
        Scenario::Join => join::run(&mut stage, options).await?,
        _ => steady(&mut stage, options).await?,
    };
    report.scenario = scenario.name().to_owned();
    let viewers = stage.viewers.len().max(1);
    stage.leave().await;
    report.transport = transport(&options.url).to_owned();
    report.version = options.version.alpn().to_owned();
    if let (Some(relay), Some(before)) = (&mut report.relay, rss_before) {
        relay.rss_before_kib = before;
        let grown = relay.rss_kib.saturating_sub(before) as f64;
        relay.rss_per_connection_kib = grown / viewers as f64;
    }
    Ok(report)
}

/// Name of the transport of a URL, as in reports.
pub fn transport(url: &str) -> &'static str {
    match url.split(':').next() {
        Some("https") => "wt",
        Some("ws") => "ws",
        Some("wss") => "wss",
        Some("tcp") => "tcp",
        Some("unix") => "unix",
        _ => "raw",
    }
}

async fn steady(stage: &mut RunClients, options: &LoadOptions) -> Result<Report> {
    let start = tokio::time::Instant::now();
    let ramp = options.ramp.max(HANDSHAKE * stage.shape.viewers);
    for index in 0..stage.shape.viewers {
        sleep_until(start + ramp.mul_f64(f64::from(index) / f64::from(stage.shape.viewers))).await;
        stage.view(index % stage.shape.publishers);
    }
    stage.ready().await?;
    sleep(WINDOW_DELAY).await;
    stage.measure(options, async |_| sleep(options.window).await, |_, window| window).await
}

impl RunClients {
    /// Starts the publishers and waits until the relay has announced them.
    async fn publish(&mut self) -> Result<()> {
        for index in 0..self.shape.publishers {
            let publisher = Publisher::start(&self.target, self.shape, index, self.clock).await?;
            self.publishers.push(publisher);
        }
        let (scout, _) = self.target.connect().await.context("connect")?;
        for index in 0..self.shape.publishers {
            let path = self.target.path(index);
            let seen = async { scout.announced(&path).await?.wait(&path, true).await };
            timeout(READY, seen).await.with_context(|| format!("{path} is not announced"))??;
        }
        Ok(())
    }

    /// Adds a viewer of `publisher`.
    pub(crate) fn view(&mut self, publisher: u32) {
        self.viewers.push(Viewer::start(&self.target, self.shape, publisher, self.clock));
    }

    /// Waits until every viewer has received a frame.
    pub(crate) async fn ready(&self) -> Result<()> {
        let deadline = Instant::now() + READY;
        loop {
            if let Some(why) = self.dropped().into_iter().next() {
                bail!("a viewer dropped during the ramp: {why}");
            }
            let waiting = self.viewers.iter().filter(|viewer| viewer.view.latest().is_none()).count();
            if waiting == 0 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{waiting} viewers received nothing");
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Runs `during` as the window, and judges each viewer by the frames that `due` derives from it.
    pub(crate) async fn measure(
        &mut self,
        options: &LoadOptions,
        during: impl AsyncFnOnce(&mut Self),
        due: impl Fn(&Viewer, Range<u64>) -> Range<u64>,
    ) -> Result<Report> {
        let me = std::process::id();
        for publisher in &self.publishers {
            publisher.pace.forget_late();
        }
        let starts = self.first_due()?;
        let began = Instant::now();
        let relay_before = options.pid.map(process::cpu).transpose()?;
        let own_before = process::cpu(me)?;
        during(self).await;
        let ends = self.first_due()?;
        let relay_after = options.pid.map(process::cpu).transpose()?;
        let own_after = process::cpu(me)?;
        let took = began.elapsed();
        let rss_kib = options.pid.map(process::rss_kib).transpose()?.unwrap_or(0);
        for (publisher, end) in self.publishers.iter().zip(&ends) {
            publisher.pace.stop_at(*end);
        }
        self.drain(&ends).await;

        let (tally, mut times) = self.judge(&starts, &ends, due);
        let per_second = |cpu: Duration| cpu.as_secs_f64() / took.as_secs_f64();
        let relay = relay_before.zip(relay_after).map(|(before, after)| {
            let cpu = after.saturating_sub(before);
            RelayFigures {
                cpu_us_per_delivery: cpu.as_secs_f64() * 1e6 / tally.delivered.max(1) as f64,
                cpu_share: per_second(cpu),
                rss_kib,
                ..RelayFigures::default()
            }
        });
        let late_us = self.publishers.iter().map(|publisher| publisher.pace.late_us()).max();
        let generator = Generator {
            cpu_share: per_second(own_after.saturating_sub(own_before)),
            publisher_late_ms: late_us.unwrap_or(0) as f64 / 1_000.0,
        };
        Ok(Report {
            seconds: took.as_secs_f64(),
            publishers: self.shape.publishers,
            viewers: self.viewers.len() as u32,
            latency_ms: Spread::of(&mut times.arrived_us),
            checked_ms: Spread::of(&mut times.checked_us),
            dropped: self.dropped(),
            tally,
            relay,
            generator,
            ..Report::default()
        })
    }

    /// Errors of dropped viewers, one entry each; publishers whose session was lost are included.
    fn dropped(&self) -> Vec<String> {
        let publishers = self.publishers.iter().filter_map(|publisher| publisher.client.is_closed());
        let publishers = publishers.map(|closed| format!("publisher: {closed}"));
        publishers.chain(self.viewers.iter().filter_map(|viewer| viewer.view.dropped())).collect()
    }

    /// Closes all sessions.
    async fn leave(self) {
        for viewer in self.viewers {
            viewer.stop().await;
        }
        for publisher in self.publishers {
            publisher.stop().await;
        }
        // Tasks of the connections send the closes.
        sleep(FLUSH_TIME).await;
    }

    fn first_due(&self) -> Result<Vec<u64>> {
        let now_ns = self.clock.now_ns();
        let due = self.publishers.iter().map(|publisher| publisher.pace.first_due(now_ns));
        due.collect::<Option<_>>().context("a publisher was never asked for its track")
    }

    /// Waits until every viewer has received the last frames, at most for [`DRAIN`].
    async fn drain(&self, ends: &[u64]) {
        let deadline = Instant::now() + DRAIN;
        while Instant::now() < deadline {
            let sent = self.publishers.iter().zip(ends).all(|(publisher, end)| publisher.pace.sent() >= *end);
            let here = self.viewers.iter().all(|viewer| {
                let last = ends.get(viewer.publisher as usize).map_or(0, |end| end.saturating_sub(1));
                viewer.view.latest().is_some_and(|latest| latest >= last)
            });
            if sent && here {
                return;
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    fn judge(
        &self,
        starts: &[u64],
        ends: &[u64],
        due: impl Fn(&Viewer, Range<u64>) -> Range<u64>,
    ) -> (Tally, Times) {
        let mut total = Tally::default();
        let mut times = Times::default();
        for viewer in &self.viewers {
            let publisher = viewer.publisher as usize;
            let window =
                starts.get(publisher).copied().unwrap_or(0)..ends.get(publisher).copied().unwrap_or(0);
            let window = due(viewer, window);
            total += viewer.view.with_ledger(|ledger| ledger.judge(window, &mut times));
        }
        (total, times)
    }
}
