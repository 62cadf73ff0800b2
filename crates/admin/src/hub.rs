//! Who reads over HTTP, as sessions of the relay: let in by its gate, known to its core, woken by its store.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use axum::response::Response;
use hyper::StatusCode;
use parking_lot::Mutex;
use relay_auth::Permit;
use relay_core::Event;
use relay_model::{Ask, LogId, Order, SessionCode, SessionId, StreamCode, SubId};
use relay_store::Store;
use relay_worker::{
    Answer, Asker, Charge, Denial, Ended, EndedBy, Footprint, Seat, Told, Which, mailbox::Letter,
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::{
    client::origin_of,
    limits::{READERS, READERS_CONTENDED, READERS_PER_ADDRESS},
    site::{empty, plain},
    tap::Tap,
    websocket::denied,
};

/// How late a step of the clock may be noticed: a reader ends within a second of its permit.
const RECHECK: Duration = Duration::from_millis(500);
/// Before core is told again what it had no room for.
const AGAIN: Duration = Duration::from_millis(5);
/// Memory of a reader, bytes: its connection, its task, and an answer under way.
const READER_BYTES: u64 = 24 * 1024;
/// The one subscription of a reader.
pub(crate) const SUB: SubId = SubId(0);

/// All readers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Hub(Arc<Inner>);

struct Inner {
    seat: Seat,
    visits: Mutex<Visits>,
    /// What core is to be told, in order.
    events: Mutex<Vec<Event>>,
    /// There is something to do.
    wake: Notify,
    boot: u64,
}

#[derive(Default)]
struct Visits {
    all: HashMap<SessionId, Arc<Visit>>,
    /// How many of them each address has.
    by_address: HashMap<IpAddr, usize>,
    by_log: HashMap<LogId, Followed>,
    is_over: bool,
}

/// A log, and who reads it.
struct Followed {
    tap: Arc<Tap>,
    readers: Vec<Arc<Visit>>,
}

/// One reader.
struct Visit {
    id: SessionId,
    /// Client's address, as readers are counted.
    address: IpAddr,
    state: Mutex<State>,
    /// Something changed for it.
    news: Notify,
}

#[derive(Default)]
struct State {
    answer: Option<Result<Permit, Denial>>,
    permit: Option<Permit>,
    /// What was taken back before it was let in.
    taken_back: Vec<(Which, Over)>,
    over: Option<Over>,
    served: Option<Result<LogId, StreamCode>>,
    watches: bool,
    /// The group that was asked for from the publisher, and whether that failed.
    pulls: Option<u64>,
    has_failed: bool,
}

/// Why a reader must end.
#[derive(Clone, Debug)]
pub(crate) struct Over {
    code: SessionCode,
    reason: Arc<str>,
}

/// Why nobody was let in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refused {
    Denied(Denial),
    /// Too many read already.
    Full,
    /// The relay is about to end.
    Leaving,
}

impl Hub {
    /// Takes the seat; a task of the current runtime sees to it.
    pub(crate) fn start(seat: Seat) -> Self {
        let boot = RandomState::new().hash_one(seat.wall());
        let (visits, events, wake) = Default::default();
        let inner = Inner { seat, visits, events, wake, boot };
        let hub = Self(Arc::new(inner));
        let woken = Arc::downgrade(&hub.0);
        hub.0.seat.on_news(move || {
            if let Some(inner) = woken.upgrade() {
                inner.wake.notify_one();
            }
        });
        tokio::spawn(hub.clone().run());
        hub
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        self.0.seat.store()
    }

    /// Asks the gate about a reader.
    pub(crate) async fn admit(&self, asker: Asker) -> Result<Visitor, Refused> {
        self.admit_noting(asker, &mut false).await
    }

    /// The same; notes whether the gate answered later, as it does when it asks a server.
    pub(crate) async fn admit_noting(&self, asker: Asker, is_later: &mut bool) -> Result<Visitor, Refused> {
        let id = self.0.seat.session();
        let address = origin_of(asker.remote.ip());
        let visit = Arc::new(Visit { id, address, state: Mutex::default(), news: Notify::new() });
        {
            let mut visits = self.0.visits.lock();
            if visits.is_over {
                return Err(Refused::Leaving);
            }
            if !visits.has_room(address) || self.0.seat.ledger().is_full() {
                return Err(Refused::Full);
            }
            *visits.by_address.entry(address).or_default() += 1;
            visits.all.insert(id, visit.clone());
        }
        let charge = self.0.seat.ledger().open(id, asker.remote.ip());
        let mut visitor = Visitor::new(self.clone(), visit, charge);
        let answer = match self.0.seat.ask(id, asker) {
            Answer::Now(answer) => answer,
            Answer::Later => {
                *is_later = true;
                let answered = timeout(relay_model::limits::AUTH_TIMEOUT, visitor.answered()).await;
                answered.unwrap_or(Err(Denial::TimedOut))
            }
        };
        let permit = answer.and_then(|permit| match permit.expires() {
            Some(at) if at <= self.0.seat.wall() => Err(Denial::Expired),
            _ => Ok(permit),
        });
        visitor.let_in(permit.map_err(Refused::Denied)?)?;
        Ok(visitor)
    }

