//! Rates between two samples of the relay's totals.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use relay_model::{LogId, SessionId};
use relay_worker::WorkerTraffic;

/// Time between two samples beyond which no rates are computed.
const STALE: Duration = Duration::from_secs(60);

/// Totals of one sample.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// By worker: time of the answer and traffic totals.
    pub(crate) workers: Vec<Option<(Instant, WorkerTraffic)>>,
    /// CPU time of the process.
    pub(crate) cpu: Duration,
    /// Bytes received and sent.
    pub(crate) sessions: HashMap<SessionId, (u64, u64)>,
    /// Bytes received; added while the sample is current.
    pub(crate) logs: HashMap<LogId, u64>,
}

/// The current sample and the one before it.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    now: Option<(Instant, Totals)>,
    before: Option<(Instant, Totals)>,
}

impl Rates {
    /// Begins a new sample.
    pub(crate) fn turn(&mut self, at: Instant, totals: Totals) {
        self.before = self.now.replace((at, totals)).filter(|(before, _)| at <= *before + STALE);
    }

    /// CPU use, cores.
    pub(crate) fn cores(&self) -> f64 {
        let (Some((at, now)), Some((then, before))) = (&self.now, &self.before) else { return 0.0 };
        let wall = at.saturating_duration_since(*then).as_secs_f64();
        if wall > 0.0 { now.cpu.saturating_sub(before.cpu).as_secs_f64() / wall } else { 0.0 }
    }

    /// Bits per second over all workers, received and sent. Each worker is measured over its own interval.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        let (Some((_, now)), Some((_, before))) = (&self.now, &self.before) else { return (0, 0) };
        let both = now.workers.iter().zip(&before.workers);
        both.filter_map(|(now, before)| (*now).zip(*before)).fold(
            (0, 0),
            |sum, ((at, now), (then, before))| {
                let time = at.saturating_duration_since(then);
                let received = bits_a_second(now.bytes_in.saturating_sub(before.bytes_in), time);
                let sent = bits_a_second(now.bytes_out.saturating_sub(before.bytes_out), time);
                (sum.0 + received, sum.1 + sent)
            },
        )
    }

    /// Bits per second of a session, received and sent; 0 for one that the previous sample lacks.
    pub(crate) fn session(&self, id: SessionId) -> (u64, u64) {
        let (Some((at, now)), Some((then, before))) = (&self.now, &self.before) else { return (0, 0) };
        let (Some(now), Some(before)) = (now.sessions.get(&id), before.sessions.get(&id)) else {
            return (0, 0);
        };
        let time = at.saturating_duration_since(*then);
        (
            bits_a_second(now.0.saturating_sub(before.0), time),
            bits_a_second(now.1.saturating_sub(before.1), time),
        )
    }

    /// Bits per second received into these logs together; records their totals for the next sample. A log that the
    /// previous sample lacks counts as 0: it may be new, or was not sampled.
    pub(crate) fn logs(&mut self, logs: &[(LogId, u64)]) -> u64 {
        let Some((at, now)) = &mut self.now else { return 0 };
        for (log, bytes) in logs {
            now.logs.entry(*log).or_insert(*bytes);
        }
        let Some((then, before)) = &self.before else { return 0 };
        let moved = |(log, bytes): &(LogId, u64)| moved(&before.logs, log, *bytes);
        bits_a_second(logs.iter().map(moved).sum(), at.saturating_duration_since(*then))
    }
}

fn moved<K: Eq + Hash>(before: &HashMap<K, u64>, key: &K, now: u64) -> u64 {
    before.get(key).map_or(0, |before| now.saturating_sub(*before))
}

fn bits_a_second(bytes: u64, time: Duration) -> u64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { (bytes as f64 * 8.0 / seconds).round() as u64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(at: Instant, bytes: u64, cpu_ms: u64) -> Totals {
        let traffic = WorkerTraffic { bytes_in: bytes, bytes_out: bytes * 2, ..WorkerTraffic::default() };
        Totals {
            workers: vec![Some((at, traffic))],
            cpu: Duration::from_millis(cpu_ms),
            sessions: HashMap::from([(SessionId(1), (bytes, 0))]),
            logs: HashMap::new(),
        }
    }

    #[test]
    fn rates_are_measured_between_two_samples() {
        let start = Instant::now();
        let mut rates = Rates::default();
        rates.turn(start, totals(start, 1_000, 0));
        assert_eq!((rates.cores(), rates.traffic(), rates.session(SessionId(1))), (0.0, (0, 0), (0, 0)));
        assert_eq!(rates.logs(&[(LogId(1), 100)]), 0, "nothing to compare with");
        let later = start + Duration::from_secs(2);
        rates.turn(later, totals(later, 3_000, 1_000));
        assert_eq!((rates.cores(), rates.traffic()), (0.5, (8_000, 16_000)));
        assert_eq!(rates.session(SessionId(1)), (8_000, 0));
        assert_eq!(rates.session(SessionId(2)), (0, 0));
        assert_eq!(
            rates.logs(&[(LogId(1), 350), (LogId(2), 9)]),
            1_000,
            "a new log counts from its second look"
        );
        let end = later + Duration::from_secs(1);
        rates.turn(end, totals(end, 3_000, 1_000));
        assert_eq!((rates.traffic(), rates.session(SessionId(1))), ((0, 0), (0, 0)), "back to zero");
        assert_eq!(rates.logs(&[(LogId(1), 350), (LogId(2), 10)]), 8);
    }

    #[test]
    fn stale_sample_yields_no_rates() {
        let start = Instant::now();
        let mut rates = Rates::default();
        rates.turn(start, totals(start, 0, 0));
        let later = start + STALE + Duration::from_millis(1);
        rates.turn(later, totals(later, 1_000_000, 500));
        assert_eq!((rates.cores(), rates.traffic()), (0.0, (0, 0)));
    }
}
