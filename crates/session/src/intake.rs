//! Announces received from a publishing peer.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use relay_model::{
    Ask, Cost, Hop, Hops, Path,
    name::{self, NameError},
    transport::{Stream, Transport},
};
use relay_wire::{
    DecodeError,
    lite::{self, Announce},
};

use crate::{
    control_stream::ControlStreamReader,
    peer_announces::AnnounceRouting,
    requests::ReadOutcome,
    session::{Cx, Session, StreamKind},
    work::MESSAGE,
};

/// Cost of a link whose sender declares none.
const LINK_PRICE: u64 = 1;
/// Bytes of a path in a log line.
const LOGGED: usize = 100;

/// Announces received on one of the relay's announce requests.
#[derive(Debug)]
pub(crate) struct AnnounceReceiver {
    /// Absolute prefix of the request.
    prefix: Path,
    /// The peer's hop, once received, in versions whose chains omit it.
    sender: Option<Hop>,
    /// Rest of the initial list still to be processed, in versions that begin with one.
    initial: Option<VecDeque<Path>>,
    live: HashMap<Path, u64, foldhash::fast::RandomState>,
    /// Live paths by announce id; empty in versions without ids.
    by_id: HashMap<u64, Path, foldhash::fast::RandomState>,
    next_id: u64,
    /// Announces that used an id but were not stored.
    skipped: u64,
    /// A broadcast that ended while more messages are buffered: in versions without a replacement message, an
    /// end followed by an announce of the same path is a replacement.
    ending: Option<Path>,
}

impl AnnounceReceiver {
    pub(crate) fn new(prefix: Path) -> Self {
        let (live, by_id) = (HashMap::default(), HashMap::default());
        Self { prefix, sender: None, initial: None, live, by_id, next_id: 0, skipped: 0, ending: None }
    }

