//! Table of HTTP readers: limits per address, and the logs they follow.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use relay_model::{LogId, SessionId};
use tokio::sync::Notify;

use super::entry::ReaderEntry;
use crate::{
    limits::{READERS, READERS_CONTENDED, READERS_PER_ADDRESS},
    shared_feed::SharedFeed,
};

/// Readers, and charged connections.
#[derive(Default)]
pub(super) struct ReaderTable {
    pub(super) all: HashMap<SessionId, Arc<ReaderEntry>>,
    /// Number of readers per address.
    by_address: HashMap<IpAddr, usize>,
    by_log: HashMap<LogId, FollowedLog>,
    /// Charged connections, each notified when it must be closed.
    pub(super) connections: HashMap<SessionId, Arc<Notify>>,
    /// Whether the relay is about to end.
    pub(super) is_over: bool,
}

/// A log and its readers.
struct FollowedLog {
    feed: Arc<SharedFeed>,
    readers: Vec<Arc<ReaderEntry>>,
}

impl ReaderTable {
    /// Adds a reader. False: a limit on readers is reached.
    pub(super) fn enter(&mut self, entry: &Arc<ReaderEntry>) -> bool {
        if !self.has_room(entry.address) {
            return false;
        }
        *self.by_address.entry(entry.address).or_default() += 1;
        self.all.insert(entry.id, entry.clone());
        true
    }

    /// Whether `address` may have another reader.
    fn has_room(&self, address: IpAddr) -> bool {
        let own = self.by_address.get(&address).copied().unwrap_or_default();
        match self.all.len() {
            READERS.. => false,
            READERS_CONTENDED.. => own < READERS_PER_ADDRESS,
            _ => true,
        }
    }

    /// Removes a reader.
    pub(super) fn leave(&mut self, entry: &ReaderEntry) {
        if self.all.remove(&entry.id).is_none() {
            return;
        }
        if let Some(own) = self.by_address.get_mut(&entry.address) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.by_address.remove(&entry.address);
            }
        }
    }

    /// Adds a reader to a log, whose feed all its readers share; the first one opens it.
    pub(super) fn follow(
        &mut self,
        log: LogId,
        entry: &Arc<ReaderEntry>,
        open: impl FnOnce() -> SharedFeed,
    ) -> Arc<SharedFeed> {
        let new = || FollowedLog { feed: Arc::new(open()), readers: Vec::new() };
        let followed = self.by_log.entry(log).or_insert_with(new);
        followed.readers.push(entry.clone());
        followed.feed.clone()
    }

    /// Removes a reader from a log.
    pub(super) fn unfollow(&mut self, log: LogId, session: SessionId) {
        if let Some(FollowedLog { readers, .. }) = self.by_log.get_mut(&log) {
            readers.retain(|entry| entry.id != session);
            if readers.is_empty() {
                self.by_log.remove(&log);
            }
        }
    }

    /// Drains the feed of a changed log, and notifies its readers.
    pub(super) fn notify_log(&self, log: LogId) {
        let Some(FollowedLog { feed, readers }) = self.by_log.get(&log) else { return };
        let mut failed = Vec::new();
        feed.drain(&mut failed);
        for entry in readers {
            entry.change(|status| {
                status.has_failed |= status.pulls.is_some_and(|group| failed.contains(&group));
            });
        }
    }

    /// Notifies the readers that watch the announce board.
    pub(super) fn notify_watchers(&self) {
        self.all.values().filter(|entry| entry.watches()).for_each(|entry| entry.change(|_| {}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::origin_of;

    fn enter(table: &mut ReaderTable, id: u64, address: &str) -> bool {
        let address = origin_of(address.parse().unwrap());
        table.enter(&Arc::new(ReaderEntry::new(SessionId(id), address)))
    }

    #[test]
    fn one_address_leaves_reader_places_for_others() {
        let (mut table, mut ids) = (ReaderTable::default(), 0..);
        let mut fill = |table: &mut ReaderTable, address: &str| {
            ids.by_ref().take_while(|id| enter(table, *id, address)).count()
        };
        assert_eq!(fill(&mut table, "2001:db8::1"), READERS_CONTENDED);
        assert_eq!(fill(&mut table, "2001:db8::2"), 0, "the same /64");
        assert_eq!(fill(&mut table, "192.0.2.1"), READERS_PER_ADDRESS);
        assert_eq!(fill(&mut table, "127.0.0.1"), READERS_PER_ADDRESS, "loopback as well");
        let left = READERS - READERS_CONTENDED - 2 * READERS_PER_ADDRESS;
        assert_eq!(fill(&mut table, "192.0.2.2") + fill(&mut table, "192.0.2.3"), left);
        assert_eq!(fill(&mut table, "192.0.2.4"), 0, "all are taken");
        let all: Vec<Arc<ReaderEntry>> = table.all.values().cloned().collect();
        all.iter().for_each(|entry| table.leave(entry));
        assert!(table.all.is_empty() && table.by_address.is_empty());
    }
}
