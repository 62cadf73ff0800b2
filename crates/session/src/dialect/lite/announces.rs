//! Announces of the peer on one announce request.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;
use relay_model::{Cost, Hop, Hops, Path};
use relay_wire::{
    DecodeError, MessageBuf,
    lite::{self, Announce, Version},
};

use crate::request::Announcement;

/// Cost of a link whose sender declares none.
const LINK_PRICE: u64 = 1;

/// Reader of an announce stream: which paths are live on it, and the ids of their announces.
#[derive(Debug, Default)]
pub(super) struct AnnounceReceiver {
    /// The peer's hop, once received, in versions whose chains omit it.
    sender: Option<Hop>,
    /// Rest of the initial list still to be processed, in versions that begin with one.
    initial: Option<VecDeque<Path>>,
    live: HashMap<Path, u64, RandomState>,
    /// Live paths by announce id; empty in versions without ids.
    by_id: HashMap<u64, Path, RandomState>,
    next_id: u64,
    /// Announces that used an id but were not stored.
    skipped: u64,
    /// A broadcast that ended while more messages are buffered: in versions without a replacement message, an
    /// end followed by an announce of the same path is a replacement.
    ending: Option<Path>,
    /// Changes read but not taken, oldest first.
    queued: VecDeque<Announcement>,
}

impl AnnounceReceiver {
    /// Takes the oldest change that was read.
    pub(super) fn take_queued(&mut self) -> Option<Announcement> {
        self.queued.pop_front()
    }

    /// Takes all live paths, when the stream has ended.
    pub(super) fn take_live(&mut self) -> Vec<Path> {
        self.by_id.clear();
        let mut ended: Vec<Path> = self.ending.take().into_iter().collect();
        // Changes that nobody has seen.
        for change in std::mem::take(&mut self.queued) {
            match change {
                Announcement::Live { path, is_new: true, .. } => drop(self.live.remove(&path)),
                Announcement::Live { .. } => {}
                Announcement::Ended { path } => ended.push(path),
            }
        }
        std::mem::take(&mut self.live).into_keys().chain(ended).collect()
    }

    /// Forgets an announce that the relay does not store; it keeps its id.
    pub(super) fn skip(&mut self, path: &Path) {
        self.remove(path);
        self.skipped = self.skipped.saturating_add(1);
    }

    /// Reads one message; false if none is complete.
    pub(super) fn read(
        &mut self,
        buffer: &mut MessageBuf,
        version: Version,
        price: Option<u64>,
    ) -> Result<bool, DecodeError> {
        if version.has_announce_ok() && self.sender.is_none() {
            let Some(ok) = buffer.next::<lite::AnnounceOk>(version)? else { return Ok(false) };
            self.sender = Some(ok.hop);
            return Ok(true);
        }
        if version.has_announce_init() && self.initial.is_none() {
            let Some(init) = buffer.next::<lite::AnnounceInit>(version)? else { return Ok(false) };
            self.initial = Some(init.suffixes.into());
            return Ok(true);
        }
        let announce = match self.initial.as_mut().and_then(VecDeque::pop_front) {
            Some(suffix) => Some(Announce::Active { suffix, hops: [].into(), cost: Cost::UNKNOWN }),
            None => Announce::next(buffer, version)?,
        };
        let Some(announce) = announce else { return Ok(false) };
        self.apply(announce, version, price, buffer.is_empty())?;
        Ok(true)
    }

    /// Queues the changes that a message means; `is_last`: no other message is buffered.
    fn apply(
        &mut self,
        announce: Announce,
        version: Version,
        price: Option<u64>,
        is_last: bool,
    ) -> Result<(), DecodeError> {
        let ended = self.ending.take();
        match announce {
            Announce::Active { suffix: path, hops, cost } => {
                let is_replacement = ended.as_ref() == Some(&path);
                if let Some(ended) = ended.filter(|_| !is_replacement) {
                    self.queued.push_back(Announcement::Ended { path: ended });
                }
                let has_ids = version.has_announce_ids();
                if has_ids && self.live.contains_key(&path) {
                    return Err(DecodeError::Value("announce of a live path"));
                }
                let is_new = self.insert(path.clone(), has_ids) && !is_replacement;
                self.queue_live(path, &hops, cost_here(version, cost, price), is_new);
            }
            Announce::Restart { id, hops, cost } => {
                if let Some(path) = self.path_of(id)? {
                    self.queue_live(path, &hops, cost_here(version, cost, price), false);
                }
            }
            Announce::Ended { suffix: path } => {
                if let Some(ended) = ended {
                    self.queued.push_back(Announcement::Ended { path: ended });
                }
                if !self.remove(&path) {
                    return Ok(());
                }
                if version.replaces_announces() || is_last {
                    self.queued.push_back(Announcement::Ended { path });
                } else {
                    self.ending = Some(path);
                }
            }
            Announce::EndedId { id } => {
                if let Some(path) = self.path_of(id)? {
                    self.remove(&path);
                    self.queued.push_back(Announcement::Ended { path });
                }
            }
        }
        Ok(())
    }

