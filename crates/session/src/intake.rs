//! Announces of a peer that publishes.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use relay_model::{
    Ask, Cost, Hop, Hops, Path,
    name::{self, NameError},
};
use relay_wire::{
    Error,
    lite::{self, Announce},
};

use crate::{
    inlet::Inlet,
    peer_announces::Standing,
    requests::Next,
    session::{Cx, Role, Session},
    transport::{Stream, Transport},
    work::MESSAGE,
};

/// What a link costs whose sender names no price.
const LINK_PRICE: u64 = 1;
/// Bytes of a path in a log line.
const LOGGED: usize = 100;

/// Announces coming from the peer on one of our requests.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Absolute prefix asked for.
    prefix: Path,
    /// The peer's hop, once it has said it, where chains leave it out.
    sender: Option<Hop>,
    /// Where a list of all that is there comes first: it has come, and this of it is not looked at yet.
    initial: Option<VecDeque<Path>>,
    live: HashMap<Path, u64, foldhash::fast::RandomState>,
    /// The same by number; empty where announces have none.
    by_id: HashMap<u64, Path, foldhash::fast::RandomState>,
    next_id: u64,
    /// Announces that took a number and are not remembered.
    skipped: u64,
    /// A broadcast that ended, while more of what was said with it is there to be read: the same path by
    /// somebody else is how a replacement is said where there is no other word for it.
    ending: Option<Path>,
}

impl Intake {
    pub(crate) fn new(prefix: Path) -> Self {
        let (live, by_id) = (HashMap::default(), HashMap::default());
        Self { prefix, sender: None, initial: None, live, by_id, next_id: 0, skipped: 0, ending: None }
    }

    /// Absolute prefix asked for.
    pub(crate) fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// A broadcast came: it takes the next number. True: it was not there.
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

    /// A broadcast went; false when it was not there.
    fn remove(&mut self, path: &Path) -> bool {
        let Some(id) = self.live.remove(path) else { return false };
        self.by_id.remove(&id);
        true
    }

    /// An announce that is not remembered takes its number all the same.
    fn skip(&mut self) {
        self.next_id = self.next_id.saturating_add(1);
        self.skipped = self.skipped.saturating_add(1);
    }

    /// The live broadcast of a number; `None` for one that may have been skipped.
    fn path_of(&self, id: u64) -> Result<Option<Path>, Error> {
        match self.by_id.get(&id) {
            Some(path) => Ok(Some(path.clone())),
            None if self.skipped > 0 && id < self.next_id => Ok(None),
            None => Err(Error::Value("announce id")),
        }
    }
}

