//! Context of one call for unit tests of a side: everything around it, and no other side.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use relay_auth::Policy;
use relay_meter::Worker as Meter;
use relay_model::{Ask, Hop, Scope, SessionId, WorkerId, limits::SessionLimits};
use relay_store::{Store, StoreConfig, WakeSet};
use relay_wire::Version;

use crate::{
    context::{Cx, SessionConfig, SessionOutput},
    dialect::Dialect,
    fanout::Fanout,
    sink::Sink,
    state::SessionState,
    turn::Turn,
    work::Work,
};

/// An admitted peer that speaks moq-lite-05, on a transport without a peer.
pub(crate) struct TurnFixture {
    pub(crate) state: SessionState,
    pub(crate) dialect: Dialect,
    pub(crate) sink: Sink,
    pub(crate) store: Arc<Store>,
    pub(crate) fanout: Fanout,
    pub(crate) now: Instant,
    out: Vec<SessionOutput>,
}

impl TurnFixture {
    pub(crate) fn new() -> Self {
        let version = Version::from_alpn("moq-lite-05").expect("a known version");
        let config = SessionConfig {
            id: SessionId(1),
            worker: WorkerId(0),
            hop: Hop(9),
            stamp: Hop(8),
            version,
            has_url: true,
            started: Instant::now(),
            limits: SessionLimits { announces: 1, subscriptions: 1, fetches: 1, ..SessionLimits::default() },
        };
        let store = Store::new(StoreConfig {
            workers: 1,
            capacity: 1 << 20,
            ceiling: 1 << 21,
            max_age: Duration::from_secs(30),
        });
        let policy = Policy::public(Scope::everything(), Scope::everything());
        let mut state = SessionState::new(config);
        state.admit(policy.admit("/", SystemTime::UNIX_EPOCH).expect("the root is open to all"));
        Self {
            state,
            dialect: Dialect::new(version),
            sink: Sink::default(),
            store,
            fanout: Fanout::new(WorkerId(0)),
            now: Instant::now(),
            out: Vec::new(),
        }
    }

    /// Runs a call in its context.
    pub(crate) fn run<R>(&mut self, run: impl FnOnce(&mut Turn<'_, '_, Sink>) -> R) -> R {
        let (mut wakes, mut meter, mut work) = (WakeSet::new(), Meter::default(), Work::new());
        let mut cx = Cx {
            now: self.now,
            store: &self.store,
            fanout: &mut self.fanout,
            wakes: &mut wakes,
            meter: &mut meter,
            out: &mut self.out,
            work: &mut work,
        };
        run(&mut Turn { t: &mut self.sink, cx: &mut cx, state: &mut self.state, dialect: &mut self.dialect })
    }

    /// Takes the asks sent to core.
    pub(crate) fn asks(&mut self) -> Vec<Ask> {
        let asks = self.out.drain(..).filter_map(|output| match output {
            SessionOutput::Ask(ask) => Some(ask),
            SessionOutput::Authorize { .. } => None,
        });
        asks.collect()
    }
}
