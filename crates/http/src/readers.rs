//! HTTP readers as sessions of the relay: admitted by its gate, registered with its core, woken by its store.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use axum::response::Response;
use hyper::StatusCode;
use parking_lot::Mutex;
use relay_auth::Permit;
use relay_core::CoreEvent;
use relay_model::{Ask, LogId, Order, SessionCode, SessionId, StreamCode, SubId};
use relay_store::Store;
use relay_worker::{
    Charge, ConnInfo, Denial, EndedBy, Footprint, GateAnswer, PermitFilter, SendOutcome, SessionEnded,
    VirtualWorker, mailbox::WorkerMessage,
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use crate::{
    client::origin_of,
    limits::{READERS, READERS_CONTENDED, READERS_PER_ADDRESS},
    shared_feed::SharedFeed,
    site::{empty, plain},
    websocket::denied,
};

/// Interval of the expiry check: a reader ends within a second of its permit, even if the wall clock is stepped.
const RECHECK: Duration = Duration::from_millis(500);
/// Pause before events are offered again to core, which had no room for them.
const AGAIN: Duration = Duration::from_millis(5);
/// Memory charged per reader, bytes: its task and a response in progress. Its connection is charged apart.
const READER_BYTES: u64 = 12 * 1024;
/// The one subscription of a reader.
pub(crate) const SUB: SubId = SubId(0);

/// All HTTP readers; a cheap handle.
#[derive(Clone)]
pub(crate) struct HttpReaders(Arc<ReadersInner>);

struct ReadersInner {
    seat: VirtualWorker,
    visits: Mutex<ReaderTable>,
    /// Events to send to core, in order.
    events: Mutex<Vec<CoreEvent>>,
    /// Wakes the hub's task.
    wake: Notify,
    boot: u64,
}

#[derive(Default)]
struct ReaderTable {
    all: HashMap<SessionId, Arc<ReaderEntry>>,
    /// Number of readers per address.
    by_address: HashMap<IpAddr, usize>,
    by_log: HashMap<LogId, Followed>,
    /// Charged connections, each notified when it must be closed.
    connections: HashMap<SessionId, Arc<Notify>>,
    is_over: bool,
}

/// A log and its readers.
struct Followed {
    tap: Arc<SharedFeed>,
    readers: Vec<Arc<ReaderEntry>>,
}

/// One reader.
struct ReaderEntry {
    id: SessionId,
    /// Address that the reader is counted under.
    address: IpAddr,
    state: Mutex<ReaderStatus>,
    /// Notified when the state changes.
    news: Notify,
}

#[derive(Default)]
struct ReaderStatus {
    answer: Option<Result<Permit, Denial>>,
    permit: Option<Permit>,
    /// Revocations received before admission.
    revocations: Vec<(PermitFilter, CloseReason)>,
    close_reason: Option<CloseReason>,
    served: Option<Result<LogId, StreamCode>>,
    watches: bool,
    /// Group requested from the publisher, and whether that request failed.
    pulls: Option<u64>,
    has_failed: bool,
}

/// Reason for which a reader must end.
#[derive(Clone, Debug)]
pub(crate) struct CloseReason {
    code: SessionCode,
    reason: Arc<str>,
}

/// Reason for which a reader was not admitted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReaderRejection {
    Denied(Denial),
    /// The limit of readers or of session memory is reached.
    Full,
    /// The relay is about to end.
    Leaving,
}