impl Session {
    pub(crate) fn read_intake<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        mut inlet: Inlet,
        mut intake: Box<Intake>,
    ) -> Next {
        loop {
            let more = inlet.fill(t, stream, cx.work);
            loop {
                if !self.may_ask() {
                    self.hold_back(stream);
                    return Next::Keep(Role::Intake(inlet, intake));
                }
                if cx.work.is_spent() {
                    return Next::Keep(Role::Intake(inlet, intake));
                }
                match self.next_announce(cx, &mut inlet, &mut intake) {
                    Ok(true) => cx.work.take(MESSAGE),
                    Ok(false) => break,
                    Err(error) => {
                        self.violation(t, cx, &error.to_string());
                        return Next::Done;
                    }
                }
            }
            if !more {
                break;
            }
        }
        if inlet.end().is_none() {
            return Next::Keep(Role::Intake(inlet, intake));
        }
        self.forget_intake(cx, *intake);
        self.control.finish(t, cx.now, stream);
        Next::Done
    }

    /// All that was announced on a request is gone with it.
    pub(crate) fn forget_intake(&mut self, cx: &mut Cx<'_>, intake: Intake) {
        for path in intake.live.into_keys().chain(intake.ending) {
            self.withdraw(cx, path);
        }
        // Once all are gone: none of them takes the place of another for a moment.
        self.promote_announces(cx);
    }

    /// Takes one message of an announce stream; false when there is no whole one.
    fn next_announce(
        &mut self,
        cx: &mut Cx<'_>,
        inlet: &mut Inlet,
        intake: &mut Intake,
    ) -> Result<bool, Error> {
        let version = self.config.version;
        if version.has_announce_ok() && intake.sender.is_none() {
            let Some(ok) = inlet.inbox.next::<lite::AnnounceOk>(version)? else { return Ok(false) };
            intake.sender = Some(ok.hop);
            return Ok(true);
        }
        if version.has_announce_init() && intake.initial.is_none() {
            let Some(init) = inlet.inbox.next::<lite::AnnounceInit>(version)? else { return Ok(false) };
            intake.initial = Some(init.suffixes.into());
            return Ok(true);
        }
        let announce = match intake.initial.as_mut().and_then(VecDeque::pop_front) {
            Some(suffix) => Some(Announce::Active { suffix, hops: [].into(), cost: Cost::UNKNOWN }),
            None => Announce::next(&mut inlet.inbox, version)?,
        };
        let Some(announce) = announce else { return Ok(false) };
        let ended = intake.ending.take();
        match announce {
            Announce::Active { suffix, hops, cost } => {
                let path = intake.prefix.join(&suffix)?;
                let is_replacement = ended.as_ref() == Some(&path);
                if let Some(ended) = ended.filter(|_| !is_replacement) {
                    self.unroute(cx, ended);
                }
                if version.has_announce_ids() && intake.live.contains_key(&path) {
                    return Err(Error::Value("announce of a live path"));
                }
                if let Err(error) = name::check(path.as_str()) {
                    intake.skip();
                    self.skip_misnamed(cx, &path, error);
                } else if !self.heard.has_room(&path, self.limits.announces) {
                    intake.skip();
                    self.count_over_limit(cx, &path);
                } else {
                    let is_new = intake.insert(path.clone(), version.has_announce_ids()) && !is_replacement;
                    self.ask_route(cx, intake, path, (&hops, cost), is_new);
                }
            }
            Announce::Restart { id, hops, cost } => {
                if let Some(path) = intake.path_of(id)? {
                    self.ask_route(cx, intake, path, (&hops, cost), false);
                }
            }
            Announce::Ended { suffix } => {
                let path = intake.prefix.join(&suffix)?;
                if let Some(ended) = ended {
                    self.unroute(cx, ended);
                }
                if !intake.remove(&path) {
                    return Ok(true);
                }
                if version.replaces_announces() || inlet.inbox.is_empty() {
                    self.unroute(cx, path);
                } else {
                    intake.ending = Some(path);
                }
            }
            Announce::EndedId { id } => {
                if let Some(path) = intake.path_of(id)? {
                    intake.remove(&path);
                    self.unroute(cx, path);
                }
            }
        }
        Ok(true)
    }

    /// Asks core for a route: its chain with the peer in it, its price with this link in it. One over the
    /// session's limit waits. `is_new`: it was not announced on this request before.
    fn ask_route(
        &mut self,
        cx: &mut Cx<'_>,
        intake: &Intake,
        path: Path,
        (hops, cost): (&Hops, Cost),
        is_new: bool,
    ) {
        let mut chain: Vec<Hop> = hops.iter().copied().chain(intake.sender).collect();
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
            self.doubt(&path, publisher, cx.now);
        }
        let hops = Hops::from(chain);
        let is_allowed = self.grant.as_ref().is_some_and(|grant| grant.publish.allows(&path));
        let may = (is_allowed, self.limits.announces);
        let surplus = self.heard.surplus();
        match self.heard.insert(&path, (hops.clone(), cost), is_new, may) {
            Standing::Surplus(_) if self.heard.surplus() > surplus => self.count_over_limit(cx, &path),
            Standing::Surplus(_) => {}
            Standing::Routed | Standing::Denied => self.ask(cx, Ask::Announce { path, hops, cost }),
        }
    }

    /// It ended on one request, and makes room for the oldest that waits.
    fn unroute(&mut self, cx: &mut Cx<'_>, path: Path) {
        self.withdraw(cx, path);
        self.promote_announces(cx);
    }

    /// It ended on one request. Where prefixes overlap it may be there on another.
    fn withdraw(&mut self, cx: &mut Cx<'_>, path: Path) {
        match self.heard.remove(&path) {
            None | Some(Standing::Surplus(_)) => {}
            Some(Standing::Routed | Standing::Denied) => self.ask(cx, Ask::Unannounce { path }),
        }
    }

    /// Asks core for routes that wait, as far as the session's limit goes.
    pub(crate) fn promote_announces(&mut self, cx: &mut Cx<'_>) {
        while let Some((path, hops, cost)) = self.heard.promote(self.limits.announces) {
            self.ask(cx, Ask::Announce { path, hops, cost });
        }
    }

    /// An announce is over the session's limit: it waits, or is forgotten.
    fn count_over_limit(&mut self, cx: &mut Cx<'_>, path: &Path) {
        cx.meter.announces_limited += 1;
        if let Some(count) = self.heard.count_over_limit(cx.now) {
            tracing::warn!(
                session = %self.config.id, limit = self.limits.announces, count, path = ?clipped(path),
                "announces not routed: the session has as many as `limits.announces` allows; \
                 raise it, or let the publisher use several sessions"
            );
        }
    }

    /// An announce has a name that is not routed.
    fn skip_misnamed(&mut self, cx: &mut Cx<'_>, path: &Path, error: NameError) {
        cx.meter.announce_names_refused += 1;
        if let Some(count) = self.heard.count_misnamed(cx.now) {
            tracing::warn!(
                session = %self.config.id, count, path = ?clipped(path), %error,
                "announces not routed: invalid path; rename the broadcast"
            );
        }
    }

    /// `path` is somebody else's from now on. What was asked for just before may be answered by either:
    /// it is broken off, or a log could hold groups of both.
    fn doubt(&mut self, path: &Path, publisher: Hop, now: Instant) {
        let doubtful = self.upstreams.iter_mut().filter(|up| up.path == *path);
        let doubtful = doubtful.filter(|up| up.publisher != publisher && up.is_young(now));
        self.restarted.extend(doubtful.map(|up| up.log));
        self.is_dirty |= !self.restarted.is_empty();
    }
}

/// The beginning of a path, for a log line.
fn clipped(path: &Path) -> &str {
    let text = path.as_str();
    text.get(..text.floor_char_boundary(LOGGED)).unwrap_or_default()
}
