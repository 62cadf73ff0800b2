//! What the core knows of one session.

use std::collections::{BTreeMap, BTreeSet};

use relay_auth::Permit;
use relay_model::{Hop, LogId, Path, SubId};

use crate::brake::Brake;

/// One admitted session. The sets mirror the route table and the logs, so that a close touches
/// only what is the session's own; ordered, so that equal histories give equal actions.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) permit: Permit,
    /// The peer's own hop, if it said one.
    pub(crate) exclude: Option<Hop>,
    /// The peer is going away: its routes are the last choice.
    pub(crate) draining: bool,
    /// Paths it has a live route for.
    pub(crate) announced: BTreeSet<Path>,
    /// Which log serves each of its subscriptions.
    pub(crate) subs: BTreeMap<SubId, LogId>,
    /// Logs it was told to write.
    pub(crate) writes: BTreeSet<LogId>,
    /// Requests toward its peer wait for stream credit.
    pub(crate) blocked: bool,
    /// What it asked publishers for, and its requests that wait because too much of that was missing.
    pub(crate) brake: Brake,
}

impl Session {
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
