//! Pulls: requests for old groups that a log does not hold. A group is requested once for all its readers.

use relay_model::{Epoch, LogId, Order, SessionId};

use crate::{
    core::Core,
    log::{LogUpstream, ReaderKey},
};

impl Core {
    /// Requests `group` for a reader of a known session. A reader waits for one group at a time, the last
    /// requested.
    pub(crate) fn pull(&mut self, reader: ReaderKey, group: u64) {
        let log = self.sessions.get(&reader.0).and_then(|session| session.subs.get(&reader.1)).copied();
        let state = log.and_then(|log| self.logs.get_mut(&log).map(|state| (log, state)));
        let Some((log, state)) = state.filter(|(_, state)| state.upstream != LogUpstream::Over) else {
            self.tally.pull_unknown += 1;
            return;
        };
        let Some(wait) = state.wait(reader, group) else { return };
        if let Some(abandoned) = wait.abandoned {
            self.drop_pull(log, abandoned);
        }
        if wait.first {
            self.tell_writer(log, Order::Pull { log, group, asker: reader.0 });
        }
    }

    /// Cancels the request for `group`, which no reader waits for any more.
    pub(crate) fn drop_pull(&mut self, log: LogId, group: u64) {
        self.tell_writer(log, Order::DropPull { log, group });
    }

    /// Sends all pulls of `log` to its new writer.
    pub(crate) fn order_pulls(&mut self, log: LogId) {
        let Some(state) = self.logs.get(&log) else { return };
        let waits = |group| state.waits_for(group).map(|asker| (group, asker));
        let groups: Vec<(u64, SessionId)> = state.pulls().filter_map(waits).collect();
        for (group, asker) in groups {
            self.tell_writer(log, Order::Pull { log, group, asker });
        }
    }

    /// Handles the report of the writer of `epoch` that a pull is done. Its readers find the outcome in the
    /// log.
    pub(crate) fn pulled(&mut self, id: SessionId, log: LogId, epoch: Epoch, group: u64) {
        let state = self.logs.get_mut(&log);
        let current = state.filter(|state| state.upstream == LogUpstream::Open(id) && state.epoch == epoch);
        if !current.is_some_and(|state| state.pulled(group)) {
            // The report crossed our own order to drop the pull or to close the log.
            self.tally.unknown += 1;
        }
    }

    /// Sends an order to the writer of `log`, if it has an open one; the next writer gets all pulls when it
    /// opens.
    fn tell_writer(&mut self, log: LogId, order: Order) {
        if let Some(LogUpstream::Open(writer)) = self.logs.get(&log).map(|state| state.upstream)
            && self.sessions.contains_key(&writer)
        {
            self.outbox.order(writer, order);
        }
    }
}