    async fn run(self) {
        let (mut letters, mut logs) = (Vec::new(), Vec::new());
        let mut checked = Instant::now();
        loop {
            // A clock that steps is noticed by looking at it.
            let _ = timeout(RECHECK, self.0.wake.notified()).await;
            self.0.seat.letters(&mut letters);
            letters.drain(..).for_each(|letter| self.read(letter));
            let is_board = self.store().bell(self.0.seat.worker()).take(&mut logs);
            self.tell_readers(&mut logs, is_board);
            if checked.elapsed() >= RECHECK {
                checked = Instant::now();
                self.expire(self.0.seat.wall());
            }
            self.tell_core().await;
        }
    }

    /// Says what readers did.
    async fn tell_core(&self) {
        let told = {
            let mut events = self.0.events.lock();
            self.0.seat.tell(&mut events)
        };
        match told {
            Told::Taken => {}
            Told::Behind => {
                self.0.wake.notify_one();
                sleep(AGAIN).await;
            }
            Told::Gone => self.end_all(&Over { code: SessionCode::NONE, reason: "going away".into() }),
        }
    }

    fn push(&self, event: Event) {
        self.0.events.lock().push(event);
        self.0.wake.notify_one();
    }

    fn tell_readers(&self, logs: &mut Vec<LogId>, is_board: bool) {
        let visits = self.0.visits.lock();
        for log in logs.drain(..) {
            let Some(Followed { tap, readers }) = visits.by_log.get(&log) else { continue };
            let mut failed = Vec::new();
            tap.drain(&mut failed);
            for visit in readers {
                let mut state = visit.state.lock();
                state.has_failed |= state.pulls.is_some_and(|group| failed.contains(&group));
                drop(state);
                visit.news.notify_one();
            }
        }
        if is_board {
            let watching = visits.all.values().filter(|visit| visit.state.lock().watches);
            watching.for_each(|visit| visit.news.notify_one());
        }
    }

    fn visit(&self, session: SessionId) -> Option<Arc<Visit>> {
        self.0.visits.lock().all.get(&session).cloned()
    }

    fn every(&self) -> Vec<Arc<Visit>> {
        self.0.visits.lock().all.values().cloned().collect()
    }

    fn read(&self, letter: Letter) {
        match letter {
            Letter::Answer(session, answer) => self.change(session, |state| state.answer = Some(answer)),
            Letter::Revise(session, permit) => self.revise(session, permit),
            Letter::End { session, code, reason } => {
                self.change(session, |state| {
                    state.over.get_or_insert(Over { code, reason });
                });
            }
            Letter::EndWhere { which, code, reason } => {
                self.every()
                    .iter()
                    .for_each(|visit| visit.take_back(&which, &Over { code, reason: reason.clone() }));
            }
            Letter::Order(session, order) => match order {
                Order::Attach { log, .. } => self.change(session, |state| state.served = Some(Ok(log))),
                Order::Refuse { code, .. } => self.change(session, |state| state.served = Some(Err(code))),
                Order::Kill { code, reason } => {
                    let over = Over { code, reason: reason.into() };
                    self.change(session, |state| {
                        state.over.get_or_insert(over);
                    });
                }
                // For who publishes.
                Order::Open { .. }
                | Order::Prefs { .. }
                | Order::Close { .. }
                | Order::Asked { .. }
                | Order::Pull { .. }
                | Order::DropPull { .. } => {}
            },
            // A reader has few asks under way; the others are for workers.
            Letter::AsksDone(..)
            | Letter::Inspect(_)
            | Letter::Arrive(_)
            | Letter::Link(..)
            | Letter::Unlinked(_) => {}
            // They come when the relay has ended.
            Letter::Drain(_) | Letter::Shutdown { .. } => {
                self.end_all(&Over { code: SessionCode::NONE, reason: "going away".into() });
            }
        }
    }

    fn change(&self, session: SessionId, change: impl FnOnce(&mut State)) {
        if let Some(visit) = self.visit(session) {
            change(&mut visit.state.lock());
            visit.news.notify_one();
        }
    }

