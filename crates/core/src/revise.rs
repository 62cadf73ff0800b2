//! Permit changes of open sessions. All that lies outside of the new permit ends at once, as if the session
//! had never had it. What a wider permit allows takes a new request.

use std::time::Instant;

use relay_auth::Permit;
use relay_model::{LogId, Order, Path, SessionId, StreamCode, SubId};

use crate::{core::Core, log::LogUpstream};

impl Core {
    /// Applies a new permit of the same subject.
    pub(crate) fn revised(&mut self, id: SessionId, permit: Permit, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else {
            self.tally.unknown += 1;
            return;
        };
        let announced = session.announced.iter().filter(|path| !permit.publish().allows(path));
        let withdrawn: Vec<Path> = announced.cloned().collect();
        let writes: Vec<LogId> = session.writes.iter().copied().collect();
        let subs: Vec<(SubId, LogId)> = session.subs.iter().map(|(sub, log)| (*sub, *log)).collect();
        session.permit = permit.clone();
        self.tally.announce_denied += withdrawn.len() as u64;
        for path in withdrawn {
            self.unannounce(id, &path, false, now);
        }
        for log in writes {
            if self.logs.get(&log).is_some_and(|state| !permit.publish().allows(&state.path)) {
                self.cut_off(id, log, now);
            }
        }
        for (sub, log) in subs {
            if self.logs.get(&log).is_some_and(|state| !permit.subscribe().allows(&state.path)) {
                self.expel(id, sub, log, now);
            }
        }
    }

    /// Stops `log` from being written by `id`, whose path is withdrawn: another route takes over, or the log
    /// ends.
    fn cut_off(&mut self, id: SessionId, log: LogId, now: Instant) {
        let Some(state) = self.logs.get(&log).filter(|state| state.upstream == LogUpstream::Open(id)) else {
            return;
        };
        let is_unread = state.is_unread();
        match self.failover(log) {
            _ if is_unread => self.retire(log),
            Some(route) => self.open(log, &route, now),
            None => {
                self.close(log);
                self.end_log(log, StreamCode::UNROUTABLE);
            }
        }
    }

    /// Removes a subscription, with the same code as for an unknown path.
    fn expel(&mut self, id: SessionId, sub: SubId, log: LogId, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.subs.remove(&sub);
        }
        self.tally.subscribe_denied += 1;
        self.outbox.order(id, Order::Refuse { sub, code: StreamCode::UNROUTABLE });
        self.leave(log, (id, sub), now);
    }
}
