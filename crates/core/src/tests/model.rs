//! Reference model of the store and the workers, written independently of the core.

mod place;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use relay_auth::Permit;
use relay_model::{
    Ask, Cost, Epoch, Hop, Hops, LogId, Order, Path, Route, SessionId, StreamCode, SubId, TrackName, limits,
};

use self::place::{Entry, Leave, Place};
use super::{LINGER, SELF};
use crate::{Action, CoreEvent, Takeover};

#[derive(Debug)]
struct Peer {
    permit: Permit,
    exclude: Option<Hop>,
    draining: bool,
    /// Requested and not answered.
    waiting: BTreeMap<SubId, (Path, TrackName)>,
    /// Answered with a log.
    attached: BTreeMap<SubId, LogId>,
    /// Old group a subscription waits for.
    pulls: BTreeMap<SubId, u64>,
    killed: bool,
}

#[derive(Debug)]
struct Store {
    epoch: u64,
    track: (Path, TrackName),
    publisher: Option<Hop>,
    hops: Option<Hops>,
    open: Option<SessionId>,
    /// Writer until the order just given.
    closed: Option<SessionId>,
    /// Time since when it has no writer.
    silent: Instant,
    over: bool,
}

#[derive(Debug)]
pub(super) struct Model {
    takeover: Takeover,
    now: Instant,
    /// Time of the last timer run.
    ticked: Instant,
    peers: BTreeMap<SessionId, Peer>,
    places: BTreeMap<Path, Place>,
    logs: BTreeMap<LogId, Store>,
    created: BTreeSet<LogId>,
    /// Pulls ordered from the writer of the log.
    pulling: BTreeSet<(LogId, u64)>,
    board: BTreeMap<Path, Vec<Route>>,
    /// The session whose subscription is being handled.
    asking: Option<(SessionId, Path, TrackName)>,
    /// The session whose permit was just revised.
    revised: Option<SessionId>,
    /// Logs ended now because they may hold groups of two publishers.
    ambiguous: BTreeSet<LogId>,
}

impl Model {
    pub(super) fn new(takeover: Takeover, now: Instant) -> Self {
        Self {
            takeover,
            now,
            ticked: now,
            peers: BTreeMap::new(),
            places: BTreeMap::new(),
            logs: BTreeMap::new(),
            created: BTreeSet::new(),
            pulling: BTreeSet::new(),
            board: BTreeMap::new(),
            asking: None,
            revised: None,
            ambiguous: BTreeSet::new(),
        }
    }

    pub(super) fn sessions(&self) -> Vec<SessionId> {
        self.peers.keys().copied().collect()
    }

    /// Logs a session was ordered to open and did not end.
    pub(super) fn writes(&self, session: SessionId) -> Vec<LogId> {
        self.logs.iter().filter(|(_, log)| log.open == Some(session)).map(|(id, _)| *id).collect()
    }

    /// Epoch of the newest writer of a log; 0 without one.
    pub(super) fn epoch(&self, log: LogId) -> Epoch {
        Epoch(self.logs.get(&log).map_or(0, |state| state.epoch))
    }

    /// Prepares for a timer run.
    pub(super) fn tick(&mut self, now: Instant) {
        (self.now, self.ticked, self.asking, self.revised) = (now, now, None, None);
    }

    pub(super) fn before(&mut self, event: &CoreEvent, now: Instant) {
        (self.now, self.asking, self.revised) = (now, None, None);
        match event {
            CoreEvent::Opened { session, permit } => {
                self.peers.entry(*session).or_insert_with(|| Peer {
                    permit: permit.clone(),
                    exclude: None,
                    draining: false,
                    waiting: BTreeMap::new(),
                    attached: BTreeMap::new(),
                    pulls: BTreeMap::new(),
                    killed: false,
                });
            }
            CoreEvent::Revised { session, permit } => self.revise(*session, permit),
            CoreEvent::Ask { session, ask } => self.before_ask(*session, ask),
            CoreEvent::Closed { session, vanished } => {
                self.peers.remove(session);
                for place in self.places.values_mut() {
                    let how = if *vanished { Leave::Vanished } else { Leave::Closed };
                    place.leave(*session, how, now, self.takeover);
                }
                for (id, log) in self.logs.iter_mut().filter(|(_, log)| log.open == Some(*session)) {
                    (log.open, log.silent) = (None, now);
                    self.pulling.retain(|(log, _)| log != id);
                }
            }
        }
    }

