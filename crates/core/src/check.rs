//! Invariants that hold between any two events.

use relay_model::LogId;

use crate::{
    core::Core,
    log::{CoreLog, LogUpstream},
};

impl Core {
    /// Asserts every invariant by walking the whole state; for tests and simulations.
    pub fn check(&self) {
        self.sessions.check();
        self.routes.check();
        self.logs.check();
        self.check_permits();
        self.logs.iter().for_each(|(id, log)| self.check_log(id, log));
    }

    /// Asserts that all routes, readers and writers belong to open sessions that may have them.
    fn check_permits(&self) {
        for (path, routes) in self.routes.paths() {
            for entry in routes.entries().iter().filter(|entry| entry.standing.is_announced()) {
                let session = self.sessions.get(entry.route.session);
                let is_allowed = session.is_some_and(|session| session.permit.publish().allows(path));
                assert!(is_allowed, "announced outside the permit, or by a closed session");
            }
        }
        for id in self.logs.sessions().ids() {
            let session = self.sessions.get(id);
            assert!(session.is_some(), "logs of a closed session");
            let Some(session) = session else { continue };
            let path = |log: LogId| self.logs.get(log).map(|log| &log.key.path);
            let is_read = |log| path(log).is_some_and(|path| session.permit.subscribe().allows(path));
            assert!(
                self.logs.sessions().subs(id).iter().all(|(_, log)| is_read(*log)),
                "reads outside the permit"
            );
            let is_written = |log| path(log).is_some_and(|path| session.permit.publish().allows(path));
            assert!(self.logs.sessions().writes(id).into_iter().all(is_written), "writes outside the permit");
        }
    }

    /// Asserts that a log has the upstream that the routes call for.
    fn check_log(&self, id: LogId, log: &CoreLog) {
        for (reader, state) in log.readers() {
            let exclude = self.sessions.horizon(reader.session).exclude;
            assert_eq!(exclude, state.exclude, "excluded hop of a reader is outdated");
        }
        if let Some(twin) = self.logs.twin(id).and_then(|twin| self.logs.get(twin)) {
            let is_planned = log.merge_at.is_some() || twin.merge_at.is_some();
            assert!(is_planned, "two logs of one track with one writer");
        }
        let publisher = log.key.publisher;
        let path = self.routes.get(&log.key.path);
        let routes = || path.into_iter().flat_map(|routes| routes.live_to(publisher));
        match log.upstream {
            LogUpstream::Open(writer) => {
                let is_blocked = self.logs.sessions().is_blocked(writer);
                assert!(!log.is_unread() || !is_blocked, "unread log keeps a stream of a blocked session");
                match routes().find(|entry| entry.route.session == writer) {
                    Some(own) => {
                        assert_eq!(own.route.hops, log.hops);
                        let mut better = routes().take_while(|entry| entry.route.session != writer);
                        let missed = better.any(|entry| log.serves_through(&entry.route));
                        assert!(log.is_unread() || !missed, "log is not on its best route");
                    }
                    None => {
                        let is_leaving = path.is_some_and(|routes| routes.is_leaving(writer, publisher));
                        assert!(is_leaving || routes().next().is_none(), "log stays on a withdrawn route");
                    }
                }
            }
            LogUpstream::Suspended => {
                assert!(routes().next().is_none(), "log is suspended although its publisher has a route");
                let is_replaced = path.is_some_and(|p| p.is_served() && !p.expects(publisher));
                assert!(!is_replaced, "log is suspended although another publisher replaced its own");
            }
            LogUpstream::Over => {}
        }
    }
}
