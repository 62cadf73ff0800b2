//! Permission as a value.

use std::{sync::Arc, time::SystemTime};

use relay_model::{Path, Scope};

/// What one session may do. Only [`crate::Policy`] makes one; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit(Arc<Grant>);

#[derive(Debug, PartialEq, Eq)]
struct Grant {
    root: Path,
    publish: Scope,
    subscribe: Scope,
    holder: Holder,
}

/// Who shows a credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) subject: Option<Arc<str>>,
    pub(crate) peer: bool,
    pub(crate) expires: Option<SystemTime>,
}

impl Permit {
    /// Scopes are absolute and lie within `root`.
    pub(crate) fn new(root: Path, publish: Scope, subscribe: Scope, holder: Holder) -> Self {
        Self(Arc::new(Grant { root, publish, subscribe, holder }))
    }

    /// Absolute path every path the peer names is relative to.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Where it may publish: absolute prefixes.
    pub fn publish(&self) -> &Scope {
        &self.0.publish
    }

    /// Where it may subscribe: absolute prefixes.
    pub fn subscribe(&self) -> &Scope {
        &self.0.subscribe
    }

    /// When the session must end; `None` = never.
    pub fn expires(&self) -> Option<SystemTime> {
        self.0.holder.expires
    }

    /// Whom the credential names; `None` = the public.
    pub fn subject(&self) -> Option<&str> {
        self.0.holder.subject.as_deref()
    }

    /// Whether it is a relay of the same cluster, which speaks for publishers that others admitted.
    pub fn is_peer(&self) -> bool {
        self.0.holder.peer
    }
}
