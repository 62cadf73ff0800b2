//! Phases of a connection from the handshake to its end, and their deadlines.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{ConnectionError, VarInt};
use relay_model::{SessionCode, limits, transport::TransportClosed};

use crate::quic::{ConnPhase, code};

/// Time for a close capsule or a refusal to arrive before the connection is closed.
const FAREWELL: Duration = Duration::from_secs(1);

/// CONNECTION_CLOSE of the application (RFC 9000 §19.19) that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CloseFrame {
    pub(super) code: VarInt,
    pub(super) reason: Bytes,
}

impl CloseFrame {
    /// Creates a close with an HTTP/3 error code.
    pub(super) fn of_h3(code: u32, reason: &'static str) -> Self {
        Self { code: VarInt::from_u32(code), reason: Bytes::from_static(reason.as_bytes()) }
    }

    /// Creates a close with a session code.
    pub(super) fn of_session(code: SessionCode, reason: &str) -> Self {
        Self { code: code::session_to_wire(code), reason: Bytes::copy_from_slice(reason.as_bytes()) }
    }
}

/// Phase of a connection.
#[derive(Debug)]
enum QuicPhase {
    /// Handshake or CONNECT in progress; closed at the deadline.
    Opening(Instant),
    Ready,
    /// Closed for the session; the connection is closed with the frame at the deadline.
    Leaving(Instant, CloseFrame),
    /// Closed.
    Over,
}

/// Life cycle of a connection: its phase, and the reason of its end until that is reported.
#[derive(Debug)]
pub(super) struct Lifecycle {
    phase: QuicPhase,
    /// First reason of the end.
    closed: Option<TransportClosed>,
    /// Time of the last input, for `poll`, which has no time argument.
    now: Instant,
}

impl Lifecycle {
    /// Creates the life cycle of a connection whose handshake begins.
    pub(super) fn new(now: Instant) -> Self {
        Self { phase: QuicPhase::Opening(now + limits::SETUP_TIMEOUT), closed: None, now }
    }

    /// Time of the last input.
    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// Notes the time of an input.
    #[inline]
    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Phase, as long as the QUIC state machine is not closed.
    pub(super) fn phase(&self) -> ConnPhase {
        match self.phase {
            QuicPhase::Opening(_) => ConnPhase::Opening,
            QuicPhase::Ready => ConnPhase::Ready,
            QuicPhase::Leaving(..) | QuicPhase::Over => ConnPhase::Closed,
        }
    }

    /// Returns whether the handshake or CONNECT is in progress.
    #[inline]
    pub(super) fn is_opening(&self) -> bool {
        matches!(self.phase, QuicPhase::Opening(_))
    }

    /// Returns whether a session may use the connection.
    #[inline]
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.phase, QuicPhase::Ready)
    }

    /// Time at which [`Self::take_due`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            QuicPhase::Opening(at) | QuicPhase::Leaving(at, _) => Some(at),
            QuicPhase::Ready | QuicPhase::Over => None,
        }
    }

    /// Ends an overdue phase at the time of the last input; returns the close to send.
    pub(super) fn take_due(&mut self) -> Option<CloseFrame> {
        match &self.phase {
            QuicPhase::Opening(at) if self.now >= *at => {
                let why = "setup timeout";
                self.end(TransportClosed::Lost(why.to_owned()));
                Some(CloseFrame::of_session(SessionCode::TIMEOUT, why))
            }
            QuicPhase::Leaving(at, _) if self.now >= *at => self.take_leave(),
            _ => None,
        }
    }

    /// Ends the wait for the arrival of a close capsule or a refusal; returns the close to send.
    pub(super) fn take_leave(&mut self) -> Option<CloseFrame> {
        match std::mem::replace(&mut self.phase, QuicPhase::Over) {
            QuicPhase::Leaving(_, close) => Some(close),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Enters `Ready`.
    pub(super) fn ready(&mut self) {
        self.phase = QuicPhase::Ready;
    }

    /// Waits for a close capsule or a refusal to arrive, then for `close` to be sent.
    pub(super) fn leave(&mut self, close: CloseFrame) {
        self.phase = QuicPhase::Leaving(self.now + FAREWELL, close);
    }

    /// Ends the connection at once; only the first reason counts.
    pub(super) fn end(&mut self, closed: TransportClosed) {
        self.note_closed(closed);
        self.phase = QuicPhase::Over;
    }

    /// Records the reason of the end unless there is one.
    pub(super) fn note_closed(&mut self, closed: TransportClosed) {
        self.closed.get_or_insert(closed);
    }

    /// Ends the connection for a reason reported by the QUIC library.
    pub(super) fn lost(&mut self, reason: ConnectionError) {
        self.end(match reason {
            ConnectionError::ApplicationClosed(close) => TransportClosed::ByPeer(
                code::session_from_wire(close.error_code),
                String::from_utf8_lossy(&close.reason).into_owned(),
            ),
            ConnectionError::LocallyClosed => TransportClosed::ByUs,
            other => TransportClosed::Lost(other.to_string()),
        });
    }

    /// Returns whether the reason of the end was not reported yet.
    #[inline]
    pub(super) fn has_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Takes the reason of the end; returned once.
    #[inline]
    pub(super) fn take_closed(&mut self) -> Option<TransportClosed> {
        self.closed.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(why: &str) -> TransportClosed {
        TransportClosed::Lost(why.to_owned())
    }

    #[test]
    fn setup_ends_at_its_deadline() {
        let start = Instant::now();
        let mut life = Lifecycle::new(start);
        assert_eq!(life.deadline(), Some(start + limits::SETUP_TIMEOUT));
        life.set_now(start + limits::SETUP_TIMEOUT - Duration::from_millis(1));
        assert_eq!(life.take_due(), None);
        assert!(life.is_opening());
        life.set_now(start + limits::SETUP_TIMEOUT);
        let close = life.take_due().unwrap();
        assert_eq!(close, CloseFrame::of_session(SessionCode::TIMEOUT, "setup timeout"));
        assert_eq!((life.phase(), life.deadline()), (ConnPhase::Closed, None));
        assert_eq!(life.take_closed(), Some(lost("setup timeout")));
    }

    #[test]
    fn ready_connection_has_no_deadline() {
        let start = Instant::now();
        let mut life = Lifecycle::new(start);
        life.ready();
        life.set_now(start + limits::SETUP_TIMEOUT * 2);
        assert!(life.is_ready() && life.deadline().is_none() && life.take_due().is_none());
        assert!(life.take_leave().is_none());
        assert!(life.is_ready(), "only a leaving connection has a close to take");
    }

    #[test]
    fn close_is_sent_after_the_farewell() {
        let start = Instant::now();
        let mut life = Lifecycle::new(start);
        life.ready();
        let close = CloseFrame::of_h3(0x100, "");
        life.leave(close.clone());
        assert_eq!((life.phase(), life.take_due()), (ConnPhase::Closed, None));
        life.set_now(start + FAREWELL);
        assert_eq!((life.take_due(), life.take_due()), (Some(close), None));
    }

    #[test]
    fn first_reason_is_the_one_reported() {
        let mut life = Lifecycle::new(Instant::now());
        life.end(lost("a"));
        life.lost(ConnectionError::LocallyClosed);
        assert!(life.has_closed());
        assert_eq!((life.take_closed(), life.take_closed()), (Some(lost("a")), None));
    }
}
