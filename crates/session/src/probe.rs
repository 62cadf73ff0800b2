//! PROBE: reporting path statistics to a peer.

use relay_model::transport::{PathStats, Stream, Transport};
use std::time::{Duration, Instant};

use relay_wire::lite::{self, Message};

use crate::control::ControlQueue;

/// Interval at which the path is sampled.
const SAMPLE: Duration = Duration::from_millis(200);
/// Interval at which unchanged values are repeated.
const REFRESH: Duration = Duration::from_secs(10);
/// Probe streams of one session; a peer needs only one.
pub(crate) const PROBES: usize = 4;

/// The probe streams of a peer.
#[derive(Debug, Default)]
pub(crate) struct ProbeStreams {
    streams: Vec<ProbeStream>,
    next: Option<Instant>,
}

#[derive(Debug)]
struct ProbeStream {
    stream: Stream,
    last_sent: Option<(Instant, lite::Probe)>,
}

impl ProbeStreams {
    pub(crate) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(crate) fn add(&mut self, stream: Stream, now: Instant) {
        self.streams.push(ProbeStream { stream, last_sent: None });
        self.next = Some(now);
    }

    pub(crate) fn remove(&mut self, stream: Stream) {
        self.streams.retain(|probing| probing.stream != stream);
        if self.streams.is_empty() {
            self.next = None;
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Sends values that have changed since the last message. Call when [`Self::deadline`] has passed.
    pub(crate) fn pump<T: Transport>(
        &mut self,
        t: &mut T,
        control: &mut ControlQueue,
        version: lite::Version,
        now: Instant,
    ) {
        if self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = Some(now + SAMPLE);
        let measured = probe(t.stats());
        for probing in &mut self.streams {
            let stale = probing.last_sent.is_none_or(|(at, said)| {
                now.saturating_duration_since(at) >= REFRESH
                    || moved(said.bitrate, measured.bitrate)
                    || moved(said.rtt_ms, measured.rtt_ms)
            });
            if stale && control.has_room() {
                probing.last_sent = Some((now, measured));
                let mut message = Vec::new();
                measured.encode(version, &mut message);
                control.send(t, now, probing.stream, message);
            }
        }
    }
}

/// PROBE message for `stats`. 0 means unknown on the wire, so a measured value is at least 1.
fn probe(stats: PathStats) -> lite::Probe {
    let rtt_ms = stats.rtt.map_or(0, |rtt| u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX).max(1));
    lite::Probe { bitrate: stats.bitrate.map_or(0, |bitrate| bitrate.max(1)), rtt_ms }
}

/// Whether a value changed by more than a quarter.
fn moved(before: u64, now: u64) -> bool {
    before.abs_diff(now) > before / 4
}
