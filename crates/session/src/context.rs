//! Parameters of a session, and its exchange with the worker.

use std::{sync::Arc, time::Instant};

use relay_meter::Worker as Meter;
use relay_model::{Ask, Hop, Role, SessionId, WorkerId, limits::SessionLimits};
use relay_store::{Store, WakeSet};
use relay_wire::Version;

use crate::{fanout::Fanout, work::Work};

/// Context of a call into a session.
pub struct Cx<'a> {
    /// The time of this turn.
    pub now: Instant,
    /// Logs, board and budget.
    pub store: &'a Arc<Store>,
    /// This worker's readers.
    pub fanout: &'a mut Fanout,
    /// Workers to wake at the end of the turn.
    pub wakes: &'a mut WakeSet,
    /// This worker's counters.
    pub meter: &'a mut Meter,
    /// Requests of the session to the worker and to core.
    pub out: &'a mut Vec<SessionOutput>,
    /// Work budget of this call. If it is spent afterwards, [`crate::Session::input`] must be called again
    /// without an event, after all other ready sessions.
    pub work: &'a mut Work,
}

/// Request of a session to its worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOutput {
    /// Authorisation request for the peer; answered with [`crate::Session::authorized`] or by closing the
    /// transport.
    Authorize {
        /// Raw path and query from SETUP; empty when none was sent.
        target: String,
        /// Only role declared in SETUP; `None` = both, or none declared.
        role: Option<Role>,
    },
    /// Message to core; its credit is returned through [`crate::Session::asks_done`].
    Ask(Ask),
}

/// Parameters of a new session.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Id of the session, never reused.
    pub id: SessionId,
    /// Worker that owns the session.
    pub worker: WorkerId,
    /// The relay's own hop.
    pub hop: Hop,
    /// Random hop that replaces the hop of a publisher that gives none, so that two such publishers differ.
    pub stamp: Hop,
    /// Negotiated protocol version. One of [`Version::LEGACY`] only means that the version is
    /// among these: the first stream of the session negotiates which.
    pub version: Version,
    /// Whether the URL came with the connection (WebTransport). Otherwise SETUP carries it and the session
    /// requests authorisation with [`SessionOutput::Authorize`]; versions without SETUP have no URL.
    pub has_url: bool,
    /// Start of the process: the zero of timestamps given to frames without one.
    pub started: Instant,
    /// Limits of the session, unless the peer is a relay of the same cluster.
    pub limits: SessionLimits,
}
