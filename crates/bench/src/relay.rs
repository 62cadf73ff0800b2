//! Measured relay: one worker and its control plane.

use std::{
    hint,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;
use relay_auth::Policy;
use relay_core::{Core, CoreEvent};
use relay_meter::CounterBoard;
use relay_model::{Hop, Scope, SessionId, WorkerId, limits};
use relay_store::{Store, WakeSet};
use relay_transport::quic::QuicConfig;
use relay_worker::{
    MemoryLedger, StateLimits, carry_out,
    engine::{NextTurn, Worker, WorkerShared},
    mailbox::{Mailbox, WorkerMessage},
};

use crate::link::BenchLink;

const WORKER: WorkerId = WorkerId(0);
const HOP: Hop = Hop(1);
/// Event batches between the worker and core, which are handled after every turn.
const EVENT_BATCHES: usize = 64;
const CACHE_BYTES: u64 = 256 * 1024 * 1024;
const MEMORY_BYTES: u64 = 512 * 1024 * 1024;
const MAX_AGE: Duration = Duration::from_secs(30);

/// A relay of one worker.
pub(crate) struct BenchRelay {
    worker: Worker,
    core: Core,
    events: Receiver<Vec<CoreEvent>>,
    mailbox: Arc<Mailbox>,
    store: Arc<Store>,
    board: Arc<CounterBoard>,
    wake_set: WakeSet,
    woken: Arc<AtomicBool>,
    pub(crate) link: BenchLink,
    next: NextTurn,
    /// Number of counted turns.
    pub(crate) turns: u64,
}

impl BenchRelay {
    pub(crate) fn new(quic: QuicConfig, now: Instant) -> Self {
        let store = Store::new(relay_store::StoreConfig {
            workers: 1,
            capacity: CACHE_BYTES,
            ceiling: MEMORY_BYTES,
            max_age: MAX_AGE,
        });
        let board = Arc::new(CounterBoard::new(1));
        let woken = Arc::new(AtomicBool::new(false));
        let waker = |woken: &Arc<AtomicBool>| {
            let woken = woken.clone();
            Box::new(move || woken.store(true, Ordering::Relaxed))
        };
        let mailbox = Arc::new(Mailbox::new(waker(&woken)));
        store.ready_list(WORKER).set_waker(waker(&woken));
        let shared = Arc::new(WorkerShared {
            quic,
            store: store.clone(),
            ledger: MemoryLedger::new(StateLimits { clients: MEMORY_BYTES, peers: MEMORY_BYTES }),
            gate: Arc::new(Policy::public(Scope::everything(), Scope::everything())),
            wall: Arc::new(std::time::SystemTime::now),
            local: ([10, 0, 0, 1], 443).into(),
            hop: HOP,
            started: now,
            limits: limits::SessionLimits::default(),
            board: board.clone(),
            fault: None,
        });
        let (sender, events) = crossbeam_channel::bounded(EVENT_BATCHES);
        Self {
            worker: Worker::new(WORKER, shared, mailbox.clone(), sender, true, now),
            core: Core::new(relay_core::CoreConfig {
                linger: limits::LINGER,
                ..relay_core::CoreConfig::new(HOP)
            }),
            events,
            mailbox,
            store,
            board,
            wake_set: WakeSet::new(),
            woken,
            link: BenchLink::new(now),
            next: NextTurn::Now,
            turns: 0,
        }
    }

    /// Time of the next event.
    pub(crate) fn next(&self) -> Option<Instant> {
        let worker = match self.next {
            NextTurn::At(at) => Some(at),
            NextTurn::Now | NextTurn::Idle => None,
        };
        [worker, self.link.next(), self.core.next_deadline()].into_iter().flatten().min()
    }

    /// Takes turns until nothing is left to do at `now`.
    pub(crate) fn run(&mut self, now: Instant) {
        if self.link.arrive(now) {
            self.worker.readable();
        } else if self.next().is_none_or(|next| next > now) && self.next != NextTurn::Now {
            return;
        }
        loop {
            self.next = if self.link.counting {
                self.turns += 1;
                relay_side(&mut self.worker, now, &mut self.link)
            } else {
                self.worker.turn(now, &mut self.link)
            };
            self.control(now);
            if !self.woken.swap(false, Ordering::Relaxed) && self.next != NextTurn::Now {
                return;
            }
        }
    }

    /// Counters of the worker.
    pub(crate) fn meter(&mut self) -> relay_meter::Worker {
        self.worker.finish();
        self.board.total()
    }

    /// Runs the control plane, which has its own thread in a real relay.
    fn control(&mut self, now: Instant) {
        let mut messages = Vec::new();
        let mut asks: Vec<(SessionId, u32)> = Vec::new();
        for event in self.events.try_iter().flatten() {
            if let CoreEvent::Ask { session, .. } = &event {
                match asks.iter_mut().find(|(of, _)| of == session) {
                    Some((_, count)) => *count += 1,
                    None => asks.push((*session, 1)),
                }
            }
            self.core.handle(event, now);
        }
        self.core.handle_timeout(now);
        while let Some(action) = self.core.poll_action() {
            let order = carry_out(action, &self.store, &mut self.wake_set, now);
            messages.extend(order.map(|(session, order)| WorkerMessage::Order(session, order)));
        }
        messages.extend(asks.into_iter().map(|(session, count)| WorkerMessage::AsksDone(session, count)));
        self.mailbox.post(&mut messages);
        self.store.wake(&mut self.wake_set, None);
    }
}

/// Counted part: a turn of the worker. Callgrind collects between its entry and its exit, by name, so it must
/// stay a separate function.
#[inline(never)]
fn relay_side(worker: &mut Worker, now: Instant, link: &mut BenchLink) -> NextTurn {
    hint::black_box(worker.turn(now, link))
}
