//! Delivery rate of a path, for PROBE: a wrapper around the congestion controller measures acknowledged bytes.
//!
//! Only acknowledged bytes count: bytes sent into a deep queue have not been delivered. The library reports with
//! each acknowledgement whether the sender was limited by the application; only otherwise is the rate that of
//! the path.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use quinn_proto::{
    RttEstimator,
    congestion::{
        Bbr, BbrConfig, Controller, ControllerFactory, ControllerMetrics, Cubic, CubicConfig, NewReno,
        NewRenoConfig,
    },
};

use super::Congestion;

/// Shortest measured span.
const SPAN: Duration = Duration::from_millis(250);
/// Least number of round trips in a span.
const ROUND_TRIPS: u32 = 4;
/// Time without acknowledgements after which earlier measurements are discarded.
const SILENCE: Duration = Duration::from_secs(2);
/// Rate in bytes per second below which a path is idle and has no estimate.
const IDLE: u64 = 2_000;
/// Number of spans without full load after which the rate under full load is discarded.
const FADE: u32 = 40;

/// Delivery rate estimator of a path.
#[derive(Clone, Debug, Default)]
struct Rate {
    span: Option<RateSpan>,
    last: Option<Instant>,
    /// Smoothed rate under full load, in bytes per second.
    full: Option<u64>,
    /// Number of spans since then.
    fading: u32,
    /// Lower bound of the rate, in bytes per second, decaying by a sixteenth per span.
    least: u64,
}

#[derive(Clone, Copy, Debug)]
struct RateSpan {
    since: Instant,
    bytes: u64,
    /// Bytes acknowledged while the sender was limited by the application.
    idle_bytes: u64,
}

impl Rate {
    fn acked(&mut self, now: Instant, bytes: u64, is_idle: bool, rtt: Duration) {
        let silent = self.last.replace(now).is_none_or(|last| now.saturating_duration_since(last) > SILENCE);
        if silent {
            *self = Self { last: self.last, ..Self::default() };
        }
        // The first acknowledged bytes were delivered before the span.
        let Some(span) = &mut self.span else {
            self.span = Some(RateSpan { since: now, bytes: 0, idle_bytes: 0 });
            return;
        };
        span.bytes = span.bytes.saturating_add(bytes);
        if is_idle {
            span.idle_bytes = span.idle_bytes.saturating_add(bytes);
        }
        let took = now.saturating_duration_since(span.since);
        if took >= SPAN.max(rtt.saturating_mul(ROUND_TRIPS)) {
            let done = *span;
            self.span = Some(RateSpan { since: now, bytes: 0, idle_bytes: 0 });
            self.measured(done, took);
        }
    }

    fn measured(&mut self, span: RateSpan, took: Duration) {
        let rate = a_second(span.bytes, took);
        self.least = rate.max(self.least - self.least / 16);
        if self.least < IDLE {
            self.full = None;
            return;
        }
        let was_full = span.idle_bytes <= span.bytes / 8;
        self.fading = if was_full { 0 } else { self.fading.saturating_add(1) };
        self.full = match self.full {
            _ if self.fading > FADE => None,
            Some(full) if was_full && rate >= full => Some(full.midpoint(rate)),
            Some(full) if was_full => Some(full - (full - rate) / 4),
            // The path carries at least the rate just measured.
            Some(full) => Some(full.max(rate)),
            None if was_full => Some(rate),
            None => None,
        };
    }

    /// Estimates the bitrate in bits per second: the measured rate if there is one under full load; otherwise
    /// congestion window over round-trip time, capped at twice the delivered rate, since the quotient is far too
    /// high on short or idle paths. `None`: too little was sent recently.
    fn bitrate(&self, window: u64, rtt: Duration) -> Option<u64> {
        if self.least < IDLE {
            return None;
        }
        let guess = || a_second(window, rtt).min(self.least.saturating_mul(2));
        Some(self.full.unwrap_or_else(guess).saturating_mul(8))
    }
}

fn a_second(bytes: u64, took: Duration) -> u64 {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    bytes.saturating_mul(1_000_000) / micros
}

/// Congestion controller with a rate estimator, which reports the estimate as the pacing rate of its metrics.
struct Measured<C> {
    inner: C,
    rate: Rate,
    /// Bytes acknowledged by the ACK frame being processed.
    batch: u64,
    rtt: Duration,
}

impl<C> Measured<C> {
    fn boxed(inner: C) -> Box<Self> {
        Box::new(Self { inner, rate: Rate::default(), batch: 0, rtt: Duration::ZERO })
    }
}

impl<C: Controller + Clone + 'static> Controller for Measured<C> {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        if self.batch == 0 {
            self.rtt = rtt.get();
        }
        self.batch = self.batch.saturating_add(bytes);
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        if self.batch > 0 {
            self.rate.acked(now, std::mem::take(&mut self.batch), app_limited, self.rtt);
        }
        self.inner.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, is_persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.inner.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.inner.metrics();
        metrics.pacing_rate = self.rate.bitrate(self.inner.window(), self.rtt);
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            inner: self.inner.clone(),
            rate: self.rate.clone(),
            batch: self.batch,
            rtt: self.rtt,
        })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Returns the estimated bitrate of the path in bits per second, if known.
