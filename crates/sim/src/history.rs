//! Random stories of a world, and the invariants they are checked against.
//!
//! There are two kinds. In a *storm*, events happen before earlier ones have settled: readers must receive
//! only correct content, and everything works again once the storm is over. In a *calm*, one event happens at
//! a time, and each watcher gets at most one update of it.

mod permits;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use relay_model::{Cost, Hop, Path, Prefs, Start};
use relay_wire::lite::Version;

use crate::{
    content::{Content, SharedContent},
    peer::{Peer, Update},
    world::World,
};

/// Time between two frames of every publisher.
const FRAME: Duration = Duration::from_millis(40);
/// Frames per group.
const FRAMES: u64 = 5;
/// Linger of a vanished publisher, and a second for its withdrawal to spread.
const GONE: Duration = Duration::from_millis(6_000);
/// Time after which all messages have arrived and every held-back change is shown.
const SETTLED: Duration = Duration::from_millis(1_500);

/// Topology of the links between relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// One relay.
    Single,
    /// A chain of three.
    Line,
    /// Three relays, all linked.
    Triangle,
    /// Four relays in a circle.
    Ring,
    /// One relay in the middle of three.
    Star,
}

impl Topology {
    /// All shapes.
    pub const ALL: [Self; 5] = [Self::Single, Self::Line, Self::Triangle, Self::Ring, Self::Star];

    fn relays(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Line | Self::Triangle => 3,
            Self::Ring | Self::Star => 4,
        }
    }

    fn links(self) -> &'static [(usize, usize)] {
        match self {
            Self::Single => &[],
            Self::Line => &[(0, 1), (1, 2)],
            Self::Triangle => &[(0, 1), (1, 2), (2, 0)],
            Self::Ring => &[(0, 1), (1, 2), (2, 3), (3, 0)],
            Self::Star => &[(0, 1), (0, 2), (0, 3)],
        }
    }
}

/// A publisher in a story.
struct SimPublisher {
    path: Path,
    hop: Hop,
    content: SharedContent,
    /// Its connected clients, and the relay of each.
    peers: Vec<(usize, usize)>,
}

/// A run with its participants.
pub struct Story {
    /// Relays, clients and links.
    pub world: World,
    seed: u64,
    shape: Topology,
    sources: Vec<SimPublisher>,
    viewers: Vec<usize>,
    links: Vec<Option<u64>>,
    /// Whether the version of each link can replace an announce (an update instead of an end and a new
    /// announce).
    replaces: Vec<bool>,
    incarnations: u64,
    next_frame: Duration,
    elapsed: Duration,
    /// Events so far, shown with a failure.
    pub log: Vec<String>,
}

impl Story {
    /// Begins the story of `seed` with linked relays and no clients.
    pub fn new(seed: u64) -> Self {
        let shape = Topology::ALL[(seed % Topology::ALL.len() as u64) as usize];
        let mut world = World::new(seed, shape.relays());
        let mut replaces = Vec::new();
        let links = shape
            .links()
            .iter()
            .map(|(one, other)| {
                // A link between relays carries their hop ids, which moq-lite-03 cannot.
                let version = [Version::V06, Version::V05, Version::V04][world.rng.below(3) as usize];
                replaces.push(version.replaces_announces());
                Some(world.peer_relays(*one, *other, version))
            })
            .collect();
        let mut story = Self {
            world,
            seed,
            shape,
            sources: Vec::new(),
            viewers: Vec::new(),
            links,
            replaces,
            incarnations: 0,
            next_frame: Duration::ZERO,
            elapsed: Duration::ZERO,
            log: Vec::new(),
        };
        story.run(Duration::from_millis(300));
        story
    }

