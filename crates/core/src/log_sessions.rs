//! Index of the logs by the sessions that read and write them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldhash::fast::RandomState;
use relay_model::{LogId, SessionId, SubId};

use crate::log::ReaderKey;

/// Sessions that read or write logs, or whose requests wait for stream credit.
#[derive(Debug, Default)]
pub(crate) struct LogSessions(HashMap<SessionId, LogSession, RandomState>);

/// Logs of one session. Ordered, so that equal histories give equal actions.
#[derive(Debug, Default)]
pub(crate) struct LogSession {
    /// Log that serves each of its subscriptions.
    pub(crate) subs: BTreeMap<SubId, LogId>,
    /// Logs it was ordered to write.
    pub(crate) writes: BTreeSet<LogId>,
    /// Whether requests to its peer wait for stream credit.
    is_blocked: bool,
}

impl LogSessions {
    /// Log that serves a subscription.
    pub(crate) fn log_of(&self, reader: ReaderKey) -> Option<LogId> {
        self.0.get(&reader.session)?.subs.get(&reader.sub).copied()
    }

    /// Subscriptions of `session`, and the log of each.
    pub(crate) fn subs(&self, session: SessionId) -> Vec<(ReaderKey, LogId)> {
        let subs = self.0.get(&session).into_iter().flat_map(|own| &own.subs);
        subs.map(|(sub, log)| (ReaderKey { session, sub: *sub }, *log)).collect()
    }

    /// Logs that `session` writes.
    pub(crate) fn writes(&self, session: SessionId) -> Vec<LogId> {
        self.0.get(&session).into_iter().flat_map(|own| &own.writes).copied().collect()
    }

    /// Whether `session` writes `log`, and is open.
    pub(crate) fn is_writer(&self, session: SessionId, log: LogId) -> bool {
        self.0.get(&session).is_some_and(|own| own.writes.contains(&log))
    }

    /// Whether requests to the peer of `session` wait for stream credit.
    pub(crate) fn is_blocked(&self, session: SessionId) -> bool {
        self.0.get(&session).is_some_and(|own| own.is_blocked)
    }

    /// Number of subscriptions over all sessions.
    pub(crate) fn readers(&self) -> usize {
        self.0.values().map(|session| session.subs.len()).sum()
    }

    /// All sessions, in no order.
    pub(crate) fn ids(&self) -> impl ExactSizeIterator<Item = SessionId> {
        self.0.keys().copied()
    }

    /// Records the log that serves a subscription of an open session.
    pub(crate) fn add_sub(&mut self, reader: ReaderKey, log: LogId) {
        self.0.entry(reader.session).or_default().subs.insert(reader.sub, log);
    }

    /// Removes a subscription. Returns its log.
    pub(crate) fn remove_sub(&mut self, reader: ReaderKey) -> Option<LogId> {
        self.0.get_mut(&reader.session)?.subs.remove(&reader.sub)
    }

    /// Records that an open session writes `log`.
    pub(crate) fn add_write(&mut self, session: SessionId, log: LogId) {
        self.0.entry(session).or_default().writes.insert(log);
    }

    /// Records that a session no longer writes `log`. False if it did not, or is closed.
    pub(crate) fn remove_write(&mut self, session: SessionId, log: LogId) -> bool {
        self.0.get_mut(&session).is_some_and(|own| own.writes.remove(&log))
    }

    /// Records whether requests to the peer of an open session wait for stream credit.
    pub(crate) fn set_blocked(&mut self, session: SessionId, is_blocked: bool) {
        self.0.entry(session).or_default().is_blocked = is_blocked;
    }

    /// Removes a closed session.
    pub(crate) fn close(&mut self, session: SessionId) -> LogSession {
        self.0.remove(&session).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_session_neither_writes_nor_is_blocked() {
        let (session, log, mut sessions) = (SessionId(1), LogId(1), LogSessions::default());
        sessions.add_write(session, log);
        sessions.set_blocked(session, true);
        assert!(sessions.is_writer(session, log) && sessions.is_blocked(session));
        assert_eq!(sessions.close(session).writes, BTreeSet::from([log]));
        assert!(!sessions.is_writer(session, log) && !sessions.is_blocked(session));
        assert!(!sessions.remove_write(session, log));
        assert_eq!(sessions.ids().len(), 0);
    }

    #[test]
    fn subscriptions_are_listed_per_session() {
        let mut sessions = LogSessions::default();
        let reader = |session, sub| ReaderKey { session: SessionId(session), sub: SubId(sub) };
        sessions.add_sub(reader(1, 2), LogId(5));
        sessions.add_sub(reader(1, 1), LogId(6));
        sessions.add_sub(reader(2, 1), LogId(5));
        assert_eq!(sessions.subs(SessionId(1)), [(reader(1, 1), LogId(6)), (reader(1, 2), LogId(5))]);
        assert_eq!(sessions.remove_sub(reader(1, 2)), Some(LogId(5)));
        assert_eq!((sessions.log_of(reader(1, 2)), sessions.readers()), (None, 2));
    }
}
