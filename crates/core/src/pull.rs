//! Old groups that a log does not hold: however many readers wait for one, its publisher is asked once.

use relay_model::{Epoch, LogId, Order, SessionId};

use crate::{
    core::Core,
    log::{Reader, Upstream},
};

impl Core {
    /// The reader's session is known. A reader waits for one group at a time: the newest it asked for.
    pub(crate) fn pull(&mut self, reader: Reader, group: u64) {
        let log = self.sessions.get(&reader.0).and_then(|session| session.subs.get(&reader.1)).copied();
        let state = log.and_then(|log| self.logs.get_mut(&log).map(|state| (log, state)));
        let Some((log, state)) = state.filter(|(_, state)| state.upstream != Upstream::Over) else {
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

    /// Nobody waits for `group` any more.
    pub(crate) fn drop_pull(&mut self, log: LogId, group: u64) {
        self.tell_writer(log, Order::DropPull { log, group });
    }

    /// Orders what is waited for from the new writer of `log`.
    pub(crate) fn order_pulls(&mut self, log: LogId) {
        let Some(state) = self.logs.get(&log) else { return };
        let waits = |group| state.waits_for(group).map(|asker| (group, asker));
        let groups: Vec<(u64, SessionId)> = state.pulls().filter_map(waits).collect();
        for (group, asker) in groups {
            self.tell_writer(log, Order::Pull { log, group, asker });
        }
    }

    /// The writer of `epoch` says that a pull is over. Who waited finds its outcome in the log.
    pub(crate) fn pulled(&mut self, id: SessionId, log: LogId, epoch: Epoch, group: u64) {
        let state = self.logs.get_mut(&log);
        let current = state.filter(|state| state.upstream == Upstream::Open(id) && state.epoch == epoch);
        if !current.is_some_and(|state| state.pulled(group)) {
            // It crossed our own order to drop it, or to close the log.
            self.tally.unknown += 1;
        }
    }

    /// Nothing to a log without a writer, whose next one is told all; nor to one that is closing.
    fn tell_writer(&mut self, log: LogId, order: Order) {
        if let Some(Upstream::Open(writer)) = self.logs.get(&log).map(|state| state.upstream)
            && self.sessions.contains_key(&writer)
        {
            self.outbox.order(writer, order);
        }
    }
}
