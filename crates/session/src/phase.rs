//! Lifecycle of a session.

use relay_model::{SessionCode, transport::TransportClosed};

/// Stage of a session's life. It only moves forward.
#[derive(Debug, Default)]
pub(crate) enum Phase {
    /// Requests are accepted and groups are started.
    #[default]
    Running,
    /// The peer was asked to move to another session.
    Draining,
    /// Started groups are finished, and no others are started.
    WindingDown,
    /// The session has closed its transport, which has yet to confirm it.
    Closing(LocalClose),
    /// The transport has ended.
    Closed(TransportClosed, Option<LocalClose>),
}

/// Close code and reason of a session that closed itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalClose {
    pub(crate) code: SessionCode,
    pub(crate) reason: Box<str>,
}

impl Phase {
    /// Moves to [`Self::Draining`]. True once, unless a later phase was reached.
    pub(crate) fn drain(&mut self) -> bool {
        let is_running = matches!(self, Self::Running);
        if is_running {
            *self = Self::Draining;
        }
        is_running
    }

    /// Moves to [`Self::WindingDown`]. True once, unless the session is over.
    pub(crate) fn wind_down(&mut self) -> bool {
        let begins = matches!(self, Self::Running | Self::Draining);
        if begins {
            *self = Self::WindingDown;
        }
        begins
    }

    /// Moves to [`Self::Closing`]. True once, unless the session is over.
    pub(crate) fn close(&mut self, code: SessionCode, reason: &str) -> bool {
        let begins = !self.is_over();
        if begins {
            *self = Self::Closing(LocalClose { code, reason: reason.into() });
        }
        begins
    }

    /// Moves to [`Self::Closed`].
    pub(crate) fn end(&mut self, why: TransportClosed) {
        *self = match std::mem::take(self) {
            Self::Closing(local) => Self::Closed(why, Some(local)),
            Self::Closed(_, local) => Self::Closed(why, local),
            _ => Self::Closed(why, None),
        };
    }

    /// Whether groups and requests may be started.
    pub(crate) fn accepts(&self) -> bool {
        matches!(self, Self::Running | Self::Draining)
    }

    /// Whether the session is closing or closed.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Self::Closing(_) | Self::Closed(..))
    }

    /// Reason the transport ended.
    pub(crate) fn closed(&self) -> Option<&TransportClosed> {
        match self {
            Self::Closed(why, _) => Some(why),
            _ => None,
        }
    }

    /// Close code and reason, if the session closed itself.
    pub(crate) fn local_close(&self) -> Option<&LocalClose> {
        match self {
            Self::Closing(local) | Self::Closed(_, Some(local)) => Some(local),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_taken_once() {
        let mut phase = Phase::default();
        assert!(phase.drain() && !phase.drain() && phase.accepts());
        assert!(phase.wind_down() && !phase.wind_down() && !phase.accepts());
        assert!(!phase.drain(), "a session that winds down does not drain again");
        assert!(phase.close(SessionCode::TIMEOUT, "setup timeout") && !phase.close(SessionCode::NONE, ""));
        assert!(phase.is_over() && !phase.wind_down() && phase.closed().is_none());
    }

    #[test]
    fn local_close_survives_the_end() {
        let mut phase = Phase::default();
        phase.close(SessionCode::TIMEOUT, "setup timeout");
        phase.end(TransportClosed::ByUs);
        assert_eq!(phase.closed(), Some(&TransportClosed::ByUs));
        assert_eq!(phase.local_close().map(|local| local.code), Some(SessionCode::TIMEOUT));

        let mut phase = Phase::default();
        phase.end(TransportClosed::Lost("idle".to_owned()));
        assert!(phase.is_over() && phase.local_close().is_none());
        assert!(!phase.close(SessionCode::NONE, "late"), "nothing is closed after the end");
    }
}
