//! Event lists, checked after each event by [`Core::check`] and by a model that consumes the actions.

mod goodbyes;
mod limits;
mod listing;
mod merge;
mod model;
mod pulls;
mod random;
mod revised;
mod routes;
mod stale_routes;
mod takeover;
mod throttle;
mod tracks;
mod upstream;

use std::time::{Duration, Instant, SystemTime};

use relay_auth::{Permit, Policy};
use relay_model::{
    Ask, Cost, Epoch, Hop, Hops, LogId, Order, Path, Prefs, Route, Scope, SessionId, Start, StreamCode,
    SubId, TrackName, Want,
};

use crate::{Action, Core, CoreConfig, CoreEvent, CoreTally, Takeover, tests::model::Model};

/// Our own hop.
const SELF: u64 = 999;
const LINGER: Duration = Duration::from_secs(5);
const HOLD_DOWN: Duration = Duration::from_millis(300);
/// Session of an order, in tests that do not check it.
const ANYBODY: SessionId = SessionId(u64::MAX);
/// Shortest time step.
const TICK: Duration = Duration::from_millis(1);

fn path(raw: &str) -> Path {
    Path::parse(raw).unwrap()
}

fn track(name: &str) -> TrackName {
    TrackName::parse(name).unwrap()
}

fn hops(chain: &[u64]) -> Hops {
    chain.iter().copied().map(Hop).collect()
}

/// A cost with equal warm and cold parts, as directly at a publisher.
fn cost(price: u64) -> Cost {
    Cost { warm: price, cold: price }
}

fn policy(publish: &str, subscribe: &str) -> Policy {
    Policy::public(Scope::of([path(publish)]), Scope::of([path(subscribe)]))
}

fn permit(publish: &str, subscribe: &str) -> Permit {
    policy(publish, subscribe).admit("/", SystemTime::UNIX_EPOCH).unwrap()
}

/// A core on a virtual clock, with a model of all actions it emitted.
struct Bench {
    core: Core,
    model: Model,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::with(Takeover::Identity)
    }

    fn with(takeover: Takeover) -> Self {
        let config =
            CoreConfig { linger: LINGER, hold_down: HOLD_DOWN, takeover, ..CoreConfig::new(Hop(SELF)) };
        let core = Core::new(config);
        let now = Instant::now();
        Self { core, model: Model::new(takeover, now), now }
    }

    /// Handles one event and returns the resulting actions.
    fn event(&mut self, event: CoreEvent) -> Vec<Action> {
        self.model.before(&event, self.now);
        self.core.handle(event, self.now);
        self.settle()
    }

    fn ask(&mut self, session: u64, ask: Ask) -> Vec<Action> {
        self.event(CoreEvent::Ask { session: SessionId(session), ask })
    }

    /// Opens a session that may do everything.
    fn open(&mut self, session: u64) {
        self.open_with(session, permit("", ""));
    }

    fn open_with(&mut self, session: u64, permit: Permit) {
        assert_eq!(self.event(CoreEvent::Opened { session: SessionId(session), permit }), []);
    }

    /// Opens a session of `subject` that may do everything.
    fn open_as(&mut self, session: u64, subject: &str) {
        self.open_with(
            session,
            policy("", "").with_subject(subject).admit("/", SystemTime::UNIX_EPOCH).unwrap(),
        );
    }

    /// Opens a session that may do everything, and excludes routes through `hop`.
    fn open_behind(&mut self, session: u64, hop: u64) {
        self.open(session);
        assert_eq!(self.exclude(session, hop), []);
    }

    fn exclude(&mut self, session: u64, hop: u64) -> Vec<Action> {
        self.ask(session, Ask::Exclude { hop: Hop(hop) })
    }

    /// Closes the session.
    fn close(&mut self, session: u64) -> Vec<Action> {
        self.event(CoreEvent::Closed { session: SessionId(session), vanished: false })
    }

    /// Ends the session without a close.
    fn vanish(&mut self, session: u64) -> Vec<Action> {
        self.event(CoreEvent::Closed { session: SessionId(session), vanished: true })
    }

    fn announce(&mut self, session: u64, raw: &str, chain: &[u64], price: u64) -> Vec<Action> {
        self.announce_at(session, raw, chain, cost(price))
    }

    fn announce_at(&mut self, session: u64, raw: &str, chain: &[u64], cost: Cost) -> Vec<Action> {
        self.ask(session, Ask::Announce { path: path(raw), hops: hops(chain), cost })
    }

    fn unannounce(&mut self, session: u64, raw: &str) -> Vec<Action> {
        self.ask(session, Ask::Unannounce { path: path(raw) })
    }

    fn subscribe(&mut self, session: u64, sub: u64, raw: &str) -> Vec<Action> {
        self.subscribe_as(session, sub, raw, Prefs::default(), Want::Live)
    }

    fn subscribe_as(&mut self, session: u64, sub: u64, raw: &str, prefs: Prefs, want: Want) -> Vec<Action> {
        let (path, track) = (path(raw), track("video"));
        self.ask(session, Ask::Subscribe { sub: SubId(sub), path, track, prefs, want })
    }

    /// Subscribes and returns the log that serves it.
    fn attached(&mut self, session: u64, sub: u64, raw: &str) -> LogId {
        let actions = self.subscribe(session, sub, raw);
        match actions.last() {
            Some(Action::Order { order: Order::Attach { log, .. }, .. }) => *log,
            _ => panic!("not attached: {actions:?}"),
        }
    }

    fn unsubscribe(&mut self, session: u64, sub: u64) -> Vec<Action> {
        self.ask(session, Ask::Unsubscribe { sub: SubId(sub) })
    }

    fn pull(&mut self, session: u64, sub: u64, group: u64) -> Vec<Action> {
        self.ask(session, Ask::Pull { sub: SubId(sub), group })
    }

    /// Reports a pull as done by `session`, the newest writer of `log`.
    fn pulled(&mut self, session: u64, log: LogId, group: u64) -> Vec<Action> {
        let epoch = self.model.epoch(log);
        self.ask(session, Ask::Pulled { log, epoch, group })
    }

    fn ended(&mut self, session: u64, log: LogId) -> Vec<Action> {
        let epoch = self.model.epoch(log);
        self.ask(session, Ask::Ended { log, epoch, missing: false })
    }

    /// Advances the clock and runs the timers.
    fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.now += time;
        self.model.tick(self.now);
        if self.core.next_deadline().is_some_and(|at| at <= self.now) {
            self.core.handle_timeout(self.now);
        }
        assert!(self.core.next_deadline().is_none_or(|at| at > self.now), "a timer was left");
        self.settle()
    }

    /// Ends every session and lets every linger pass; nothing may be left.
    fn everyone_leaves(mut self) {
        for session in self.model.sessions() {
            self.vanish(session.0);
        }
        self.pass(LINGER + Duration::from_secs(1));
        assert_eq!(self.core.counts(), crate::CoreCounts::default());
        self.model.assert_all_gone();
    }

    fn settle(&mut self) -> Vec<Action> {
        let actions: Vec<Action> = std::iter::from_fn(|| self.core.poll_action()).collect();
        self.model.actions(&actions);
        let throttled = self.core.sessions.queued();
        self.model.after(throttled);
        self.core.check();
        let mut actions = actions;
        for action in &mut actions {
            if let Action::Order { order: Order::Open { asker, .. } | Order::Pull { asker, .. }, .. } = action
            {
                *asker = ANYBODY;
            }
        }
        actions
    }
}

