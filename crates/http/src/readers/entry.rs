//! State of one HTTP reader that the task of the readers changes.

use std::{
    net::IpAddr,
    time::{Instant, SystemTime},
};

use parking_lot::Mutex;
use relay_auth::Permit;
use relay_core::CoreEvent;
use relay_model::{LogId, SessionId, StreamCode};
use relay_worker::{CloseReason, Denial, PermitFilter, Rejection, Revision, SessionAdmission};
use tokio::{sync::Notify, time::timeout};

/// One reader.
pub(super) struct ReaderEntry {
    pub(super) id: SessionId,
    /// Address that the reader is counted under.
    pub(super) address: IpAddr,
    pub(super) status: Mutex<ReaderStatus>,
    /// Notified when the status changes.
    changed: Notify,
}

/// Admission of a reader, and the answers to its requests.
#[derive(Default)]
pub(super) struct ReaderStatus {
    pub(super) admission: SessionAdmission,
    /// Reason for which the gate did not admit it.
    pub(super) rejection: Option<Rejection>,
    /// Whether core knows the session.
    pub(super) is_open: bool,
    pub(super) served: Option<Result<LogId, StreamCode>>,
    pub(super) watches: bool,
    /// Group requested from the publisher, and whether that request failed.
    pub(super) pulls: Option<u64>,
    pub(super) has_failed: bool,
}

impl ReaderEntry {
    /// Creates a reader that the gate was not asked about.
    pub(super) fn new(id: SessionId, address: IpAddr) -> Self {
        Self { id, address, status: Mutex::default(), changed: Notify::new() }
    }

    /// Changes the status and notifies the reader.
    pub(super) fn change(&self, change: impl FnOnce(&mut ReaderStatus)) {
        change(&mut self.status.lock());
        self.changed.notify_one();
    }

    /// Waits for a change since the last call; may return without one.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether it watches the announce board.
    pub(super) fn watches(&self) -> bool {
        self.status.lock().watches
    }

    /// Begins to wait for the gate's answer.
    pub(super) fn begin_waiting(&self, now: Instant) {
        self.status.lock().admission.ask(now);
    }

    /// Applies the gate's answer.
    pub(super) fn answer(&self, answer: Result<Permit, Denial>, wall: SystemTime) {
        self.change(|status| {
            if let Some(Err(rejection)) = status.admission.handle_answer(answer, wall) {
                status.rejection = Some(rejection);
            }
        });
    }

    /// Waits until the gate has answered, the reader must end, or the time for an answer is over.
    pub(super) async fn wait_for_answer(&self) {
        loop {
            let until = {
                let admission = &self.status.lock().admission;
                admission.deadline().filter(|_| admission.closing().is_none())
            };
            let Some(until) = until else { return };
            let left = until.saturating_duration_since(Instant::now());
            if timeout(left, self.changed()).await.is_err() {
                let mut status = self.status.lock();
                if let Some(rejection) = status.admission.handle_timeout(Instant::now()) {
                    status.rejection = Some(rejection);
                }
            }
        }
    }

    /// Applies a new permit. `push` sends the change to core, if core has to know it.
    pub(super) fn revise(&self, permit: Permit, push: impl FnOnce(CoreEvent)) {
        self.change(|status| {
            let revision = status.admission.revise(permit.clone());
            if status.is_open && matches!(revision, Revision::Replaced { changes_scopes: true, .. }) {
                push(CoreEvent::Revised { session: self.id, permit });
            }
        });
    }

    /// Revokes the permits that match `filter`.
    pub(super) fn revoke_where(&self, filter: &PermitFilter, close: &CloseReason) {
        self.change(|status| {
            status.admission.revoke_where(filter, close);
        });
    }

    /// Ends the reader if its permit has expired.
    pub(super) fn expire(&self, wall: SystemTime) {
        let mut status = self.status.lock();
        if status.admission.expire(wall) {
            self.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use relay_auth::Policy;
    use relay_model::{Path, Scope, SessionCode};
    use relay_worker::IDENTITY_CHANGED;

    use super::*;

    fn policy() -> Policy {
        Policy::public(Scope::everything(), Scope::everything())
    }

    fn permit(policy: &Policy, path: &str) -> Permit {
        policy.admit(path, SystemTime::now()).unwrap()
    }

    /// A reader with a permit, known to core.
    fn reader(permit: Permit) -> ReaderEntry {
        let entry = ReaderEntry::new(SessionId(1), Ipv4Addr::LOCALHOST.into());
        entry.begin_waiting(Instant::now());
        entry.answer(Ok(permit), SystemTime::now());
        entry.change(|status| status.is_open = true);
        assert!(entry.status.lock().admission.is_open());
        entry
    }

    fn revise(entry: &ReaderEntry, permit: Permit) -> Option<CoreEvent> {
        let mut event = None;
        entry.revise(permit, |pushed| event = Some(pushed));
        event
    }

    #[test]
    fn reader_ends_when_its_permit_changes_identity() {
        let others = [
            permit(&policy().with_subject("mallory"), "/room"),
            permit(&policy(), "/lobby"),
            permit(&policy().for_peers(), "/room"),
        ];
        for other in others {
            let entry = reader(permit(&policy(), "/room"));
            assert_eq!(revise(&entry, other), None, "core keeps the identity");
            let close = CloseReason::new(SessionCode::UNAUTHORIZED, IDENTITY_CHANGED);
            assert_eq!(entry.status.lock().admission.closing(), Some(&close));
        }
    }

    #[test]
    fn core_gets_changed_scopes_of_known_readers_only() {
        let wide = permit(&policy(), "/room");
        let cams = Scope::of([Path::parse("room/cam").unwrap()]);
        let narrow = permit(&Policy::public(cams.clone(), cams), "/room");
        let entry = reader(wide.clone());
        assert_eq!(revise(&entry, wide.clone()), None, "nothing changes");
        let expected = CoreEvent::Revised { session: SessionId(1), permit: narrow.clone() };
        assert_eq!(revise(&entry, narrow.clone()), Some(expected));
        assert_eq!(entry.status.lock().admission.permit(), Some(&narrow));
        let entry = reader(wide);
        entry.change(|status| status.is_open = false);
        assert_eq!(revise(&entry, narrow), None, "core gets the permit when it opens");
    }

    #[test]
    fn panicking_permit_filter_ends_a_reader() {
        let entry = reader(permit(&policy(), "/"));
        let close = CloseReason::new(SessionCode::UNAUTHORIZED, "revoked");
        entry.revoke_where(&PermitFilter::new(|_| panic!("injected")), &close);
        assert_eq!(entry.status.lock().admission.closing(), Some(&close));
    }

    #[tokio::test]
    async fn reader_without_answer_is_rejected_in_time() {
        let entry = ReaderEntry::new(SessionId(1), Ipv4Addr::LOCALHOST.into());
        // Asked long ago: the deadline is over.
        let asked = Instant::now().checked_sub(relay_model::limits::AUTH_TIMEOUT).unwrap();
        entry.begin_waiting(asked);
        entry.wait_for_answer().await;
        let rejection = entry.status.lock().rejection.clone();
        assert_eq!(rejection.map(|rejection| rejection.denial), Some(Denial::TimedOut));
        entry.answer(Ok(permit(&policy(), "/")), SystemTime::now());
        assert!(!entry.status.lock().admission.is_open(), "too late");
    }
}
