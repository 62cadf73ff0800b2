//! Messages of core, of the gate and of the supervisor.

use std::time::Instant;

use relay_model::{Order, SessionCode, SessionId};

use super::Worker;
use crate::{
    engine::{
        share::{self, TurnShare},
        shared::TurnStage,
        trace::SESSIONS,
    },
    mailbox::WorkerMessage,
    socket::Io,
};

impl Worker {
    /// Handles the messages of other threads.
    pub(super) fn read_messages(&mut self, now: Instant, io: &impl Io) {
        self.mailbox.take(&mut self.messages);
        if self.messages.is_empty() {
            return;
        }
        let mut share = TurnShare::new(share::MESSAGES, self.clock.latest);
        while let Some(message) = self.messages.pop_front() {
            self.handle_message(now, message);
            if share.spend(1, io) {
                break;
            }
        }
        self.clock.latest = share.clock();
        self.host.meter.turns_cut += u64::from(!self.messages.is_empty());
    }

    fn handle_message(&mut self, now: Instant, message: WorkerMessage) {
        let host = &mut self.host;
        match message {
            WorkerMessage::Order(session, order) => self.handle_order(session, now, order),
            WorkerMessage::AsksDone(session, count) => {
                let Some(index) = host.peers.index_of(session) else { return };
                host.with_session(index, TurnStage::Order, now, |session, conn, cx| {
                    session.asks_done(conn, cx, count);
                });
                host.charge(index, now);
            }
            WorkerMessage::Arrive(arrival) => host.arrive_over_stream(*arrival, now),
            WorkerMessage::Link(session, socket) => host.link(session, *socket, now),
            WorkerMessage::Unlinked(session) => host.unlinked(session, now),
            // Ignored if the session has ended.
            WorkerMessage::Answer(session, answer) => {
                if let Some(index) = host.peers.index_of(session) {
                    host.decide(index, now, answer);
                }
            }
            WorkerMessage::Revise(session, permit) => host.revise(session, now, permit),
            WorkerMessage::End { session, close } if close.code == SessionCode::MEMORY_SHARE => {
                if let Some(index) = host.peers.index_of(session) {
                    host.exceed(index, now);
                }
            }
            WorkerMessage::End { session, close } => {
                host.revoke(session, now, close);
            }
            WorkerMessage::EndWhere { filter, close } => host.revoke_where(&filter, now, &close),
            WorkerMessage::Inspect(query) => host.answer_query(now, query),
            WorkerMessage::Drain(drain) => host.start_drain(now, drain),
            WorkerMessage::Shutdown { close, until } => {
                for index in host.peers.indices() {
                    host.close(index, now, close.clone());
                }
                host.drain.shut_down(until);
            }
        }
    }

    fn handle_order(&mut self, session: SessionId, now: Instant, order: Order) {
        let host = &mut self.host;
        let Some(index) = host.peers.index_of(session) else {
            host.meter.orders_unknown += 1;
            return;
        };
        host.meter.orders += 1;
        tracing::trace!(target: SESSIONS, %session, ?order, "ordered");
        host.with_session(index, TurnStage::Order, now, |session, conn, cx| session.order(conn, cx, order));
        host.charge(index, now);
    }
}
