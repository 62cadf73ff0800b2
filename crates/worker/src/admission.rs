//! Admission of one session as a state machine, without clock, connection or I/O.
//!
//! The driver asks the gate, passes answers, permit changes, revocations and the time in, and closes the session
//! with the recorded [`CloseReason`] when a method returns that it must end. Sessions of workers and HTTP readers
//! use the same machine.

mod denial;
mod permit_filter;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use relay_auth::{Permit, Refusal};
use relay_model::{SessionCode, limits};

pub use denial::Denial;
pub use permit_filter::PermitFilter;

/// Close reason of a session whose new permit is for another root, subject or role.
pub const IDENTITY_CHANGED: &str = "token subject changed";
/// Close reason of a session whose permit has expired.
const EXPIRED: &str = "expired";

/// Code and reason with which the relay closes a session. The reason is sent to the peer and holds no secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// Close code.
    pub code: SessionCode,
    /// Reason text.
    pub reason: Arc<str>,
}

impl CloseReason {
    /// Combines a code and a reason.
    pub fn new(code: SessionCode, reason: &str) -> Self {
        Self { code, reason: reason.into() }
    }
}

impl From<Denial> for CloseReason {
    fn from(denial: Denial) -> Self {
        Self::new(denial.session_code(), &denial.to_string())
    }
}

/// Reason for which the gate's answer, or the lack of one, does not admit a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Denial, for counters and HTTP status codes.
    pub denial: Denial,
    /// Code and reason of the close.
    pub close: CloseReason,
}

impl From<Denial> for Rejection {
    fn from(denial: Denial) -> Self {
        Self { denial, close: denial.into() }
    }
}

/// Effect of a new permit on a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revision {
    /// None: the session is not admitted, or is being closed.
    Ignored,
    /// The permit is replaced.
    Replaced {
        /// Expiry of the previous permit.
        expired_at: Option<SystemTime>,
        /// Whether the scopes differ, so that core and the session must be informed.
        changes_scopes: bool,
    },
    /// The session must be closed, as its peer has to reconnect with the new identity.
    MustClose,
}

/// Last facts about a session's admission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionEnd {
    /// Permit, if it was admitted. `None` also in every call but the first.
    pub permit: Option<Permit>,
    /// Whether the gate was asked and has to be notified of the end. True once.
    pub is_owed: bool,
}

/// Progress of one session's admission.
#[derive(Debug, Default)]
pub struct SessionAdmission {
    phase: AdmissionPhase,
    /// Reason given by the relay for the end of the session; the first one counts.
    closing: Option<CloseReason>,
    /// Whether the gate was asked and not yet notified of the end.
    owes_end: bool,
}

#[derive(Debug, Default)]
enum AdmissionPhase {
    /// The gate was not asked yet.
    #[default]
    Unasked,
    /// The gate must answer by this time.
    Waiting {
        until: Instant,
        /// Revocations since the request, which the answer may be based on.
        revoked: Vec<Revocation>,
    },
    /// Admitted.
    Admitted(Permit),
    /// Rejected or ended; the permit is kept until the end is reported.
    Ended(Option<Permit>),
}

#[derive(Debug)]
struct Revocation {
    filter: PermitFilter,
    close: CloseReason,
}

impl SessionAdmission {
    /// Begins to wait for the gate's answer. False: it was asked before, or the session is being closed.
    pub fn ask(&mut self, now: Instant) -> bool {
        if !self.is_unasked() || self.closing.is_some() {
            return false;
        }
        self.phase = AdmissionPhase::Waiting { until: now + limits::AUTH_TIMEOUT, revoked: Vec::new() };
        self.owes_end = true;
        true
    }

    /// Applies the gate's answer. `None`: no answer is due, as after the first one.
    pub fn handle_answer(
        &mut self,
        answer: Result<Permit, Denial>,
        wall: SystemTime,
    ) -> Option<Result<Permit, Rejection>> {
        if self.closing.is_some() {
            return None;
        }
        let AdmissionPhase::Waiting { revoked, .. } = &self.phase else { return None };
        let permit = match answer {
            Ok(permit) if has_expired(&permit, wall) => {
                return Some(Err(self.reject(Denial::Expired.into())));
            }
            Ok(permit) => permit,
            Err(denial) => return Some(Err(self.reject(denial.into()))),
        };
        if let Some(hit) = revoked.iter().find(|revoked| revoked.filter.matches(&permit)) {
            let rejection = Rejection { denial: Refusal::Unauthorized.into(), close: hit.close.clone() };
            return Some(Err(self.reject(rejection)));
        }
        self.phase = AdmissionPhase::Admitted(permit.clone());
        Some(Ok(permit))
    }

