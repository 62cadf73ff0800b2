//! What the store and the workers would make of the actions, written without a look at the core.

use std::collections::{BTreeMap, BTreeSet};

use relay_auth::Permit;
use relay_model::{Ask, Epoch, Hop, Hops, LogId, Order, Path, Route, SessionId, SubId, TrackName, limits};

use super::SELF;
use crate::{Action, Event};

#[derive(Debug)]
struct Peer {
    permit: Permit,
    exclude: Option<Hop>,
    announced: BTreeMap<Path, (Hops, u64)>,
    /// Asked and not answered.
    waiting: BTreeMap<SubId, (Path, TrackName)>,
    /// Answered with a log.
    attached: BTreeMap<SubId, LogId>,
    killed: bool,
}

#[derive(Debug, Default)]
struct Store {
    epoch: u64,
    track: Option<(Path, TrackName)>,
    publisher: Option<Hop>,
    hops: Option<Hops>,
    open: Option<SessionId>,
    over: bool,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    peers: BTreeMap<SessionId, Peer>,
    logs: BTreeMap<LogId, Store>,
    created: BTreeSet<LogId>,
    board: BTreeMap<Path, Vec<Route>>,
    /// The session whose subscription is being handled.
    asking: Option<(SessionId, Path, TrackName)>,
}

impl Model {
    pub(super) fn sessions(&self) -> Vec<SessionId> {
        self.peers.keys().copied().collect()
    }

    /// Logs a session was told to open and did not end.
    pub(super) fn writes(&self, session: SessionId) -> Vec<LogId> {
        self.logs.iter().filter(|(_, log)| log.open == Some(session)).map(|(id, _)| *id).collect()
    }

    pub(super) fn before(&mut self, event: &Event) {
        self.asking = None;
        match event {
            Event::Opened { session, permit, exclude } => {
                self.peers.entry(*session).or_insert_with(|| Peer {
                    permit: permit.clone(),
                    exclude: exclude.filter(|hop| hop.0 != 0),
                    announced: BTreeMap::new(),
                    waiting: BTreeMap::new(),
                    attached: BTreeMap::new(),
                    killed: false,
                });
            }
            Event::Ask { session, ask } => self.before_ask(*session, ask),
            Event::Closed { session } => {
                self.peers.remove(session);
                self.logs
                    .values_mut()
                    .filter(|log| log.open == Some(*session))
                    .for_each(|log| log.open = None);
            }
        }
    }

    fn before_ask(&mut self, session: SessionId, ask: &Ask) {
        let Some(peer) = self.peers.get_mut(&session) else { return };
        match ask {
            Ask::Announce { path, hops, cost } => {
                let full = peer.announced.len() >= limits::ANNOUNCES && !peer.announced.contains_key(path);
                if peer.killed || full || !peer.permit.publish().allows(path) {
                    return;
                }
                if hops.contains(&Hop(SELF)) || hops.len() > limits::HOPS {
                    peer.announced.remove(path);
                } else {
                    peer.announced.insert(path.clone(), (hops.clone(), *cost));
                }
            }
            Ask::Unannounce { path } => {
                peer.announced.remove(path);
            }
            Ask::Subscribe { sub, path, track, .. } => {
                if !peer.attached.contains_key(sub) {
                    peer.waiting.insert(*sub, (path.clone(), track.clone()));
                    self.asking = Some((session, path.clone(), track.clone()));
                }
            }
            Ask::Update { .. } => {}
            Ask::Unsubscribe { sub } => {
                peer.attached.remove(sub);
            }
            Ask::Ended { log, epoch } => {
                let newest = |state: &&mut Store| state.open == Some(session) && state.epoch == epoch.0;
                if let Some(state) = self.logs.get_mut(log).filter(newest) {
                    (state.open, state.over) = (None, true);
                }
            }
        }
    }

    /// The newest writer of a log; 0 when there is none.
    pub(super) fn epoch(&self, log: LogId) -> Epoch {
        Epoch(self.logs.get(&log).map_or(0, |state| state.epoch))
    }

    pub(super) fn action(&mut self, action: &Action) {
        match action {
            Action::Order { session, order } => self.order(*session, order),
            Action::Board { path, routes } => {
                let shown = self.board.get(path).map_or(&[][..], |routes| routes);
                assert_ne!(shown, routes, "a board entry that changes nothing");
                self.board.insert(path.clone(), routes.clone());
                self.board.retain(|_, routes| !routes.is_empty());
            }
            Action::Create { log } => {
                assert!(self.created.insert(*log), "an id was reused");
                self.assert_needed();
                self.logs.insert(*log, Store::default());
            }
            Action::Fence { log, epoch } => {
                let state = self.logs.get_mut(log).expect("fenced a log that is not there");
                assert!(!state.over, "fenced an ended log");
                assert_eq!(epoch.0, state.epoch + 1, "epochs grow by one");
                state.epoch = epoch.0;
            }
            Action::End { log, .. } => {
                let state = self.logs.get_mut(log).expect("ended a log that is not there");
                assert!(!state.over && state.open.is_none(), "ended under its writer");
                state.over = true;
            }
            Action::Retire { log } => {
                let state = self.logs.remove(log).expect("retired a log that is not there");
                assert_eq!(state.open, None, "retired under its writer");
                assert!(
                    self.peers.values().all(|p| p.attached.values().all(|l| l != log)),
                    "retired under a reader"
                );
            }
        }
    }