    /// Runs overlapping events; afterwards all must work, and all received content must have been correct.
    pub fn storm(&mut self, events: usize) {
        for _ in 0..2 {
            self.add_viewer();
        }
        self.add_source();
        for _ in 0..events {
            self.event();
            let pause = Duration::from_millis(self.world.rng.below(700));
            self.run(pause);
            self.resubscribe();
        }
        self.mend();
        self.log.push("quiet".to_owned());
        for _ in 0..6 {
            self.run(SETTLED);
            self.resubscribe();
        }
        self.run(GONE);
        self.check_truth();
        self.check_settled();
        self.check_flowing();
        self.leave();
    }

    /// Runs one event at a time: each causes at most one update per watcher.
    pub fn calm(&mut self, events: usize) {
        for _ in 0..3 {
            self.add_viewer();
        }
        self.run(SETTLED);
        for _ in 0..events {
            let before: Vec<usize> =
                self.viewers.iter().map(|at| self.world.peers[*at].updates.len()).collect();
            let viewers = self.viewers.clone();
            self.calm_event();
            self.run(GONE + SETTLED);
            self.check_truth();
            for (viewer, before) in viewers.into_iter().zip(before) {
                let mut heard: BTreeMap<&Path, Vec<Update>> = BTreeMap::new();
                for (_, path, update) in &self.world.peers[viewer].updates[before..] {
                    heard.entry(path).or_default().push(*update);
                }
                for (path, updates) in heard {
                    // Before moq-lite-05 a replaced publisher is an end and a new announce.
                    let replaced = updates == [Update::Withdrawn, Update::Announced];
                    let pair = replaced && !self.world.peers[viewer].version.replaces_announces();
                    assert!(
                        updates.len() <= 1 || pair,
                        "{self}: viewer {viewer} heard {updates:?} of {path} for one change"
                    );
                }
            }
            self.check_settled();
        }
        self.leave();
    }

    fn run(&mut self, time: Duration) {
        let until = self.elapsed + time;
        while self.elapsed < until {
            let step = (self.next_frame.max(self.elapsed) - self.elapsed).min(until - self.elapsed);
            if step > Duration::ZERO {
                self.world.run(step);
                self.elapsed += step;
            }
            if self.elapsed >= self.next_frame {
                self.sources.iter().for_each(|source| source.content.borrow_mut().grow(FRAMES));
                self.next_frame = self.elapsed + FRAME;
            }
        }
    }

    // Events.

    fn event(&mut self) {
        match self.world.rng.below(16) {
            0 | 1 => self.add_source(),
            2 | 3 => self.vanish(),
            4 => self.close_publisher(),
            5 | 6 => self.come_back(),
            7 => self.stand_in(),
            8 => self.take_over(),
            9 => self.withdraw(),
            10 => self.reprice(),
            11 => self.end_track(),
            12 => self.cut_relays(),
            13 => self.link_relays(),
            14 => self.add_viewer(),
            _ => self.drop_viewer(),
        }
    }

    fn calm_event(&mut self) {
        match self.world.rng.below(9) {
            0 | 1 => self.add_source(),
            2 => self.vanish(),
            3 => self.close_publisher(),
            4 => self.stand_in(),
            5 => self.take_over(),
            6 => self.withdraw(),
            7 => self.cut_relays(),
            _ => self.link_relays(),
        }
    }

    fn version(&mut self) -> Version {
        Version::ALL[self.world.rng.below(Version::ALL.len() as u64) as usize]
    }

    fn relay(&mut self) -> usize {
        self.world.rng.below(self.world.relays.len() as u64) as usize
    }

    fn source(&mut self) -> Option<usize> {
        let count = self.sources.len() as u64;
        (count > 0).then(|| self.world.rng.below(count) as usize)
    }

    fn add_source(&mut self) {
        if self.sources.len() >= 3 {
            return;
        }
        let path = Path::parse(&format!("room/{}", self.world.rng.below(2))).expect("a path");
        let version = self.version();
        self.start_source(path, version);
    }

