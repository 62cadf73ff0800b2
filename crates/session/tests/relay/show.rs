//! A published track, and checks of its readers.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use relay_model::{Prefs, StreamCode, transport::Stream};
use relay_session::pair::{PairOptions, Rng};
use relay_wire::lite::{SubscribeOk, SubscribeResponse, Version};

use crate::{
    harness::{MS, Relay},
    peer::Frames,
};

/// Preferences of a reader that wants every group, however late.
pub(crate) fn patient() -> Prefs {
    Prefs { max_age_ms: 600_000, ..Prefs::default() }
}

/// First response to a reader of moq-lite-03 and 04 that subscribed with the default priority.
pub(crate) fn accepted() -> SubscribeResponse {
    SubscribeResponse::Ok(SubscribeOk { priority: 127, ..SubscribeOk::default() })
}

/// Runs `test` with many seeds; a failure names its seed. `SEEDS=20` runs twenty times as many.
pub(crate) fn seeds(count: u64, test: impl Fn(u64, &mut Rng)) {
    let times: u64 = std::env::var("SEEDS").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    for seed in 0..count * times {
        let _named = Named(seed);
        test(seed, &mut Rng::new(seed));
    }
}

/// Runs `test` with every version; a failure names it.
pub(crate) fn versions(test: impl Fn(Version)) {
    for version in Version::ALL {
        let _named = Named(version.alpn());
        test(*version);
    }
}

/// Version used for a seed.
pub(crate) fn version_of(seed: u64) -> Version {
    Version::ALL[(seed % Version::ALL.len() as u64) as usize]
}

/// Prints its label when the test fails.
struct Named<T: std::fmt::Display>(T);

impl<T: std::fmt::Display> Drop for Named<T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with {}", self.0);
        }
    }
}

/// Options of a random impaired link with little credit.
pub(crate) fn rough(rng: &mut Rng) -> PairOptions {
    PairOptions {
        latency: MS * (1 + rng.below(40) as u32),
        rate: rng.chance(0.3).then(|| 200_000 + rng.below(2_000_000)),
        loss: rng.below(20) as f64 / 100.0,
        mtu: 100 + rng.below(1_300) as usize,
        send_window: 1_000 + rng.below(60_000),
        partial: rng.below(100) as f64 / 100.0,
        stream_window: 1_500 + rng.below(30_000),
        connection_window: 3_000 + rng.below(60_000),
        bidi_streams: 8 + rng.below(8),
        uni_streams: 1 + rng.below(6),
        max_datagram: 1_300,
        measures: true,
    }
}

