//! Changes of logs and of the announce board, on their way to the sessions.

use std::time::Instant;

use super::Worker;
use crate::{
    engine::{
        change_queue::Delivery,
        guard::guard,
        share::{self, TurnShare},
        shared::TurnStage,
    },
    socket::Io,
};

/// Readers between two clock reads.
const READERS_A_CHECK: usize = share::CHANGES.stride;

impl Worker {
    /// Pulls each changed log once and gives the batch to all its readers here. Stops when its share of the
    /// turn is used up, to continue there in the next.
    pub(super) fn deliver_changes(&mut self, now: Instant, io: &impl Io) {
        self.drain_ready();
        if !self.changes.has_logs() {
            return;
        }
        let mut share = TurnShare::new(share::CHANGES, self.clock.latest);
        while self.changes.has_logs() {
            if !self.deliver(now, io, &mut share) {
                self.host.meter.turns_cut += 1;
                break;
            }
        }
        self.clock.latest = share.clock();
    }

    /// Queues the logs that have changed, and those that are due.
    fn drain_ready(&mut self) {
        let fanout = &mut self.host.fanout;
        let board_changed = self.shared.store.ready_list(self.id).take(&mut self.changed);
        if fanout.is_due() {
            fanout.take_due(&mut self.changed);
        }
        self.changes.add(&mut self.changed, board_changed);
    }

    /// Gives one batch to the readers it has not reached. False: the share is used up and something is left.
    fn deliver(&mut self, now: Instant, io: &impl Io, share: &mut TurnShare) -> bool {
        let Some(mut delivery) = self.changes.delivery.take().or_else(|| self.pull_next(now)) else {
            return true;
        };
        let host = &mut self.host;
        let mut is_over = false;
        loop {
            let readers = delivery.next(READERS_A_CHECK);
            let count = readers.len();
            if count == 0 {
                break;
            }
            for reader in readers {
                // A reader that left meanwhile is not found, or is unknown to its session.
                if let Some(index) = host.peers.index_of(reader.session) {
                    host.with_session(index, TurnStage::News, now, |session, conn, cx| {
                        session.deliver_batch(conn, cx, reader.sub, &delivery.batch);
                    });
                }
            }
            let is_complete = delivery.advance(count);
            is_over = share.spend(count, io);
            if is_over && !is_complete {
                self.changes.delivery = Some(delivery);
                return false;
            }
        }
        if delivery.batch.more {
            self.changes.push(delivery.log);
        }
        !is_over || !self.changes.has_logs()
    }

    /// Pulls the next changed log that a session here reads.
    fn pull_next(&mut self, now: Instant) -> Option<Delivery> {
        let host = &mut self.host;
        while let Some(log) = self.changes.pop() {
            let mut readers = Vec::new();
            host.fanout.readers(log, &mut readers);
            let fanout = &mut host.fanout;
            match guard(|| fanout.pull(log, now)) {
                Ok(Some(batch)) => {
                    host.meter.pulls += 1;
                    return Some(Delivery::new(log, batch, readers));
                }
                Ok(None) => {}
                // The state shared by this log's readers is broken, so they are dropped.
                Err(_) => {
                    for reader in readers {
                        if let Some(index) = host.peers.index_of(reader.session) {
                            host.drop_panicked(index, TurnStage::News);
                        }
                    }
                }
            }
        }
        None
    }

    /// Sends each watcher the changes of the announce board. Watchers that the share of the turn does not
    /// reach come first in the next turn.
    pub(super) fn walk_board(&mut self, now: Instant, io: &impl Io) {
        let host = &mut self.host;
        if self.changes.begin_board_round() {
            host.fanout.watchers(&mut self.watchers);
            self.changes.add_watchers(&mut self.watchers);
        }
        if !self.changes.has_watchers() {
            return;
        }
        let mut share = TurnShare::new(share::BOARD, self.clock.latest);
        while let Some(session) = self.changes.pop_watcher() {
            if let Some(index) = host.peers.index_of(session) {
                host.with_session(index, TurnStage::News, now, |session, conn, cx| session.board(conn, cx));
                host.charge(index, now);
            }
            if share.spend(1, io) {
                break;
            }
        }
        self.clock.latest = share.clock();
        host.meter.turns_cut += u64::from(self.changes.has_watchers());
    }
}
