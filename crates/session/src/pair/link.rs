//! Link between the ends: a clock, and the packets in flight.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use relay_model::{
    SessionCode, StreamCode,
    transport::{Dir, PathStats, TransportClosed},
};

use super::{PairOptions, rng::Rng, side::PairSide};

/// Size of a packet without payload, for a link with a rate.
const CONTROL_BYTES: usize = 40;
/// Most consecutive losses of one packet, so that runs are finite.
const MAX_LOSSES: u32 = 16;
/// Time to detect a loss beyond a round trip.
const RECOVERY: Duration = Duration::from_millis(5);

/// Packets exchanged by the ends.
#[derive(Debug)]
pub(super) enum PairFrame {
    Data {
        stream: u64,
        offset: u64,
        payload: Bytes,
        last: bool,
    },
    Reset {
        stream: u64,
        code: StreamCode,
        size: u64,
    },
    Stop {
        stream: u64,
        code: StreamCode,
    },
    StreamCredit {
        stream: u64,
        limit: u64,
    },
    Credit {
        limit: u64,
    },
    Streams {
        dir: Dir,
        limit: u64,
    },
    Datagram(Bytes),
    Close {
        code: SessionCode,
        reason: String,
    },
    /// Acknowledges any frame above except `Datagram` and `Close`; `data`: the stream bytes covered.
    Ack {
        data: Option<(u64, u64, bool)>,
    },
}

impl PairFrame {
    fn size(&self) -> usize {
        match self {
            Self::Data { payload, .. } | Self::Datagram(payload) => CONTROL_BYTES + payload.len(),
            _ => CONTROL_BYTES,
        }
    }

    fn ack(&self) -> Option<Self> {
        match self {
            Self::Data { stream, payload, last, .. } => {
                Some(Self::Ack { data: Some((*stream, payload.len() as u64, *last)) })
            }
            Self::Datagram(_) | Self::Close { .. } | Self::Ack { .. } => None,
            _ => Some(Self::Ack { data: None }),
        }
    }
}

#[derive(Debug)]
pub(super) struct PairLink {
    pub(super) rng: Rng,
    pub(super) sides: [PairSide; 2],
    clock: Option<Instant>,
    /// Time at which each side has finished sending its last packet.
    idle_at: [Option<Instant>; 2],
    /// Packets in flight, by arrival time, then order of departure.
    flights: BTreeMap<(Instant, u64), (usize, PairFrame)>,
    departed: u64,
}

impl PairLink {
    pub(super) fn new(seed: u64, a: PairOptions, b: PairOptions) -> Self {
        let (to_a, to_b) = (b.clone(), a.clone());
        Self {
            rng: Rng::new(seed),
            sides: [PairSide::new(0, a, &to_a), PairSide::new(1, b, &to_b)],
            clock: None,
            idle_at: [None; 2],
            flights: BTreeMap::new(),
            departed: 0,
        }
    }

    pub(super) fn advance(&mut self, now: Instant) {
        self.clock.get_or_insert(now);
        self.sides.iter_mut().for_each(PairSide::grant);
        while let Some((at, what)) = self.upcoming()
            && at <= now
        {
            self.clock = self.clock.max(Some(at));
            match what {
                LinkEvent::Departure(side) => self.depart(side, at),
                LinkEvent::Arrival => self.arrive(at),
            }
        }
        self.clock = self.clock.max(Some(now));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.upcoming().map(|(at, _)| at)
    }

    pub(super) fn cut(&mut self, why: &str) {
        self.flights.clear();
        for side in &mut self.sides {
            side.end(TransportClosed::Lost(why.to_owned()));
        }
    }

    pub(super) fn stats(&self, side: usize) -> PathStats {
        let options = &self.sides[side].options;
        if !options.measures {
            return PathStats::default();
        }
        PathStats { rtt: Some(self.rtt()), bitrate: options.rate.map(|rate| rate.saturating_mul(8)) }
    }

    fn rtt(&self) -> Duration {
        self.sides[0].options.latency + self.sides[1].options.latency
    }

    /// Next departure or arrival: departures before arrivals of the same time, side 0 before side 1.
    fn upcoming(&self) -> Option<(Instant, LinkEvent)> {
        let departures = [0, 1].map(|side| Some((self.departure(side)?, LinkEvent::Departure(side))));
        let arrival = self.flights.keys().next().map(|(at, _)| (*at, LinkEvent::Arrival));
        departures.into_iter().chain([arrival]).flatten().min()
    }

    fn departure(&self, side: usize) -> Option<Instant> {
        let sender = &self.sides[side];
        let open = sender.options.rate != Some(0);
        (open && sender.has_output()).then_some(self.clock?.max(self.idle_at[side].unwrap_or(self.clock?)))
    }

    fn depart(&mut self, from: usize, at: Instant) {
        let Some(frame) = self.sides[from].transmit() else { return };
        let options = &self.sides[from].options;
        let (latency, rate, loss) = (options.latency, options.rate, options.loss);
        let mut losses = 0;
        while losses < MAX_LOSSES && self.rng.chance(loss) {
            losses += 1;
        }
        if let Some(rate) = rate {
            let bytes = frame.size() as u64 * u64::from(losses + 1);
            let nanos = bytes.saturating_mul(1_000_000_000).checked_div(rate).unwrap_or(0);
            self.idle_at[from] = Some(at + Duration::from_nanos(nanos));
        }
        if losses > 0 && matches!(frame, PairFrame::Datagram(_)) {
            return;
        }
        let recovery = (self.rtt() + RECOVERY) * losses;
        self.fly(at + latency + recovery, 1 - from, frame);
    }

    fn arrive(&mut self, at: Instant) {
        let Some((_, (to, frame))) = self.flights.pop_first() else { return };
        if let Some(ack) = frame.ack() {
            self.fly(at + self.sides[to].options.latency, 1 - to, ack);
        }
        self.sides[to].handle(frame, &mut self.rng);
        self.sides[to].grant();
    }

    fn fly(&mut self, arrival: Instant, to: usize, frame: PairFrame) {
        self.departed += 1;
        self.flights.insert((arrival, self.departed), (to, frame));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum LinkEvent {
    Departure(usize),
    Arrival,
}
