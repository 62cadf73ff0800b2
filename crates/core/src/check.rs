//! Invariants that hold between any two events.

use std::collections::BTreeSet;

use relay_model::{LogId, SessionId, limits};

use crate::{
    core::Core,
    log::{CoreLog, LogUpstream},
    stale::{STALE_ROUTES, stale_footprint},
    timers::Timer,
};

impl Core {
    /// Asserts every invariant by walking the whole state; for tests and simulations.
    pub fn check(&self) {
        self.sessions.keys().for_each(|id| self.check_session(*id));
        self.check_routes();
        self.logs.iter().for_each(|(id, log)| self.check_log(*id, log));
        let armed = self.logs.values().filter(|log| log.deadline.is_some()).count();
        assert_eq!(armed, self.timers.lingering(), "lingering logs are miscounted");
        let ghosts: usize = self.broadcasts.values().map(|broadcast| broadcast.stale_routes().count()).sum();
        assert_eq!(ghosts, self.stale_routes, "ghosts are miscounted");
        assert!(ghosts <= STALE_ROUTES);
        let ghost_bytes: u64 = self
            .broadcasts
            .iter()
            .map(|(path, broadcast)| broadcast.stale_routes().count() as u64 * stale_footprint(path))
            .sum();
        assert_eq!(ghost_bytes, self.ghost_bytes, "memory of ghosts is miscounted");
        let merging = self.logs.values().filter(|log| log.merge_at.is_some()).count();
        let braked = self.sessions.values().filter(|session| session.brake.deadline().is_some()).count();
        assert_eq!(armed + merging + ghosts + braked, self.timers.len(), "a timer without an owner");
    }

    fn check_session(&self, id: SessionId) {
        let session = &self.sessions[&id];
        assert!(session.brake.len() <= limits::BRAKE_WAITING);
        let due = session.brake.deadline();
        assert_eq!(due.is_some(), session.brake.len() > 0, "queued requests and brake timer disagree");
        assert!(
            due.is_none_or(|at| self.timers.contains(at, Timer::Brake(id))),
            "brake deadline is not armed"
        );
        for path in &session.announced {
            assert!(session.permit.publish().allows(path), "announced outside the permit");
            let routes = self.broadcasts[path].routes();
            assert!(
                routes.iter().any(|candidate| candidate.route.session == id),
                "announced path has no route"
            );
        }
        for (sub, log) in &session.subs {
            assert!(session.permit.subscribe().allows(&self.logs[log].path), "reads outside the permit");
            assert!(
                self.logs[log].readers().any(|(reader, _)| *reader == (id, *sub)),
                "reader not in its log"
            );
        }
        for log in &session.writes {
            assert_eq!(
                self.logs[log].upstream,
                LogUpstream::Open(id),
                "session writes a log that it does not own"
            );
            assert!(session.permit.publish().allows(&self.logs[log].path), "writes outside the permit");
        }
    }

    fn check_routes(&self) {
        let mut tabled = BTreeSet::new();
        for (path, broadcast) in &self.broadcasts {
            broadcast.check(self.config.takeover);
            assert!(!broadcast.is_empty(), "empty path was kept");
            for candidate in broadcast.routes() {
                let route = &candidate.route;
                match candidate.stale {
                    Some(ghost) => {
                        if let Some(session) = self.sessions.get(&route.session) {
                            assert!(ghost.withdrawal.is_some(), "vanished route of an open session");
                            assert!(!session.announced.contains(path), "stale route of an announced path");
                        }
                        let timer = Timer::Stale(path.clone(), route.session);
                        assert!(self.timers.contains(ghost.due, timer), "ghost deadline is not armed");
                    }
                    None => {
                        assert!(
                            self.sessions[&route.session].announced.contains(path),
                            "live route was not announced"
                        )
                    }
                }
                assert!(
                    !route.passes(self.config.hop) && route.hops.len() <= limits::HOPS,
                    "looped or too long chain"
                );
            }
            for log in broadcast.logs() {
                assert_eq!(&self.logs[&log].path, path);
                assert_ne!(self.logs[&log].upstream, LogUpstream::Over, "an ended log takes readers");
                assert!(tabled.insert(log), "a log is in the table twice");
            }
        }
        let flowing = self.logs.iter().filter(|(_, log)| log.upstream != LogUpstream::Over);
        assert_eq!(
            flowing.map(|(id, _)| *id).collect::<BTreeSet<_>>(),
            tabled,
            "route table and logs disagree"
        );
    }

    fn check_log(&self, id: LogId, log: &CoreLog) {
        log.check();
        for ((session, sub), reading) in log.readers() {
            let session = &self.sessions[session];
            assert_eq!(session.subs.get(sub), Some(&id), "reader is not a subscription of its session");
            assert_eq!(session.exclude, reading.exclude, "excluded hop of a reader is outdated");
        }
        let lingers = match log.upstream {
            LogUpstream::Open(_) => log.is_unread(),
            LogUpstream::Suspended => true,
            LogUpstream::Over => false,
        };
        assert_eq!(log.deadline.is_some(), lingers, "linger deadline and log state disagree");
        if let LogUpstream::Open(writer) = log.upstream {
            assert!(
                !lingers || !self.sessions[&writer].blocked,
                "unread log keeps a stream of a blocked session"
            );
        }
        assert!(
            log.deadline.is_none_or(|at| self.timers.contains(at, Timer::Log(id))),
            "linger deadline is not armed"
        );
        if let Some(twin) = self.twin(id) {
            let planned = log.merge_at.is_some() || self.logs[&twin].merge_at.is_some();
            assert!(planned, "two logs of one track with one writer");
        }
        let merge = || Timer::Merge(id);
        assert!(
            log.merge_at.is_none_or(|at| self.timers.contains(at, merge())),
            "merge deadline is not armed"
        );
        let routes = || self.broadcasts.get(&log.path).into_iter().flat_map(|b| b.routes_to(log.publisher));
        match log.upstream {
            LogUpstream::Open(writer) => {
                assert!(self.sessions[&writer].writes.contains(&id), "writer does not list the log");
                assert!(log.epoch.0 > 0, "open without a fence");
                let own = routes().find(|candidate| candidate.route.session == writer);
                match own {
                    Some(own) => {
                        assert_eq!(own.route.hops, log.hops);
                        let mut better = routes().take_while(|candidate| candidate.route.session != writer);
                        let missed = better.any(|candidate| log.serves_through(&candidate.route));
                        assert!(log.is_unread() || !missed, "log is not on its best route");
                    }
                    None => {
                        let leaving = self.broadcasts.get(&log.path);
                        let leaving = leaving.is_some_and(|b| b.is_leaving(writer, log.publisher));
                        assert!(leaving || routes().next().is_none(), "log stays on a withdrawn route");
                    }
                }
                assert_eq!(log.asked, log.wanted_of_open(), "preferences of the writer are outdated");
            }
            LogUpstream::Suspended => {
                assert!(routes().next().is_none(), "log is suspended although its publisher has a route");
                assert!(!log.is_unread(), "unread log is suspended");
                let broadcast = &self.broadcasts[&log.path];
                let silent = broadcast.is_served() && !broadcast.expects(log.publisher);
                assert!(!silent, "log is suspended although another publisher replaced its own");
            }
            LogUpstream::Over => {
                assert!(!log.is_unread(), "unread log was kept after its end");
                assert_eq!(log.pulls().len(), 0, "pulls left after the end of the log");
            }
        }
    }
}
