//! One HTTP reader as a session: its charge, its requests to core, and the log it follows.

use std::{sync::Arc, time::Instant};

use axum::response::Response;
use hyper::StatusCode;
use relay_auth::{Permit, Refusal};
use relay_core::CoreEvent;
use relay_model::{Ask, LogId, SessionCode, StreamCode};
use relay_worker::{Charge, Denial, EndedBy, Footprint, SessionEnded};

use super::{
    HttpReaders, SUB,
    entry::{ReaderEntry, ReaderStatus},
};
use crate::{
    reply::{denied, empty, plain},
    shared_feed::SharedFeed,
};

/// Memory charged per reader, bytes: its task and a response in progress. Its connection is charged apart.
const READER_BYTES: u64 = 12 * 1024;

/// Reason for which a reader was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReaderRejection {
    /// Denied by the gate.
    Denied(Denial),
    /// The limit of readers or of session memory is reached.
    Full,
    /// The relay is about to end.
    Leaving,
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

/// A reader that the gate was asked about; its session ends when it is dropped.
pub(crate) struct ReaderSession {
    readers: HttpReaders,
    entry: Arc<ReaderEntry>,
    began: Instant,
    followed: Option<LogId>,
    charge: Charge,
    /// Response bytes sent.
    pub(crate) sent: u64,
}

impl ReaderSession {
    pub(super) fn new(readers: HttpReaders, entry: Arc<ReaderEntry>, charge: Charge) -> Self {
        let mut session = Self { readers, entry, began: Instant::now(), followed: None, charge, sent: 0 };
        session.hold(0);
        session
    }

    /// Charges `bytes` of announce state to the reader, beside its fixed cost. A reader above its share is ended by a
    /// message.
    pub(crate) fn hold(&mut self, bytes: u64) {
        let footprint = Footprint { connection: READER_BYTES, watches: bytes, ..Footprint::default() };
        self.charge.set(footprint);
    }

    /// Starts an admitted session.
    pub(super) fn start(&mut self) -> Result<(), ReaderRejection> {
        start(&self.entry.status.lock(), &mut self.charge)
    }

    /// Current permit; `None`: the reader must end.
    pub(crate) fn permit(&self) -> Option<Permit> {
        let status = self.entry.status.lock();
        let admission = &status.admission;
        admission.permit().filter(|_| admission.closing().is_none()).cloned()
    }

    /// The readers, whose worker id stands for this one at the announce board and at logs.
    pub(crate) fn readers(&self) -> &HttpReaders {
        &self.readers
    }

    /// Waits for a change since the last call; may return without one.
    pub(crate) async fn changed(&self) {
        self.entry.changed().await;
    }

    /// Subscribes to changes of the announce board.
    pub(crate) fn watch(&self) {
        self.entry.status.lock().watches = true;
    }

    /// Sends a request to core.
    pub(crate) fn ask(&self, ask: Ask) {
        let session = self.entry.id;
        let mut status = self.entry.status.lock();
        if !status.is_open
            && let Some(permit) = status.admission.permit().cloned()
        {
            status.is_open = true;
            // Pushed under the lock, so that core gets no revision before it.
            self.readers.push(CoreEvent::Opened { session, permit });
        }
        drop(status);
        self.readers.push(CoreEvent::Ask { session, ask });
    }

    /// Takes core's answer to the last request.
    pub(crate) fn served(&self) -> Option<Result<LogId, StreamCode>> {
        self.entry.status.lock().served.take()
    }

    /// Reads `log` from now on instead of the previous one, and is notified of its changes. `None`: the log is gone.
    pub(crate) fn follow(&mut self, log: LogId) -> Option<Arc<SharedFeed>> {
        self.unfollow();
        let source = self.readers.store().log(log)?;
        let open = || SharedFeed::new(source.feed(self.readers.worker()));
        let feed = self.readers.0.table.lock().follow(log, &self.entry, open);
        self.followed = Some(log);
        let mut status = self.entry.status.lock();
        (status.pulls, status.has_failed) = (None, false);
        Some(feed)
    }

    /// Requests an old group from the publisher.
    pub(crate) fn pull(&self, group: u64) {
        let mut status = self.entry.status.lock();
        if status.pulls.replace(group) == Some(group) {
            return;
        }
        status.has_failed = false;
        drop(status);
        self.ask(Ask::Pull { sub: SUB, group });
    }

