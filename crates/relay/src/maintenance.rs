//! Periodic tasks of a running relay: memory limits, log lines of counts, watchdog pings.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use relay_certificate::Watcher;
use relay_host::{
    limits::{
        memory::{Gauge, Reading},
        payload::Watch,
    },
    notify::Notify,
};
use relay_worker::{Relay, RelayCounts};
use tracing::{debug, error, info, warn};

use crate::log;

/// Interval of memory readings.
const TICK: Duration = Duration::from_millis(500);
/// Interval of the counters in the debug log.
const SHOW: Duration = Duration::from_secs(10);
/// Shortest interval between lines of counts in the log, written only when a count changed.
const CENSUS: Duration = Duration::from_secs(60);
/// Shortest interval between warnings about dropped log lines.
const LOSSES: Duration = Duration::from_secs(60);

/// Periodic tasks and the times they last ran.
pub(crate) struct Maintenance {
    watch: Watch,
    memory: Arc<Gauge>,
    /// Failure of memory readings that was logged last.
    memory_failure: Option<String>,
    looked: Option<Instant>,
    shown: Instant,
    census: CountsSchedule,
    last_status: ReportedStatus,
    watchdog_pinged: Option<Instant>,
    /// Number of sessions closed for memory that was logged last, and the time of that line.
    shed: (u64, Option<Instant>),
    losses: Losses,
}

/// Count of dropped log lines already reported.
#[derive(Default)]
struct Losses {
    mentioned: u64,
    at: Option<Instant>,
}

impl Losses {
    /// Lines dropped since the last report, when a report is due.
    fn take(&mut self, dropped: u64, now: Instant) -> Option<u64> {
        let new = dropped.saturating_sub(self.mentioned);
        if new == 0 || !is_due(self.at, LOSSES, now) {
            return None;
        }
        (self.mentioned, self.at) = (dropped, Some(now));
        Some(new)
    }
}

/// Status last sent to the service manager.
#[derive(Default)]
struct ReportedStatus {
    sessions: u64,
    broadcasts: u64,
    /// Failure to reload certificates.
    failure: Option<String>,
}

impl ReportedStatus {
    fn send(&self, relay: &Relay, notify: &Notify) {
        let Self { sessions, broadcasts, failure: trouble } = self;
        let state = if relay.is_ready() { "serving" } else { "draining" };
        let mut status = format!("{state} {sessions} sessions, {broadcasts} broadcasts");
        if let Some(trouble) = trouble {
            status += "; keeping previous certificates: ";
            status += trouble;
        }
        notify.status(&status);
    }
}

/// Delay between a change and its line: not all counters change at the same moment.
const COUNTS_DELAY: Duration = Duration::from_secs(1);

/// Schedule of the lines of counts.
#[derive(Default)]
struct CountsSchedule {
    /// Time of the first change since the last line.
    changed: Option<Instant>,
    last: Option<(Instant, CountsLine)>,
}

/// Counts of one log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CountsLine {
    sessions: u64,
    broadcasts: u64,
    subscriptions: u64,
    opened: u64,
    closed: u64,
    refused: u64,
}

impl Maintenance {
    /// Creates the tasks. `memory`: read at least once.
    pub(crate) fn new(watch: Watch, memory: Arc<Gauge>) -> Self {
        let (shown, census, told) = (Instant::now(), CountsSchedule::default(), ReportedStatus::default());
        let memory_trouble = memory.failure().map(|trouble| trouble.to_string());
        Self {
            watch,
            memory,
            memory_failure: memory_trouble,
            looked: None,
            shown,
            census,
            last_status: told,
            watchdog_pinged: None,
            shed: (0, None),
            losses: Losses::default(),
        }
    }

    /// Reads the memory of the machine or control group.
    pub(crate) fn memory(&self) -> Reading {
        self.memory.read()
    }

    /// Interval at which [`Self::run`] is to be called.
    pub(crate) fn pause(notify: &Notify) -> Duration {
        notify.watchdog().map_or(TICK, |interval| interval.min(TICK))
    }

    /// Runs the tasks that are due.
    pub(crate) fn run(&mut self, relay: &Relay, certificates: &Watcher, notify: &Notify) {
        let now = Instant::now();
        if is_due(self.looked, TICK, now) {
            self.looked = Some(now);
            let limits = self.watch.update(relay.store().budget().used(), &self.memory.read());
            relay.set_memory(limits.capacity, limits.ceiling);
            self.log_memory_failure();
        }
        let counts = relay.counts();
        if now >= self.shown + SHOW {
            self.shown = now;
            debug!("{counts}");
        }
        if let Some(CountsLine { sessions, broadcasts, subscriptions, opened, closed, refused }) =
            self.census.take(CountsLine::of(&counts), now)
        {
            info!(sessions, broadcasts, subscriptions, opened, closed, refused, "counts");
            self.last_status = ReportedStatus { sessions, broadcasts, failure: certificates.failure() };
            self.last_status.send(relay, notify);
        }
        self.warn_of_memory(&counts, now);
        self.report_reload_failure(relay, certificates, notify);
        if let Some(lines) = self.losses.take(log::dropped(), now) {
            warn!(lines, "log lines dropped: standard error is blocked");
        }
        if let Some(interval) =
            notify.watchdog().filter(|interval| is_due(self.watchdog_pinged, *interval, now))
        {
            self.ping_watchdog(relay, notify, interval, now);
        }
    }

