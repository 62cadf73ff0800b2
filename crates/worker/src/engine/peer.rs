//! One connection of a worker and what lives on it.

use std::time::Instant;

use relay_model::SessionId;
use relay_session::Session;
use relay_transport::quic::ConnKey;

/// A connection, from its first packet until nothing more is sent on it.
pub(super) struct Peer {
    /// The session's id, from the start.
    pub(super) id: SessionId,
    pub(super) conn: ConnKey,
    pub(super) session: Option<Box<Session>>,
    pub(super) state: State,
    /// When it must be let in.
    pub(super) admit_by: Instant,
    /// Segmented sends failed on its path.
    pub(super) unsegmented: bool,
    /// In the worker's list of peers to settle.
    pub(super) is_touched: bool,
    /// In the worker's list of peers to flush.
    pub(super) is_dirty: bool,
    /// A deadline has passed.
    pub(super) is_due: bool,
}

/// How far a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The connection is not ready: no session yet.
    Opening,
    /// The session waits to be let in.
    Waiting,
    /// Let in; core knows it.
    Open {
        /// When its permit ends.
        until: Option<Instant>,
    },
    /// Refused or ended: only the connection's close is left.
    Over,
}

impl Peer {
    pub(super) fn new(id: SessionId, conn: ConnKey, admit_by: Instant) -> Self {
        Self {
            id,
            conn,
            session: None,
            state: State::Opening,
            admit_by,
            unsegmented: false,
            is_touched: false,
            is_dirty: false,
            is_due: false,
        }
    }

    /// When the worker itself has to act on it.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            // Until it is ready the connection keeps the time itself.
            State::Opening | State::Over => None,
            State::Waiting => Some(self.admit_by),
            State::Open { until } => until,
        }
    }
}
