//! Handle for changing admitted sessions.

use std::{fmt, sync::Arc};

use relay_auth::Permit;
use relay_model::{SessionCode, SessionId};

use crate::{
    admission::{CloseReason, PermitFilter},
    mailbox::{Mailbox, WorkerMessage},
};

/// Handle for changing admitted sessions, from any thread. Ids are never reused: calls for an ended session
/// do nothing.
#[derive(Clone)]
pub struct SessionControl(Arc<[Arc<Mailbox>]>);

impl SessionControl {
    pub(crate) fn new(mailboxes: &[Arc<Mailbox>]) -> Self {
        Self(mailboxes.into())
    }

    /// Ends an admitted session. The peer is sent `reason`, which must not hold secrets.
    pub fn end(&self, session: SessionId, code: SessionCode, reason: &str) {
        self.post(session, WorkerMessage::End { session, close: CloseReason::new(code, reason) });
    }

    /// Replaces the permit of an admitted session: what it no longer allows ends, what it newly allows
    /// becomes visible, and its expiry replaces the old one. With another root or subject the session ends,
    /// as its peer must reconnect.
    pub fn revise(&self, session: SessionId, permit: Permit) {
        self.post(session, WorkerMessage::Revise(session, permit));
    }

    /// Ends every session whose permit matches `which`, such as those of a removed key or a revoked subject.
    /// Call it once new answers are no longer based on the revoked credential; pending answers based on it
    /// are rejected too. `which` runs on the workers' threads and must not block; a panic in it matches every
    /// permit.
    pub fn end_where(
        &self,
        code: SessionCode,
        reason: &str,
        which: impl Fn(&Permit) -> bool + Send + Sync + 'static,
    ) {
        let (filter, close) = (PermitFilter::new(which), CloseReason::new(code, reason));
        for mailbox in &*self.0 {
            let (filter, close) = (filter.clone(), close.clone());
            mailbox.post(&mut vec![WorkerMessage::EndWhere { filter, close }]);
        }
    }

    fn post(&self, session: SessionId, message: WorkerMessage) {
        if let Some(mailbox) = self.0.get(usize::from(session.worker().0)) {
            mailbox.post(&mut vec![message]);
        }
    }
}

impl fmt::Debug for SessionControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionControl").finish_non_exhaustive()
    }
}
