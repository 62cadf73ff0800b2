//! One connection of a worker and what lives on it.

use std::time::Instant;

use relay_auth::Permit;
use relay_model::SessionId;
use relay_session::Session;

use super::{carrier::Carrier, guard, words::Parting};
use crate::{gate::Which, ledger::Charge};

/// A connection, from its first packet until nothing more is sent on it.
pub(super) struct Peer {
    /// The session's id, from the start.
    pub(super) id: SessionId,
    pub(super) carrier: Carrier,
    pub(super) session: Option<Box<Session>>,
    pub(super) state: State,
    /// What it may do, once it is let in or has a place.
    pub(super) permit: Option<Permit>,
    /// What was taken back while it waits for an answer, which may be made of that.
    pub(super) taken_back: Vec<TakenBack>,
    /// The gate was asked about it, and has not heard of its end.
    pub(super) is_asked: bool,
    /// When it must be let in.
    pub(super) admit_by: Instant,
    /// Segmented sends failed on its path.
    pub(super) unsegmented: bool,
    /// In the worker's queues of peers to settle.
    pub(super) is_touched: bool,
    /// Since when it has been there, at most.
    pub(super) ready_since: Instant,
    /// In the worker's list of peers to charge.
    pub(super) is_uncharged: bool,
    /// In the worker's list of peers to flush.
    pub(super) is_dirty: bool,
    /// A deadline has passed.
    pub(super) is_due: bool,
    /// It has announced something.
    pub(super) publishes: bool,
    /// How far it is on its way out, when the relay is.
    pub(super) leaving: Option<Leaving>,
    /// What it was told when we ended it.
    pub(super) parting: Option<Parting>,
    /// Memory it holds.
    pub(super) charge: Charge,
}

/// Permits that do not count any more.
#[derive(Clone, Debug)]
pub(super) struct TakenBack {
    pub(super) which: Which,
    /// What whoever has one is told.
    pub(super) parting: Parting,
}

impl TakenBack {
    /// What cannot be judged is not kept.
    pub(super) fn is(&self, permit: &Permit) -> bool {
        guard(|| self.which.is(permit)).unwrap_or(true)
    }
}

/// What is next for a session that did not leave a relay that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// It begins nothing more from then on.
    WindDown(Instant),
    /// It finishes what it has begun.
    Winding,
    /// It is closed then.
    Close(Instant),
}

/// How far a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The connection is not ready: no session yet.
    Opening,
    /// The session has not said what it wants.
    Waiting,
    /// It has: the gate is to answer by then.
    Asked(Instant),
    /// The gate lets it in; its socket is to come and be ready by then.
    Placed(Instant),
    /// Let in; core knows it.
    Open,
    /// Refused or ended: only the connection's close is left.
    Over,
}

impl Peer {
    pub(super) fn new(id: SessionId, carrier: Carrier, admit_by: Instant, charge: Charge) -> Self {
        Self {
            id,
            carrier,
            session: None,
            state: State::Opening,
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

    /// When the worker itself has to act on it.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ends_at().into_iter().chain(self.leaves_at()).min()
    }

    /// When it has had its time to be let in.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        match self.state {
            // Until it is ready a connection of the endpoint keeps the time itself.
            State::Opening => self.carrier.is_stream().then_some(self.admit_by),
            State::Open | State::Over => None,
            State::Waiting => Some(self.admit_by),
            State::Asked(until) | State::Placed(until) => Some(until),
        }
    }

    /// When it takes its next step out.
    pub(super) fn leaves_at(&self) -> Option<Instant> {
        match self.leaving {
            Some(Leaving::WindDown(at) | Leaving::Close(at)) if self.state == State::Open => Some(at),
            _ => None,
        }
    }
}
