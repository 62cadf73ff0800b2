//! One connection of a worker and its session.

use std::time::Instant;

use relay_auth::Permit;
use relay_model::SessionId;
use relay_session::Session;

use super::{carrier::PeerCarrier, guard, trace::Parting};
use crate::{gate::PermitFilter, ledger::Charge};

/// A connection, from its first packet until nothing more is sent on it.
pub(super) struct WorkerPeer {
    /// Id of the session, assigned at the start.
    pub(super) id: SessionId,
    pub(super) carrier: PeerCarrier,
    pub(super) session: Option<Box<Session>>,
    pub(super) state: PeerState,
    /// Permissions, once it is admitted or has a place.
    pub(super) permit: Option<Permit>,
    /// Permits revoked while it waits for an answer, which may be based on them.
    pub(super) taken_back: Vec<TakenBack>,
    /// Whether the gate was asked about it and not yet notified of its end.
    pub(super) is_asked: bool,
    /// Deadline for admission.
    pub(super) admit_by: Instant,
    /// Whether segmented sends failed on its path.
    pub(super) unsegmented: bool,
    /// Whether it is in the worker's queues of peers to settle.
    pub(super) is_touched: bool,
    /// Earliest time since when it may have been in such a queue.
    pub(super) ready_since: Instant,
    /// Whether it is in the worker's list of peers to charge.
    pub(super) is_uncharged: bool,
    /// Whether it is in the worker's list of peers to flush.
    pub(super) is_dirty: bool,
    /// Whether a deadline has passed.
    pub(super) is_due: bool,
    /// Whether it has announced anything.
    pub(super) publishes: bool,
    /// Progress of its departure while the relay drains.
    pub(super) leaving: Option<Leaving>,
    /// Code and reason of our close.
    pub(super) parting: Option<Parting>,
    /// Charge for its memory.
    pub(super) charge: Charge,
}

/// Revoked permits.
#[derive(Clone, Debug)]
pub(super) struct TakenBack {
    pub(super) which: PermitFilter,
    /// Code and reason for sessions with such a permit.
    pub(super) parting: Parting,
}

impl TakenBack {
    /// Whether `permit` is revoked; true if the filter panics.
    pub(super) fn is(&self, permit: &Permit) -> bool {
        guard(|| self.which.matches(permit)).unwrap_or(true)
    }
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
    /// The connection is not ready and has no session yet.
    Opening,
    /// The session has not sent its request yet.
    Waiting,
    /// The gate was asked, and must answer by this time.
    Asked(Instant),
    /// Admitted; its socket must be handed over and ready by this time.
    Placed(Instant),
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
            state: PeerState::Opening,
            permit: None,
            taken_back: Vec::new(),
            is_asked: false,
            admit_by,
            unsegmented: false,
            is_touched: false,
            ready_since: admit_by,
            is_uncharged: false,
            is_dirty: false,
            is_due: false,
            publishes: false,
            leaving: None,
            parting: None,
            charge,
        }
    }

    /// Deadline of the worker for the peer.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ends_at().into_iter().chain(self.leaves_at()).min()
    }

    /// Deadline for the current step of admission.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        match self.state {
            // A connection of the endpoint has its own handshake timeout.
            PeerState::Opening => self.carrier.is_stream().then_some(self.admit_by),
            PeerState::Open | PeerState::Over => None,
            PeerState::Waiting => Some(self.admit_by),
            PeerState::Asked(until) | PeerState::Placed(until) => Some(until),
        }
    }

    /// Deadline for the next step of its departure.
    pub(super) fn leaves_at(&self) -> Option<Instant> {
        match self.leaving {
            Some(Leaving::WindDown(at) | Leaving::Close(at)) if self.state == PeerState::Open => Some(at),
            _ => None,
        }
    }
}
