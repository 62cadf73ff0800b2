//! All participants of a run, and the links between them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use relay_model::{Hop, Scope, SessionId};
use relay_session::pair::{Pair, PairEnd, PairOptions, Rng};
use relay_wire::lite::Version;

use crate::{peer::Peer, relay::SimRelay};

/// Clock step while messages are pending.
const STEP: Duration = Duration::from_millis(2);
/// Longest clock step otherwise.
const IDLE: Duration = Duration::from_millis(50);

/// Participant at one end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkEnd {
    Relay(usize, SessionId),
    Peer(usize),
}

struct SimLink {
    pair: Pair,
    a: LinkEnd,
    b: LinkEnd,
}

/// A run.
pub struct World {
    /// Virtual time.
    pub now: Instant,
    /// Source of all random choices.
    pub rng: Rng,
    /// All relays.
    pub relays: Vec<SimRelay>,
    /// All clients, closed ones included.
    pub peers: Vec<Peer>,
    links: BTreeMap<u64, SimLink>,
    of_session: BTreeMap<(usize, SessionId), u64>,
    of_peer: BTreeMap<usize, u64>,
    next_link: u64,
}

impl World {
    /// Creates `relays` relays without links.
    pub fn new(seed: u64, relays: usize) -> Self {
        let (now, mut rng) = (Instant::now(), Rng::new(seed));
        let relays = (0..relays).map(|at| SimRelay::new(Hop(1_000 + at as u64), now)).collect();
        rng.draw();
        Self {
            now,
            rng,
            relays,
            peers: Vec::new(),
            links: BTreeMap::new(),
            of_session: BTreeMap::new(),
            of_peer: BTreeMap::new(),
            next_link: 0,
        }
    }

    /// Links two relays.
    pub fn peer_relays(&mut self, one: usize, other: usize, version: Version) -> u64 {
        let a = LinkEnd::Relay(one, self.relays[one].connect(version, true, &mut self.rng));
        let b = LinkEnd::Relay(other, self.relays[other].connect(version, true, &mut self.rng));
        self.link(a, b)
    }

    /// Connects a client to a relay.
    pub fn join(&mut self, relay: usize, peer: Peer) -> usize {
        let a = LinkEnd::Relay(relay, self.relays[relay].connect(peer.version, false, &mut self.rng));
        let at = self.peers.len();
        self.peers.push(peer);
        self.link(a, LinkEnd::Peer(at));
        at
    }

    fn link(&mut self, a: LinkEnd, b: LinkEnd) -> u64 {
        let latency = Duration::from_millis(1 + self.rng.below(20));
        let options =
            PairOptions { latency, uni_streams: 1_024, bidi_streams: 1_024, ..PairOptions::default() };
        let id = self.next_link;
        self.next_link += 1;
        for who in [a, b] {
            match who {
                LinkEnd::Relay(relay, session) => {
                    self.of_session.insert((relay, session), id);
                }
                LinkEnd::Peer(peer) => {
                    self.of_peer.insert(peer, id);
                }
            }
        }
        let pair = Pair::new(self.rng.draw(), options);
        self.links.insert(id, SimLink { pair, a, b });
        id
    }

    /// Breaks the link without a close.
    pub fn cut(&mut self, link: u64) {
        if let Some(link) = self.links.get_mut(&link) {
            link.pair.cut("the link broke");
        }
    }

    /// Link of a client.
    pub fn link_of(&self, peer: usize) -> Option<u64> {
        self.of_peer.get(&peer).copied()
    }

    /// Runs `work` on a client and its end of the link.
    pub fn with_peer<R>(
        &mut self,
        at: usize,
        work: impl FnOnce(&mut Peer, &mut PairEnd, Instant) -> R,
    ) -> Option<R> {
        let link = self.links.get_mut(self.of_peer.get(&at)?)?;
        Some(work(&mut self.peers[at], &mut link.pair.b, self.now))
    }

    /// Changes the permissions of a client, if its link is up.
    pub fn revise(&mut self, peer: usize, publish: &Scope, subscribe: &Scope) {
        let link = self.of_peer.get(&peer).and_then(|link| self.links.get_mut(link));
        let Some(SimLink { pair, a: LinkEnd::Relay(relay, session), .. }) = link else { return };
        self.relays[*relay].revise(*session, (publish, subscribe), &mut pair.a, self.now);
    }

    /// Advances the clock by `time`.
    pub fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            let step = self.next_step();
            self.now = (self.now + step).min(until);
            self.step();
        }
    }

    /// Runs until no messages between the planes are pending.
    pub fn drain_planes(&mut self) {
        for _ in 0..1_000 {
            if self.relays.iter().all(SimRelay::is_still) {
                return;
            }
            self.now += STEP;
            self.step();
        }
        panic!("messages between the planes never end");
    }

    /// Time to the next event, clamped to a small range.
    fn next_step(&mut self) -> Duration {
        if !self.relays.iter().all(SimRelay::is_still) {
            return STEP;
        }
        let arrivals = self.links.values().filter_map(|link| link.pair.next_arrival());
        let timers = self.relays.iter().filter_map(SimRelay::next_deadline);
        let next = arrivals.chain(timers).min();
        next.map_or(IDLE, |next| next.saturating_duration_since(self.now).clamp(STEP, IDLE))
    }

    fn step(&mut self) {
        let now = self.now;
        for link in self.links.values_mut() {
            link.pair.advance(now);
            for (who, end) in [(link.a, &mut link.pair.a), (link.b, &mut link.pair.b)] {
                match who {
                    LinkEnd::Relay(relay, session) => self.relays[relay].input(session, end, now),
                    LinkEnd::Peer(peer) => self.peers[peer].turn(end, now),
                }
            }
        }
        let Self { relays, links, of_session, rng, .. } = self;
        for (at, relay) in relays.iter_mut().enumerate() {
            relay.planes(rng, now, |session, work| {
                let link = of_session.get(&(at, session)).and_then(|link| links.get_mut(link));
                if let Some(link) = link {
                    let is_a = matches!(link.a, LinkEnd::Relay(relay, of) if relay == at && of == session);
                    work(if is_a { &mut link.pair.a } else { &mut link.pair.b });
                }
            });
        }
        for peer in 0..self.peers.len() {
            if self.peers[peer].closed.is_some() {
                self.of_peer.remove(&peer);
            }
        }
    }
}
