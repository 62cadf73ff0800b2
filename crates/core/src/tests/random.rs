//! Random histories: all invariants hold after each step, whatever peers do.

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*, sample::Index};

use super::*;

/// Setup of a new peer: its kind of permit, its subject, and the hop it excludes.
type Setup = (u8, u8, Option<u64>);

#[derive(Clone, Debug)]
enum Step {
    Open(Setup),
    /// Changes the permit to this kind.
    Revise(Index, u8),
    Close(Index),
    Vanish(Index),
    Draining(Index),
    Blocked(Index, bool),
    Exclude(Index, u64),
    Announce(Index, u8, Vec<u64>, Cost),
    Unannounce(Index, u8),
    Subscribe(Index, u64, u8, u8, Prefs, bool),
    Update(Index, u64, Prefs),
    Unsubscribe(Index, u64),
    Ended(Index, Index),
    Pull(Index, u64, u64),
    Pulled(Index, Index),
    /// Reports the end of a pull that was not ordered, or not from this session.
    StrayPulled(Index, u64, u64, u64),
    Stray(Index, u64),
    Pass(u64),
    /// Time passes without a timer run.
    Late(u64),
}

const PATHS: [&str; 3] = ["a", "a/b", "c"];

fn prefs() -> impl Strategy<Value = Prefs> {
    let start = prop_oneof![
        Just(Start::Latest),
        (0..3_u64).prop_map(Start::Group),
        (0..3_u64).prop_map(|floor| Start::Fresh { floor }),
    ];
    (0..3_u8, any::<bool>(), start, 0..2_u64, option::of(0..3_u64), option::of(0..2_u64)).prop_map(
        |(priority, ordered, start, start_frame, end, end_frame)| Prefs {
            priority,
            ordered,
            start,
            start_frame,
            end,
            end_frame,
            ..Prefs::default()
        },
    )
}

fn cost() -> impl Strategy<Value = Cost> {
    (0..3_u64, 0..2_u64).prop_map(|(warm, cold)| Cost { warm, cold })
}

/// Any chain, or one of a relay whose routes others pass on.
fn chain(hop: impl Strategy<Value = u64>) -> impl Strategy<Value = Vec<u64>> {
    let passed_on = prop_oneof![Just(vec![1, 2]), Just(vec![1, 2, 3]), Just(vec![1, 2, 4])];
    prop_oneof![2 => vec(hop, 1..4), 1 => passed_on]
}

fn step() -> impl Strategy<Value = Step> {
    let who = any::<Index>;
    let sub = 0..6_u64;
    let hop = prop_oneof![1 => Just(0_u64), 1 => Just(SELF), 12 => 1..5_u64];
    prop_oneof![
        4 => (0..4_u8, 0..5_u8, option::of(0..5_u64)).prop_map(Step::Open),
        2 => (who(), 0..4_u8).prop_map(|(w, k)| Step::Revise(w, k)),
        1 => who().prop_map(Step::Close),
        2 => who().prop_map(Step::Vanish),
        1 => who().prop_map(Step::Draining),
        1 => (who(), 0..5_u64).prop_map(|(w, h)| Step::Exclude(w, h)),
        6 => (who(), 0..3_u8, chain(hop), cost()).prop_map(|(w, p, h, c)| Step::Announce(w, p, h, c)),
        2 => (who(), 0..3_u8).prop_map(|(w, p)| Step::Unannounce(w, p)),
        6 => (who(), sub.clone(), 0..3_u8, 0..2_u8, prefs(), any::<bool>())
            .prop_map(|(w, s, p, t, f, l)| Step::Subscribe(w, s, p, t, f, l)),
        1 => (who(), sub.clone(), prefs()).prop_map(|(w, s, f)| Step::Update(w, s, f)),
        4 => (who(), sub.clone()).prop_map(|(w, s)| Step::Unsubscribe(w, s)),
        2 => (who(), who()).prop_map(|(w, l)| Step::Ended(w, l)),
        5 => (who(), sub, 0..3_u64).prop_map(|(w, s, g)| Step::Pull(w, s, g)),
        2 => (who(), who()).prop_map(|(w, g)| Step::Pulled(w, g)),
        1 => (who(), 0..40_u64, 0..3_u64, 0..3_u64).prop_map(|(w, l, e, g)| Step::StrayPulled(w, l, e, g)),
        1 => (who(), 0..40_u64).prop_map(|(w, l)| Step::Stray(w, l)),
        1 => (who(), any::<bool>()).prop_map(|(w, b)| Step::Blocked(w, b)),
        4 => prop_oneof![Just(0), Just(100), Just(300), Just(1_000), Just(4_700), Just(5_000)].prop_map(Step::Pass),
        1 => (0..6_000_u64).prop_map(Step::Late),
    ]
}