    fn queue_live(&mut self, path: Path, hops: &Hops, cost: Cost, is_new: bool) {
        let hops = hops.iter().copied().chain(self.sender).collect();
        self.queued.push_back(Announcement::Live { path, hops, cost, is_new });
    }

    /// Adds a broadcast, with the next id. True if the path is new.
    fn insert(&mut self, path: Path, has_ids: bool) -> bool {
        let id = self.next_id;
        self.next_id = self.next_id.saturating_add(1);
        let before = self.live.insert(path.clone(), id);
        if let Some(before) = before {
            self.by_id.remove(&before);
        }
        if has_ids {
            self.by_id.insert(id, path);
        }
        before.is_none()
    }

    /// Removes a broadcast; false if it is unknown.
    fn remove(&mut self, path: &Path) -> bool {
        let Some(id) = self.live.remove(path) else { return false };
        self.by_id.remove(&id);
        true
    }

    /// Live path of an announce id; `None` for one that may have been skipped.
    fn path_of(&self, id: u64) -> Result<Option<Path>, DecodeError> {
        match self.by_id.get(&id) {
            Some(path) => Ok(Some(path.clone())),
            None if self.skipped > 0 && id < self.next_id => Ok(None),
            None => Err(DecodeError::Value("announce id")),
        }
    }
}

/// Cost with that of the link to the peer, in versions with costs.
fn cost_here(version: Version, cost: Cost, price: Option<u64>) -> Cost {
    match version.has_announce_ids() {
        true => cost.plus(price.unwrap_or(LINK_PRICE)),
        false => cost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(raw: &str) -> Path {
        Path::parse(raw).unwrap()
    }

    fn live(raw: &str) -> Announce {
        Announce::Active { suffix: path(raw), hops: [Hop(7)].into(), cost: Cost::UNKNOWN }
    }

    fn receiver(version: Version, messages: &[(Announce, bool)]) -> AnnounceReceiver {
        let mut receiver = AnnounceReceiver::default();
        for (message, is_last) in messages {
            receiver.apply(message.clone(), version, None, *is_last).unwrap();
        }
        receiver
    }

    fn changes(receiver: &mut AnnounceReceiver) -> Vec<(bool, String)> {
        let taken = std::iter::from_fn(|| receiver.take_queued());
        taken
            .map(|change| match change {
                Announcement::Live { path, is_new, .. } => (is_new, path.as_str().to_owned()),
                Announcement::Ended { path } => (false, format!("-{}", path.as_str())),
            })
            .collect()
    }

    #[test]
    fn end_before_an_announce_of_the_path_is_a_replacement() {
        let end = Announce::Ended { suffix: path("a") };
        let mut one = receiver(Version::V04, &[(live("a"), false), (end.clone(), false), (live("a"), true)]);
        assert_eq!(changes(&mut one), [(true, "a".to_owned()), (false, "a".to_owned())]);
        let mut other = receiver(Version::V04, &[(live("a"), false), (end, false), (live("b"), true)]);
        let expected = [(true, "a"), (false, "-a"), (true, "b")];
        assert_eq!(changes(&mut other), expected.map(|(is_new, text)| (is_new, text.to_owned())));
    }

    #[test]
    fn skipped_announce_keeps_its_id() {
        let mut receiver = receiver(Version::V06, &[(live("a"), false), (live("b"), true)]);
        assert_eq!(changes(&mut receiver).len(), 2);
        receiver.skip(&path("a"));
        assert_eq!(receiver.path_of(0), Ok(None));
        assert_eq!(receiver.path_of(1), Ok(Some(path("b"))));
        assert!(receiver.path_of(2).is_err());
        assert_eq!(receiver.take_live(), [path("b")]);
    }

    #[test]
    fn changes_not_taken_leave_the_live_paths_as_seen() {
        let end = Announce::Ended { suffix: path("a") };
        let mut receiver = receiver(Version::V04, &[(live("a"), false)]);
        assert_eq!(changes(&mut receiver), [(true, "a".to_owned())]);
        for (message, is_last) in [(end, false), (live("b"), true)] {
            receiver.apply(message, Version::V04, None, is_last).unwrap();
        }
        assert_eq!(receiver.take_live(), [path("a")], "`b` was never seen, and `a` never ended");
    }

    #[test]
    fn announce_of_a_live_path_is_an_error_with_ids() {
        let mut receiver = receiver(Version::V06, &[(live("a"), true)]);
        assert!(receiver.apply(live("a"), Version::V06, None, true).is_err());
    }
}