pub(super) fn bitrate(quic: &quinn_proto::Connection) -> Option<u64> {
    quic.congestion_state().metrics().pacing_rate
}

/// Creates a factory of measured controllers of one kind.
pub(super) fn factory(congestion: Congestion) -> Arc<dyn ControllerFactory + Send + Sync> {
    Arc::new(Factory(congestion, Arc::default(), Arc::default(), Arc::default()))
}

struct Factory(Congestion, Arc<CubicConfig>, Arc<BbrConfig>, Arc<NewRenoConfig>);

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        match self.0 {
            Congestion::Cubic => Measured::boxed(Cubic::new(self.1.clone(), now, current_mtu)),
            Congestion::Bbr => Measured::boxed(Bbr::new(self.2.clone(), current_mtu)),
            Congestion::NewReno => Measured::boxed(NewReno::new(self.3.clone(), now, current_mtu)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(40);

    /// Acknowledges `rate` bytes per second during `span`, every 10 ms.
    fn carry(measure: &mut Rate, now: &mut Instant, rate: u64, is_idle: bool, span: Duration) {
        let end = *now + span;
        while *now < end {
            *now += Duration::from_millis(10);
            measure.acked(*now, rate / 100, is_idle, RTT);
        }
    }

    #[test]
    fn each_controller_is_the_one_asked_for() {
        let built = |congestion| factory(congestion).build(Instant::now(), 1_200).into_any();
        assert!(built(Congestion::Cubic).is::<Measured<Cubic>>());
        assert!(built(Congestion::Bbr).is::<Measured<Bbr>>());
        assert!(built(Congestion::NewReno).is::<Measured<NewReno>>());
    }

    #[test]
    fn under_full_load_the_rate_is_that_of_the_path() {
        let (mut rate, mut now) = (Rate::default(), Instant::now());
        carry(&mut rate, &mut now, 625_000, false, Duration::from_secs(3));
        // Independent of the window.
        let told = rate.bitrate(10_000_000, RTT).unwrap();
        assert!((4_800_000..=5_200_000).contains(&told), "{told}");
        carry(&mut rate, &mut now, 125_000, false, Duration::from_secs(5));
        let told = rate.bitrate(10_000_000, RTT).unwrap();
        assert!((900_000..=1_200_000).contains(&told), "{told}: a path that became slower");
    }

    #[test]
    fn application_limited_load_does_not_lower_the_estimate() {
        let (mut rate, mut now) = (Rate::default(), Instant::now());
        carry(&mut rate, &mut now, 100_000, true, Duration::from_secs(3));
        let told = rate.bitrate(10_000_000, RTT).unwrap();
        assert!((1_500_000..=1_700_000).contains(&told), "{told}: room for twice as much");
        assert_eq!(rate.bitrate(4_000, RTT), Some(800_000), "no more than the window");
        // The rate under full load is kept for a while.
        carry(&mut rate, &mut now, 625_000, false, Duration::from_secs(3));
        carry(&mut rate, &mut now, 100_000, true, Duration::from_secs(3));
        assert!(rate.bitrate(10_000_000, RTT).unwrap() > 4_500_000);
        carry(&mut rate, &mut now, 100_000, true, Duration::from_secs(20));
        assert!(rate.bitrate(10_000_000, RTT).unwrap() < 2_000_000);
    }

    #[test]
    fn nothing_is_said_of_an_idle_path() {
        let (mut rate, mut now) = (Rate::default(), Instant::now());
        assert_eq!(rate.bitrate(14_720, RTT), None);
        carry(&mut rate, &mut now, 1_500, true, Duration::from_secs(3));
        assert_eq!(rate.bitrate(14_720, RTT), None, "pings and probes are no load");
        carry(&mut rate, &mut now, 625_000, false, Duration::from_secs(3));
        assert!(rate.bitrate(14_720, RTT).is_some());
        now += Duration::from_secs(5);
        rate.acked(now, 40, true, RTT);
        assert_eq!(rate.bitrate(14_720, RTT), None, "forgotten");
    }

    #[test]
    fn a_burst_into_a_deep_queue_is_measured_as_it_drains() {
        let (mut rate, mut now) = (Rate::default(), Instant::now());
        carry(&mut rate, &mut now, 20_000, true, Duration::from_secs(2));
        // A keyframe: full load until its last flight, then nothing more to send.
        carry(&mut rate, &mut now, 625_000, false, Duration::from_millis(100));
        carry(&mut rate, &mut now, 625_000, true, Duration::from_millis(100));
        carry(&mut rate, &mut now, 20_000, true, Duration::from_millis(300));
        let told = rate.bitrate(1_000_000, RTT).unwrap();
        assert!(told <= 2 * 5_000_000, "{told}");
    }
}
