//! One connection of a worker and its session.

use std::time::Instant;

use relay_model::SessionId;
use relay_session::Session;

use super::carrier::PeerCarrier;
use crate::{admission::SessionAdmission, ledger::Charge};

/// A connection, from its first packet until nothing more is sent on it.
pub(super) struct WorkerPeer {
    /// Id of the session, assigned at the start.
    pub(super) id: SessionId,
    pub(super) carrier: PeerCarrier,
    pub(super) session: Option<Box<Session>>,
    pub(super) admission: SessionAdmission,
    /// Deadline for the request.
    pub(super) admit_by: Instant,
    /// Whether segmented sends failed on its path.
    pub(super) unsegmented: bool,
    /// Whether it has announced anything.
    pub(super) publishes: bool,
    /// Progress of its departure while the relay drains.
    pub(super) leaving: Option<Leaving>,
    /// Charge for its memory.
    pub(super) charge: Charge,
}

/// Next step of a session that stays open while the relay drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// Begins no more groups from this time on.
    WindDown(Instant),
    /// Finishes the groups it has begun.
    Winding,
    /// Is closed at this time.
    Close(Instant),
}

/// Progress of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PeerState {
    /// Not admitted, or without a session: its socket is still to be handed over.
    Pending,
    /// Admitted and known to core.
    Open,
    /// Refused or ended; only the connection's close is left.
    Over,
}

impl WorkerPeer {
    pub(super) fn new(id: SessionId, carrier: PeerCarrier, admit_by: Instant, charge: Charge) -> Self {
        Self {
            id,
            carrier,
            session: None,
            admission: SessionAdmission::default(),
            admit_by,
            unsegmented: false,
            publishes: false,
            leaving: None,
            charge,
        }
    }

    #[inline]
    pub(super) fn state(&self) -> PeerState {
        if self.admission.has_ended() {
            PeerState::Over
        } else if self.session.is_some() && self.admission.permit().is_some() {
            PeerState::Open
        } else {
            PeerState::Pending
        }
    }

    /// Deadline of the worker for the peer.
    #[inline]
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ends_at().into_iter().chain(self.leaves_at()).min()
    }

    /// Deadline for the current step of its setup.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        if self.state() != PeerState::Pending {
            return None;
        }
        if self.admission.is_waiting() {
            return self.admission.deadline();
        }
        match &self.carrier {
            PeerCarrier::Stream(stream) => Some(stream.socket_by.unwrap_or(self.admit_by)),
            // The endpoint has its own handshake timeout.
            PeerCarrier::Quic(_) => self.session.is_some().then_some(self.admit_by),
        }
    }

    /// Deadline for the next step of its departure.
    pub(super) fn leaves_at(&self) -> Option<Instant> {
        match self.leaving {
            Some(Leaving::WindDown(at) | Leaving::Close(at)) if self.state() == PeerState::Open => Some(at),
            _ => None,
        }
    }

    /// Whether its session still has input to read before it learns of the connection's end.
    pub(super) fn has_unread_end(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.closed().is_none())
    }
}
