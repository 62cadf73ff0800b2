//! Report of a run, as text and JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::tally::{Spread, Tally};

/// Result of one run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Name of the scenario.
    pub scenario: String,
    /// Transport: `wt`, `raw`, `ws`, `wss`, `tcp` or `unix`.
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
    /// From publishing to arrival at the viewer's socket, for delivered frames.
    pub latency_ms: Spread,
    /// From publishing to the viewer's check of the frame: includes delays of this process.
    pub checked_ms: Spread,
    /// Errors of dropped clients, one entry each.
    pub dropped: Vec<String>,
    /// Figures of the relay's process, if its id was given.
    pub relay: Option<RelayFigures>,
    /// Figures of this process.
    pub generator: Generator,
    /// Figures of the join scenario.
    pub join: Option<Join>,
}

/// Resource use of the relay's process.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct RelayFigures {
    /// User and system time in the window per delivered frame, us.
    pub cpu_us_per_delivery: f64,
    /// Cores used in the window.
    pub cpu_share: f64,
    /// Resident memory with the publishers connected and no viewer yet.
    pub rss_before_kib: u64,
    /// Resident memory at the end of the window.
    pub rss_kib: u64,
    /// Growth of the resident memory per viewer.
    pub rss_per_connection_kib: f64,
}

/// Resource use of this process: figures of the relay are valid only while it had spare CPU.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Generator {
    /// Cores used in the window, by its one thread.
    pub cpu_share: f64,
    /// Largest delay of a frame behind its schedule.
    pub publisher_late_ms: f64,
}

/// Figures of joining viewers.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Join {
    /// Viewers that received a first byte.
    pub joined: u32,
    /// From the established connection to the first byte of the latest group.
    pub first_byte_ms: Spread,
    /// Smallest round trip of each connection.
    pub rtt_ms: Spread,
    /// [`Self::first_byte_ms`] without twice [`Self::rtt_ms`].
    pub beyond_two_rtt_ms: Spread,
}

impl Report {
    /// Whether every viewer stayed connected and received every frame.
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