fn to(session: u64, order: Order) -> Action {
    Action::Order { session: SessionId(session), order }
}

/// Open order for the track of publisher 7.
fn open_order(session: u64, log: LogId, epoch: u64, raw: &str) -> Action {
    let (path, track) = (path(raw), track("video"));
    let order = Order::Open {
        log,
        epoch: Epoch(epoch),
        path,
        publisher: Hop(7),
        track,
        prefs: Prefs::default(),
        want: Want::Live,
        asker: ANYBODY,
    };
    to(session, order)
}

fn attach(session: u64, sub: u64, log: LogId) -> Action {
    to(session, Order::Attach { sub: SubId(sub), log })
}

fn refuse(session: u64, sub: u64, code: StreamCode) -> Action {
    to(session, Order::Refuse { sub: SubId(sub), code })
}

fn pull(session: u64, log: LogId, group: u64) -> Action {
    to(session, Order::Pull { log, group, asker: ANYBODY })
}

fn drop_pull(session: u64, log: LogId, group: u64) -> Action {
    to(session, Order::DropPull { log, group })
}

fn ended(log: LogId) -> Action {
    Action::End { log, code: StreamCode::UNROUTABLE }
}

fn fence(log: LogId, epoch: u64) -> Action {
    Action::Fence { log, epoch: Epoch(epoch) }
}

fn board(raw: &str, routes: &[(u64, &[u64], u64)]) -> Action {
    let route = |(session, chain, cost): &(u64, &[u64], u64)| Route {
        session: SessionId(*session),
        hops: hops(chain),
        cost: self::cost(*cost),
        stale: false,
    };
    Action::Board { path: path(raw), routes: routes.iter().map(route).collect() }
}

/// A board update that only plain readers are shown.
fn fading(raw: &str, routes: &[(u64, &[u64], u64)]) -> Action {
    let Action::Board { path, mut routes } = board(raw, routes) else { unreachable!() };
    routes.iter_mut().for_each(|route| route.stale = true);
    Action::Board { path, routes }
}

fn tally(set: impl FnOnce(&mut CoreTally)) -> CoreTally {
    let mut tally = CoreTally::default();
    set(&mut tally);
    tally
}
