//! Changes of a peer's rights during its session.

use std::collections::BTreeSet;

use relay_model::{Ask, Path, Scope, StreamCode};
use relay_session::pair::PairOptions;

use crate::{
    harness::{MS, Relay, guest, host, permit},
    peer::{Ask as Request, path},
    record::Ended,
    show::{rough, seeds, version_of, versions},
};

fn scope(prefixes: &[&str]) -> Scope {
    Scope::of(prefixes.iter().map(|raw| path(raw)))
}

impl Relay {
    pub(crate) fn revise(&mut self, at: usize, publish: &Scope, subscribe: &Scope) {
        self.with(at, |session, t, cx| {
            session.revised(t, cx, permit("", publish.clone(), subscribe.clone()))
        });
    }

    /// Prefixes of the relay's announce requests to `at`, in order.
    fn prefixes(&self, at: usize) -> Vec<String> {
        let asked = self[at].asked.iter().filter_map(|asked| match &asked.what {
            Request::Announce(request) => Some(request.prefix.as_str().to_owned()),
            _ => None,
        });
        asked.collect()
    }

    /// Announces (`true`) and withdrawals of `broadcast` sent to core, in order.
    fn told(&self, broadcast: &str) -> Vec<bool> {
        let broadcast = path(broadcast);
        let told = self.asks.iter().filter_map(|(_, ask)| match ask {
            Ask::Announce { path, .. } => (*path == broadcast).then_some(true),
            Ask::Unannounce { path } => (*path == broadcast).then_some(false),
            _ => None,
        });
        told.collect()
    }
}

#[test]
fn watch_follows_every_change_of_scope() {
    seeds(60, |seed, rng| {
        let mut relay = Relay::of(version_of(seed / 4), seed);
        let publisher = relay.subscriber();
        relay.version = version_of(seed);
        let (ours, theirs) = (rough(rng), rough(rng));
        let watcher = relay.connect(ours, theirs);
        let watch = relay[watcher].watch("");
        let mut live: BTreeSet<String> = BTreeSet::new();
        let mut seen = Scope::everything();
        for _ in 0..40 {
            let name = format!("{}/{}", ["a", "b", "c"][rng.below(3) as usize], rng.below(4));
            if live.remove(&name) {
                relay[publisher].withdraw(&name);
            } else {
                relay[publisher].publish(&name, &[], &[]);
                live.insert(name);
            }
            if rng.chance(0.4) {
                let all = [&["a"][..], &["b", "c/1"], &["c"], &[], &[""]];
                seen = scope(all[rng.below(5) as usize]);
                relay.revise(watcher, &Scope::everything(), &seen);
            }
            relay.run(MS * rng.below(60) as u32);
        }
        relay.run(MS * 3_000);
        assert!(relay.is_alive(watcher));
        let watch = &relay[watcher].watches[&watch];
        // Only an initial set that cannot be completed ends it.
        let is_broken = watch.end.and_then(Ended::code) == Some(StreamCode::CANCEL);
        let is_whole = watch.ok.is_none_or(|ok| watch.heard.len() as u64 >= ok.count);
        assert!(watch.end.is_none() || (is_broken && !is_whole), "{:?}", watch.end);
        if watch.end.is_none() {
            let shown: Vec<Path> = watch.live.keys().cloned().collect();
            let expected: BTreeSet<Path> =
                live.iter().map(|name| path(name)).filter(|path| seen.allows(path)).collect();
            assert_eq!(shown.into_iter().collect::<BTreeSet<_>>(), expected, "seed {seed}");
        }
    });
}

#[test]
fn unfinishable_initial_set_resets_only_its_stream() {
    for (narrow, breaks) in [("a", false), ("b", true)] {
        let mut relay = Relay::new(1);
        relay.limits.announces = 1_500;
        let publisher = relay.subscriber();
        for n in 0..1_500 {
            relay[publisher].publish(&format!("a/{n:04}/{}", "x".repeat(60)), &[], &[]);
        }
        relay.run(MS * 500);
        // Too small for the initial set.
        let theirs = PairOptions { stream_window: 20_000, connection_window: 40_000, ..guest() };
        let watcher = relay.connect(host(), theirs);
        relay[watcher].reads = false;
        let watch = relay[watcher].watch("");
        relay.run(MS * 100);
        relay.revise(watcher, &Scope::everything(), &scope(&[narrow]));
        relay[watcher].reads = true;
        relay.run(MS * 1_000);
        let seen = &relay[watcher].watches[&watch];
        match breaks {
            true => assert_eq!(seen.end.and_then(Ended::code), Some(StreamCode::CANCEL)),
            false => assert_eq!((seen.end, seen.live.len()), (None, 1_500)),
        }
        assert!(relay.is_alive(watcher));
        relay.disperse();
    }
}

#[test]
fn granted_prefixes_are_requested_and_revoked_ones_stopped() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let at = relay.link(host(), guest());
        relay.seats[at].permit = permit("", scope(&["a"]), Scope::everything());
        relay.let_in(at);
        relay[at].publish("a/1", &[], &[]);
        relay[at].publish("b/1", &[], &[]);
        relay.run(MS * 50);
        assert_eq!(relay.prefixes(at), ["a"]);
        assert_eq!((relay.told("a/1"), relay.told("b/1")), (vec![true], vec![]));

        relay.revise(at, &scope(&["b"]), &Scope::everything());
        relay.run(MS * 50);
        assert_eq!(relay.prefixes(at), ["a", "b"]);
        assert_eq!((relay.told("a/1"), relay.told("b/1")), (vec![true, false], vec![true]));
        assert!(relay[at].stopped.values().any(|code| *code == StreamCode::CANCEL), "{version:?}");

        // A wider scope keeps existing requests, and so does a narrower one: core decides.
        relay.revise(at, &Scope::everything(), &Scope::everything());
        relay.run(MS * 50);
        relay.revise(at, &scope(&["b/1"]), &Scope::everything());
        relay.run(MS * 50);
        assert_eq!(relay.prefixes(at), ["a", "b", ""]);
        assert_eq!(relay.told("b/1"), [true, true], "it was never withdrawn");
        relay.revise(at, &scope(&["a", "b"]), &Scope::everything());
        relay.run(MS * 50);
        assert_eq!(relay.prefixes(at), ["a", "b", ""], "requested already");
        assert_eq!(relay.told("a/1"), [true, false, true, true], "core accepts it again");

        // It is announced on two requests, and withdrawn once it has ended on both.
        relay[at].withdraw("b/1");
        relay.run(MS * 50);
        assert_eq!(relay.told("b/1"), [true, true, false]);
        assert!(relay.is_alive(at));
        relay.disperse();
    });
}
