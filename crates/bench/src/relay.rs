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
use relay_core::{Core, Event};
use relay_meter::Board;
use relay_model::{Hop, Scope, SessionId, WorkerId, limits};
use relay_store::{Rings, Store};
use relay_transport::quic::Config;
use relay_worker::{
    Ledger, StateLimits, carry_out,
    engine::{Next, Shared, Worker},
    mailbox::{Letter, Mailbox},
};

use crate::link::Link;

const WORKER: WorkerId = WorkerId(0);
const HOP: Hop = Hop(1);
/// Event batches between the worker and core, which are handled after every turn.
const EVENT_BATCHES: usize = 64;
const CACHE_BYTES: u64 = 256 * 1024 * 1024;
const MEMORY_BYTES: u64 = 512 * 1024 * 1024;
const MAX_AGE: Duration = Duration::from_secs(30);

/// A relay of one worker.
pub(crate) struct Relay {
    worker: Worker,
    core: Core,
    events: Receiver<Vec<Event>>,
    mailbox: Arc<Mailbox>,
    store: Arc<Store>,
    board: Arc<Board>,
    rings: Rings,
    woken: Arc<AtomicBool>,
    pub(crate) link: Link,
    next: Next,
    /// Number of counted turns.
    pub(crate) turns: u64,
}

impl Relay {
    pub(crate) fn new(quic: Config, now: Instant) -> Self {
        let store = Store::new(relay_store::Config {
            workers: 1,
            capacity: CACHE_BYTES,
            ceiling: MEMORY_BYTES,
            max_age: MAX_AGE,
        });
        let board = Arc::new(Board::new(1));
        let woken = Arc::new(AtomicBool::new(false));
        let waker = |woken: &Arc<AtomicBool>| {
            let woken = woken.clone();
            Box::new(move || woken.store(true, Ordering::Relaxed))
        };
        let mailbox = Arc::new(Mailbox::new(waker(&woken)));
        store.bell(WORKER).set_ringer(waker(&woken));
        let shared = Arc::new(Shared {
            quic,
            store: store.clone(),
            ledger: Ledger::new(StateLimits { clients: MEMORY_BYTES, peers: MEMORY_BYTES }),
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
            core: Core::new(relay_core::Config { linger: limits::LINGER, ..relay_core::Config::new(HOP) }),
            events,
            mailbox,
            store,
            board,
            rings: Rings::new(),
            woken,
            link: Link::new(now),
            next: Next::Now,
            turns: 0,
        }
    }

    /// Time of the next event.
    pub(crate) fn next(&self) -> Option<Instant> {
        let worker = match self.next {
            Next::At(at) => Some(at),
            Next::Now | Next::Idle => None,
        };
        [worker, self.link.next(), self.core.next_deadline()].into_iter().flatten().min()
    }

    /// Takes turns until nothing is left to do at `now`.
    pub(crate) fn run(&mut self, now: Instant) {
        if self.link.arrive(now) {
            self.worker.readable();
        } else if self.next().is_none_or(|next| next > now) && self.next != Next::Now {
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
            if !self.woken.swap(false, Ordering::Relaxed) && self.next != Next::Now {
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
        let mut letters = Vec::new();
        let mut asks: Vec<(SessionId, u32)> = Vec::new();
        for event in self.events.try_iter().flatten() {
            if let Event::Ask { session, .. } = &event {
                match asks.iter_mut().find(|(of, _)| of == session) {
                    Some((_, count)) => *count += 1,
                    None => asks.push((*session, 1)),
                }
            }
            self.core.handle(event, now);
        }
        self.core.handle_timeout(now);
        while let Some(action) = self.core.poll_action() {
            let order = carry_out(action, &self.store, &mut self.rings, now);
            letters.extend(order.map(|(session, order)| Letter::Order(session, order)));
        }
        letters.extend(asks.into_iter().map(|(session, count)| Letter::AsksDone(session, count)));
        self.mailbox.post(&mut letters);
        self.store.ring(&mut self.rings, None);
    }
}

/// Counted part: a turn of the worker. Callgrind collects between its entry and its exit, by name, so it must
/// stay a separate function.
#[inline(never)]
fn relay_side(worker: &mut Worker, now: Instant, link: &mut Link) -> Next {
    hint::black_box(worker.turn(now, link))
}
