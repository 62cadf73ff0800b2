//! Promise: a panic in one session's part of a turn ends that session only, and is counted.

#![allow(missing_docs)]

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use relay_client::{ClientConfig, Prefs, Tuning};
use relay_meter::Worker as Meter;
use relay_model::SessionId;
use relay_tests::{
    media::{Source, Viewer},
    relay::{TestRelay, TurnStage},
    run, within,
};

type Count = fn(&Meter) -> u64;

const STAGES: [(TurnStage, Count); 6] = [
    (TurnStage::Feed, |meter| meter.panics_feed),
    (TurnStage::Input, |meter| meter.panics_input),
    (TurnStage::Timeout, |meter| meter.panics_timeout),
    (TurnStage::Order, |meter| meter.panics_order),
    (TurnStage::News, |meter| meter.panics_news),
    (TurnStage::Flush, |meter| meter.panics_flush),
];
const BYSTANDERS: usize = 4;

/// Known sessions, and the session and stage at which to panic.
#[derive(Clone, Default)]
struct Trap(Arc<Mutex<Armed>>);

#[derive(Default)]
struct Armed {
    seen: HashSet<SessionId>,
    aim: Option<(TurnStage, SessionId)>,
}

impl Trap {
    fn pass(&self, stage: TurnStage, session: SessionId) {
        let mut armed = self.lock();
        armed.seen.insert(session);
        if armed.aim == Some((stage, session)) {
            armed.aim = None;
            drop(armed);
            panic!("injected at {stage:?}");
        }
    }

    fn seen(&self) -> HashSet<SessionId> {
        self.lock().seen.clone()
    }

    fn aim(&self, stage: TurnStage, session: SessionId) {
        self.lock().aim = Some((stage, session));
    }

    fn lock(&self) -> MutexGuard<'_, Armed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[test]
fn a_panic_ends_one_session_and_is_counted() {
    run(100, async {
        let trap = Trap::default();
        let fault = trap.clone();
        let relay = TestRelay::with(2, |options| {
            options.fault = Some(Arc::new(move |stage, session| fault.pass(stage, session)));
        });
        let publisher = relay.connect().await;
        let mut source = Source::announce(&publisher, "cam", 3_000);
        relay.announced("cam").await;
        let mut bystanders = Vec::new();
        for client in relay.clients(BYSTANDERS).await {
            bystanders.push((Viewer::join(&client, "cam").await, client));
        }
        source.track.wait_subscribed().await;
        let first = source.group(3);
        for (viewer, _) in &bystanders {
            viewer.wait_group(first).await;
        }
        for (stage, count) in STAGES {
            // The client notices soon that the relay does not answer.
            let tuning = Tuning {
                keep_alive: Some(Duration::from_millis(100)),
                idle: Duration::from_secs(3),
                ..Tuning::default()
            };
            let known = trap.seen();
            let config = ClientConfig { tuning, ..ClientConfig::default() };
            let victim = relay.connect_to(&relay.raw(), config).await;
            let watching = Viewer::join(&victim, "cam").await;
            watching.wait("the latest group", |seen| !seen.complete.is_empty()).await;
            let new: Vec<_> = trap.seen().difference(&known).copied().collect();
            let [session] = new[..] else { panic!("new sessions: {new:?}") };

            trap.aim(stage, session);
            let mut open = source.open();
            open.frame();
            // Causes all kinds of work: input, an order, events, packets and timers.
            let asked = victim.subscribe("cam", "video", Prefs::default()).await;
            relay.wait_meter("the panic", |meter| count(meter) == 1).await;
            within("the end of the session", 10, victim.closed()).await;
            drop(asked);
            let group = open.writer.sequence();
            open.finish();
            for (viewer, _) in &bystanders {
                viewer.wait_group(group).await;
            }
            let newcomer = relay.connect().await;
            let newcomer_sees = Viewer::join(&newcomer, "cam").await;
            newcomer_sees.wait_group(group).await;
        }
        let total: u64 = STAGES.iter().map(|(_, count)| count(&relay.meter())).sum();
        assert_eq!((total, relay.meter().panics_endpoint), (STAGES.len() as u64, 0));
        source.end();
        for (viewer, _client) in bystanders {
            viewer.finish().await.assert_lossless(0..source.next, "a bystander");
        }
        drop((publisher, source));
        relay.wait_empty().await;
    });
}
