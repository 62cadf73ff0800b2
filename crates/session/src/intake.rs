//! Announces of a peer that publishes.

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

use relay_model::{Ask, Cost, Hop, Hops, Path, limits};
use relay_wire::{
    Error,
    lite::{self, Announce},
};

use crate::{
    inlet::Inlet,
    requests::Next,
    session::{Cx, Role, Session},
    transport::{Stream, Transport},
    work::MESSAGE,
};

/// What a link costs whose sender names no price.
const LINK_PRICE: u64 = 1;

/// Broadcasts a peer may announce, allowed or not: those core refuses cost memory too.
const HEARD: usize = 2 * limits::ANNOUNCES;

/// What the peer said last of one broadcast.
#[derive(Debug)]
pub(crate) struct Heard {
    /// Publisher first, as core was told.
    pub(crate) hops: Hops,
    pub(crate) cost: Cost,
    /// Requests of ours that it was announced on and did not end.
    times: usize,
}

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
    /// The same by number, where announces have one.
    by_id: HashMap<u64, Path, foldhash::fast::RandomState>,
    next_id: u64,
    /// A broadcast that ended, while more of what was said with it is there to be read: the same path by
    /// somebody else is how a replacement is said where there is no other word for it.
    ending: Option<Path>,
}

impl Intake {
    pub(crate) fn new(prefix: Path) -> Self {
        let (live, by_id) = (HashMap::default(), HashMap::default());
        Self { prefix, sender: None, initial: None, live, by_id, next_id: 0, ending: None }
    }

    /// Absolute prefix asked for.
    pub(crate) fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// A broadcast came: it takes the next number. True: it was not there.
    fn insert(&mut self, path: Path) -> bool {
        let id = self.next_id;
        self.next_id = self.next_id.saturating_add(1);
        let before = self.live.insert(path.clone(), id);
        if let Some(before) = before {
            self.by_id.remove(&before);
        }
        self.by_id.insert(id, path);
        before.is_none()
    }

    /// A broadcast went; false when it was not there.
    fn remove(&mut self, path: &Path) -> bool {
        let id = self.live.remove(path);
        id.is_some_and(|id| self.by_id.remove(&id).is_some())
    }

    fn path_of(&self, id: u64) -> Result<Path, Error> {
        self.by_id.get(&id).cloned().ok_or(Error::Value("announce id"))
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
            self.unroute(cx, path);
        }
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
                let is_new = intake.insert(path.clone()) && !is_replacement;
                if is_new && self.heard.len() >= HEARD && !self.heard.contains_key(&path) {
                    return Err(Error::Value("too many announces"));
                }
                self.ask_route(cx, intake, path, (&hops, cost), is_new);
            }
            Announce::Restart { id, hops, cost } => {
                let path = intake.path_of(id)?;
                self.ask_route(cx, intake, path, (&hops, cost), false);
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
                let path = intake.path_of(id)?;
                intake.remove(&path);
                self.unroute(cx, path);
            }
        }
        Ok(true)
    }

    /// Tells core of a route: its chain with the peer in it, its price with this link in it.
    /// `is_new`: it was not announced on this request before.
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
        let times = self.heard.get(&path).map_or(0, |heard| heard.times) + usize::from(is_new);
        self.heard.insert(path.clone(), Heard { hops: hops.clone(), cost, times });
        self.ask(cx, Ask::Announce { path, hops, cost });
    }

    /// It ended on one request. Where prefixes overlap it may be there on another.
    fn unroute(&mut self, cx: &mut Cx<'_>, path: Path) {
        if let Some(heard) = self.heard.get_mut(&path)
            && heard.times > 1
        {
            heard.times -= 1;
            return;
        }
        self.heard.remove(&path);
        self.ask(cx, Ask::Unannounce { path });
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