    /// Absolute prefix of the request.
    pub(crate) fn prefix(&self) -> &Path {
        &self.prefix
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

    /// Uses up an id for an announce that is not stored.
    fn skip(&mut self) {
        self.next_id = self.next_id.saturating_add(1);
        self.skipped = self.skipped.saturating_add(1);
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

impl Session {
    pub(crate) fn read_announces<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        mut reader: ControlStreamReader,
        mut receiver: Box<AnnounceReceiver>,
    ) -> ReadOutcome {
        loop {
            let more = reader.fill(t, stream, cx.work);
            loop {
                if !self.may_ask() {
                    self.hold_back(stream);
                    return ReadOutcome::Keep(StreamKind::AnnounceUp(reader, receiver));
                }
                if cx.work.is_spent() {
                    return ReadOutcome::Keep(StreamKind::AnnounceUp(reader, receiver));
                }
                match self.next_announce(cx, &mut reader, &mut receiver) {
                    Ok(true) => cx.work.take(MESSAGE),
                    Ok(false) => break,
                    Err(error) => {
                        self.violation(t, cx, &error.to_string());
                        return ReadOutcome::Done;
                    }
                }
            }
            if !more {
                break;
            }
        }
        if reader.end().is_none() {
            return ReadOutcome::Keep(StreamKind::AnnounceUp(reader, receiver));
        }
        self.forget_intake(cx, *receiver);
        self.control.finish(t, stream);
        ReadOutcome::Done
    }

    /// Withdraws everything announced on a request.
    pub(crate) fn forget_intake(&mut self, cx: &mut Cx<'_>, receiver: AnnounceReceiver) {
        for path in receiver.live.into_keys().chain(receiver.ending) {
            self.withdraw(cx, path);
        }
        // After all withdrawals, so that none of the paths is routed only to be withdrawn.
        self.promote_announces(cx);
    }

    /// Processes one message of an announce stream; false if none is complete.
    fn next_announce(
        &mut self,
        cx: &mut Cx<'_>,
        reader: &mut ControlStreamReader,
        receiver: &mut AnnounceReceiver,
    ) -> Result<bool, DecodeError> {
        let version = self.config.version;
        if version.has_announce_ok() && receiver.sender.is_none() {
            let Some(ok) = reader.buffer.next::<lite::AnnounceOk>(version)? else { return Ok(false) };
            receiver.sender = Some(ok.hop);
            return Ok(true);
        }
        if version.has_announce_init() && receiver.initial.is_none() {
            let Some(init) = reader.buffer.next::<lite::AnnounceInit>(version)? else { return Ok(false) };
            receiver.initial = Some(init.suffixes.into());
            return Ok(true);
        }
        let announce = match receiver.initial.as_mut().and_then(VecDeque::pop_front) {
            Some(suffix) => Some(Announce::Active { suffix, hops: [].into(), cost: Cost::UNKNOWN }),
            None => Announce::next(&mut reader.buffer, version)?,
        };
        let Some(announce) = announce else { return Ok(false) };
        let ended = receiver.ending.take();
        match announce {
            Announce::Active { suffix, hops, cost } => {
                let path = receiver.prefix.join(&suffix)?;
                let is_replacement = ended.as_ref() == Some(&path);
                if let Some(ended) = ended.filter(|_| !is_replacement) {
                    self.unroute(cx, ended);
                }
                if version.has_announce_ids() && receiver.live.contains_key(&path) {
                    return Err(DecodeError::Value("announce of a live path"));
                }
                if let Err(error) = name::check(path.as_str()) {
                    receiver.skip();
                    self.skip_misnamed(cx, &path, error);
                } else if !self.peer_announces.has_room(&path, self.limits.announces) {
                    receiver.skip();
                    self.count_over_limit(cx, &path);
                } else {
                    let is_new = receiver.insert(path.clone(), version.has_announce_ids()) && !is_replacement;
                    self.ask_route(cx, receiver, path, (&hops, cost), is_new);
                }
            }
            Announce::Restart { id, hops, cost } => {
                if let Some(path) = receiver.path_of(id)? {
                    self.ask_route(cx, receiver, path, (&hops, cost), false);
                }
            }
            Announce::Ended { suffix } => {
                let path = receiver.prefix.join(&suffix)?;
                if let Some(ended) = ended {
                    self.unroute(cx, ended);
                }
                if !receiver.remove(&path) {
                    return Ok(true);
                }
                if version.replaces_announces() || reader.buffer.is_empty() {
                    self.unroute(cx, path);
                } else {
                    receiver.ending = Some(path);
                }
            }
            Announce::EndedId { id } => {
                if let Some(path) = receiver.path_of(id)? {
                    receiver.remove(&path);
                    self.unroute(cx, path);
                }
            }
        }
        Ok(true)
    }

    /// Asks core for a route: its chain with the peer included, its cost with this link added. A route over the
    /// session's limit waits. `is_new`: it was not announced on this request before.
    fn ask_route(
        &mut self,
        cx: &mut Cx<'_>,
        receiver: &AnnounceReceiver,
        path: Path,
        (hops, cost): (&Hops, Cost),
        is_new: bool,
    ) {
        let mut chain: Vec<Hop> = hops.iter().copied().chain(receiver.sender).collect();
        if chain.is_empty() {
            chain.push(Hop::ANONYMOUS);
        }
        if chain.len() > 1 {
            self.know_relay();
        }
        if chain.first() == Some(&Hop::ANONYMOUS) {
            chain.insert(0, self.config.stamp);
        }
        let cost = match self.config.version.has_announce_ids() {
            true => cost.plus(self.peer.price.unwrap_or(LINK_PRICE)),
            false => cost,
        };
        if let Some(publisher) = chain.first().copied() {
            self.drop_ambiguous(&path, publisher, cx.now);
        }
        let hops = Hops::from(chain);
        let is_allowed = self.grant.as_ref().is_some_and(|grant| grant.publish.allows(&path));
        let may = (is_allowed, self.limits.announces);
        let surplus = self.peer_announces.surplus();
        match self.peer_announces.insert(&path, (hops.clone(), cost), is_new, may) {
            AnnounceRouting::Surplus(_) if self.peer_announces.surplus() > surplus => {
                self.count_over_limit(cx, &path)
            }
            AnnounceRouting::Surplus(_) => {}
            AnnounceRouting::Routed | AnnounceRouting::Denied => {
                self.ask(cx, Ask::Announce { path, hops, cost })
            }
        }
    }

    /// Withdraws a path on one request, and routes the oldest waiting announce in its place.
    fn unroute(&mut self, cx: &mut Cx<'_>, path: Path) {
        self.withdraw(cx, path);
        self.promote_announces(cx);
    }

    /// Withdraws a path on one request; with overlapping prefixes it may remain announced on another.
    fn withdraw(&mut self, cx: &mut Cx<'_>, path: Path) {
        match self.peer_announces.remove(&path) {
            None | Some(AnnounceRouting::Surplus(_)) => {}
            Some(AnnounceRouting::Routed | AnnounceRouting::Denied) => self.ask(cx, Ask::Unannounce { path }),
        }
    }

    /// Asks core for waiting routes, up to the session's limit.
    pub(crate) fn promote_announces(&mut self, cx: &mut Cx<'_>) {
        while let Some((path, hops, cost)) = self.peer_announces.promote(self.limits.announces) {
            self.ask(cx, Ask::Announce { path, hops, cost });
        }
    }

    /// Counts and logs an announce over the session's limit.
    fn count_over_limit(&mut self, cx: &mut Cx<'_>, path: &Path) {
        cx.meter.announces_limited += 1;
        if let Some(count) = self.peer_announces.count_over_limit(cx.now) {
            tracing::warn!(
                session = %self.config.id, limit = self.limits.announces, count, path = ?clipped(path),
                "announces not routed: session limit `limits.announces` reached; \
                  raise it, or spread the publisher over several sessions"
            );
        }
    }

    /// Counts and logs an announce with an invalid path.
    fn skip_misnamed(&mut self, cx: &mut Cx<'_>, path: &Path, error: NameError) {
        cx.meter.announce_names_refused += 1;
        if let Some(count) = self.peer_announces.count_misnamed(cx.now) {
            tracing::warn!(
                session = %self.config.id, count, path = ?clipped(path), %error,
                "announces not routed: invalid path; rename the broadcast"
            );
        }
    }

    /// Ends upstream tracks of `path` requested just before its publisher changed: either publisher may answer
    /// them, and a log must not mix groups of both.
    fn drop_ambiguous(&mut self, path: &Path, publisher: Hop, now: Instant) {
        let doubtful = self.upstreams.iter_mut().filter(|up| up.path == *path);
        let doubtful = doubtful.filter(|up| up.publisher != publisher && up.is_young(now));
        self.restarted.extend(doubtful.map(|up| up.log));
        self.is_dirty |= !self.restarted.is_empty();
    }
}

/// Start of a path, for a log line.
fn clipped(path: &Path) -> &str {
    let text = path.as_str();
    text.get(..text.floor_char_boundary(LOGGED)).unwrap_or_default()
}