    /// Logs, once a minute at most, that sessions were closed for memory.
    fn warn_of_memory(&mut self, counts: &RelayCounts, now: Instant) {
        let (logged, at) = self.shed;
        let closed = counts.state.closed;
        if closed > logged && is_due(at, CENSUS, now) {
            self.shed = (closed, Some(now));
            warn!(
                sessions = closed - logged,
                state_bytes = counts.state.clients,
                limit_bytes = counts.state.clients_limit,
                "session memory is short: closed the largest sessions of the largest addresses; \
                 `limits.memory` sets the limit"
            );
        }
    }

    /// Logs a failure to read memory once, and its recovery.
    fn log_memory_failure(&mut self) {
        let trouble = self.memory.failure().map(|trouble| trouble.to_string());
        if trouble == self.memory_failure {
            return;
        }
        match &trouble {
            Some(trouble) => warn!("{trouble}"),
            None => info!("memory use can be read again"),
        }
        self.memory_failure = trouble;
    }

    /// Updates the service manager's status when a failure to reload certificates begins or ends.
    fn report_reload_failure(&mut self, relay: &Relay, certificates: &Watcher, notify: &Notify) {
        let trouble = certificates.failure();
        if trouble != self.last_status.failure {
            trouble.as_ref().inspect(|trouble| debug!(trouble, "keeping previous certificates"));
            self.last_status.failure = trouble;
            self.last_status.send(relay, notify);
        }
    }

    /// Pings the watchdog of the service manager if no thread is stalled.
    fn ping_watchdog(&mut self, relay: &Relay, notify: &Notify, interval: Duration, now: Instant) {
        let silent = relay.pulse();
        // Before the first call no thread was probed.
        if self.watchdog_pinged.is_none() || silent.is_empty() {
            notify.ping();
        } else {
            let seconds = interval.as_secs_f64();
            error!(threads = silent.join(", "), seconds, "threads are stalled: watchdog ping withheld");
        }
        self.watchdog_pinged = Some(now);
    }
}

fn is_due(last: Option<Instant>, interval: Duration, now: Instant) -> bool {
    last.is_none_or(|last| now >= last + interval)
}

impl CountsLine {
    fn of(counts: &RelayCounts) -> Self {
        let total = counts.total();
        Self {
            sessions: total.sessions,
            broadcasts: counts.store.board_paths as u64,
            subscriptions: counts.core.readers as u64,
            opened: total.sessions_opened,
            closed: total.sessions_closed,
            refused: counts.refused(),
        }
    }
}

impl CountsSchedule {
    /// Returns the counts to log now, if a line is due: [`COUNTS_DELAY`] after a change, once per [`CENSUS`] at most.
    fn take(&mut self, line: CountsLine, now: Instant) -> Option<CountsLine> {
        if line == self.last.map_or(CountsLine::default(), |(_, line)| line) {
            self.changed = None;
            return None;
        }
        let settled = now >= *self.changed.get_or_insert(now) + COUNTS_DELAY;
        if !settled || !is_due(self.last.map(|(at, _)| at), CENSUS, now) {
            return None;
        }
        self.changed = None;
        self.last = Some((now, line));
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_lines_are_mentioned_once_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut losses = Losses::default();
        assert_eq!(losses.take(0, at(0)), None);
        assert_eq!(losses.take(3, at(1)), Some(3));
        assert_eq!(losses.take(9, at(60)), None);
        assert_eq!(losses.take(9, at(61)), Some(6));
        assert_eq!(losses.take(9, at(200)), None);
    }

    #[test]
    fn counts_are_logged_soon_after_a_change_once_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let with = |sessions| CountsLine { sessions, ..CountsLine::default() };
        let mut census = CountsSchedule::default();
        assert_eq!(census.take(with(0), at(0)), None, "an idle relay logs nothing");
        assert_eq!(census.take(with(1), at(6)), None, "others may not show it yet");
        assert_eq!(census.take(with(1), at(7)), Some(with(1)));
        assert_eq!(census.take(with(2), at(8)), None, "too soon");
        assert_eq!(census.take(with(3), at(66)), None);
        assert_eq!(census.take(with(3), at(67)), Some(with(3)));
        assert_eq!(census.take(with(3), at(500)), None, "nothing new");
        assert_eq!(census.take(with(4), at(501)), None);
        assert_eq!(census.take(with(5), at(502)), Some(with(5)), "the latest counts");
    }
}