    /// A reader may read something else from now on. One whose permit is another's comes again as who it is.
    fn revise(&self, session: SessionId, permit: Permit) {
        let Some(visit) = self.visit(session) else { return };
        let mut state = visit.state.lock();
        let Some(before) = state.permit.replace(permit.clone()) else { return };
        if (before.root(), before.subject()) != (permit.root(), permit.subject()) {
            let reason = "token subject changed".into();
            state.over.get_or_insert(Over { code: SessionCode::UNAUTHORIZED, reason });
        }
        drop(state);
        self.push(Event::Revised { session, permit });
        visit.news.notify_one();
    }

    fn expire(&self, wall: SystemTime) {
        for visit in self.every() {
            let mut state = visit.state.lock();
            if state.permit.as_ref().and_then(Permit::expires).is_some_and(|at| at <= wall) {
                let reason = "expired".into();
                state.over.get_or_insert(Over { code: SessionCode::UNAUTHORIZED, reason });
                visit.news.notify_one();
            }
        }
    }

    fn end_all(&self, over: &Over) {
        self.0.visits.lock().is_over = true;
        for visit in self.every() {
            visit.state.lock().over.get_or_insert(over.clone());
            visit.news.notify_one();
        }
    }
}

impl Visits {
    /// Whether `address` may have another reader.
    fn has_room(&self, address: IpAddr) -> bool {
        let own = self.by_address.get(&address).copied().unwrap_or_default();
        match self.all.len() {
            READERS.. => false,
            READERS_CONTENDED.. => own < READERS_PER_ADDRESS,
            _ => true,
        }
    }

    fn leave(&mut self, visit: &Visit) {
        if self.all.remove(&visit.id).is_none() {
            return;
        }
        if let Some(own) = self.by_address.get_mut(&visit.address) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.by_address.remove(&visit.address);
            }
        }
    }
}

impl Visit {
    fn take_back(&self, which: &Which, over: &Over) {
        let mut state = self.state.lock();
        match &state.permit {
            Some(permit) if which.is(permit) => {
                state.over.get_or_insert(over.clone());
            }
            Some(_) => {}
            None => state.taken_back.push((which.clone(), over.clone())),
        }
        drop(state);
        self.news.notify_one();
    }
}

/// A reader that the gate was asked about. Dropped, it is over.
pub(crate) struct Visitor {
    hub: Hub,
    visit: Arc<Visit>,
    began: Instant,
    /// Core knows it.
    is_open: bool,
    is_admitted: bool,
    followed: Option<LogId>,
    charge: Charge,
    /// Bytes of answers.
    pub(crate) sent: u64,
}

impl Visitor {
    fn new(hub: Hub, visit: Arc<Visit>, charge: Charge) -> Self {
        let began = Instant::now();
        let (is_open, is_admitted, followed, sent) = (false, false, None, 0);
        let mut visitor = Self { hub, visit, began, is_open, is_admitted, followed, charge, sent };
        visitor.hold(0);
        visitor
    }

    /// It holds so many bytes of what it was told, beside what every reader takes. Where that is more than its
    /// share, a letter ends it.
    pub(crate) fn hold(&mut self, bytes: u64) {
        let footprint = Footprint { connection: READER_BYTES, watches: bytes, ..Footprint::default() };
        self.charge.set(footprint);
    }

    async fn answered(&self) -> Result<Permit, Denial> {
        loop {
            if let Some(answer) = self.visit.state.lock().answer.take() {
                return answer;
            }
            self.news().await;
        }
    }

    fn let_in(&mut self, permit: Permit) -> Result<(), Refused> {
        let mut state = self.visit.state.lock();
        let taken_back = std::mem::take(&mut state.taken_back);
        if let Some((_, over)) = taken_back.into_iter().find(|(which, _)| which.is(&permit)) {
            state.over.get_or_insert(over);
            return Err(Refused::Denied(Denial::Expired));
        }
        state.permit = Some(permit);
        self.is_admitted = true;
        Ok(())
    }

    /// What it may do now. `None`: it must end.
    pub(crate) fn permit(&self) -> Option<Permit> {
        let state = self.visit.state.lock();
        if state.over.is_some() { None } else { state.permit.clone() }
    }

    /// Who it is to the announce board and to logs.
    pub(crate) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Until something changed, or might have, since it was last called.
    pub(crate) async fn news(&self) {
        self.visit.news.notified().await;
    }

    /// Wakes it for what changes on the announce board, too.
    pub(crate) fn watch(&self) {
        self.visit.state.lock().watches = true;
    }

    /// Asks core for something.
    pub(crate) fn ask(&mut self, ask: Ask) {
        let session = self.visit.id;
        if !std::mem::replace(&mut self.is_open, true)
            && let Some(permit) = self.visit.state.lock().permit.clone()
        {
            self.hub.push(Event::Opened { session, permit });
        }
        self.hub.push(Event::Ask { session, ask });
    }