    fn order(&mut self, session: SessionId, order: &Order) {
        assert!(self.peers.contains_key(&session), "an order to a session that is gone: {order:?}");
        match order {
            Order::Open { log, epoch, path, track, .. } => self.open(session, *log, *epoch, path, track),
            Order::Prefs { log, .. } => assert_eq!(self.logs[log].open, Some(session), "prefs to no writer"),
            Order::Close { log } => {
                let state = self.logs.get_mut(log).expect("closed a log that is not there");
                assert_eq!(state.open.take(), Some(session), "closed what was not open");
            }
            Order::Attach { sub, log } => {
                let peer = self.peers.get_mut(&session).unwrap();
                let wanted = peer.waiting.remove(sub).expect("answered what was not asked");
                let state = &self.logs[log];
                assert!(!state.over, "attached to an ended log");
                assert_eq!(state.track.as_ref(), Some(&wanted), "attached to another track");
                assert_ne!(state.open, Some(session), "served its own words");
                let excluded = peer.exclude.is_some_and(|hop| state.hops.as_ref().unwrap().contains(&hop));
                assert!(!excluded, "served through itself");
                assert!(peer.permit.subscribe().allows(&wanted.0), "served outside its permit");
                peer.attached.insert(*sub, *log);
            }
            Order::Refuse { sub, .. } => {
                let peer = self.peers.get_mut(&session).unwrap();
                peer.waiting.remove(sub).expect("answered what was not asked");
            }
            Order::Kill { .. } => self.peers.get_mut(&session).unwrap().killed = true,
        }
    }

    fn open(&mut self, session: SessionId, log: LogId, epoch: Epoch, path: &Path, track: &TrackName) {
        let (hops, _) =
            self.peers[&session].announced.get(path).expect("asked who does not publish it").clone();
        let state = self.logs.get_mut(&log).expect("opened a log that is not there");
        assert_eq!(state.open, None, "two upstream asks at once");
        assert!(!state.over, "opened an ended log");
        assert_eq!(epoch.0, state.epoch, "opened with a stale epoch");
        let named = (path.clone(), track.clone());
        assert!(state.track.as_ref().is_none_or(|track| *track == named), "a log changed its track");
        let publisher = hops.first().copied();
        assert!(state.publisher.is_none() || state.publisher == publisher, "a log changed its publisher");
        assert!(
            state.epoch == 1 || publisher != Some(Hop::ANONYMOUS),
            "a nameless publisher was taken for another"
        );
        *state = Store { track: Some(named), publisher, hops: Some(hops), open: Some(session), ..*state };
    }

    /// A new log is made only where no other of the track could serve the one who asks.
    fn assert_needed(&self) {
        let (session, path, track) = self.asking.as_ref().expect("a log nobody asked for");
        let exclude = self.peers[session].exclude;
        let usable = |writer: &SessionId, hops: &Hops| {
            writer != session && !exclude.is_some_and(|hop| hops.contains(&hop))
        };
        let best = self.board[path].iter().find(|route| usable(&route.session, &route.hops)).unwrap();
        for log in self.logs.values() {
            let same_track = log.track.as_ref() == Some(&(path.clone(), track.clone()));
            let same =
                same_track && log.publisher == Some(best.publisher()) && best.publisher() != Hop::ANONYMOUS;
            let Some(writer) = log.open.filter(|_| same) else { continue };
            let announced = self.peers[&writer].announced.get(path);
            let current = announced.filter(|(hops, _)| hops.first() == Some(&best.publisher()));
            assert!(!usable(&writer, &current.unwrap().0), "a second upstream ask for one track");
        }
    }

    /// After each event: all answered, and the board shows what is announced.
    pub(super) fn after(&mut self) {
        for peer in self.peers.values() {
            assert!(peer.waiting.is_empty(), "no answer");
        }
        let mut announced: BTreeMap<&Path, BTreeSet<(SessionId, &Hops, u64)>> = BTreeMap::new();
        for (session, peer) in &self.peers {
            for (path, (hops, cost)) in &peer.announced {
                announced.entry(path).or_default().insert((*session, hops, *cost));
            }
        }
        assert!(
            self.board.keys().eq(announced.keys().copied()),
            "the board shows other paths than are announced"
        );
        for (path, routes) in &self.board {
            let shown: BTreeSet<_> =
                routes.iter().map(|route| (route.session, &route.hops, route.cost)).collect();
            assert_eq!(shown, announced[path], "the board shows a dead route or hides one");
            assert_eq!(routes.len(), shown.len(), "a session has two routes");
        }
        // Opened logs follow the chain their session announces now.
        for log in self.logs.values_mut() {
            let Some((writer, (path, _))) = log.open.zip(log.track.as_ref()) else { continue };
            if let Some((hops, _)) = self.peers[&writer].announced.get(path)
                && hops.first().copied() == log.publisher
            {
                log.hops = Some(hops.clone());
            }
        }
    }

    pub(super) fn assert_all_gone(&self) {
        assert!(self.logs.is_empty(), "created and never retired: {:?}", self.logs.keys());
        assert!(self.board.is_empty());
    }
}
