//! Announces reach watchers, and no other peer.

use std::collections::BTreeMap;

use relay_model::{Hop, Scope, SessionCode};
use relay_wire::lite::Version;

use crate::{
    harness::{MS, Relay, guest, host, permit},
    peer::path,
    show::{rough, seeds, version_of, versions},
};

/// Hop chain that `watcher` gets for a broadcast announced by `publisher` after `before`.
fn chain(relay: &Relay, publisher: usize, watcher: usize, before: &[u64]) -> Vec<Hop> {
    let mut chain: Vec<_> = before.iter().copied().map(Hop).chain([relay[publisher].hop]).collect();
    if !relay[publisher].version.has_hop_ids() {
        chain.fill(Hop::ANONYMOUS);
        chain.insert(0, Hop(9_000 + publisher as u64));
    }
    if !relay[watcher].version.has_announce_ok() {
        chain.push(Hop(1_000));
    }
    if !relay[watcher].version.has_hop_ids() {
        chain.fill(Hop::ANONYMOUS);
    }
    chain
}

#[test]
fn announces_withdrawals_and_replacements_reach_watchers() {
    seeds(60, |seed, rng| {
        let mut relay = Relay::of(version_of(seed / 4), seed);
        let publishers = [0; 2].map(|_| relay.subscriber());
        relay.version = version_of(seed);
        let (ours, theirs) = (rough(rng), rough(rng));
        let watcher = relay.connect(ours, theirs);
        let early = relay[watcher].watch("");
        let mut live: BTreeMap<(usize, String), u64> = BTreeMap::new();
        for n in 0..60 {
            let publisher = publishers[rng.below(2) as usize];
            // Each publisher has its own names: the choice between two routes is core's matter.
            let name = format!("live/{publisher}/{}", rng.below(6));
            if rng.chance(0.4) && live.remove(&(publisher, name.clone())).is_some() {
                relay[publisher].withdraw(&name);
            } else {
                relay[publisher].publish(&name, &[], &[5_000 + n]);
                live.insert((publisher, name), 5_000 + n);
            }
            relay.run(MS * rng.below(40) as u32);
        }
        let prefix = format!("live/{}", publishers[0]);
        relay.run(MS * 100);
        let late = relay[watcher].watch(&prefix);
        relay.run(MS * 3_000);
        let expected: BTreeMap<_, _> =
            live.iter().map(|((at, name), first)| (path(name), (*at, *first))).collect();
        for (watch, prefix) in [(early, ""), (late, prefix.as_str())] {
            let watch = &relay[watcher].watches[&watch];
            assert!(watch.ok.is_none_or(|ok| ok.hop == Hop(1_000)));
            let mut below: BTreeMap<_, _> = BTreeMap::new();
            for (broadcast, (at, first)) in &expected {
                if let Some(suffix) = broadcast.strip_prefix(&path(prefix)) {
                    below.insert(path(suffix), chain(&relay, *at, watcher, &[*first]));
                }
            }
            let told: BTreeMap<_, _> =
                watch.live.iter().map(|(path, hops)| (path.clone(), hops.to_vec())).collect();
            assert_eq!(told, below, "seed {seed}: below {prefix:?}");
        }
        // The paths live at that time came first, as counted.
        let late = &relay[watcher].watches[&late];
        assert!(late.ok.is_none_or(|ok| ok.count == late.heard.len() as u64), "seed {seed}");

        relay[publishers[0]].close(SessionCode::NONE, "");
        relay.run(MS * 2_000);
        let gone = format!("live/{}", publishers[0]);
        let early = &relay[watcher].watches[&early];
        assert!(early.live.keys().all(|path_| !path_.has_prefix(&path(&gone))), "seed {seed}");
        assert!(early.end.is_none());
        relay.disperse();
    });
}