    /// Adds a new publisher, on a new path or on that of another one.
    fn start_source(&mut self, path: Path, version: Version) {
        self.incarnations += 1;
        let anonymous = self.world.rng.chance(0.2);
        let hop = if anonymous { Hop::ANONYMOUS } else { Hop(10_000 + self.incarnations) };
        let first = self.world.rng.below(3) * 50;
        let content = Content::new(self.incarnations, first);
        content.borrow_mut().grow(FRAMES);
        self.sources.push(SimPublisher { path, hop, content, peers: Vec::new() });
        self.place(self.sources.len() - 1, version);
    }

    /// Adds a client of a source.
    fn place(&mut self, at: usize, version: Version) {
        let relay = self.relay();
        let SimPublisher { path, hop, content, .. } = &self.sources[at];
        let (path, hop, content) = (path.clone(), *hop, content.clone());
        let peer = self.world.join(relay, Peer::new(version, hop));
        let price = self.world.rng.below(3);
        let incarnation = content.borrow().incarnation;
        self.log.push(format!(
            "publisher {peer} ({hop:?}, {version:?}) of {path} #{incarnation} at relay {relay}"
        ));
        let cost = Cost { warm: price, cold: price };
        self.world.with_peer(peer, |peer, t, _| peer.publish(t, path, content, cost));
        self.sources[at].peers.push((peer, relay));
    }

    fn some_publisher(&mut self) -> Option<(usize, usize)> {
        let source = self.source()?;
        let count = self.sources[source].peers.len() as u64;
        (count > 0).then(|| (source, self.world.rng.below(count) as usize))
    }

    fn vanish(&mut self) {
        let Some((source, at)) = self.some_publisher() else { return };
        let (peer, _) = self.sources[source].peers.remove(at);
        self.log.push(format!("publisher {peer} vanishes"));
        if let Some(link) = self.world.link_of(peer) {
            self.world.cut(link);
        }
        self.forget_anonymous(source);
    }

    fn close_publisher(&mut self) {
        let Some((source, at)) = self.some_publisher() else { return };
        let (peer, _) = self.sources[source].peers.remove(at);
        self.log.push(format!("publisher {peer} leaves"));
        self.world.with_peer(peer, |peer, t, now| peer.close(t, now));
        self.forget_anonymous(source);
    }

    /// Drops a source without a hop id, which cannot come back.
    fn forget_anonymous(&mut self, source: usize) {
        if self.sources[source].hop == Hop::ANONYMOUS && self.sources[source].peers.is_empty() {
            self.sources.remove(source);
        }
    }

    fn come_back(&mut self) {
        let Some(source) = self.source() else { return };
        if self.sources[source].peers.is_empty() {
            let version = self.version();
            self.place(source, version);
        }
    }

    /// Adds a client with the same hop id and the same groups.
    fn stand_in(&mut self) {
        let Some(source) = self.source() else { return };
        let named = self.sources[source].hop != Hop::ANONYMOUS;
        if named && self.sources[source].peers.len() == 1 {
            let version = self.version();
            self.place(source, version);
        }
    }

    /// Adds another publisher of the same path, with its own group numbers.
    fn take_over(&mut self) {
        let Some(source) = self.source() else { return };
        let path = self.sources[source].path.clone();
        let version = self.version();
        if self.sources.len() < 4 {
            self.start_source(path, version);
        }
    }

    fn withdraw(&mut self) {
        let Some((source, at)) = self.some_publisher() else { return };
        let (peer, _) = self.sources[source].peers.remove(at);
        let path = self.sources[source].path.clone();
        self.log.push(format!("publisher {peer} withdraws {path}"));
        self.world.with_peer(peer, |peer, t, _| peer.withdraw(t, &path));
        self.forget_anonymous(source);
    }

    fn reprice(&mut self) {
        let Some((source, at)) = self.some_publisher() else { return };
        let (peer, _) = self.sources[source].peers[at];
        let (path, content) = (self.sources[source].path.clone(), self.sources[source].content.clone());
        let price = self.world.rng.below(5);
        self.log.push(format!("publisher {peer} costs {price}"));
        let cost = Cost { warm: price, cold: price };
        self.world.with_peer(peer, |peer, t, _| peer.publish(t, path, content, cost));
    }