impl HttpReaders {
    /// Starts a hub for `seat` in a task of the current runtime.
    pub(crate) fn start(seat: VirtualWorker) -> Self {
        let boot = RandomState::new().hash_one(seat.wall());
        let (visits, events, wake) = Default::default();
        let inner = ReadersInner { seat, visits, events, wake, boot };
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

    /// Asks the gate to admit a reader.
    pub(crate) async fn admit(&self, conn: ConnInfo) -> Result<ReaderSession, ReaderRejection> {
        self.admit_noting(conn, &mut false).await
    }

    /// The same; sets `is_later` if the gate did not answer at once, as when it asks a server.
    pub(crate) async fn admit_noting(
        &self,
        conn: ConnInfo,
        is_later: &mut bool,
    ) -> Result<ReaderSession, ReaderRejection> {
        let id = self.0.seat.session();
        let address = origin_of(conn.remote.ip());
        let visit = Arc::new(ReaderEntry { id, address, state: Mutex::default(), news: Notify::new() });
        {
            let mut visits = self.0.visits.lock();
            if visits.is_over {
                return Err(ReaderRejection::Leaving);
            }
            if !visits.has_room(address) || self.0.seat.ledger().is_full() {
                return Err(ReaderRejection::Full);
            }
            *visits.by_address.entry(address).or_default() += 1;
            visits.all.insert(id, visit.clone());
        }
        let charge = self.0.seat.ledger().open(id, conn.remote.ip());
        let mut reader = ReaderSession::new(self.clone(), visit, charge);
        let answer = match self.0.seat.ask(id, conn) {
            GateAnswer::Now(answer) => answer,
            GateAnswer::Later => {
                *is_later = true;
                let answered = timeout(relay_model::limits::AUTH_TIMEOUT, reader.answered()).await;
                answered.unwrap_or(Err(Denial::TimedOut))
            }
        };
        let permit = answer.and_then(|permit| match permit.expires() {
            Some(at) if at <= self.0.seat.wall() => Err(Denial::Expired),
            _ => Ok(permit),
        });
        reader.start_session(permit.map_err(ReaderRejection::Denied)?)?;
        Ok(reader)
    }

    /// Whether new connections are refused for lack of memory.
    pub(crate) fn is_out_of_memory(&self) -> bool {
        self.0.seat.ledger().is_full()
    }

    /// Opens a charge for a connection from `address`; `exceeded` is notified when it must be closed.
    pub(crate) fn charge_connection(&self, address: IpAddr, exceeded: Arc<Notify>) -> (SessionId, Charge) {
        let id = self.0.seat.session();
        self.0.visits.lock().connections.insert(id, exceeded);
        (id, self.0.seat.ledger().open_pending(id, address))
    }

    /// Removes a connection that has ended.
    pub(crate) fn forget_connection(&self, id: SessionId) {
        self.0.visits.lock().connections.remove(&id);
    }

    async fn run(self) {
        let (mut messages, mut logs) = (VecDeque::new(), Vec::new());
        let mut checked = Instant::now();
        loop {
            // A stepped wall clock gives no notice: it is read periodically.
            let _ = timeout(RECHECK, self.0.wake.notified()).await;
            self.0.seat.take_messages(&mut messages);
            messages.drain(..).for_each(|message| self.handle_message(message));
            let is_board = self.store().ready_list(self.0.seat.worker()).take(&mut logs);
            self.notify_readers(&mut logs, is_board);
            if checked.elapsed() >= RECHECK {
                checked = Instant::now();
                self.expire(self.0.seat.wall());
            }
            self.send_events().await;
        }
    }

    /// Sends the queued events to core.
    async fn send_events(&self) {
        let told = {
            let mut events = self.0.events.lock();
            self.0.seat.send_events(&mut events)
        };
        match told {
            SendOutcome::Taken => {}
            SendOutcome::Behind => {
                self.0.wake.notify_one();
                sleep(AGAIN).await;
            }
            SendOutcome::Gone => {
                self.end_all(&CloseReason { code: SessionCode::NONE, reason: "going away".into() })
            }
        }
    }

    fn push(&self, event: CoreEvent) {
        self.0.events.lock().push(event);
        self.0.wake.notify_one();
    }

    fn notify_readers(&self, logs: &mut Vec<LogId>, is_board: bool) {
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

    fn find_reader(&self, session: SessionId) -> Option<Arc<ReaderEntry>> {
        self.0.visits.lock().all.get(&session).cloned()
    }

    fn every(&self) -> Vec<Arc<ReaderEntry>> {
        self.0.visits.lock().all.values().cloned().collect()
    }

    fn handle_message(&self, message: WorkerMessage) {
        match message {
            WorkerMessage::Answer(session, answer) => {
                self.change(session, |state| state.answer = Some(answer))
            }
            WorkerMessage::Revise(session, permit) => self.revise(session, permit),
            WorkerMessage::End { session, code, reason } => {
                if let Some(exceeded) = self.0.visits.lock().connections.get(&session) {
                    exceeded.notify_one();
                    return;
                }
                self.change(session, |state| {
                    state.close_reason.get_or_insert(CloseReason { code, reason });
                });
            }
            WorkerMessage::EndWhere { which, code, reason } => {
                self.every()
                    .iter()
                    .for_each(|visit| visit.revoke(&which, &CloseReason { code, reason: reason.clone() }));
            }
            WorkerMessage::Order(session, order) => match order {
                Order::Attach { log, .. } => self.change(session, |state| state.served = Some(Ok(log))),
                Order::Refuse { code, .. } => self.change(session, |state| state.served = Some(Err(code))),
                Order::Kill { code, reason } => {
                    let over = CloseReason { code, reason: reason.into() };
                    self.change(session, |state| {
                        state.close_reason.get_or_insert(over);
                    });
                }
                // Orders for publishers.
                Order::Open { .. }
                | Order::Prefs { .. }
                | Order::Close { .. }
                | Order::Asked { .. }
                | Order::Pull { .. }
                | Order::DropPull { .. } => {}
            },
            // A reader has few asks in flight; the other letters are for workers.
            WorkerMessage::AsksDone(..)
            | WorkerMessage::Inspect(_)
            | WorkerMessage::Arrive(_)
            | WorkerMessage::Link(..)
            | WorkerMessage::Unlinked(_) => {}
            // Sent when the relay ends.
            WorkerMessage::Drain(_) | WorkerMessage::Shutdown { .. } => {
                self.end_all(&CloseReason { code: SessionCode::NONE, reason: "going away".into() });
            }
        }
    }

    fn change(&self, session: SessionId, change: impl FnOnce(&mut ReaderStatus)) {
        if let Some(visit) = self.find_reader(session) {
            change(&mut visit.state.lock());
            visit.news.notify_one();
        }
    }

    /// Applies a new permit. A reader whose identity changed is ended and has to reconnect.
    fn revise(&self, session: SessionId, permit: Permit) {
        let Some(visit) = self.find_reader(session) else { return };
        let mut state = visit.state.lock();
        let Some(before) = state.permit.as_ref() else { return };
        if !permit.has_identity_of(before) {
            let reason = relay_worker::IDENTITY_CHANGED.into();
            state.close_reason.get_or_insert(CloseReason { code: SessionCode::UNAUTHORIZED, reason });
            visit.news.notify_one();
            return;
        }
        state.permit = Some(permit.clone());
        drop(state);
        self.push(CoreEvent::Revised { session, permit });
        visit.news.notify_one();
    }

    fn expire(&self, wall: SystemTime) {
        for visit in self.every() {
            let mut state = visit.state.lock();
            if state.permit.as_ref().and_then(Permit::expires).is_some_and(|at| at <= wall) {
                let reason = "expired".into();
                state.close_reason.get_or_insert(CloseReason { code: SessionCode::UNAUTHORIZED, reason });
                visit.news.notify_one();
            }
        }
    }

    fn end_all(&self, over: &CloseReason) {
        self.0.visits.lock().is_over = true;
        for visit in self.every() {
            visit.state.lock().close_reason.get_or_insert(over.clone());
            visit.news.notify_one();
        }
    }
}

impl ReaderTable {
    /// Whether `address` may have another reader.
    fn has_room(&self, address: IpAddr) -> bool {
        let own = self.by_address.get(&address).copied().unwrap_or_default();
        match self.all.len() {
            READERS.. => false,
            READERS_CONTENDED.. => own < READERS_PER_ADDRESS,
            _ => true,
        }
    }

    fn leave(&mut self, visit: &ReaderEntry) {
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

impl ReaderEntry {
    fn revoke(&self, which: &PermitFilter, over: &CloseReason) {
        let mut state = self.state.lock();
        match &state.permit {
            Some(permit) if which.matches(permit) => {
                state.close_reason.get_or_insert(over.clone());
            }
            Some(_) => {}
            None => state.revocations.push((which.clone(), over.clone())),
        }
        drop(state);
        self.news.notify_one();
    }
}

/// A reader that the gate was asked about; its session ends when it is dropped.
pub(crate) struct ReaderSession {
    hub: HttpReaders,
    visit: Arc<ReaderEntry>,
    began: Instant,
    /// Whether core knows the session.
    is_open: bool,
    is_admitted: bool,
    followed: Option<LogId>,
    charge: Charge,
    /// Response bytes sent.
    pub(crate) sent: u64,
}

impl ReaderSession {
    fn new(hub: HttpReaders, visit: Arc<ReaderEntry>, charge: Charge) -> Self {
        let began = Instant::now();
        let (is_open, is_admitted, followed, sent) = (false, false, None, 0);
        let mut reader = Self { hub, visit, began, is_open, is_admitted, followed, charge, sent };
        reader.hold(0);
        reader
    }

    /// Charges `bytes` of announce state to the reader, beside its fixed cost. A reader above its share is ended by a
    /// letter.
    pub(crate) fn hold(&mut self, bytes: u64) {
        let footprint = Footprint { connection: READER_BYTES, watches: bytes, ..Footprint::default() };
        self.charge.set(footprint);
    }

    async fn answered(&self) -> Result<Permit, Denial> {
        loop {
            if let Some(answer) = self.visit.state.lock().answer.take() {
                return answer;
            }
            self.changed().await;
        }
    }

    fn start_session(&mut self, permit: Permit) -> Result<(), ReaderRejection> {
        let mut state = self.visit.state.lock();
        let taken_back = std::mem::take(&mut state.revocations);
        if let Some((_, over)) = taken_back.into_iter().find(|(which, _)| which.matches(&permit)) {
            state.close_reason.get_or_insert(over);
            return Err(ReaderRejection::Denied(Denial::Expired));
        }
        state.permit = Some(permit);
        self.is_admitted = true;
        Ok(())
    }

    /// Current permit; `None`: the reader must end.
    pub(crate) fn permit(&self) -> Option<Permit> {
        let state = self.visit.state.lock();
        if state.close_reason.is_some() { None } else { state.permit.clone() }
    }

    /// The hub, whose worker id stands for the reader at the announce board and at logs.
    pub(crate) fn readers(&self) -> &HttpReaders {
        &self.hub
    }

    /// Waits for a change since the last call; may return without one.
    pub(crate) async fn changed(&self) {
        self.visit.news.notified().await;
    }

    /// Subscribes to changes of the announce board.
    pub(crate) fn watch(&self) {
        self.visit.state.lock().watches = true;
    }

    /// Sends a request to core.
    pub(crate) fn ask(&mut self, ask: Ask) {
        let session = self.visit.id;
        if !std::mem::replace(&mut self.is_open, true)
            && let Some(permit) = self.visit.state.lock().permit.clone()
        {
            self.hub.push(CoreEvent::Opened { session, permit });
        }
        self.hub.push(CoreEvent::Ask { session, ask });
    }

    /// Takes core's answer to the last request.
    pub(crate) fn served(&self) -> Option<Result<LogId, StreamCode>> {
        self.visit.state.lock().served.take()
    }

    /// Reads `log` from now on instead of the previous one, and is notified of its changes. `None`: the log is gone.
    pub(crate) fn follow(&mut self, log: LogId) -> Option<Arc<SharedFeed>> {
        self.unfollow();
        let feed = self.hub.store().log(log)?;
        let mut visits = self.hub.0.visits.lock();
        let followed = visits.by_log.entry(log).or_insert_with(|| Followed {
            tap: Arc::new(SharedFeed::new(feed.feed(self.hub.worker()))),
            readers: Vec::new(),
        });
        followed.readers.push(self.visit.clone());
        self.followed = Some(log);
        let mut state = self.visit.state.lock();
        (state.pulls, state.has_failed) = (None, false);
        Some(followed.tap.clone())
    }

    /// Requests an old group from the publisher.
    pub(crate) fn pull(&mut self, group: u64) {
        let mut state = self.visit.state.lock();
        if state.pulls.replace(group) == Some(group) {
            return;
        }
        state.has_failed = false;
        drop(state);
        self.ask(Ask::Pull { sub: SUB, group });
    }

    /// Whether the last [`Self::pull`] failed.
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

impl Drop for ReaderSession {
    fn drop(&mut self) {
        self.unfollow();
        let session = self.visit.id;
        self.hub.0.visits.lock().leave(&self.visit);
        if self.is_open {
            self.hub.push(CoreEvent::Closed { session, vanished: false });
        }
        let over = self.visit.state.lock().close_reason.clone();
        let by = if over.is_some() { EndedBy::Relay } else { EndedBy::Peer };
        self.hub.0.seat.ended(&SessionEnded {
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

impl ReaderRejection {
    /// HTTP response to a rejected reader.
    pub(crate) fn response(self) -> Response {
        match self {
            Self::Denied(denial) => empty(denied(denial)),
            Self::Full => plain(StatusCode::SERVICE_UNAVAILABLE, "too many readers\n"),
            Self::Leaving => plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        }
    }
}

impl HttpReaders {
    /// Number that differs after each start, so that cached answers of one relay are not taken for another's.
    pub(crate) fn boot(&self) -> u64 {
        self.0.boot
    }

    /// Worker id of the hub in the store.
    pub(crate) fn worker(&self) -> relay_model::WorkerId {
        self.0.seat.worker()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(visits: &mut ReaderTable, id: u64, address: &str) -> bool {
        let address = origin_of(address.parse().unwrap());
        if !visits.has_room(address) {
            return false;
        }
        let visit = ReaderEntry { id: SessionId(id), address, state: Mutex::default(), news: Notify::new() };
        visits.all.insert(visit.id, Arc::new(visit));
        *visits.by_address.entry(address).or_default() += 1;
        true
    }

    #[test]
    fn one_address_leaves_reader_places_for_others() {
        let (mut visits, mut ids) = (ReaderTable::default(), 0..);
        let mut fill = |visits: &mut ReaderTable, address: &str| {
            ids.by_ref().take_while(|id| enter(visits, *id, address)).count()
        };
        assert_eq!(fill(&mut visits, "2001:db8::1"), READERS_CONTENDED);
        assert_eq!(fill(&mut visits, "2001:db8::2"), 0, "the same /64");
        assert_eq!(fill(&mut visits, "192.0.2.1"), READERS_PER_ADDRESS);
        assert_eq!(fill(&mut visits, "127.0.0.1"), READERS_PER_ADDRESS, "loopback as well");
        let left = READERS - READERS_CONTENDED - 2 * READERS_PER_ADDRESS;
        assert_eq!(fill(&mut visits, "192.0.2.2") + fill(&mut visits, "192.0.2.3"), left);
        assert_eq!(fill(&mut visits, "192.0.2.4"), 0, "all are taken");
        let all: Vec<Arc<ReaderEntry>> = visits.all.values().cloned().collect();
        all.iter().for_each(|visit| visits.leave(visit));
        assert!(visits.all.is_empty() && visits.by_address.is_empty());
    }
}
