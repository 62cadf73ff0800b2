//! Table of logs: by track, and by the sessions that read and write them.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use relay_model::{Epoch, Hop, Hops, LogId, Prefs, Route, SessionId, limits};

use crate::{
    config::CoreConfig,
    deadlines::DeadlineSet,
    log::{CoreLog, LogUpstream, PullWait, ReaderKey, TrackDemand},
    log_sessions::{LogSession, LogSessions},
    publisher::TrackKey,
    track_index::TrackIndex,
};

/// Memory of a log without groups, here, in the store and at its writer, bytes.
pub(crate) const LOG_BYTES: u64 = 8 * 1024;

/// Logs that are not retired.
#[derive(Debug)]
pub(crate) struct LogTable {
    linger: Duration,
    linger_limit_bytes: u64,
    logs: HashMap<LogId, CoreLog, RandomState>,
    tracks: TrackIndex,
    sessions: LogSessions,
    deadlines: DeadlineSet<LogTimer>,
    /// Number of logs that linger.
    lingering: usize,
    last_id: u64,
}

/// Deadline of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LogTimer {
    /// End of the linger.
    Linger(LogId),
    /// Merge into another log with the same track and writer.
    Merge(LogId),
}

/// Request to a new writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WriterRequest {
    pub(crate) epoch: Epoch,
    pub(crate) key: TrackKey,
    pub(crate) demand: TrackDemand,
    /// Session on whose behalf the writer is asked.
    pub(crate) asker: SessionId,
}

impl LogTable {
    /// Creates a table without logs.
    pub(crate) fn new(config: &CoreConfig) -> Self {
        Self {
            linger: config.linger,
            linger_limit_bytes: config.linger_bytes,
            logs: HashMap::default(),
            tracks: TrackIndex::default(),
            sessions: LogSessions::default(),
            deadlines: DeadlineSet::default(),
            lingering: 0,
            last_id: 0,
        }
    }

    pub(crate) fn get(&self, log: LogId) -> Option<&CoreLog> {
        self.logs.get(&log)
    }

