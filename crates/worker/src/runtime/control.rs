//! Control thread: runs core and executes its actions.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, TryRecvError, at, never, select};
use relay_core::{Action, Core, CoreEvent};
use relay_model::{Order, SessionId};
use relay_store::{LogEnd, Store, WakeSet};

use super::{
    inspector::CoreQuery,
    liveness::Beats,
    planes::{CoreSnapshot, SharedPlanes},
};
use crate::mailbox::{Mailbox, WorkerMessage};

/// Limit on event batches handled before messages are posted.
const BATCHES: usize = 64;
/// Longest delay of the published counts of core: counting takes time in proportion to its sessions.
const SHOW: Duration = Duration::from_millis(20);

/// Core, and the components that its actions affect.
pub(crate) struct ControlThread {
    core: Core,
    planes: SharedPlanes,
    mailboxes: Vec<Arc<Mailbox>>,
    questions: Receiver<CoreQuery>,
    /// Time of the next publication of the counts, if they may have changed.
    show_at: Option<Instant>,
    /// Time at which the announce board has a held-back change due.
    board_due: Option<Instant>,
    beats: Beats,
    wakes: WakeSet,
    /// Queued messages by worker.
    messages: Vec<Vec<WorkerMessage>>,
    /// Number of requests handled by core, by session.
    taken: HashMap<SessionId, u32, foldhash::fast::RandomState>,
}

/// Reason for a step of the control thread.
enum Wakeup {
    /// Events of a worker.
    Events(Vec<CoreEvent>),
    /// A deadline, or a status request.
    Due,
    /// No worker is left.
    Ended,
}

impl ControlThread {
    pub(crate) fn new(
        core: Core,
        planes: SharedPlanes,
        mailboxes: Vec<Arc<Mailbox>>,
        questions: Receiver<CoreQuery>,
        beats: Beats,
    ) -> Self {
        let messages = mailboxes.iter().map(|_| Vec::new()).collect();
        Self {
            core,
            planes,
            mailboxes,
            questions,
            show_at: None,
            board_due: None,
            beats,
            wakes: WakeSet::new(),
            messages,
            taken: HashMap::default(),
        }
    }

    /// Runs until all workers are gone. The caller catches panics, after which the state of core cannot be
    /// trusted.
    pub(crate) fn run(mut self, events: &Receiver<Vec<CoreEvent>>) {
        loop {
            let first = match self.wait(events) {
                Wakeup::Events(batch) => Some(batch),
                Wakeup::Due => None,
                Wakeup::Ended => return,
            };
            let more = events.try_iter().take(BATCHES);
            let batches: Vec<Vec<CoreEvent>> = first.into_iter().chain(more).collect();
            self.step(batches, Instant::now());
            self.answer();
        }
    }

    /// Waits for events, a deadline or a status request.
    fn wait(&mut self, events: &Receiver<Vec<CoreEvent>>) -> Wakeup {
        match events.try_recv() {
            Ok(batch) => return Wakeup::Events(batch),
            Err(TryRecvError::Disconnected) => return Wakeup::Ended,
            Err(TryRecvError::Empty) => {}
        }
        let due = self.core.next_deadline().into_iter().chain(self.show_at).chain(self.board_due);
        let due = due.min().map_or_else(never, at);
        select! {
            recv(events) -> batch => batch.map_or(Wakeup::Ended, Wakeup::Events),
            recv(self.questions) -> question => {
                match question {
                    Ok(question) => self.answer_query(question),
                    // All senders are gone.
                    Err(_) => self.questions = never(),
                }
                Wakeup::Due
            }
            recv(due) -> _ => Wakeup::Due,
        }
    }

    /// Answers the queued status requests, after all events.
    fn answer(&mut self) {
        while let Ok(question) = self.questions.try_recv() {
            self.answer_query(question);
        }
    }

    /// Calls back with a listing. A panic in the callback does not affect core.
    fn answer_query(&self, CoreQuery { look, reply }: CoreQuery) {
        let listing = self.core.look(&look);
        if catch_unwind(AssertUnwindSafe(|| reply(listing))).is_err() {
            tracing::error!("status request handler panicked");
        }
    }

    /// Hands `batches` to core and executes the resulting actions.
    fn step(&mut self, batches: Vec<Vec<CoreEvent>>, now: Instant) {
        self.beats.beat();
        for event in batches.into_iter().flatten() {
            match &event {
                CoreEvent::Ask { session, .. } => *self.taken.entry(*session).or_default() += 1,
                CoreEvent::Closed { session, .. } => {
                    self.taken.remove(session);
                }
                CoreEvent::Opened { .. } | CoreEvent::Revised { .. } => {}
            }
            self.core.handle(event, now);
            // One event at a time: the actions of many sessions that close at once must not pile up.
            self.act_all(now);
        }
        self.core.handle_timeout(now);
        self.act_all(now);
        self.planes.ledger.set_stale_bytes(self.core.stale_bytes());
        self.board_due = self.planes.store.board().release(now, &mut self.wakes);
        for (session, count) in self.taken.drain() {
            if let Some(messages) = self.messages.get_mut(usize::from(session.worker().0)) {
                messages.push(WorkerMessage::AsksDone(session, count));
            }
        }
        for (mailbox, messages) in self.mailboxes.iter().zip(&mut self.messages) {
            mailbox.post(messages);
        }
        self.planes.store.wake(&mut self.wakes, None);
        if now >= *self.show_at.get_or_insert(now + SHOW) {
            self.show_at = None;
            *self.planes.core.lock() = CoreSnapshot { counts: self.core.counts(), tally: self.core.tally() };
        }
    }

    fn act_all(&mut self, now: Instant) {
        while let Some(action) = self.core.poll_action() {
            let order = carry_out(action, &self.planes.store, &mut self.wakes, now);
            if let Some((session, order)) = order
                && let Some(messages) = self.messages.get_mut(usize::from(session.worker().0))
            {
                messages.push(WorkerMessage::Order(session, order));
            }
        }
    }
}

/// Executes an action on the store; returns an order together with its session instead.
pub fn carry_out(
    action: Action,
    store: &Arc<Store>,
    wakes: &mut WakeSet,
    now: Instant,
) -> Option<(SessionId, Order)> {
    match action {
        Action::Order { session, order } => return Some((session, order)),
        Action::Board { path, routes } => store.board().set(path, routes, now, wakes),
        Action::Create { log } => {
            store.create(log);
        }
        Action::Fence { log, epoch } => {
            store.fence(log, epoch);
        }
        Action::End { log, code } => {
            store.end(log, LogEnd { final_group: None, code: Some(code) }, now, wakes);
        }
        Action::Retire { log } => {
            store.retire(log);
        }
    }
    None
}
