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
}

impl Permit {
    /// Scopes are absolute and lie within `root`.
    pub(crate) fn new(root: Path, publish: Scope, subscribe: Scope) -> Self {
        Self(Arc::new(Grant { root, publish, subscribe }))
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
        None
    }

    /// Who it is, when the credential says; `None` = the public.
    pub fn identity(&self) -> Option<&str> {
        None
    }
}