    /// All logs, in no order.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (LogId, &CoreLog)> {
        self.logs.iter().map(|(id, log)| (*id, log))
    }

    /// Logs by track: those that have an upstream or wait for one.
    pub(crate) fn tracks(&self) -> &TrackIndex {
        &self.tracks
    }

    /// Logs by session.
    pub(crate) fn sessions(&self) -> &LogSessions {
        &self.sessions
    }

    /// Another log of the track with the same writer.
    pub(crate) fn twin(&self, log: LogId) -> Option<LogId> {
        let own = self.logs.get(&log)?;
        own.upstream.writer()?;
        let is_twin = |other: &LogId| self.get(*other).is_some_and(|other| other.upstream == own.upstream);
        self.tracks.of_track(&own.key).iter().copied().find(|other| *other != log && is_twin(other))
    }

    /// Open writer of `log`.
    pub(crate) fn writer(&self, log: LogId) -> Option<SessionId> {
        self.get(log)?.upstream.writer().filter(|writer| self.sessions.is_writer(*writer, log))
    }

    /// Records whether requests to the peer of an open session wait for stream credit.
    pub(crate) fn set_blocked(&mut self, session: SessionId, is_blocked: bool) {
        self.sessions.set_blocked(session, is_blocked);
    }

    /// Removes a closed session. Its readers stay in the logs until [`Self::leave`].
    pub(crate) fn close(&mut self, session: SessionId) -> LogSession {
        self.sessions.close(session)
    }

    /// Adds a log without a writer. `hops`: chain of the route it is created for.
    pub(crate) fn create(&mut self, key: TrackKey, hops: Hops, asker: SessionId) -> LogId {
        self.last_id += 1;
        let log = LogId(self.last_id);
        self.tracks.add(&key, log);
        self.logs.insert(log, CoreLog::new(key, hops, asker));
        log
    }

    /// Adds a reader of an open session to `log`.
    pub(crate) fn join(&mut self, log: LogId, reader: ReaderKey, demand: TrackDemand, exclude: Option<Hop>) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        state.add(reader, demand, exclude);
        self.sessions.add_sub(reader, log);
        // A suspended log waits for its publisher, not for readers.
        if state.upstream != LogUpstream::Suspended {
            self.stop_linger(log);
        }
    }

    /// Removes the entry of a subscription; [`Self::leave`] must follow. Returns its log.
    pub(crate) fn unsubscribe(&mut self, reader: ReaderKey) -> Option<LogId> {
        self.sessions.remove_sub(reader)
    }

    /// Removes a reader from `log`. Returns its pulled group, if no other reader waits for that.
    pub(crate) fn leave(&mut self, log: LogId, reader: ReaderKey) -> Option<u64> {
        self.logs.get_mut(&log)?.remove(reader)
    }

    /// Updates the preferences of a reader of `log`.
    pub(crate) fn update(&mut self, log: LogId, reader: ReaderKey, prefs: Prefs) {
        if let Some(state) = self.logs.get_mut(&log) {
            state.update(reader, prefs);
        }
    }

    /// Updates the hop that the route of a reader of `log` must not contain.
    pub(crate) fn set_exclude(&mut self, log: LogId, reader: ReaderKey, exclude: Option<Hop>) {
        if let Some(state) = self.logs.get_mut(&log) {
            state.set_exclude(reader, exclude);
        }
    }

    /// Records that `reader` waits for `group`, see [`CoreLog::wait`].
    pub(crate) fn wait(&mut self, log: LogId, reader: ReaderKey, group: u64) -> Option<PullWait> {
        self.logs.get_mut(&log)?.wait(reader, group)
    }

    /// Ends the wait for `group` of `log` for all readers. Returns whether there were any.
    pub(crate) fn pulled(&mut self, log: LogId, group: u64) -> bool {
        self.logs.get_mut(&log).is_some_and(|state| state.pulled(group))
    }

    /// Sets the chain of the route that `log` is written through.
    pub(crate) fn set_hops(&mut self, log: LogId, hops: &Hops) {
        if let Some(state) = self.logs.get_mut(&log) {
            state.hops = hops.clone();
        }
    }

    /// New demand of the readers of an open log, if it differs from the last request to its writer.
    pub(crate) fn take_demand(&mut self, log: LogId) -> Option<TrackDemand> {
        let state = self.logs.get_mut(&log)?;
        let wanted = state.wanted_of_open();
        (std::mem::replace(&mut state.asked, wanted) != wanted).then_some(wanted)
    }

    /// Makes the session of `route`, an open session, the writer of a log without one, and plans a merge if it
    /// also writes another log of the track.
    pub(crate) fn attach_writer(&mut self, log: LogId, route: &Route, now: Instant) -> Option<WriterRequest> {
        self.stop_linger(log);
        let state = self.logs.get_mut(&log)?;
        state.epoch = Epoch(state.epoch.0 + 1);
        state.asked = state.wanted();
        state.hops = route.hops.clone();
        state.upstream = LogUpstream::Open(route.session);
        state.ask_of(route.session, now);
        let asker = state.readers().next().map_or(state.asker, |(reader, _)| reader.session);
        let request =
            WriterRequest { epoch: state.epoch, key: state.key.clone(), demand: state.asked, asker };
        self.sessions.add_write(route.session, log);
        if self.twin(log).is_some() {
            self.cancel_merge(log);
            self.plan_merge(log, now + limits::MERGE);
        }
        Some(request)
    }

    /// Suspends an open log without a deadline. Returns its writer, if that is open.
    pub(crate) fn detach_writer(&mut self, log: LogId) -> Option<SessionId> {
        let state = self.logs.get_mut(&log)?;
        let writer = state.upstream.writer()?;
        state.upstream = LogUpstream::Suspended;
        self.cancel_merge(log);
        self.sessions.remove_write(writer, log).then_some(writer)
    }

    /// Suspends a log whose writer is closed, until the linger is over.
    pub(crate) fn suspend(&mut self, log: LogId, now: Instant) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        if state.upstream != LogUpstream::Suspended {
            state.upstream = LogUpstream::Suspended;
            self.cancel_merge(log);
            self.start_linger(log, now);
        }
    }

    /// Removes the entry of a writer that has ended `log`. False: it is not the writer of `epoch`.
    pub(crate) fn leave_writer(&mut self, session: SessionId, log: LogId, epoch: Epoch) -> bool {
        let is_newest = self.get(log).is_some_and(|state| state.epoch == epoch);
        is_newest && self.sessions.remove_write(session, log)
    }

    /// Marks a log as ended: the next subscription to the track gets a new one.
    pub(crate) fn finish(&mut self, log: LogId) {
        let Some(state) = self.logs.get_mut(&log) else { return };
        state.upstream = LogUpstream::Over;
        state.stop_pulls();
        self.cancel_merge(log);
        self.stop_linger(log);
        if let Some(state) = self.logs.get(&log) {
            self.tracks.remove(&state.key, log);
        }
    }

    /// Removes a log without a writer. False: there is no such log.
    pub(crate) fn remove(&mut self, log: LogId) -> bool {
        self.stop_linger(log);
        let removed = self.logs.remove(&log);
        removed.map(|state| self.tracks.remove(&state.key, log)).is_some()
    }

    /// Memory of logs that linger, bytes.
    pub(crate) fn linger_bytes(&self) -> u64 {
        self.lingering as u64 * LOG_BYTES
    }

    /// Whether the limit on the memory of logs that linger is reached.
    pub(crate) fn is_linger_full(&self) -> bool {
        self.linger_bytes() >= self.linger_limit_bytes
    }

    /// Starts the linger of an unread open log, or of a suspended one.
    pub(crate) fn start_linger(&mut self, log: LogId, now: Instant) {
        let Some(state) = self.logs.get_mut(&log).filter(|state| state.deadline.is_none()) else { return };
        let at = now + self.linger;
        state.deadline = Some(at);
        self.deadlines.arm(at, LogTimer::Linger(log));
        self.lingering += 1;
    }

    /// Takes the next deadline that has passed.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<LogTimer> {
        let timer = self.deadlines.pop_due(now)?;
        match timer {
            LogTimer::Linger(log) => {
                self.lingering -= 1;
                if let Some(state) = self.logs.get_mut(&log) {
                    state.deadline = None;
                }
            }
            LogTimer::Merge(log) => {
                if let Some(state) = self.logs.get_mut(&log) {
                    state.merge_at = None;
                }
            }
        }
        Some(timer)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.next()
    }

    /// Number of armed deadlines.
    pub(crate) fn deadlines(&self) -> usize {
        self.deadlines.len()
    }

    /// Asserts the invariants of the table.
    pub(crate) fn check(&self) {
        self.tracks.check();
        let mut of_tracks = BTreeSet::new();
        for (path, log) in self.tracks.logs() {
            assert!(self.get(log).is_some_and(|state| state.key.path == *path), "log of another path");
            assert!(of_tracks.insert(log), "a log is in the index twice");
        }
        let flowing = self.iter().filter(|(_, state)| state.upstream != LogUpstream::Over);
        assert_eq!(
            flowing.map(|(log, _)| log).collect::<BTreeSet<_>>(),
            of_tracks,
            "tracks and logs disagree"
        );
        for session in self.sessions.ids() {
            for (reader, log) in self.sessions.subs(session) {
                let is_reader = |state: &CoreLog| state.readers().any(|(key, _)| *key == reader);
                assert!(self.get(log).is_some_and(is_reader), "reader not in its log");
            }
            let is_own = |log| self.writer(log) == Some(session);
            let mut writes = self.sessions.writes(session).into_iter();
            assert!(writes.all(is_own), "session writes a log that it does not own");
        }
        self.iter().for_each(|(log, state)| self.check_log(log, state));
        let lingering = self.logs.values().filter(|log| log.deadline.is_some()).count();
        assert_eq!(lingering, self.lingering, "lingering logs are miscounted");
        let merging = self.logs.values().filter(|log| log.merge_at.is_some()).count();
        assert_eq!(lingering + merging, self.deadlines.len(), "a deadline without a log");
    }

    fn check_log(&self, log: LogId, state: &CoreLog) {
        state.check();
        for (reader, _) in state.readers() {
            assert_eq!(
                self.sessions.log_of(*reader),
                Some(log),
                "reader is not a subscription of its session"
            );
        }
        let is_armed = |at: Option<Instant>, timer| at.is_none_or(|at| self.deadlines.contains(at, timer));
        assert!(is_armed(state.deadline, LogTimer::Linger(log)), "linger deadline is not armed");
        assert!(is_armed(state.merge_at, LogTimer::Merge(log)), "merge deadline is not armed");
        let lingers = match state.upstream {
            LogUpstream::Open(writer) => {
                assert!(self.sessions.is_writer(writer, log), "writer does not list the log");
                assert!(state.epoch.0 > 0, "open without a fence");
                assert_eq!(state.asked, state.wanted_of_open(), "demand of the writer is outdated");
                state.is_unread()
            }
            LogUpstream::Suspended => {
                assert!(!state.is_unread(), "unread log is suspended");
                true
            }
            LogUpstream::Over => {
                assert!(!state.is_unread(), "unread log was kept after its end");
                assert_eq!(state.pulls().len(), 0, "pulls left after the end of the log");
                false
            }
        };
        assert_eq!(state.deadline.is_some(), lingers, "linger deadline and log state disagree");
    }

    fn stop_linger(&mut self, log: LogId) {
        if let Some(at) = self.logs.get_mut(&log).and_then(|state| state.deadline.take()) {
            self.deadlines.disarm(at, LogTimer::Linger(log));
            self.lingering -= 1;
        }
    }

    fn plan_merge(&mut self, log: LogId, at: Instant) {
        if let Some(state) = self.logs.get_mut(&log) {
            state.merge_at = Some(at);
            self.deadlines.arm(at, LogTimer::Merge(log));
        }
    }

    fn cancel_merge(&mut self, log: LogId) {
        if let Some(at) = self.logs.get_mut(&log).and_then(|state| state.merge_at.take()) {
            self.deadlines.disarm(at, LogTimer::Merge(log));
        }
    }
}