    /// Ends the track; its publishers stay for a moment and leave.
    fn end_track(&mut self) {
        let Some(source) = self.source() else { return };
        let SimPublisher { path, content, peers, .. } = self.sources.remove(source);
        self.log.push(format!("{path} #{} ends", content.borrow().incarnation));
        content.borrow_mut().end();
        self.run(Duration::from_millis(200));
        for (peer, _) in peers {
            self.world.with_peer(peer, |peer, t, now| peer.close(t, now));
        }
    }

    fn cut_relays(&mut self) {
        if self.links.is_empty() {
            return;
        }
        let at = self.world.rng.below(self.links.len() as u64) as usize;
        if let Some(link) = self.links[at].take() {
            self.log.push(format!("link {at} between relays breaks"));
            self.world.cut(link);
        }
    }

    fn link_relays(&mut self) {
        for at in 0..self.links.len() {
            if self.links[at].is_none() {
                let (one, other) = self.shape.links()[at];
                self.log.push(format!("link {at} between relays is back"));
                self.links[at] = Some(self.world.peer_relays(one, other, Version::V06));
                self.replaces[at] = true;
                return;
            }
        }
    }

    fn mend(&mut self) {
        for _ in 0..self.links.len() {
            self.link_relays();
        }
    }

    fn add_viewer(&mut self) {
        if self.viewers.len() >= 5 {
            return;
        }
        let (relay, version) = (self.relay(), self.version());
        let hop = Hop(20_000 + self.world.peers.len() as u64);
        let viewer = self.world.join(relay, Peer::new(version, hop));
        self.log.push(format!("viewer {viewer} ({version:?}) at relay {relay}"));
        self.world.with_peer(viewer, |peer, t, _| peer.watch(t));
        self.viewers.push(viewer);
    }

    fn drop_viewer(&mut self) {
        if self.viewers.len() <= 1 {
            return;
        }
        let at = self.world.rng.below(self.viewers.len() as u64) as usize;
        let viewer = self.viewers.remove(at);
        self.log.push(format!("viewer {viewer} leaves"));
        match (self.world.rng.chance(0.5), self.world.link_of(viewer)) {
            (true, Some(link)) => self.world.cut(link),
            _ => {
                self.world.with_peer(viewer, |peer, t, now| peer.close(t, now));
            }
        }
    }

    /// Subscribes viewers to live broadcasts that they do not read yet.
    fn resubscribe(&mut self) {
        for viewer in self.viewers.clone() {
            let lazy = self.world.rng.chance(0.2);
            let start = match self.world.rng.below(3) {
                0 => Start::Group(0),
                1 => Start::Fresh { floor: 0 },
                _ => Start::Latest,
            };
            self.world.with_peer(viewer, |peer, t, now| {
                let reading: BTreeSet<Path> =
                    peer.subs.iter().filter(|sub| sub.end.is_none()).map(|sub| sub.path.clone()).collect();
                let missing: Vec<Path> =
                    peer.live.keys().filter(|path| !reading.contains(*path)).cloned().collect();
                for path in missing.into_iter().filter(|_| !lazy) {
                    let prefs = Prefs { start, max_age_ms: 2_000, ..Prefs::default() };
                    peer.subscribe(t, path, prefs, now);
                }
            });
        }
    }

    // Invariants.

    /// Asserts that all content received was correct.
    fn check_truth(&self) {
        for (at, peer) in self.world.peers.iter().enumerate() {
            assert!(peer.broken.is_empty(), "{self}: client {at}: {:?}", peer.broken);
        }
        let contents: BTreeMap<u64, &SharedContent> = self
            .sources
            .iter()
            .map(|source| (source.content.borrow().incarnation, &source.content))
            .collect();
        for viewer in &self.viewers {
            for sub in &self.world.peers[*viewer].subs {
                for (sequence, group) in &sub.groups {
                    let whole = group.end == Some(None);
                    let said = sub.incarnation.and_then(|of| contents.get(&of));
                    let published = said.and_then(|said| said.borrow().groups.get(sequence).cloned());
                    if let Some(published) = published.filter(|_| whole) {
                        assert!(
                            published.finished && published.frames == group.frames,
                            "{self}: group {sequence} was received as complete after {} frames of {published:?}",
                            group.frames
                        );
                    }
                    assert!(!whole || group.frames == FRAMES || said.is_none(), "{self}: {group:?}");
                }
            }
        }
        for (at, relay) in self.world.relays.iter().enumerate() {
            assert!(relay.closed_by_us.is_empty(), "{self}: relay {at}: {:?}", relay.closed_by_us);
        }
    }

