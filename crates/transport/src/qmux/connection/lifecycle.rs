//! Phases of a connection from the transport parameters to its end, and their deadlines.

use std::time::Instant;

use relay_model::{limits as model, transport::TransportClosed};

use crate::qmux::{ConnPhase, limits};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QmuxPhase {
    /// Waiting for the peer's transport parameters until then.
    Opening(Instant),
    Ready,
    /// Closed for the session; the socket is dropped when the peer has confirmed the close, or at `until`.
    Leaving {
        until: Instant,
        is_confirmed: bool,
    },
    Over,
}

/// Life cycle of a connection: its phase, and its first and last event until they are reported.
#[derive(Debug)]
pub(super) struct QmuxLifecycle {
    phase: QmuxPhase,
    closed: Option<TransportClosed>,
    is_ready_due: bool,
    /// Time of the last input.
    now: Instant,
}

impl QmuxLifecycle {
    /// Creates the life cycle of a new connection. `is_ready`: the framing has no transport parameters.
    pub(super) fn new(is_ready: bool, now: Instant) -> Self {
        let phase = if is_ready { QmuxPhase::Ready } else { QmuxPhase::Opening(now + model::SETUP_TIMEOUT) };
        Self { phase, closed: None, is_ready_due: is_ready, now }
    }

    /// Time of the last input.
    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// Notes the time of an input.
    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Returns whether the transport parameters of the peer are missing.
    pub(super) fn is_opening(&self) -> bool {
        matches!(self.phase, QmuxPhase::Opening(_))
    }

    /// Returns whether a session may use the connection.
    pub(super) fn is_ready(&self) -> bool {
        self.phase == QmuxPhase::Ready
    }

    /// Returns whether the connection is not closed.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, QmuxPhase::Opening(_) | QmuxPhase::Ready)
    }

    /// Returns whether nothing is left to send or to wait for.
    pub(super) fn is_over(&self) -> bool {
        self.phase == QmuxPhase::Over
    }

    /// Time at which the phase ends, or the connection is idle.
    pub(super) fn deadline(&self, idle: Instant) -> Option<Instant> {
        match self.phase {
            QmuxPhase::Opening(at) => Some(at.min(idle)),
            QmuxPhase::Ready => Some(idle),
            QmuxPhase::Leaving { until, .. } => Some(until),
            QmuxPhase::Over => None,
        }
    }

    /// Returns whether the transport parameters of the peer are overdue.
    pub(super) fn is_setup_overdue(&self) -> bool {
        matches!(self.phase, QmuxPhase::Opening(at) if self.now >= at)
    }

    /// Returns whether the wait for the peer's confirmation of the close has ended.
    pub(super) fn is_farewell_overdue(&self) -> bool {
        matches!(self.phase, QmuxPhase::Leaving { until, .. } if self.now >= until)
    }

    /// Phase for the driver. `has_output`: bytes are still to be sent.
    pub(super) fn phase(&self, has_output: bool) -> ConnPhase {
        match self.phase {
            QmuxPhase::Opening(_) => ConnPhase::Opening,
            QmuxPhase::Ready => ConnPhase::Ready,
            QmuxPhase::Leaving { is_confirmed: true, .. } if !has_output => ConnPhase::Drained,
            QmuxPhase::Leaving { .. } => ConnPhase::Closed,
            QmuxPhase::Over => ConnPhase::Drained,
        }
    }

    /// Enters `Ready`.
    pub(super) fn ready(&mut self) {
        (self.phase, self.is_ready_due) = (QmuxPhase::Ready, true);
    }

    /// Closes the session. `is_confirmed`: the peer has closed first.
    pub(super) fn leave(&mut self, closed: TransportClosed, is_confirmed: bool) {
        self.closed = Some(closed);
        self.phase = QmuxPhase::Leaving { until: self.now + limits::FAREWELL, is_confirmed };
    }

    /// Handles an item of the carrier after the close; returns whether the connection is leaving.
    pub(super) fn is_leaving(&mut self, is_close: bool) -> bool {
        let QmuxPhase::Leaving { is_confirmed, .. } = &mut self.phase else { return false };
        *is_confirmed |= is_close;
        true
    }

    /// Ends the connection; `closed` is the reason if it was still open.
    pub(super) fn end(&mut self, closed: Option<TransportClosed>) {
        if self.is_open() {
            self.closed = closed;
        }
        self.phase = QmuxPhase::Over;
    }

    /// Takes the first event, `Ready`.
    pub(super) fn take_ready(&mut self) -> bool {
        std::mem::take(&mut self.is_ready_due)
    }

    /// Returns whether the first event (before the close) or the last (after it) was not taken yet.
    pub(super) fn has_event(&self) -> bool {
        match self.phase {
            QmuxPhase::Opening(_) => false,
            QmuxPhase::Ready => self.is_ready_due,
            QmuxPhase::Leaving { .. } | QmuxPhase::Over => self.closed.is_some(),
        }
    }

    /// Takes the reason of the end, the last event.
    pub(super) fn take_closed(&mut self) -> Option<TransportClosed> {
        self.closed.take()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lost() -> TransportClosed {
        TransportClosed::Lost("x".to_owned())
    }

    #[test]
    fn setup_has_a_deadline() {
        let now = Instant::now();
        let idle = now + Duration::from_secs(3_600);
        let mut life = QmuxLifecycle::new(false, now);
        assert!(life.is_opening() && life.is_open() && !life.has_event());
        assert_eq!(life.deadline(idle), Some(now + model::SETUP_TIMEOUT));
        assert_eq!(life.deadline(now), Some(now));
        assert!(!life.is_setup_overdue());
        life.set_now(now + model::SETUP_TIMEOUT);
        assert!(life.is_setup_overdue());
        life.ready();
        assert!(!life.is_setup_overdue());
        assert_eq!(life.deadline(idle), Some(idle));
    }

    #[test]
    fn ready_is_reported_once() {
        let mut life = QmuxLifecycle::new(true, Instant::now());
        assert!(life.is_ready() && life.has_event());
        assert!(life.take_ready() && !life.take_ready());
        assert!(!life.has_event());
    }

    #[test]
    fn close_is_drained_once_confirmed_and_flushed() {
        let mut life = QmuxLifecycle::new(true, Instant::now());
        assert!(!life.is_leaving(true), "still open");
        life.leave(lost(), false);
        assert_eq!(life.phase(false), ConnPhase::Closed);
        assert!(life.is_leaving(false) && life.is_leaving(true));
        assert_eq!((life.phase(true), life.phase(false)), (ConnPhase::Closed, ConnPhase::Drained));
        assert!(life.has_event());
        assert_eq!((life.take_closed(), life.take_closed()), (Some(lost()), None));
    }

    #[test]
    fn unconfirmed_close_ends_at_its_deadline() {
        let now = Instant::now();
        let mut life = QmuxLifecycle::new(true, now);
        life.leave(lost(), false);
        assert_eq!(life.deadline(now), Some(now + limits::FAREWELL));
        life.set_now(now + limits::FAREWELL);
        assert!(life.is_farewell_overdue());
        life.end(None);
        assert!(life.is_over() && life.take_closed() == Some(lost()), "the first reason counts");
        assert_eq!((life.deadline(now), life.phase(true)), (None, ConnPhase::Drained));
    }
}
