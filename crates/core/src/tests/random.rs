//! Random histories: whatever peers do in whatever order, the promises hold after each step.

use proptest::{collection::vec, option, prelude::*, sample::Index};

use super::*;

/// How a peer that comes is set up: what it may do, and the hop it does not want back.
type Setup = (u8, Option<u64>);

#[derive(Clone, Debug)]
enum Step {
    Open(Setup),
    Close(Index),
    Announce(Index, u8, Vec<u64>, u64),
    Unannounce(Index, u8),
    Subscribe(Index, u64, u8, u8, Prefs, bool),
    Update(Index, u64, Prefs),
    Unsubscribe(Index, u64),
    Ended(Index, Index),
    Stray(Index, u64),
    Pass(u64),
    /// Time passes and the timers are late.
    Late(u64),
}

const PATHS: [&str; 3] = ["a", "a/b", "c"];

fn prefs() -> impl Strategy<Value = Prefs> {
    (0..3_u8, any::<bool>(), option::of(0..3_u64), option::of(0..3_u64)).prop_map(
        |(priority, ordered, start, end)| Prefs { priority, ordered, start, end, ..Prefs::default() },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let who = any::<Index>;
    let sub = 0..6_u64;
    let hop = prop_oneof![1 => Just(0_u64), 1 => Just(SELF), 12 => 1..5_u64];
    prop_oneof![
        3 => (0..4_u8, option::of(0..5_u64)).prop_map(Step::Open),
        2 => who().prop_map(Step::Close),
        5 => (who(), 0..3_u8, vec(hop, 1..4), 0..3_u64).prop_map(|(w, p, h, c)| Step::Announce(w, p, h, c)),
        2 => (who(), 0..3_u8).prop_map(|(w, p)| Step::Unannounce(w, p)),
        6 => (who(), sub.clone(), 0..3_u8, 0..2_u8, prefs(), any::<bool>())
            .prop_map(|(w, s, p, t, f, l)| Step::Subscribe(w, s, p, t, f, l)),
        1 => (who(), sub.clone(), prefs()).prop_map(|(w, s, f)| Step::Update(w, s, f)),
        4 => (who(), sub.clone()).prop_map(|(w, s)| Step::Unsubscribe(w, s)),
        2 => (who(), who()).prop_map(|(w, l)| Step::Ended(w, l)),
        1 => (who(), 0..40_u64).prop_map(|(w, l)| Step::Stray(w, l)),
        3 => prop_oneof![Just(0), Just(1_000), Just(2_500), Just(5_000)].prop_map(Step::Pass),
        1 => (0..6_000_u64).prop_map(Step::Late),
    ]
}

/// One history.
struct Run {
    bench: Bench,
    next: u64,
}

impl Run {
    fn who(&self, index: Index) -> Option<u64> {
        let sessions = self.bench.model.sessions();
        (!sessions.is_empty()).then(|| index.get(&sessions).0)
    }

    fn step(&mut self, step: Step) -> Option<()> {
        let bench = &mut self.bench;
        match step {
            Step::Open((kind, exclude)) => {
                let permit = match kind {
                    0 => permit("a", "c"),
                    1 => permit("c", ""),
                    _ => permit("", ""),
                };
                self.next += 1;
                bench.open_with(self.next, permit, exclude);
            }
            Step::Close(who) => {
                let who = self.who(who)?;
                self.bench.close(who);
            }
            Step::Announce(who, path, chain, cost) => {
                let who = self.who(who)?;
                self.bench.announce(who, PATHS[usize::from(path)], &chain, cost);
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
    fn any_history_keeps_every_promise_and_leaves_nothing(steps in vec(step(), 1..80)) {
        let mut run = Run { bench: Bench::new(), next: 0 };
        for step in steps {
            run.step(step);
        }
        run.bench.everyone_leaves();
    }
}