    /// Whether the last [`Self::pull`] failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.entry.status.lock().has_failed
    }

    fn unfollow(&mut self) {
        if let Some(log) = self.followed.take() {
            self.readers.0.table.lock().unfollow(log, self.entry.id);
        }
    }
}

/// Charges an admitted reader as what its permit makes it: a client or a relay of the cluster.
fn start(status: &ReaderStatus, charge: &mut Charge) -> Result<(), ReaderRejection> {
    let admission = &status.admission;
    if let Some(permit) = admission.permit() {
        if permit.is_peer() {
            charge.make_peer();
        }
        return Ok(());
    }
    if let Some(rejection) = &status.rejection {
        return Err(ReaderRejection::Denied(rejection.denial));
    }
    // It was ended while it waited for the gate.
    Err(match admission.closing().map(|close| close.code) {
        Some(SessionCode::MEMORY_SHARE) => ReaderRejection::Full,
        Some(SessionCode::NONE) => ReaderRejection::Leaving,
        _ => ReaderRejection::Denied(Refusal::Unauthorized.into()),
    })
}

impl Drop for ReaderSession {
    fn drop(&mut self) {
        self.unfollow();
        let session = self.entry.id;
        self.readers.0.table.lock().leave(&self.entry);
        let (end, close) = {
            let mut status = self.entry.status.lock();
            if std::mem::take(&mut status.is_open) {
                self.readers.push(CoreEvent::Closed { session, vanished: false });
            }
            (status.admission.end(), status.admission.closing().cloned())
        };
        if !end.is_owed {
            return;
        }
        self.readers.0.worker.ended(&SessionEnded {
            session,
            admitted: end.permit.is_some(),
            bytes_in: 0,
            bytes_out: self.sent,
            lasted: self.began.elapsed(),
            by: if close.is_some() { EndedBy::Relay } else { EndedBy::Peer },
            code: close.as_ref().map(|close| close.code),
            reason: close.as_ref().map_or("", |close| &close.reason),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::SystemTime};

    use relay_auth::Policy;
    use relay_model::{Scope, SessionId, WorkerId};
    use relay_worker::{CloseReason, MemoryLedger, StateLimits};

    use super::*;

    fn charge(ledger: &Arc<MemoryLedger>) -> Charge {
        let mut charge = ledger.open(SessionId::new(WorkerId(0), 1), Ipv4Addr::LOCALHOST.into());
        charge.set(Footprint { connection: READER_BYTES, ..Footprint::default() });
        charge
    }

    fn admitted(policy: &Policy) -> ReaderStatus {
        let mut status = ReaderStatus::default();
        let wall = SystemTime::now();
        assert!(status.admission.ask(Instant::now()));
        let answer = policy.admit("/", wall).map_err(Denial::from);
        assert!(status.admission.handle_answer(answer, wall).is_some_and(|answer| answer.is_ok()));
        status
    }

    #[test]
    fn reader_with_a_relay_permit_is_charged_as_a_relay() {
        let policy = Policy::public(Scope::everything(), Scope::everything());
        for (policy, of_peers) in [(policy.clone(), 0), (policy.for_peers(), READER_BYTES)] {
            let ledger = MemoryLedger::new(StateLimits { clients: 1 << 20, peers: 1 << 20 });
            let mut charge = charge(&ledger);
            assert_eq!(start(&admitted(&policy), &mut charge), Ok(()));
            let counts = ledger.counts();
            assert_eq!((counts.peers, counts.clients), (of_peers, READER_BYTES - of_peers));
        }
    }

    #[test]
    fn reader_ended_while_waiting_gets_the_reason() {
        let ledger = MemoryLedger::new(StateLimits { clients: 1 << 20, peers: 1 << 20 });
        for (code, rejection) in [
            (SessionCode::MEMORY_SHARE, ReaderRejection::Full),
            (SessionCode::NONE, ReaderRejection::Leaving),
            (SessionCode::UNAUTHORIZED, ReaderRejection::Denied(Refusal::Unauthorized.into())),
        ] {
            let mut status = ReaderStatus::default();
            status.admission.ask(Instant::now());
            status.admission.close(CloseReason::new(code, "ended"));
            assert_eq!(start(&status, &mut charge(&ledger)), Err(rejection));
        }
    }
}
