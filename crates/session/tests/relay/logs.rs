//! Stand-in for core's handling of logs and their readers.

use relay_model::{Epoch, LogId, Order, SubId};

use crate::harness::Relay;

impl Relay {
    /// Moves the readers of `from` to `into` and closes `from`.
    pub(crate) fn merge(&mut self, from: LogId, into: LogId) {
        let Some(pull) = self.pulls.get_mut(&from) else { return };
        let (readers, fetches) = (std::mem::take(&mut pull.readers), std::mem::take(&mut pull.fetches));
        for (at, sub) in readers.keys() {
            self.seats[*at].orders.push_back(Order::Attach { sub: *sub, log: into });
        }
        let stays = self.pulls.get_mut(&into).expect("is there");
        stays.readers.extend(readers);
        for (group, waiting) in fetches {
            let asker = self.seats[waiting[0].0].id;
            stays.fetches.insert(group, waiting);
            self.seats[stays.source].orders.push_back(Order::Pull { log: into, group, asker });
        }
        self.sweep();
        self.union_all();
    }

    pub(crate) fn union_all(&mut self) {
        for (log, pull) in &mut self.pulls {
            let union = pull.readers.values().copied().reduce(|a, b| (a.0.union(b.0), a.1.max(b.1)));
            if pull.said == union {
                continue;
            }
            pull.said = union;
            if let Some((prefs, want)) = union.filter(|_| !pull.ended && !pull.orphan) {
                self.seats[pull.source].orders.push_back(Order::Prefs { log: *log, prefs, want });
            }
        }
    }

    pub(crate) fn unsubscribe(&mut self, gone: impl Fn(&(usize, SubId)) -> bool) {
        for pull in self.pulls.values_mut() {
            pull.readers.retain(|reader, _| !gone(reader));
        }
        for (log, pull) in &mut self.pulls {
            pull.fetches.retain(|group, waiting| {
                waiting.retain(|reader| !gone(reader));
                if waiting.is_empty() && !pull.ended && !pull.orphan {
                    let order = Order::DropPull { log: *log, group: *group };
                    self.seats[pull.source].orders.push_back(order);
                }
                !waiting.is_empty()
            });
        }
        self.sweep();
        self.union_all();
    }

    /// Closes logs without readers at once, without the linger time.
    pub(crate) fn sweep(&mut self) {
        let idle: Vec<_> =
            self.pulls.iter().filter(|(_, pull)| pull.readers.is_empty()).map(|(log, _)| *log).collect();
        for log in idle {
            let Some(pull) = self.pulls.remove(&log) else { continue };
            if !pull.ended && !pull.orphan {
                self.seats[pull.source].orders.push_back(Order::Close { log });
                self.store.fence(log, Epoch(pull.epoch.0 + 1));
            }
            self.store.retire(log);
        }
    }
}
