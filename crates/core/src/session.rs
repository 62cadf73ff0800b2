//! What the core knows of one session.

use std::collections::{BTreeMap, BTreeSet};

use relay_auth::Permit;
use relay_model::{Hop, LogId, Path, SubId};

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
    /// It was told to end: nothing new is taken from it.
    pub(crate) killed: bool,
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
            killed: false,
        }
    }
}