    /// What core answered since it was last asked.
    pub(crate) fn served(&self) -> Option<Result<LogId, StreamCode>> {
        self.visit.state.lock().served.take()
    }

    /// Reads `log` from now on, instead of another one, and is woken for what comes into it. `None`: it is
    /// gone.
    pub(crate) fn follow(&mut self, log: LogId) -> Option<Arc<Tap>> {
        self.unfollow();
        let feed = self.hub.store().log(log)?;
        let mut visits = self.hub.0.visits.lock();
        let followed = visits.by_log.entry(log).or_insert_with(|| Followed {
            tap: Arc::new(Tap::new(feed.feed(self.hub.worker()))),
            readers: Vec::new(),
        });
        followed.readers.push(self.visit.clone());
        self.followed = Some(log);
        let mut state = self.visit.state.lock();
        (state.pulls, state.has_failed) = (None, false);
        Some(followed.tap.clone())
    }

    /// Asks the publisher for an old group.
    pub(crate) fn pull(&mut self, group: u64) {
        let mut state = self.visit.state.lock();
        if state.pulls.replace(group) == Some(group) {
            return;
        }
        state.has_failed = false;
        drop(state);
        self.ask(Ask::Pull { sub: SUB, group });
    }

    /// Whether that failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.visit.state.lock().has_failed
    }

    fn unfollow(&mut self) {
        let Some(log) = self.followed.take() else { return };
        let mut visits = self.hub.0.visits.lock();
        if let Some(Followed { readers, .. }) = visits.by_log.get_mut(&log) {
            readers.retain(|visit| visit.id != self.visit.id);
            if readers.is_empty() {
                visits.by_log.remove(&log);
            }
        }
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.unfollow();
        let session = self.visit.id;
        self.hub.0.visits.lock().leave(&self.visit);
        if self.is_open {
            self.hub.push(Event::Closed { session, vanished: false });
        }
        let over = self.visit.state.lock().over.clone();
        let by = if over.is_some() { EndedBy::Relay } else { EndedBy::Peer };
        self.hub.0.seat.ended(&Ended {
            session,
            admitted: self.is_admitted,
            bytes_in: 0,
            bytes_out: self.sent,
            lasted: self.began.elapsed(),
            by,
            code: over.as_ref().map(|over| over.code),
            reason: over.as_ref().map_or("", |over| &over.reason),
        });
    }
}

impl Refused {
    /// What it is over HTTP.
    pub(crate) fn response(self) -> Response {
        match self {
            Self::Denied(denial) => empty(denied(denial)),
            Self::Full => plain(StatusCode::SERVICE_UNAVAILABLE, "too many readers\n"),
            Self::Leaving => plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        }
    }
}

impl Hub {
    /// Another one after each start: what is cached of one relay is not taken for another's.
    pub(crate) fn boot(&self) -> u64 {
        self.0.boot
    }

    /// As whom the store knows it.
    pub(crate) fn worker(&self) -> relay_model::WorkerId {
        self.0.seat.worker()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(visits: &mut Visits, id: u64, address: &str) -> bool {
        let address = origin_of(address.parse().unwrap());
        if !visits.has_room(address) {
            return false;
        }
        let visit = Visit { id: SessionId(id), address, state: Mutex::default(), news: Notify::new() };
        visits.all.insert(visit.id, Arc::new(visit));
        *visits.by_address.entry(address).or_default() += 1;
        true
    }

    #[test]
    fn one_address_leaves_reader_places_for_others() {
        let (mut visits, mut ids) = (Visits::default(), 0..);
        let mut fill = |visits: &mut Visits, address: &str| {
            ids.by_ref().take_while(|id| enter(visits, *id, address)).count()
        };
        assert_eq!(fill(&mut visits, "2001:db8::1"), READERS_CONTENDED);
        assert_eq!(fill(&mut visits, "2001:db8::2"), 0, "the same /64");
        assert_eq!(fill(&mut visits, "192.0.2.1"), READERS_PER_ADDRESS);
        assert_eq!(fill(&mut visits, "127.0.0.1"), READERS_PER_ADDRESS, "loopback as well");
        let left = READERS - READERS_CONTENDED - 2 * READERS_PER_ADDRESS;
        assert_eq!(fill(&mut visits, "192.0.2.2") + fill(&mut visits, "192.0.2.3"), left);
        assert_eq!(fill(&mut visits, "192.0.2.4"), 0, "all are taken");
        let all: Vec<Arc<Visit>> = visits.all.values().cloned().collect();
        all.iter().for_each(|visit| visits.leave(visit));
        assert!(visits.all.is_empty() && visits.by_address.is_empty());
    }
}