#[test]
fn an_anonymous_publisher_is_stamped() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let at = relay.link(host(), guest());
        relay[at].hop = Hop::ANONYMOUS;
        relay.let_in(at);
        relay[at].publish("live/cam", &[], &[]);
        let watcher = relay.subscriber();
        let watch = relay[watcher].watch("");
        relay.run(MS * 50);
        let hops = relay[watcher].watches[&watch].live[&path("live/cam")].to_vec();
        let stamped: &[Hop] = match version {
            Version::V01 | Version::V02 => &[],
            Version::V03 => &[Hop::ANONYMOUS; 3],
            Version::V04 => &[Hop(9_000), Hop::ANONYMOUS, Hop(1_000)],
            Version::V05 | Version::V06 => &[Hop(9_000), Hop::ANONYMOUS],
        };
        assert_eq!((at, hops.as_slice()), (0, stamped));
        relay.disperse();
    });
}

#[test]
fn peer_gets_no_announce_of_its_own_broadcasts() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &[]);
        let watch = relay[publisher].watch("");
        relay.run(MS * 50);
        let watch = &relay[publisher].watches[&watch];
        assert_eq!(watch.ok.map(|ok| ok.count), version.has_announce_ok().then_some(0));
        assert_eq!(watch.heard, []);
        relay.disperse();
    });
}

#[test]
fn a_prefix_outside_the_scope_is_an_empty_set_that_stays_open() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &[]);
        relay[publisher].publish("other/cam", &[], &[]);
        let watcher = relay.link(host(), guest());
        relay.seats[watcher].permit = permit("", Scope::everything(), Scope::of([path("other")]));
        relay.let_in(watcher);
        relay.run(MS * 50);
        let outside = relay[watcher].watch("live");
        let above = relay[watcher].watch("");
        relay.run(MS * 50);
        relay[publisher].publish("live/two", &[], &[]);
        relay[publisher].publish("other/two", &[], &[]);
        relay.run(MS * 1_000);
        let outside = &relay[watcher].watches[&outside];
        assert_eq!(outside.ok.map(|ok| ok.count), version.has_announce_ok().then_some(0));
        assert_eq!((outside.heard.len(), outside.end), (0, None));
        let told: Vec<_> = relay[watcher].watches[&above].live.keys().map(ToString::to_string).collect();
        assert_eq!(told, ["other/cam", "other/two"]);
        relay.disperse();
    });
}

#[test]
fn paths_are_relative_to_the_root_of_the_session() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.link(host(), guest());
        relay.seats[publisher].permit = permit("live", Scope::of([path("live/a")]), Scope::everything());
        relay.let_in(publisher);
        relay[publisher].publish("a/cam", &["video"], &[]);
        let watcher = relay.subscriber();
        let watch = relay[watcher].watch("");
        relay.run(MS * 50);
        let crate::peer::Ask::Announce(asked) = &relay[publisher].asked[0].what else { panic!() };
        assert_eq!(asked.prefix, path("a"));
        assert_eq!(relay[watcher].watches[&watch].live.keys().collect::<Vec<_>>(), [&path("live/a/cam")]);
        relay[watcher].subscribe("live/a/cam", "video", Default::default());
        relay.upstream(publisher, "video");
        let (_, subscribe) = relay[publisher].serving("video").unwrap();
        assert_eq!(subscribe.broadcast, path("a/cam"));

        let guest_ = relay.link(host(), guest());
        relay.seats[guest_].permit = permit("live/a", Scope::of([path("live/a")]), Scope::everything());
        relay.let_in(guest_);
        relay.run(MS * 50);
        let watch = relay[guest_].watch("");
        let answer = version.has_tracks().then(|| relay[guest_].ask_track("cam", "video"));
        relay.run(MS * 100);
        assert_eq!(relay[guest_].watches[&watch].live.keys().collect::<Vec<_>>(), [&path("cam")]);
        assert!(answer.is_none_or(|answer| relay[guest_].track_answers[&answer].info.is_some()));
        relay.disperse();
    });
}

#[test]
fn finished_watcher_gets_a_fin() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &[]);
        let watcher = relay.subscriber();
        let watch = relay[watcher].watch("");
        relay.run(MS * 50);
        relay[watcher].finish(watch);
        relay.run(MS * 50);
        assert!(relay[watcher].watches[&watch].end.unwrap().is_fin());
        relay[publisher].publish("live/two", &[], &[]);
        relay.run(MS * 50);
        assert!(relay.is_alive(watcher));
        relay.disperse();
    });
}
