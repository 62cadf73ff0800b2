//! What a run found, as text and as JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::tally::{Spread, Tally};

/// The outcome of one run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Name of the scenario.
    pub scenario: String,
    /// `wt` or `raw`.
    pub transport: String,
    /// Protocol version, as ALPN names it.
    #[serde(default)]
    pub version: String,
    /// Length of the window.
    pub seconds: f64,
    /// Publishers.
    pub publishers: u32,
    /// Viewers.
    pub viewers: u32,
    /// Frames of the window.
    pub tally: Tally,
    /// From publishing to arrival at the viewer's socket, of delivered frames.
    pub latency_ms: Spread,
    /// From publishing to the viewer having checked the frame: how far this process was behind too.
    pub checked_ms: Spread,
    /// Why clients dropped, one entry each.
    pub dropped: Vec<String>,
    /// The relay's process, when it was named.
    pub relay: Option<Relay>,
    /// This process.
    pub generator: Generator,
    /// In the join scenario.
    pub join: Option<Join>,
}

/// What the relay's process used.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Relay {
    /// User and system time of the window by delivered frames, us.
    pub cpu_us_per_delivery: f64,
    /// Cores it used in the window.
    pub cpu_share: f64,
    /// Resident memory with the publishers connected and no viewer yet.
    pub rss_before_kib: u64,
    /// Resident memory at the end of the window.
    pub rss_kib: u64,
    /// The difference by viewers.
    pub rss_per_connection_kib: f64,
}

/// What this process used: a measurement of the relay is one only while there was some to spare.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Generator {
    /// Cores it used in the window; it has one thread.
    pub cpu_share: f64,
    /// Worst delay of a frame behind its schedule.
    pub publisher_late_ms: f64,
}

/// How joining went.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Join {
    /// Viewers that had a first byte.
    pub joined: u32,
    /// From the established connection to the first byte of the latest group.
    pub first_byte_ms: Spread,
    /// Least round trip each connection saw.
    pub rtt_ms: Spread,
    /// The first less twice the second.
    pub beyond_two_rtt_ms: Spread,
}

impl Report {
    /// Whether every viewer stayed and received every frame.
    pub fn is_clean(&self) -> bool {
        let all_joined = self.join.is_none_or(|join| join.joined + 1 == self.viewers);
        self.tally.lost == 0 && self.tally.delivered > 0 && self.dropped.is_empty() && all_joined
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tally, latency_ms, checked_ms, generator, .. } = self;
        writeln!(
            f,
            "{} over {}, {}: {} publishers, {} viewers, {:.1} s",
            self.scenario, self.transport, self.version, self.publishers, self.viewers, self.seconds
        )?;
        writeln!(
            f,
            "delivered {} of {}, lost {} (missing {}, doubled {}, reordered {}, corrupt {}), broken groups {}",
            tally.delivered,
            tally.expected,
            tally.lost,
            tally.missing,
            tally.doubled,
            tally.reordered,
            tally.corrupt,
            tally.broken_groups
        )?;
        for (name, spread) in [("latency", latency_ms), ("checked", checked_ms)] {
            writeln!(
                f,
                "{name} p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
                spread.p50, spread.p99, spread.max
            )?;
        }
        if let Some(join) = &self.join {
            writeln!(
                f,
                "join: {} first bytes, p50 {:.2} ms, p99 {:.2} ms; rtt p50 {:.2} ms; beyond two rtt p99 {:.2} ms",
                join.joined,
                join.first_byte_ms.p50,
                join.first_byte_ms.p99,
                join.rtt_ms.p50,
                join.beyond_two_rtt_ms.p99
            )?;
        }
        if let Some(relay) = &self.relay {
            writeln!(
                f,
                "relay: {:.1} us/delivery, {:.0} % of a core, rss {} KiB, {:.1} KiB/connection",
                relay.cpu_us_per_delivery,
                relay.cpu_share * 100.0,
                relay.rss_kib,
                relay.rss_per_connection_kib
            )?;
        }
        writeln!(
            f,
            "generator: {:.0} % of a core, publishers at most {:.1} ms late",
            generator.cpu_share * 100.0,
            generator.publisher_late_ms
        )?;
        if let Some(first) = self.dropped.first() {
            writeln!(f, "{} clients dropped, the first: {first}", self.dropped.len())?;
        }
        f.write_str(if self.is_clean() { "clean" } else { "FAILED" })
    }
}
