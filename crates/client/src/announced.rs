//! Announcements below a prefix.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use relay_model::{Cost, Hop, Hops, Path};
use relay_wire::lite::{Announce, AnnounceOk, AnnounceRequest, BidiType, Version};

use crate::{
    control::{ControlReader, request},
    error::Error,
    session::ClientSession,
    stream::SendStream,
};

/// Most broadcasts that one watch follows: ten times what a relay lets one identity announce.
const LIVE: usize = 1_000_000;

/// Announcement, route change or end of one broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Full path.
    pub path: Path,
    /// Whether the broadcast is announced.
    pub active: bool,
    /// Whether only the route of an announced broadcast changed. Always false before moq-lite-05, where a change is
    /// sent as an end and an announcement.
    pub update: bool,
    /// Hop chain, original publisher first, the peer last; empty at an end. On moq-lite-03 only its length is known:
    /// all hops are anonymous.
    pub hops: Vec<Hop>,
    /// Cost without the link to this client. `None` before moq-lite-06 and at an end.
    pub cost: Option<Cost>,
}

/// A live watch; ends when dropped.
#[derive(Debug)]
pub struct Announced {
    live: LiveBroadcasts,
    initial: VecDeque<Announcement>,
    reader: ControlReader,
    send: SendStream,
}

impl Announced {
    pub(crate) async fn open(
        session: Arc<ClientSession>,
        prefix: Path,
        exclude_hop: Hop,
    ) -> Result<Self, Error> {
        let (mut send, recv) = session.carrier.open_bidi().await?;
        let ask = AnnounceRequest { prefix: prefix.clone(), exclude_hop };
        send.write(&request(BidiType::Announce.id(), &ask, session.version)).await?;
        let mut reader = ControlReader::new(recv, session.version);
        let ok = match session.version.has_announce_ok() {
            true => reader.receive().await?,
            false => AnnounceOk { hop: Hop::ANONYMOUS, count: 0 },
        };
        let live = LiveBroadcasts::new(session.version, prefix, ok.hop);
        let mut watch = Self { live, initial: VecDeque::new(), reader, send };
        for _ in 0..ok.count {
            let announcement = watch.read().await?.ok_or(Error::Truncated)?;
            watch.initial.push_back(announcement);
        }
        Ok(watch)
    }

    /// Hop id of the peer in ANNOUNCE_OK; anonymous before moq-lite-05, which has no such message.
    pub fn hop(&self) -> Hop {
        self.live.hop
    }

    /// Announcements of the initial set that [`Announced::next`] has not returned yet. Empty before moq-lite-05, which
    /// does not mark the end of the initial set.
    pub fn initial(&self) -> impl Iterator<Item = &Announcement> {
        self.initial.iter()
    }

    /// Returns the next announcement; `None` when the peer finished the stream. Ends of unknown broadcasts are skipped.
    /// [`Error::Protocol`] when the peer ends, changes or repeats a broadcast against the rules.
    pub async fn next(&mut self) -> Result<Option<Announcement>, Error> {
        match self.initial.pop_front() {
            Some(announcement) => Ok(Some(announcement)),
            None => self.read().await,
        }
    }

