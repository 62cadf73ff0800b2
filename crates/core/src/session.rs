//! Control-plane state of one session.

use std::collections::{BTreeMap, BTreeSet};

use relay_auth::Permit;
use relay_model::{Hop, LogId, Path, SubId};

use crate::brake::Brake;

/// One admitted session. Its sets mirror the route table and the logs, so that a close touches only its own
/// entries; ordered, so that equal histories give equal actions.
#[derive(Debug)]
pub(crate) struct CoreSession {
    pub(crate) permit: Permit,
    /// Hop id of the peer, if it sent one.
    pub(crate) exclude: Option<Hop>,
    /// The peer is draining: its routes rank last.
    pub(crate) draining: bool,
    /// Paths it has a live route for.
    pub(crate) announced: BTreeSet<Path>,
    /// Log that serves each of its subscriptions.
    pub(crate) subs: BTreeMap<SubId, LogId>,
    /// Logs it was ordered to write.
    pub(crate) writes: BTreeSet<LogId>,
    /// Whether requests to its peer wait for stream credit.
    pub(crate) blocked: bool,
    /// Rate of its requests for missing tracks, and the requests queued because of it.
    pub(crate) brake: Brake,
}

impl CoreSession {
    pub(crate) fn new(permit: Permit) -> Self {
        Self {
            permit,
            exclude: None,
            draining: false,
            announced: BTreeSet::new(),
            subs: BTreeMap::new(),
            writes: BTreeSet::new(),
            blocked: false,
            brake: Brake::default(),
        }
    }
}