    fn revise(&mut self, session: SessionId, permit: &Permit) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        peer.permit = permit.clone();
        self.revised = Some(session);
        let outside = |path: &&Path| !permit.publish().allows(path);
        for path in self.places.keys().filter(outside).cloned().collect::<Vec<_>>() {
            self.unannounce(session, &path, Leave::Looped);
        }
    }

    /// Removes a served subscription that was refused by a revision.
    fn expel(&mut self, session: SessionId, sub: SubId) {
        assert_eq!(self.revised, Some(session), "answer without a request");
        let peer = self.peers.get_mut(&session).unwrap();
        let log = peer.attached.remove(&sub).expect("refused an unknown subscription");
        peer.pulls.remove(&sub);
        let path = &self.logs[&log].track.0;
        assert!(!peer.permit.subscribe().allows(path), "refused an allowed path");
    }

    fn before_ask(&mut self, session: SessionId, ask: &Ask) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        match ask {
            Ask::Announce { path, hops, cost } => self.announce(session, path, hops, *cost),
            Ask::Unannounce { path } => self.unannounce(session, path, Leave::LastWord),
            Ask::Subscribe { sub, path, track, .. } => {
                if !peer.attached.contains_key(sub) {
                    peer.waiting.insert(*sub, (path.clone(), track.clone()));
                    self.asking = Some((session, path.clone(), track.clone()));
                }
            }
            Ask::Update { .. } | Ask::StreamsBlocked { .. } => {}
            Ask::Unsubscribe { sub } => {
                peer.waiting.remove(sub);
                peer.attached.remove(sub);
                peer.pulls.remove(sub);
            }
            Ask::Exclude { hop } => peer.exclude = Some(*hop).filter(|hop| hop.0 != 0),
            Ask::Draining => {
                peer.draining = true;
                let entries = self.places.values_mut().flat_map(|place| &mut place.entries);
                entries
                    .filter(|entry| entry.session == session && entry.vanished.is_none())
                    .for_each(|entry| entry.draining = true);
            }
            Ask::Pull { sub, group } => {
                if peer.attached.get(sub).is_some_and(|log| !self.logs[log].over) {
                    peer.pulls.insert(*sub, *group);
                }
            }
            Ask::Pulled { log, epoch, group } => {
                if self.is_writer(session, *log, *epoch) && self.pulling.remove(&(*log, *group)) {
                    self.stop_pulls(*log, Some(*group));
                }
            }
            Ask::Ended { log, epoch, .. } => {
                if self.is_writer(session, *log, *epoch) {
                    self.end(*log);
                }
            }
        }
    }

    fn announce(&mut self, session: SessionId, path: &Path, hops: &Hops, cost: Cost) {
        let peer = &self.peers[&session];
        if peer.killed || !peer.permit.publish().allows(path) {
            return;
        }
        if hops.contains(&Hop(SELF)) || hops.len() > limits::HOPS {
            self.unannounce(session, path, Leave::Looped);
        } else {
            let (permit, draining) = (peer.permit.clone(), peer.draining);
            let entry = Entry::new(session, (hops.clone(), cost), permit, draining);
            self.places.entry(path.clone()).or_default().announce(entry, self.takeover);
        }
    }

    fn unannounce(&mut self, session: SessionId, path: &Path, how: Leave) {
        if let Some(place) = self.places.get_mut(path) {
            place.leave(session, how, self.now, self.takeover);
        }
    }

    fn is_writer(&self, session: SessionId, log: LogId, epoch: Epoch) -> bool {
        self.logs.get(&log).is_some_and(|state| state.open == Some(session) && state.epoch == epoch.0)
    }

    fn end(&mut self, log: LogId) {
        let state = self.logs.get_mut(&log).unwrap();
        (state.open, state.over) = (None, true);
        self.stop_pulls(log, None);
        self.pulling.retain(|(other, _)| *other != log);
    }

    /// Ends the waits for `group` of `log`, or for all its groups if `None`.
    fn stop_pulls(&mut self, log: LogId, group: Option<u64>) {
        for Peer { attached, pulls, .. } in self.peers.values_mut() {
            pulls
                .retain(|sub, at| attached.get(sub) != Some(&log) || group.is_some_and(|group| group != *at));
        }
    }

    /// Applies the actions that follow from one event.
    pub(super) fn actions(&mut self, actions: &[Action]) {
        let ambiguous = actions.iter().filter_map(|action| match action {
            Action::End { log, code: StreamCode::GOING_AWAY } => Some(*log),
            _ => None,
        });
        self.ambiguous = ambiguous.collect();
        actions.iter().for_each(|action| self.action(action));
    }

    fn action(&mut self, action: &Action) {
        match action {
            Action::Order { session, order } => self.order(*session, order),
            Action::Board { path, routes } => {
                let shown = self.board.get(path).map_or(&[][..], |routes| routes);
                assert_ne!(shown, routes, "board update without a change");
                self.board.insert(path.clone(), routes.clone());
                self.board.retain(|_, routes| !routes.is_empty());
            }
            Action::Create { log } => {
                assert!(self.created.insert(*log), "an id was reused");
                if self.asking.is_none() {
                    // A throttled subscription: tests subscribe in the order of keys.
                    self.asking = self.peers.iter().find_map(|(session, peer)| {
                        let (path, track) = peer.waiting.values().next()?.clone();
                        Some((*session, path, track))
                    });
                }
                let (_, path, track) = self.asking.clone().expect("log without a request");
                self.assert_needed();
                let state = Store {
                    epoch: 0,
                    track: (path, track),
                    publisher: None,
                    hops: None,
                    open: None,
                    closed: None,
                    silent: self.now,
                    over: false,
                };
                self.logs.insert(*log, state);
            }
            Action::Fence { log, epoch } => {
                let state = self.logs.get_mut(log).expect("fenced a log that does not exist");
                assert!(!state.over, "fenced an ended log");
                assert_eq!(epoch.0, state.epoch + 1, "epochs grow by one");
                state.epoch = epoch.0;
            }
            Action::End { log, .. } => {
                let state = self.logs.get(log).expect("ended a log that does not exist");
                assert!(!state.over && state.open.is_none(), "ended under its writer");
                self.end(*log);
            }
            Action::Retire { log } => {
                let state = self.logs.remove(log).expect("retired a log that does not exist");
                assert_eq!(state.open, None, "retired under its writer");
                assert!(
                    self.peers.values().all(|p| p.attached.values().all(|l| l != log)),
                    "retired under a reader"
                );
            }
        }
    }

    fn order(&mut self, session: SessionId, order: &Order) {
        assert!(self.peers.contains_key(&session), "an order to a session that is closed: {order:?}");
        match order {
            Order::Open { log, epoch, path, publisher, track, .. } => {
                let entry =
                    self.places[path].live(session).expect("opened on a session that does not publish it");
                assert_eq!(entry.hops.first(), Some(publisher), "asked for another publisher");
                self.open(session, *log, *epoch, path, track);
            }
            Order::Prefs { log, .. } => assert_eq!(self.logs[log].open, Some(session), "prefs to no writer"),
            Order::Close { log } => {
                let state = self.logs.get_mut(log).expect("closed a log that does not exist");
                assert_eq!(state.open.take(), Some(session), "closed by order a log that was not open");
                state.closed = Some(session);
                let (read, state) = (self.is_read(*log), &self.logs[log]);
                let place = self.places.get(&state.track.0).filter(|_| read);
                let leaving = place.is_some_and(|place| place.is_leaving(session, state.publisher));
                let over = place.is_some_and(|place| place.is_over(session, self.takeover, self.ticked));
                let is_ambiguous = self.ambiguous.contains(log);
                assert!(
                    !leaving || over || is_ambiguous || self.revised == Some(session),
                    "closed before it could deliver its end"
                );
                self.pulling.retain(|(other, _)| other != log);
            }
            Order::Pull { log, group, .. } => {
                assert_eq!(
                    self.logs[log].open,
                    Some(session),
                    "pull ordered from a session that is not the writer"
                );
                assert!(self.pulling.insert((*log, *group)), "a second pull of one group");
            }
            Order::Asked { log, .. } => {
                assert_eq!(self.logs[log].open, Some(session), "sent to a session that is not the writer")
            }
            Order::DropPull { log, group } => {
                assert_eq!(
                    self.logs[log].open,
                    Some(session),
                    "pull cancelled at a session that is not the writer"
                );
                assert!(self.pulling.remove(&(*log, *group)), "cancelled an unknown pull");
            }
            Order::Attach { sub, log } => self.attach(session, *sub, *log),
            Order::Refuse { sub, code } => {
                let peer = self.peers.get_mut(&session).unwrap();
                let Some((path, _)) = peer.waiting.remove(sub) else {
                    return self.expel(session, *sub);
                };
                if *code == StreamCode::UNROUTABLE && self.peers[&session].permit.subscribe().allows(&path) {
                    assert!(self.resolve(session, &path).is_none(), "refused although a route serves it");
                }
            }
            Order::Kill { .. } => self.peers.get_mut(&session).unwrap().killed = true,
        }
    }

    fn attach(&mut self, session: SessionId, sub: SubId, log: LogId) {
        let peer = self.peers.get_mut(&session).unwrap();
        if let Some(before) = peer.attached.insert(sub, log) {
            let (before, after) = (&self.logs[&before], &self.logs[&log]);
            assert_eq!(before.track, after.track, "moved to another track");
            assert_eq!(before.publisher, after.publisher, "moved to another publisher");
            assert!(after.open.is_some() && before.open == after.open, "moved to another writer");
            return;
        }
        let wanted = peer.waiting.remove(&sub).expect("answer without a request");
        let best = self.resolve(session, &wanted.0).expect("served what does not exist").clone();
        let state = self.logs.get_mut(&log).unwrap();
        if state.epoch == 0 && state.publisher.is_none() {
            state.publisher = best.hops.first().copied();
            state.hops = Some(best.hops.clone());
        }
        let peer = self.peers.get_mut(&session).unwrap();
        assert!(!state.over, "attached to an ended log");
        assert_eq!(state.track, wanted, "attached to another track");
        assert_ne!(state.open, Some(session), "served its own content");
        assert!(state.open.is_some() || best.vanished.is_some(), "suspended beside a live route");
        assert_eq!(state.publisher, best.hops.first().copied(), "not served by the best route");
        let excluded = peer.exclude.is_some_and(|hop| state.hops.as_ref().unwrap().contains(&hop));
        assert!(!excluded, "served through itself");
        assert!(peer.permit.subscribe().allows(&wanted.0), "served outside its permit");
    }

    fn open(&mut self, session: SessionId, log: LogId, epoch: Epoch, path: &Path, track: &TrackName) {
        let place = &self.places[path];
        let entry = place.live(session).expect("opened on a session that does not publish it");
        let mut shown = self.board.get(path).into_iter().flatten();
        assert!(shown.any(|route| route.session == session), "opened on a session that is not on the board");
        let state = &self.logs[&log];
        assert_eq!(state.open, None, "two upstream asks at once");
        assert!(!state.over, "opened an ended log");
        assert_eq!(epoch.0, state.epoch, "opened with a stale epoch");
        assert_eq!(state.track, (path.clone(), track.clone()), "a log changed its track");
        let publisher = entry.hops.first().copied();
        assert!(state.publisher.is_none() || state.publisher == publisher, "a log changed its publisher");
        assert!(
            state.epoch == 1 || publisher != Some(Hop::ANONYMOUS),
            "a nameless publisher was taken for another"
        );
        let believed = |session| place.usable(self.takeover).find(|entry| entry.session == session);
        let before = state.closed.and_then(believed);
        if let Some(before) = before.filter(|before| before.hops.first().copied() == publisher) {
            assert!(entry.worth() <= before.worth(), "moved to a worse route");
            assert!(self.serves_all(log, entry), "moved where it does not serve all");
        }
        let hops = entry.hops.clone();
        let state = self.logs.get_mut(&log).unwrap();
        (state.publisher, state.hops, state.open, state.closed) =
            (publisher, Some(hops), Some(session), None);
    }

    fn may_read(&self, session: SessionId, entry: &Entry) -> bool {
        let exclude = self.peers[&session].exclude;
        entry.session != session && !exclude.is_some_and(|hop| entry.hops.contains(&hop))
    }

    fn serves_all(&self, log: LogId, entry: &Entry) -> bool {
        let readers = self.peers.iter().filter(|(_, peer)| peer.attached.values().any(|at| *at == log));
        readers.into_iter().all(|(session, _)| self.may_read(*session, entry))
    }

    /// Route that serves the session, in board order; a stale one only without a live route.
    fn resolve(&self, session: SessionId, path: &Path) -> Option<&Entry> {
        let shown = self.board.get(path)?;
        let entry = |route: &Route| self.places[path].entries.iter().find(|e| e.session == route.session);
        let entries = || shown.iter().filter_map(entry);
        // A relay in the chain of a shown route may have withdrawn the path.
        let usable: BTreeSet<SessionId> =
            self.places[path].usable(self.takeover).map(|entry| entry.session).collect();
        let stale = |entry: &Entry| usable.is_empty() && entry.vanished.is_some() && !entry.gone;
        let serves = |entry: &Entry| usable.contains(&entry.session) || stale(entry);
        entries().find(|entry| serves(entry) && self.may_read(session, entry))
    }

    /// Asserts that no other log of the track could serve the asking session.
    fn assert_needed(&self) {
        let (session, path, track) = self.asking.as_ref().unwrap();
        let best = self.resolve(*session, path).expect("a log for nobody");
        let publisher = best.hops.first().copied().filter(|hop| *hop != Hop::ANONYMOUS);
        let exclude = self.peers[session].exclude;
        for log in self.logs.values().filter(|log| !log.over) {
            if log.track != (path.clone(), track.clone()) || publisher.is_none() || log.publisher != publisher
            {
                continue;
            }
            let excluded = exclude.is_some_and(|hop| log.hops.as_ref().unwrap().contains(&hop));
            assert!(excluded || log.open == Some(*session), "a second upstream ask for one track");
        }
    }

    /// Checks after each event that all but `throttled` requests are answered, the board shows what is
    /// announced, every log is on its best route, and every wait is pulled.
    pub(super) fn after(&mut self, throttled: usize) {
        let waiting: usize = self.peers.values().map(|peer| peer.waiting.len()).sum();
        assert_eq!(waiting, throttled, "no answer");
        for peer in self.peers.values() {
            let outside = |log: &LogId| !peer.permit.subscribe().allows(&self.logs[log].track.0);
            assert!(!peer.attached.values().any(outside), "reads outside its permit");
        }
        for (session, log) in self.logs.values().filter_map(|log| log.open.map(|session| (session, log))) {
            let permit = &self.peers[&session].permit;
            assert!(permit.publish().allows(&log.track.0), "writes outside its permit");
        }
        for (path, place) in &mut self.places {
            let shown = self.board.get(path).map_or(&[][..], |routes| routes);
            place.settle(self.takeover, self.ticked, shown);
            place.assert_shown(self.takeover, shown);
        }
        self.places.retain(|_, place| !place.entries.is_empty());
        assert!(
            self.board.keys().all(|path| self.places.contains_key(path)),
            "board shows a path that is not announced"
        );
        for (path, name) in self.logs.values().map(|log| log.track.clone()).collect::<BTreeSet<_>>() {
            self.assert_routed(&path, &name);
        }
        self.assert_pulled();
    }

    fn assert_routed(&mut self, path: &Path, track: &TrackName) {
        let empty = Place::default();
        let place = self.places.get(path).unwrap_or(&empty);
        let usable: Vec<Entry> = place.usable(self.takeover).cloned().collect();
        let logs = self.logs.iter().filter(|(_, log)| log.track.0 == *path && log.track.1 == *track);
        let ids: Vec<LogId> = logs.filter(|(_, log)| !log.over).map(|(id, _)| *id).collect();
        for id in ids {
            let named = self.logs[&id].publisher.filter(|hop| *hop != Hop::ANONYMOUS);
            let same = |entry: &&Entry| entry.hops.first().copied() == named;
            let read = self.is_read(id);
            match self.logs[&id].open {
                Some(writer) => {
                    let own = usable.iter().filter(same).find(|entry| entry.session == writer);
                    let Some(own) = own else {
                        let leaving = place.is_leaving(writer, self.logs[&id].publisher);
                        assert!(
                            leaving || !usable.iter().any(|entry| same(&entry)),
                            "left on a withdrawn route"
                        );
                        continue;
                    };
                    for other in usable.iter().filter(same).filter(|_| read) {
                        let better = other.worth() < own.worth() && self.serves_all(id, other);
                        assert!(!better, "left on the worse route");
                    }
                    self.logs.get_mut(&id).unwrap().hops = Some(own.hops.clone());
                }
                None => {
                    assert!(read, "unread log was kept");
                    assert!(self.logs[&id].silent + LINGER > self.ticked, "suspended past the linger");
                    assert!(
                        !usable.iter().any(|entry| same(&entry)),
                        "suspended although its publisher has a route"
                    );
                    let publisher = self.logs[&id].publisher;
                    let stale_entries =
                        place.entries.iter().filter(|entry| entry.vanished.is_some() && !entry.gone);
                    let mut back = stale_entries.map(|stale| stale.hops.first().copied());
                    let expected = back.any(|stale| stale == publisher);
                    assert!(
                        usable.is_empty() || expected,
                        "suspended although another publisher replaced its own"
                    );
                }
            }
        }
    }

    fn is_read(&self, log: LogId) -> bool {
        self.peers.values().any(|peer| peer.attached.values().any(|at| *at == log))
    }

    fn assert_pulled(&self) {
        let mut wanted: BTreeSet<(LogId, u64)> = BTreeSet::new();
        for peer in self.peers.values() {
            wanted.extend(peer.pulls.iter().map(|(sub, group)| (peer.attached[sub], *group)));
        }
        wanted.retain(|(log, _)| self.logs[log].open.is_some());
        assert_eq!(self.pulling, wanted, "pulls and waiting readers disagree");
    }

    /// Groups pulled from `session`.
    pub(super) fn pulls(&self, session: SessionId) -> Vec<(LogId, u64)> {
        self.pulling.iter().filter(|(log, _)| self.logs[log].open == Some(session)).copied().collect()
    }

    pub(super) fn assert_all_gone(&self) {
        assert!(self.logs.is_empty(), "created and never retired: {:?}", self.logs.keys());
        assert!(self.board.is_empty() && self.places.is_empty());
        assert!(self.pulling.is_empty());
    }
}
