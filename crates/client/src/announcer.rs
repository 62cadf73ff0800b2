//! Encodes our announcements for the version of one session.

use std::collections::HashMap;

use relay_model::{Hop, Hops, Path, limits};
use relay_wire::lite::{Announce, AnnounceOk, Message, Version};

use crate::publish::{AdvertisedRoute, Change};

/// State of one announce stream that we answer.
#[derive(Debug)]
pub(crate) struct Announcer {
    version: Version,
    hop: Hop,
    /// Announce ids of live suffixes on this stream.
    live: HashMap<Path, u64>,
    next_id: u64,
}

impl Announcer {
    pub(crate) fn new(version: Version, hop: Hop) -> Self {
        Self { version, hop, live: HashMap::new(), next_id: 0 }
    }

    /// Appends the first answer and the initial set; nothing, if the version has no ANNOUNCE_OK and the set is empty.
    pub(crate) fn put_initial(&mut self, initial: Vec<Change>, out: &mut Vec<u8>) {
        let mut messages = Vec::new();
        for change in initial {
            self.put(change, &mut messages);
        }
        if self.version.has_announce_ok() {
            let count = self.live.len() as u64;
            AnnounceOk { hop: self.hop, count }.encode(self.version, out);
        }
        out.append(&mut messages);
    }

    /// Appends the messages for `change`.
    pub(crate) fn put(&mut self, change: Change, out: &mut Vec<u8>) {
        let Change { suffix, shown } = change;
        let shown = shown.and_then(|AdvertisedRoute { hops, cost }| Some((self.chain(&hops)?, cost)));
        let live = self.live.get(&suffix).copied();
        let by_id = self.version.has_announce_ids();
        let Some((hops, cost)) = shown else {
            if let Some(id) = live {
                self.live.remove(&suffix);
                let ended = if by_id { Announce::EndedId { id } } else { Announce::Ended { suffix } };
                ended.encode(self.version, out);
            }
            return;
        };
        match live {
            Some(id) if by_id => return Announce::Restart { id, hops, cost }.encode(self.version, out),
            Some(_) if self.version.replaces_announces() => {}
            Some(_) => Announce::Ended { suffix: suffix.clone() }.encode(self.version, out),
            None => {
                self.live.insert(suffix.clone(), self.next_id);
                self.next_id = self.next_id.saturating_add(1);
            }
        }
        Announce::Active { suffix, hops, cost }.encode(self.version, out);
    }

    /// Hop chain to send: with our own hop at its end where no message names the sender. `None` when it exceeds the
    /// wire limit.
    fn chain(&self, hops: &Hops) -> Option<Hops> {
        let mut chain = hops.to_vec();
        if !self.version.has_announce_ok() {
            chain.push(self.hop);
        }
        (chain.len() <= limits::HOPS).then(|| chain.into())
    }
}