    /// Waits until `path` is announced (or, if not `active`, withdrawn); skips earlier announcements.
    pub async fn wait(&mut self, path: &str, active: bool) -> Result<Announcement, Error> {
        loop {
            let announcement = self.next().await?.ok_or(Error::Ended)?;
            if announcement.path.as_str() == path && announcement.active == active {
                return Ok(announcement);
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Announcement>, Error> {
        while let Some(announce) = self.reader.next_by(Announce::next).await? {
            if let Some(announcement) = self.live.apply(announce)? {
                return Ok(Some(announcement));
            }
        }
        Ok(None)
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.send.finish();
    }
}

/// Broadcasts announced on one stream.
#[derive(Debug)]
struct LiveBroadcasts {
    version: Version,
    prefix: Path,
    /// Hop id of the sender.
    hop: Hop,
    /// Announce ids by suffix.
    ids: HashMap<Path, u64>,
    /// Suffixes by announce id; moq-lite-06 only.
    suffixes: HashMap<u64, Path>,
    next_id: u64,
}

impl LiveBroadcasts {
    fn new(version: Version, prefix: Path, hop: Hop) -> Self {
        Self { version, prefix, hop, ids: HashMap::new(), suffixes: HashMap::new(), next_id: 0 }
    }

    fn apply(&mut self, announce: Announce) -> Result<Option<Announcement>, Error> {
        match announce {
            Announce::Active { suffix, hops, cost } => {
                let update = self.ids.contains_key(&suffix);
                if update && (self.version.has_announce_ids() || !self.version.replaces_announces()) {
                    return Err(Error::Protocol("repeated announce of a live broadcast"));
                }
                if !update {
                    self.insert(suffix.clone())?;
                }
                self.active(&suffix, update, &hops, cost).map(Some)
            }
            Announce::Restart { id, hops, cost } => {
                let suffix = self.suffixes.get(&id).ok_or(Error::Protocol("unknown announce id"))?;
                self.active(suffix, true, &hops, cost).map(Some)
            }
            Announce::Ended { suffix } => match self.ids.remove(&suffix) {
                Some(_) => self.ended(&suffix).map(Some),
                None => Ok(None),
            },
            Announce::EndedId { id } => {
                let suffix = self.suffixes.remove(&id).ok_or(Error::Protocol("unknown announce id"))?;
                self.ids.remove(&suffix);
                self.ended(&suffix).map(Some)
            }
        }
    }

    fn insert(&mut self, suffix: Path) -> Result<(), Error> {
        if self.ids.len() >= LIVE {
            return Err(Error::Protocol("too many announced broadcasts"));
        }
        if self.version.has_announce_ids() {
            self.suffixes.insert(self.next_id, suffix.clone());
        }
        self.ids.insert(suffix, self.next_id);
        self.next_id = self.next_id.saturating_add(1);
        Ok(())
    }

    fn active(&self, suffix: &Path, update: bool, hops: &Hops, cost: Cost) -> Result<Announcement, Error> {
        let mut hops = hops.to_vec();
        if self.version.has_announce_ok() {
            hops.push(self.hop);
        }
        let cost = self.version.has_announce_ids().then_some(cost);
        Ok(Announcement { path: self.path(suffix)?, active: true, update, hops, cost })
    }

    fn ended(&self, suffix: &Path) -> Result<Announcement, Error> {
        let path = self.path(suffix)?;
        Ok(Announcement { path, active: false, update: false, hops: Vec::new(), cost: None })
    }

    fn path(&self, suffix: &Path) -> Result<Path, Error> {
        self.prefix.join(suffix).map_err(|e| Error::Malformed(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active(suffix: &str, hop: u64) -> Announce {
        let cost = Cost { warm: 1, cold: 2 };
        Announce::Active { suffix: Path::parse(suffix).unwrap(), hops: [Hop(hop)].into(), cost }
    }

    fn live(version: Version) -> LiveBroadcasts {
        LiveBroadcasts::new(version, Path::parse("p").unwrap(), Hop(9))
    }

    fn violates(outcome: Result<Option<Announcement>, Error>) -> bool {
        matches!(outcome, Err(Error::Protocol(_)))
    }

    #[test]
    fn repeated_announce_is_valid_only_where_it_replaces() {
        for version in [Version::V03, Version::V04, Version::V06] {
            let mut live = live(version);
            live.apply(active("a", 1)).unwrap();
            assert!(violates(live.apply(active("a", 2))), "{version:?}");
        }
        let mut live = live(Version::V05);
        assert!(!live.apply(active("a", 1)).unwrap().unwrap().update);
        let again = live.apply(active("a", 2)).unwrap().unwrap();
        assert!(again.update && again.active && again.cost.is_none());
        assert_eq!((again.path.as_str(), &again.hops[..]), ("p/a", &[Hop(2), Hop(9)][..]));
        let ended = Announce::Ended { suffix: Path::parse("a").unwrap() };
        assert!(!live.apply(ended.clone()).unwrap().unwrap().active);
        assert_eq!(live.apply(ended).unwrap(), None);
    }

    #[test]
    fn numbers_name_what_is_live_and_are_not_used_twice() {
        let mut live = live(Version::V06);
        for suffix in ["a", "b"] {
            live.apply(active(suffix, 1)).unwrap();
        }
        let restart = |id| Announce::Restart { id, hops: [Hop(5)].into(), cost: Cost { warm: 3, cold: 4 } };
        let changed = live.apply(restart(1)).unwrap().unwrap();
        assert_eq!((changed.path.as_str(), changed.update), ("p/b", true));
        assert_eq!(changed.cost, Some(Cost { warm: 3, cold: 4 }));
        assert!(violates(live.apply(restart(2))));
        assert_eq!(live.apply(Announce::EndedId { id: 0 }).unwrap().unwrap().path.as_str(), "p/a");
        assert!(violates(live.apply(Announce::EndedId { id: 0 })));
        assert!(violates(live.apply(restart(0))));
        live.apply(active("a", 1)).unwrap();
        assert_eq!(live.apply(Announce::EndedId { id: 2 }).unwrap().unwrap().path.as_str(), "p/a");
    }
}