/// One history.
struct Run {
    bench: Bench,
    next: u64,
    /// Subject of each session.
    kinds: BTreeMap<u64, u8>,
}

fn permit_of(kind: u8, who: u8) -> Permit {
    let policy = match kind {
        0 => policy("a", "c"),
        1 => policy("c", ""),
        _ => policy("", ""),
    };
    let policy = match who {
        0 => policy.with_subject("alice"),
        1 => policy.with_subject("bob"),
        2 => policy.for_peers(),
        _ => policy,
    };
    policy.admit("/", SystemTime::UNIX_EPOCH).unwrap()
}

impl Run {
    fn who(&self, index: Index) -> Option<u64> {
        let sessions = self.bench.model.sessions();
        (!sessions.is_empty()).then(|| index.get(&sessions).0)
    }

    fn step(&mut self, step: Step) -> Option<()> {
        let bench = &mut self.bench;
        match step {
            Step::Open((kind, who, exclude)) => {
                self.next += 1;
                self.kinds.insert(self.next, who);
                bench.open_with(self.next, permit_of(kind, who));
                if let Some(hop) = exclude {
                    bench.exclude(self.next, hop);
                }
            }
            Step::Revise(who, kind) => {
                let session = self.who(who)?;
                let permit = permit_of(kind, self.kinds[&session]);
                self.bench.event(CoreEvent::Revised { session: SessionId(session), permit });
            }
            Step::Close(who) => {
                let who = self.who(who)?;
                self.bench.close(who);
            }
            Step::Vanish(who) => {
                let who = self.who(who)?;
                self.bench.vanish(who);
            }
            Step::Draining(who) => {
                let who = self.who(who)?;
                self.bench.ask(who, Ask::Draining);
            }
            Step::Blocked(who, blocked) => {
                let who = self.who(who)?;
                self.bench.ask(who, Ask::StreamsBlocked { blocked });
            }
            Step::Exclude(who, hop) => {
                let who = self.who(who)?;
                self.bench.exclude(who, hop);
            }
            Step::Announce(who, path, chain, cost) => {
                let who = self.who(who)?;
                self.bench.announce_at(who, PATHS[usize::from(path)], &chain, cost);
            }
            Step::Unannounce(who, path) => {
                let who = self.who(who)?;
                self.bench.unannounce(who, PATHS[usize::from(path)]);
            }
            Step::Subscribe(who, sub, at, name, prefs, live) => {
                let who = self.who(who)?;
                let (path, track) =
                    (path(PATHS[usize::from(at)]), track(["video", "audio"][usize::from(name)]));
                let want = if live { Want::Live } else { Want::Info };
                self.bench.ask(who, Ask::Subscribe { sub: SubId(sub), path, track, prefs, want });
            }
            Step::Update(who, sub, prefs) => {
                let who = self.who(who)?;
                self.bench.ask(who, Ask::Update { sub: SubId(sub), prefs });
            }
            Step::Unsubscribe(who, sub) => {
                let who = self.who(who)?;
                self.bench.unsubscribe(who, sub);
            }
            Step::Ended(who, which) => {
                let who = self.who(who)?;
                let logs = self.bench.model.writes(SessionId(who));
                if !logs.is_empty() {
                    self.bench.ended(who, *which.get(&logs));
                }
            }
            Step::Pull(who, sub, group) => {
                let who = self.who(who)?;
                self.bench.pull(who, sub, group);
            }
            Step::Pulled(who, which) => {
                let who = self.who(who)?;
                let pulls = self.bench.model.pulls(SessionId(who));
                if !pulls.is_empty() {
                    let (log, group) = which.get(&pulls);
                    assert_eq!(self.bench.pulled(who, *log, *group), []);
                }
            }
            Step::StrayPulled(who, log, epoch, group) => {
                let who = self.who(who)?;
                let (log, epoch) = (LogId(log), Epoch(epoch));
                assert_eq!(self.bench.ask(who, Ask::Pulled { log, epoch, group }), []);
            }
            Step::Stray(who, log) => {
                let who = self.who(who)?;
                if !self.bench.model.writes(SessionId(who)).contains(&LogId(log)) {
                    assert_eq!(self.bench.ended(who, LogId(log)), []);
                }
            }
            Step::Pass(ms) => {
                bench.pass(Duration::from_millis(ms));
            }
            Step::Late(ms) => bench.now += Duration::from_millis(ms),
        }
        Some(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn random_history_keeps_all_invariants_and_leaves_nothing(any in any::<bool>(), steps in vec(step(), 1..100)) {
        let takeover = if any { Takeover::Any } else { Takeover::Identity };
        let mut run = Run { bench: Bench::with(takeover), next: 0, kinds: BTreeMap::new() };
        for step in steps {
            run.step(step);
        }
        run.bench.everyone_leaves();
    }
}
