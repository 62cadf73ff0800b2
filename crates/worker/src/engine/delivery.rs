//! Middle steps of a turn: letters of other threads, changes of logs, changes of the announce board.

use std::{rc::Rc, time::Instant};

use relay_model::{LogId, SessionCode};
use relay_session::{Batch, LocalReader};

use super::{
    SESSIONS, TurnStage, Worker,
    drain::Ending,
    guard,
    share::{self, TurnShare},
};
use crate::{mailbox::WorkerMessage, socket::Io};

/// Readers between two clock reads.
const READERS_A_LOOK: usize = share::CHANGES.stride;

/// Batch of changes on its way to the readers of a log.
pub(super) struct Delivery {
    log: LogId,
    batch: Rc<Batch>,
    readers: Vec<LocalReader>,
    next: usize,
}

impl Worker {
    /// Handles letters of core and of the supervisor.
    pub(super) fn read_messages(&mut self, now: Instant, io: &impl Io) {
        self.mailbox.take(&mut self.messages);
        if self.messages.is_empty() {
            return;
        }
        let mut share = TurnShare::new(share::MESSAGES, self.clock);
        while let Some(message) = self.messages.pop_front() {
            self.handle_message(now, message);
            if share.spend(1, io) {
                break;
            }
        }
        self.clock = share.clock();
        self.meter.turns_cut += u64::from(!self.messages.is_empty());
    }

    fn handle_message(&mut self, now: Instant, message: WorkerMessage) {
        match message {
            WorkerMessage::Order(session, order) => {
                let Some(index) = self.peers.index_of(session) else {
                    self.meter.orders_unknown += 1;
                    return;
                };
                self.meter.orders += 1;
                tracing::trace!(target: SESSIONS, %session, ?order, "ordered");
                self.with_session(index, TurnStage::Order, now, |session, conn, cx| {
                    session.order(conn, cx, order)
                });
                self.charge(index, now);
            }
            WorkerMessage::AsksDone(session, count) => {
                let Some(index) = self.peers.index_of(session) else { return };
                self.with_session(index, TurnStage::Order, now, |session, conn, cx| {
                    session.asks_done(conn, cx, count);
                });
                self.charge(index, now);
            }
            WorkerMessage::Arrive(arrival) => self.arrive_over_stream(*arrival, now),
            WorkerMessage::Link(session, link) => self.link(session, *link, now),
            WorkerMessage::Unlinked(session) => self.unlinked(session, now),
            WorkerMessage::Answer(session, answer) => self.answered(session, now, answer),
            WorkerMessage::Revise(session, permit) => self.revise(session, now, permit),
            WorkerMessage::End { session, code: SessionCode::MEMORY_SHARE, .. } => {
                self.exceeded(session, now)
            }
            WorkerMessage::End { session, code, reason } => self.revoke(session, now, code, &reason),
            WorkerMessage::EndWhere { which, code, reason } => self.revoke_where(which, now, code, &reason),
            WorkerMessage::Inspect(asked) => self.inspected(now, asked),
            WorkerMessage::Drain(drain) => self.start_drain(now, drain),
            WorkerMessage::Shutdown { code, reason, until } => {
                let indices: Vec<u32> = self.peers.indices().collect();
                for index in indices {
                    self.close(index, now, code, &reason);
                }
                self.ending = Some(Ending::Closed(until));
            }
        }
    }

    /// Pulls each changed log once and gives the batch to all its readers here. Stops when its share of the
    /// turn is used up, to continue there in the next.
    pub(super) fn deliver_changes(&mut self, now: Instant, io: &impl Io) {
        self.drain_ready();
        if self.delivery.is_none() && self.news.is_empty() {
            return;
        }
        let mut share = TurnShare::new(share::CHANGES, self.clock);
        while self.delivery.is_some() || !self.news.is_empty() {
            if !self.deliver(now, io, &mut share) {
                self.meter.turns_cut += 1;
                break;
            }
        }
        self.clock = share.clock();
    }

    fn drain_ready(&mut self) {
        let mut logs = std::mem::take(&mut self.scratch.logs);
        self.board_changed |= self.shared.store.ready_list(self.id).take(&mut logs);
        if self.fanout.is_due() {
            self.fanout.take_due(&mut logs);
        }
        for log in logs.drain(..) {
            if self.queued.insert(log) {
                self.news.push_back(log);
            }
        }
        self.scratch.logs = logs;
    }

    /// Gives one batch to the readers it has not reached. False: the share is used up and something is left.
    fn deliver(&mut self, now: Instant, io: &impl Io, share: &mut TurnShare) -> bool {
        let Some(mut delivery) = self.delivery.take().or_else(|| self.pull_next(now)) else { return true };
        let mut is_over = false;
        loop {
            let rest = delivery.readers.get(delivery.next..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            let count = rest.len().min(READERS_A_LOOK);
            for reader in rest.iter().take(READERS_A_LOOK) {
                self.give(now, *reader, &delivery.batch);
            }
            delivery.next += count;
            is_over = share.spend(count, io);
            if is_over && delivery.next < delivery.readers.len() {
                self.delivery = Some(delivery);
                return false;
            }
        }
        if delivery.batch.more && self.queued.insert(delivery.log) {
            self.news.push_back(delivery.log);
        }
        !is_over || self.news.is_empty()
    }

    fn give(&mut self, now: Instant, reader: LocalReader, batch: &Batch) {
        // A reader that left meanwhile is not found, or is unknown to its session.
        let Some(index) = self.peers.index_of(reader.session) else { return };
        self.with_session(index, TurnStage::News, now, |session, conn, cx| {
            session.deliver_batch(conn, cx, reader.sub, batch);
        });
    }

    /// Pulls the next changed log that a session here reads.
    fn pull_next(&mut self, now: Instant) -> Option<Delivery> {
        while let Some(log) = self.news.pop_front() {
            self.queued.remove(&log);
            let mut readers = Vec::new();
            self.fanout.readers(log, &mut readers);
            let fanout = &mut self.fanout;
            match guard(|| fanout.pull(log, now)) {
                Some(Some(batch)) => {
                    self.meter.pulls += 1;
                    return Some(Delivery { log, batch, readers, next: 0 });
                }
                Some(None) => {}
                // The state shared by this log's readers is broken, so they are dropped.
                None => {
                    for reader in readers {
                        if let Some(index) = self.peers.index_of(reader.session) {
                            self.drop_panicked(index, TurnStage::News);
                        }
                    }
                }
            }
        }
        None
    }

    /// Sends each watcher the changes of the announce board. Watchers that the share of the turn does not
    /// reach come first in the next turn; later changes are sent to all of them in another round.
    pub(super) fn walk_board(&mut self, now: Instant, io: &impl Io) {
        if self.board_queue.is_empty() {
            if !std::mem::take(&mut self.board_changed) {
                return;
            }
            let mut watchers = std::mem::take(&mut self.scratch.watchers);
            self.fanout.watchers(&mut watchers);
            self.board_queue.extend(watchers.drain(..));
            self.scratch.watchers = watchers;
        }
        let mut share = TurnShare::new(share::BOARD, self.clock);
        while let Some(session) = self.board_queue.pop_front() {
            if let Some(index) = self.peers.index_of(session) {
                self.with_session(index, TurnStage::News, now, |session, conn, cx| session.board(conn, cx));
                self.charge(index, now);
            }
            if share.spend(1, io) {
                break;
            }
        }
        self.clock = share.clock();
        self.meter.turns_cut += u64::from(!self.board_queue.is_empty());
    }
}