pub(crate) fn bytes(rng: &mut Rng, len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        out.extend_from_slice(&rng.draw().to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Random frames, some empty, with ticks that sometimes go back.
pub(crate) fn frames(rng: &mut Rng, most: u64) -> Frames {
    let mut tick = rng.below(1_000_000) as i64;
    (0..1 + rng.below(5))
        .map(|_| {
            tick = (tick + rng.below(100) as i64 - 20).max(0);
            let len = if rng.chance(0.1) { 0 } else { rng.below(most) };
            (tick, bytes(rng, len as usize))
        })
        .collect()
}

/// One track of one publisher.
pub(crate) struct Show {
    pub(crate) publisher: usize,
    pub(crate) subscribe: u64,
    pub(crate) groups: BTreeMap<u64, Frames>,
    /// Time each group was sent.
    pub(crate) aired: BTreeMap<u64, Instant>,
}

impl Show {
    /// A track, once the relay has subscribed to `name`.
    pub(crate) fn new(relay: &mut Relay, publisher: usize, name: &str) -> Self {
        let subscribe = relay.upstream(publisher, name);
        Self { publisher, subscribe, groups: BTreeMap::new(), aired: BTreeMap::new() }
    }

    pub(crate) fn air(&mut self, relay: &mut Relay, sequence: u64, frames: Frames) {
        relay[self.publisher].send_group(self.subscribe, sequence, &frames);
        self.groups.insert(sequence, frames);
        self.aired.insert(sequence, relay.now);
    }

    /// Sends groups one after another, `pause` apart.
    pub(crate) fn run(
        &mut self,
        relay: &mut Relay,
        count: u64,
        pause: Duration,
        make: impl Fn(u64) -> Frames,
    ) {
        for _ in 0..count {
            let next = self.next();
            self.air(relay, next, make(next));
            relay.run(pause);
        }
    }

    pub(crate) fn next(&self) -> u64 {
        self.groups.last_key_value().map_or(0, |(last, _)| last + 1)
    }

    /// Sends SUBSCRIBE_END and finishes the subscription.
    pub(crate) fn end(&self, relay: &mut Relay, name: &str) {
        let (stream, _) = relay[self.publisher].serving(name).expect("a live subscription");
        if !relay[self.publisher].version.has_subscribe_ok() {
            let end = SubscribeResponse::End { group: self.next() };
            relay[self.publisher].respond(stream, end);
        }
        relay[self.publisher].finish(stream);
    }

    /// Checks that every stream of the subscription holds published data only: a whole group when finished, a
    /// prefix of it when reset.
    pub(crate) fn check_bytes(&self, relay: &Relay, reader: usize, sub: Stream) {
        let seed = relay.seed;
        for group in relay[reader].groups_of(sub) {
            let sequence = group.sequence.unwrap();
            let sent = &self.as_heard(relay, reader, sequence, &group.frames);
            assert_eq!(relay[reader].group(sub, sequence).len(), 1, "seed {seed}: group {sequence} twice");
            if group.is_complete() {
                assert!(group.frames == *sent, "seed {seed}: group {sequence} differs");
                continue;
            }
            assert!(!group.end.is_some_and(|end| end.is_fin()), "seed {seed}: {sequence} cut and finished");
            for (got, sent) in group.frames.iter().zip(sent) {
                assert_eq!(got.0, sent.0, "seed {seed}: group {sequence}");
                assert!(sent.1.starts_with(&got.1), "seed {seed}: group {sequence} differs");
            }
            assert!(group.frames.len() <= sent.len());
        }
    }

    /// A group as `reader` should receive it: with the sent timestamps if both versions carry them, otherwise
    /// with the received ones.
    fn as_heard(&self, relay: &Relay, reader: usize, sequence: u64, got: &Frames) -> Frames {
        let timed = [reader, self.publisher].iter().all(|at| relay[*at].version.has_timestamps());
        let mut sent = self.groups[&sequence].clone();
        if !timed {
            sent.iter_mut().zip(got).for_each(|(frame, got)| frame.0 = got.0);
        }
        sent
    }

    /// Checks that every group from `first` on arrived whole and once.
    pub(crate) fn check_all(&self, relay: &Relay, reader: usize, sub: Stream, first: u64) {
        self.check_bytes(relay, reader, sub);
        for sequence in self.groups.range(first..).map(|(sequence, _)| *sequence) {
            assert!(relay[reader].has(sub, sequence), "seed {}: group {sequence} is missing", relay.seed);
        }
    }

    /// Checks that every group from the reader's first on arrived, was reset, or was reported as dropped.
    pub(crate) fn check_accounted(&self, relay: &Relay, reader: usize, sub: Stream) {
        self.check_bytes(relay, reader, sub);
        let seed = relay.seed;
        let responses = &relay[reader].sub(sub).responses;
        let first = match responses.first() {
            Some(SubscribeResponse::Start { group }) => *group,
            Some(SubscribeResponse::Ok(_)) => 0,
            other => panic!("seed {seed}: {other:?} first"),
        };
        for (sequence, _) in self.groups.range(first..) {
            let dropped = responses.iter().any(|response| {
                matches!(response, SubscribeResponse::Drop { start, end, .. } if (start..=end).contains(&sequence))
            });
            let ended = relay[reader].group(sub, *sequence).iter().any(|group| group.end.is_some());
            assert!(dropped != ended, "seed {seed}: group {sequence}: dropped {dropped}, ended {ended}");
        }
    }

    /// Checks that resets have a code for lateness and never affect the group that was newest at the time.
    /// Returns their number.
    pub(crate) fn check_resets(&self, relay: &Relay, reader: usize, sub: Stream) -> usize {
        let mut resets = 0;
        for group in relay[reader].groups_of(sub) {
            let Some(code) = group.end.and_then(|end| end.code()) else { continue };
            let (sequence, at) = (group.sequence.unwrap(), group.end.unwrap().at());
            assert!(
                [StreamCode::OLD, StreamCode::TOO_FAR_BEHIND].contains(&code),
                "group {sequence}: {code}"
            );
            let newest = self.aired.iter().filter(|(_, aired)| **aired < at).map(|(newest, _)| *newest).max();
            assert!(Some(sequence) < newest, "seed {}: the newest group {sequence} was reset", relay.seed);
            resets += 1;
        }
        resets
    }
}
