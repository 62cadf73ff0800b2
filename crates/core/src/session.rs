//! What the core knows of one session.

use std::collections::{BTreeMap, BTreeSet};

use relay_auth::Permit;
use relay_model::{Hop, LogId, Path, SubId};

/// One admitted session. The sets mirror the route table and the logs, so that a close touches
/// only what is the session's own; ordered, so that equal histories give equal actions.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) permit: Permit,
    pub(crate) exclude: Option<Hop>,
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
    pub(crate) fn new(permit: Permit, exclude: Option<Hop>) -> Self {
        Self {
            permit,
            exclude: exclude.filter(|hop| *hop != Hop::ANONYMOUS),
            announced: BTreeSet::new(),
            subs: BTreeMap::new(),
            writes: BTreeSet::new(),
            killed: false,
        }
    }
}