#[cfg(test)]
mod tests {
    use relay_model::{Cost, Path, SubId, TrackName, Want};

    use super::*;
    use crate::publisher::PublisherId;

    const HOP: Hop = Hop(7);

    fn table() -> LogTable {
        LogTable::new(&CoreConfig { linger_bytes: LOG_BYTES, ..CoreConfig::new(Hop(1)) })
    }

    fn create(table: &mut LogTable) -> LogId {
        let (path, track) = (Path::parse("a").unwrap(), TrackName::parse("video").unwrap());
        let key = TrackKey { path, publisher: PublisherId::Named(HOP), track };
        table.create(key, [HOP].into_iter().collect(), SessionId(9))
    }

    fn route(session: u64) -> Route {
        let hops = [HOP].into_iter().collect();
        Route { session: SessionId(session), hops, cost: Cost { warm: 1, cold: 1 }, stale: false }
    }

    fn join(table: &mut LogTable, log: LogId, session: u64) -> ReaderKey {
        let reader = ReaderKey { session: SessionId(session), sub: SubId(1) };
        table.join(log, reader, TrackDemand { prefs: Prefs::default(), want: Want::Live }, None);
        reader
    }

    #[test]
    fn new_writer_gets_the_demand_and_the_next_epoch() {
        let (mut table, now) = (table(), Instant::now());
        let log = create(&mut table);
        join(&mut table, log, 2);
        let first = table.attach_writer(log, &route(1), now).unwrap();
        assert_eq!((first.epoch, first.demand.want, first.asker), (Epoch(1), Want::Live, SessionId(2)));
        assert_eq!((table.writer(log), table.take_demand(log)), (Some(SessionId(1)), None));
        assert_eq!(table.detach_writer(log), Some(SessionId(1)));
        assert_eq!(table.attach_writer(log, &route(3), now).unwrap().epoch, Epoch(2));
        table.check();
    }

