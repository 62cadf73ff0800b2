//! Reporting of path statistics to a peer that probes.

use std::time::{Duration, Instant};

use relay_model::transport::PathStats;

use crate::request::{Reply, RequestId};

/// Interval at which the path is sampled.
const SAMPLE: Duration = Duration::from_millis(200);
/// Interval at which unchanged values are repeated.
const REFRESH: Duration = Duration::from_secs(10);
/// Probe requests of one session; a peer needs only one.
const PROBES: usize = 4;

/// The probe requests of a peer.
#[derive(Debug, Default)]
pub(crate) struct ProbeStreams {
    streams: Vec<ProbeStream>,
    next: Option<Instant>,
}

#[derive(Debug)]
struct ProbeStream {
    request: RequestId,
    last_sent: Option<(Instant, Measurement)>,
}

/// Bits per second and milliseconds, 0 = unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Measurement {
    bitrate: u64,
    rtt_ms: u64,
}

impl ProbeStreams {
    /// Whether no further request is accepted.
    pub(crate) fn is_full(&self) -> bool {
        self.streams.len() >= PROBES
    }

    pub(crate) fn add(&mut self, request: RequestId, now: Instant) {
        self.streams.push(ProbeStream { request, last_sent: None });
        self.next = Some(now);
    }

    pub(crate) fn remove(&mut self, request: RequestId) {
        self.streams.retain(|probe| probe.request != request);
        if self.streams.is_empty() {
            self.next = None;
        }
    }

    /// Time of the next sample.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Whether a sample is due.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| now >= next)
    }

    /// Returns the values that have changed since they were last sent, if there is room for them.
    pub(crate) fn sample(
        &mut self,
        stats: PathStats,
        now: Instant,
        has_room: bool,
    ) -> Vec<(RequestId, Reply)> {
        self.next = Some(now + SAMPLE);
        let measured = Measurement::of(stats);
        let due = self.streams.iter_mut().filter(|probe| has_room && probe.is_due(measured, now));
        due.map(|probe| {
            probe.last_sent = Some((now, measured));
            let Measurement { bitrate, rtt_ms } = measured;
            (probe.request, Reply::Measured { bitrate, rtt_ms })
        })
        .collect()
    }
}

impl ProbeStream {
    fn is_due(&self, measured: Measurement, now: Instant) -> bool {
        self.last_sent.is_none_or(|(at, last)| {
            now.saturating_duration_since(at) >= REFRESH
                || moved(last.bitrate, measured.bitrate)
                || moved(last.rtt_ms, measured.rtt_ms)
        })
    }
}

impl Measurement {
    /// A measured value is at least 1, since 0 means unknown.
    fn of(stats: PathStats) -> Self {
        let rtt_ms = stats.rtt.map_or(0, |rtt| u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX).max(1));
        Self { bitrate: stats.bitrate.map_or(0, |bitrate| bitrate.max(1)), rtt_ms }
    }
}

/// Whether a value changed by more than a quarter.
fn moved(before: u64, now: u64) -> bool {
    before.abs_diff(now) > before / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changed_values_are_repeated_before_the_refresh() {
        let (mut probes, now) = (ProbeStreams::default(), Instant::now());
        let stats = |ms| PathStats { rtt: Some(Duration::from_millis(ms)), bitrate: None };
        probes.add(RequestId(4), now);
        assert!(probes.is_due(now));
        let first = probes.sample(stats(100), now, true);
        assert_eq!(first, [(RequestId(4), Reply::Measured { bitrate: 0, rtt_ms: 100 })]);
        assert!(!probes.is_due(now) && probes.is_due(now + SAMPLE));
        assert!(probes.sample(stats(125), now + SAMPLE, true).is_empty());
        assert_eq!(probes.sample(stats(126), now + SAMPLE, false), [], "no room");
        assert_eq!(probes.sample(stats(126), now + SAMPLE, true).len(), 1);
        assert_eq!(probes.sample(stats(126), now + SAMPLE + REFRESH, true).len(), 1);
        probes.remove(RequestId(4));
        assert_eq!(probes.deadline(), None);
    }
}