    /// Rejects the session if the gate has not answered in time.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Rejection> {
        let is_due = self.deadline().is_some_and(|until| now >= until);
        is_due.then(|| self.reject(Denial::TimedOut.into()))
    }

    /// Time by which the gate must answer, while it has not.
    pub fn deadline(&self) -> Option<Instant> {
        match self.phase {
            AdmissionPhase::Waiting { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Replaces the permit.
    pub fn revise(&mut self, permit: Permit) -> Revision {
        if self.closing.is_some() {
            return Revision::Ignored;
        }
        let AdmissionPhase::Admitted(current) = &mut self.phase else { return Revision::Ignored };
        if !permit.has_identity_of(current) {
            self.closing = Some(CloseReason::new(SessionCode::UNAUTHORIZED, IDENTITY_CHANGED));
            return Revision::MustClose;
        }
        let changes_scopes =
            (current.publish(), current.subscribe()) != (permit.publish(), permit.subscribe());
        let before = std::mem::replace(current, permit);
        Revision::Replaced { expired_at: before.expires(), changes_scopes }
    }

    /// Ends an admitted session. True: it must be closed now.
    pub fn revoke(&mut self, close: CloseReason) -> bool {
        let is_open = self.is_open();
        if is_open {
            self.closing = Some(close);
        }
        is_open
    }

    /// Revokes the permits that match `filter`: also one that the gate may answer with later. True: the session
    /// must be closed now.
    pub fn revoke_where(&mut self, filter: &PermitFilter, close: &CloseReason) -> bool {
        match &mut self.phase {
            AdmissionPhase::Waiting { revoked, .. } => {
                revoked.push(Revocation { filter: filter.clone(), close: close.clone() });
                false
            }
            AdmissionPhase::Admitted(permit) => {
                self.closing.is_none() && filter.matches(permit) && self.revoke(close.clone())
            }
            AdmissionPhase::Unasked | AdmissionPhase::Ended(_) => false,
        }
    }

    /// Ends a session whose permit has expired. True: it must be closed now.
    pub fn expire(&mut self, wall: SystemTime) -> bool {
        let is_over = self.permit().is_some_and(|permit| has_expired(permit, wall));
        is_over && self.revoke(CloseReason::new(SessionCode::UNAUTHORIZED, EXPIRED))
    }

    /// Records the close of the session in any phase; the first reason counts.
    pub fn close(&mut self, close: CloseReason) {
        self.closing.get_or_insert(close);
    }

    /// Ends the session before it is open to its peer, and records its close.
    pub fn refuse(&mut self, close: CloseReason) {
        self.close(close);
        let permit = match std::mem::take(&mut self.phase) {
            AdmissionPhase::Admitted(permit) => Some(permit),
            AdmissionPhase::Ended(permit) => permit,
            AdmissionPhase::Unasked | AdmissionPhase::Waiting { .. } => None,
        };
        self.phase = AdmissionPhase::Ended(permit);
    }

    /// Ends the session.
    pub fn end(&mut self) -> AdmissionEnd {
        let ended = std::mem::replace(&mut self.phase, AdmissionPhase::Ended(None));
        let permit = match ended {
            AdmissionPhase::Admitted(permit) => Some(permit),
            AdmissionPhase::Ended(permit) => permit,
            AdmissionPhase::Unasked | AdmissionPhase::Waiting { .. } => None,
        };
        AdmissionEnd { permit, is_owed: std::mem::take(&mut self.owes_end) }
    }

    /// Permit of an admitted session that has not ended, even while it is being closed.
    #[inline]
    pub fn permit(&self) -> Option<&Permit> {
        match &self.phase {
            AdmissionPhase::Admitted(permit) => Some(permit),
            _ => None,
        }
    }

    /// Code and reason of the recorded close.
    #[inline]
    pub fn closing(&self) -> Option<&CloseReason> {
        self.closing.as_ref()
    }

    /// Whether the session is admitted and not being closed.
    pub fn is_open(&self) -> bool {
        self.permit().is_some() && self.closing.is_none()
    }

    /// Whether the gate was not asked yet.
    #[inline]
    pub fn is_unasked(&self) -> bool {
        matches!(self.phase, AdmissionPhase::Unasked)
    }

    /// Whether the gate was asked and has not answered.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, AdmissionPhase::Waiting { .. })
    }

    /// Whether the session was rejected or has ended.
    #[inline]
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, AdmissionPhase::Ended(_))
    }

    fn reject(&mut self, rejection: Rejection) -> Rejection {
        self.refuse(rejection.close.clone());
        rejection
    }
}

fn has_expired(permit: &Permit, wall: SystemTime) -> bool {
    permit.expires().is_some_and(|at| at <= wall)
}
