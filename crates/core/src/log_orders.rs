//! Orders to the writers of logs, and the end of logs. None of it depends on routes.

use relay_model::{Epoch, LogId, Order, SessionId, StreamCode};

use crate::{
    event::Action,
    log::{CoreLog, LogUpstream, ReaderKey},
    log_table::LogTable,
    output::CoreOutput,
};

/// Logs, and the queue of the orders to their writers.
#[derive(Debug)]
pub(crate) struct LogOrders<'a> {
    pub(crate) logs: &'a mut LogTable,
    pub(crate) output: &'a mut CoreOutput,
}

impl LogOrders<'_> {
    /// Orders the writer of `log`, if there is one, to close; the log is suspended without a deadline.
    pub(crate) fn close(&mut self, log: LogId) {
        if let Some(writer) = self.logs.detach_writer(log) {
            self.output.actions.order(writer, Order::Close { log });
        }
    }

    /// Drops an unread log; its writer, if there is one, is ordered to close.
    pub(crate) fn retire(&mut self, log: LogId) {
        self.close(log);
        if self.logs.remove(log) {
            self.output.actions.push(Action::Retire { log });
        }
    }

    /// Ends a log that has no writer (any more).
    pub(crate) fn end(&mut self, log: LogId, code: StreamCode) {
        self.output.actions.push(Action::End { log, code });
        self.finish(log);
    }

    /// Handles the writer's report that `log` has ended. Readers stay until they have read it.
    pub(crate) fn ended(&mut self, writer: SessionId, log: LogId, epoch: Epoch) {
        if self.logs.leave_writer(writer, log, epoch) {
            self.finish(log);
        } else {
            // The report crossed our own order to close.
            self.output.tally.unknown += 1;
        }
    }

    /// Handles the end of the linger of `log`.
    pub(crate) fn linger_over(&mut self, log: LogId) {
        let Some(state) = self.logs.get(log) else { return };
        match state.upstream {
            LogUpstream::Open(_) if state.is_unread() => self.retire(log),
            LogUpstream::Suspended => {
                self.output.tally.abandoned += 1;
                self.end(log, StreamCode::UNROUTABLE);
            }
            LogUpstream::Open(_) | LogUpstream::Over => {}
        }
    }

    /// Sends the writer of an open log its new demand if that of its readers changed.
    pub(crate) fn sync_demand(&mut self, log: LogId) {
        // A closing writer: the next one gets it when it opens.
        let Some(writer) = self.logs.writer(log) else { return };
        if let Some(demand) = self.logs.take_demand(log) {
            let order = Order::Prefs { log, prefs: demand.prefs, want: demand.want };
            self.output.actions.order(writer, order);
        }
    }

    /// Queues the request for a log under `asker` as well: it may still be queued under the session that
    /// asked first.
    pub(crate) fn queue_beside(&mut self, log: LogId, asker: SessionId) {
        if let Some(writer) = self.logs.writer(log).filter(|writer| self.logs.sessions().is_blocked(*writer))
        {
            self.output.actions.order(writer, Order::Asked { log, asker });
        }
    }

    /// Records whether requests to the peer of `session` wait for stream credit. While they do, unread logs
    /// keep no stream that others wait for.
    pub(crate) fn streams_blocked(&mut self, session: SessionId, is_blocked: bool) {
        self.logs.set_blocked(session, is_blocked);
        if is_blocked {
            for log in self.logs.sessions().writes(session) {
                if self.logs.get(log).is_some_and(CoreLog::is_unread) {
                    self.retire(log);
                }
            }
        }
    }

    /// Requests an old group, which its log does not hold, for a reader. A group is requested once for all its
    /// readers; a reader waits for one group at a time, the last requested.
    pub(crate) fn pull(&mut self, reader: ReaderKey, group: u64) {
        let is_open = |log: &LogId| self.logs.get(*log).is_some_and(|l| l.upstream != LogUpstream::Over);
        let Some(log) = self.logs.sessions().log_of(reader).filter(is_open) else {
            self.output.tally.pull_unknown += 1;
            return;
        };
        let Some(wait) = self.logs.wait(log, reader, group) else { return };
        if let Some(abandoned) = wait.abandoned {
            self.drop_pull(log, abandoned);
        }
        if wait.first {
            self.order_writer(log, Order::Pull { log, group, asker: reader.session });
        }
    }

    /// Cancels the request for `group`, which no reader waits for any more.
    pub(crate) fn drop_pull(&mut self, log: LogId, group: u64) {
        self.order_writer(log, Order::DropPull { log, group });
    }

    /// Sends all pulls of `log` to its new writer.
    pub(crate) fn order_pulls(&mut self, log: LogId) {
        let Some(state) = self.logs.get(log) else { return };
        let waits = |group| state.waits_for(group).map(|asker| Order::Pull { log, group, asker });
        let orders: Vec<Order> = state.pulls().filter_map(waits).collect();
        for order in orders {
            self.order_writer(log, order);
        }
    }

    /// Handles the report of the writer of `epoch` that a pull is done. Its readers find the outcome in the
    /// log.
    pub(crate) fn pulled(&mut self, writer: SessionId, log: LogId, epoch: Epoch, group: u64) {
        let state = self.logs.get(log);
        let is_current = |state: &CoreLog| state.upstream.writer() == Some(writer) && state.epoch == epoch;
        if !(state.is_some_and(is_current) && self.logs.pulled(log, group)) {
            // The report crossed our own order to drop the pull or to close the log.
            self.output.tally.unknown += 1;
        }
    }

    /// Sends an order to the writer of `log`, if it has an open one; the next writer gets all pulls when it
    /// opens.
    fn order_writer(&mut self, log: LogId, order: Order) {
        if let Some(writer) = self.logs.writer(log) {
            self.output.actions.order(writer, order);
        }
    }

    /// Marks `log` as ended; the next subscription to the track gets a new log.
    fn finish(&mut self, log: LogId) {
        self.logs.finish(log);
        if self.logs.get(log).is_some_and(CoreLog::is_unread) {
            self.retire(log);
        }
    }
}