    /// Asserts that every reachable broadcast is announced and flows, withdrawn ones are gone, and each track
    /// is requested once.
    fn check_settled(&self) {
        let expected: BTreeSet<&Path> = self
            .sources
            .iter()
            .filter(|source| !source.peers.is_empty())
            .map(|source| &source.path)
            .collect();
        let linked = self.links.iter().all(Option::is_some);
        for viewer in &self.viewers {
            let peer = &self.world.peers[*viewer];
            assert_eq!(peer.closed, None, "{self}: viewer {viewer}");
            let live: BTreeSet<&Path> = peer.live.keys().collect();
            if linked {
                assert_eq!(live, expected, "{self}: live broadcasts of viewer {viewer}");
            } else {
                assert!(live.is_subset(&expected), "{self}: viewer {viewer} knows {live:?} of {expected:?}");
            }
            for sub in peer.subs.iter().filter(|sub| sub.end.is_none()) {
                let silent = sub.last.unwrap_or(sub.since);
                let silent = self.world.now.saturating_duration_since(silent);
                assert!(
                    silent < Duration::from_secs(2) || !live.contains(&sub.path),
                    "{self}: viewer {viewer} has received nothing of {} for {silent:?} (subscribed {:?} ago)",
                    sub.path,
                    self.world.now.saturating_duration_since(sub.since)
                );
            }
        }
        for (at, peer) in self.world.peers.iter().enumerate().filter(|(_, peer)| peer.closed.is_none()) {
            for (path, times) in peer.served() {
                assert!(times <= 1, "{self}: client {at} serves {path} {times} times");
            }
        }
    }

    /// Asserts that each viewer that subscribed to a live broadcast and was not refused receives it.
    fn check_flowing(&self) {
        for viewer in &self.viewers {
            let peer = &self.world.peers[*viewer];
            for path in peer.live.keys() {
                let subs = || peer.subs.iter().filter(|sub| sub.path == *path);
                let flows = subs().any(|sub| sub.end.is_none());
                let ends: Vec<_> = subs().map(|sub| (sub.end, sub.incarnation, sub.groups.len())).collect();
                assert!(flows || ends.is_empty(), "{self}: viewer {viewer} is refused {path}: {ends:?}");
            }
        }
    }

    /// Ends all sessions and asserts that nothing is left.
    fn leave(&mut self) {
        for peer in 0..self.world.peers.len() {
            self.world.with_peer(peer, |peer, t, now| peer.close(t, now));
        }
        self.run(Duration::from_millis(500));
        for link in self.links.iter().flatten() {
            self.world.cut(*link);
        }
        self.sources.clear();
        self.run(GONE);
        self.world.drain_planes();
        for (at, relay) in self.world.relays.iter().enumerate() {
            let (core, store) = relay.counts();
            let held = (core.sessions, core.paths, core.routes, core.logs, core.readers, core.timers);
            assert_eq!(held, (0, 0, 0, 0, 0, 0), "{self}: left in core of relay {at}: {core:?}");
            let held = (store.logs, store.feeds, store.bytes, store.board_paths, store.watches);
            assert_eq!(held, (0, 0, 0, 0, 0), "{self}: left in the store of relay {at}: {store:?}");
        }
    }
}

impl std::fmt::Display for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "seed {} ({:?})", self.seed, self.shape)?;
        self.log.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}
