//! A run of clients and relay on one virtual clock, which advances from event to event.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    client::{BenchClient, ClientBehaviour},
    identity::BenchIdentity,
    link::{RELAY, Train},
    publisher::BenchPublisher,
    relay::BenchRelay,
    scenario::DeliveryScenario,
    viewer::BenchViewer,
};

/// Time for connecting and subscribing.
const JOIN: Duration = Duration::from_secs(1);

/// Settings of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeliveryOptions {
    pub(crate) scenario: DeliveryScenario,
    pub(crate) viewers: u32,
    /// Frames to count, instead of the scenario's number.
    pub(crate) counted: Option<u64>,
}

/// Counts of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeliveryOutcome {
    pub(crate) scenario: DeliveryScenario,
    pub(crate) viewers: u32,
    pub(crate) frames: u64,
    /// Frames times viewers; all of them were received complete, once.
    pub(crate) deliveries: u64,
    /// Turns of the worker.
    pub(crate) turns: u64,
    pub(crate) datagrams_in: u64,
    pub(crate) datagrams_out: u64,
    /// Send calls, system calls in a real relay.
    pub(crate) sends: u64,
}

struct BenchWorld {
    now: Instant,
    relay: BenchRelay,
    publisher: BenchClient<BenchPublisher>,
    viewers: Vec<BenchClient<BenchViewer>>,
}

/// Runs a scenario. Errors: a frame was lost, altered or late, or a connection failed.
pub(crate) fn run(options: &DeliveryOptions) -> Result<DeliveryOutcome> {
    let shape = options.scenario.shape();
    let counted = options.counted.unwrap_or(shape.counted);
    let mut world = BenchWorld::new(options)?;
    let deadline = world.now + JOIN;
    while world.now < deadline {
        world.pass(shape.period())?;
    }
    ensure!(world.publisher.play.is_wanted(), "the relay has not asked for the track");

    let period = shape.period();
    let start = world.now + period / 2;
    world.publisher.play.start(start);
    let frames = |count: u64| period * u32::try_from(count).unwrap_or(u32::MAX);
    // All earlier frames are delivered just before a frame is due.
    let quiet = period / 16;
    world.until(start + frames(shape.warmup) - quiet)?;
    let before = world.relay.meter();
    let frames_before: u64 = world.frames();
    world.relay.link.counting = true;
    world.until(start + frames(shape.warmup + counted) - quiet)?;
    world.relay.link.counting = false;
    let after = world.relay.meter();

    let deliveries = counted * u64::from(options.viewers);
    let delivered = world.frames() - frames_before;
    ensure!(delivered == deliveries, "{delivered} frames were delivered instead of {deliveries}");
    Ok(DeliveryOutcome {
        scenario: options.scenario,
        viewers: options.viewers,
        frames: counted,
        deliveries,
        turns: world.relay.turns,
        datagrams_in: after.datagrams_in - before.datagrams_in,
        datagrams_out: after.datagrams_out - before.datagrams_out,
        sends: after.send_calls - before.send_calls,
    })
}

impl BenchWorld {
    /// Connects all clients; the viewers once the broadcast is announced.
    fn new(options: &DeliveryOptions) -> Result<Self> {
        // Only read of the real clock, to which all times are relative.
        let now = Instant::now();
        let identity = BenchIdentity::generate()?;
        let shape = options.scenario.shape();
        let mut world = Self {
            now,
            relay: BenchRelay::new(identity.server.clone(), now),
            publisher: BenchClient::new(0, &identity, now, BenchPublisher::new(shape))?,
            viewers: Vec::new(),
        };
        world.pass(JOIN)?;
        for index in 1..=options.viewers {
            // One after another, so that each connection is the same in every run.
            world.viewers.push(BenchClient::new(index, &identity, world.now, BenchViewer::new(shape))?);
            world.pass(Duration::from_millis(20))?;
        }
        Ok(world)
    }

    fn frames(&self) -> u64 {
        self.viewers.iter().map(|viewer| viewer.play.frames).sum()
    }

    fn pass(&mut self, span: Duration) -> Result<()> {
        self.until(self.now + span)
    }

    /// Handles all events due before `end`.
    fn until(&mut self, end: Instant) -> Result<()> {
        loop {
            let clients = self.viewers.iter().map(BenchClient::next).chain([self.publisher.next()]);
            let next = clients.chain([self.relay.next()]).flatten().min();
            let Some(next) = next.filter(|next| *next < end) else { break };
            self.now = self.now.max(next);
            self.step()?;
        }
        self.now = end;
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        let Self { now, relay, publisher, viewers } = self;
        turn(publisher, relay, *now)?;
        for viewer in viewers.iter_mut() {
            turn(viewer, relay, *now)?;
        }
        relay.run(*now);
        for train in relay.link.take_sent() {
            let viewer = viewers.iter_mut().find(|viewer| viewer.address() == train.peer);
            match viewer {
                Some(viewer) => viewer.send_in(*now, &train),
                None => publisher.send_in(*now, &train),
            }
        }
        Ok(())
    }
}

fn turn<P: ClientBehaviour>(client: &mut BenchClient<P>, relay: &mut BenchRelay, now: Instant) -> Result<()> {
    if client.next().is_none_or(|next| next > now) {
        return Ok(());
    }
    client.run(now, |at, train: Train| {
        debug_assert_ne!(train.peer, RELAY, "a train names its sender");
        relay.link.send_in(at, train);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_of_every_scenario_is_delivered_once_and_whole() {
        for scenario in
            [DeliveryScenario::Video, DeliveryScenario::Hd, DeliveryScenario::Audio, DeliveryScenario::Chat]
        {
            let counted = Some(scenario.shape().group_frames);
            let outcome = run(&DeliveryOptions { scenario, viewers: 3, counted }).unwrap();
            assert_eq!(outcome.deliveries, 3 * scenario.shape().group_frames, "{scenario:?}");
            assert!(outcome.turns > 0 && outcome.datagrams_out >= outcome.deliveries);
        }
    }
}