    #[test]
    fn unread_log_lingers_until_a_reader_joins() {
        let (mut table, now) = (table(), Instant::now());
        let log = create(&mut table);
        table.attach_writer(log, &route(1), now);
        table.start_linger(log, now);
        assert!(table.is_linger_full());
        table.check();
        let reader = join(&mut table, log, 2);
        assert_eq!((table.next_deadline(), table.linger_bytes()), (None, 0));
        assert_eq!(table.unsubscribe(reader), Some(log));
        assert_eq!(table.leave(log, reader), None);
        table.start_linger(log, now);
        let due = table.next_deadline().unwrap();
        assert_eq!((table.pop_due(now), table.pop_due(due)), (None, Some(LogTimer::Linger(log))));
        assert_eq!(table.linger_bytes(), 0);
    }

    #[test]
    fn merge_is_planned_for_a_second_log_of_one_writer() {
        let (mut table, now) = (table(), Instant::now());
        let (log, twin) = (create(&mut table), create(&mut table));
        join(&mut table, log, 2);
        join(&mut table, twin, 3);
        table.attach_writer(log, &route(1), now);
        assert_eq!((table.twin(log), table.next_deadline()), (None, None));
        table.attach_writer(twin, &route(1), now);
        assert_eq!(table.twin(twin), Some(log));
        table.check();
        assert_eq!(table.pop_due(now + limits::MERGE), Some(LogTimer::Merge(twin)));
        table.attach_writer(twin, &route(1), now);
        table.detach_writer(twin);
        assert_eq!(table.next_deadline(), None, "merge of a log that lost its writer");
    }

    #[test]
    fn ended_log_keeps_its_readers_and_leaves_its_track() {
        let (mut table, now) = (table(), Instant::now());
        let log = create(&mut table);
        let reader = join(&mut table, log, 2);
        table.attach_writer(log, &route(1), now);
        assert!(!table.leave_writer(SessionId(1), log, Epoch(2)), "report of another epoch");
        assert!(table.leave_writer(SessionId(1), log, Epoch(1)));
        table.finish(log);
        assert_eq!((table.tracks().paths().len(), table.sessions().log_of(reader)), (0, Some(log)));
        table.check();
    }

    #[test]
    fn closed_writer_is_not_detached() {
        let (mut table, now) = (table(), Instant::now());
        let log = create(&mut table);
        join(&mut table, log, 2);
        table.attach_writer(log, &route(1), now);
        table.close(SessionId(1));
        assert_eq!(table.writer(log), None);
        table.suspend(log, now);
        table.check();
        assert_eq!(table.detach_writer(log), None);
    }
}
