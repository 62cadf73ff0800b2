//! Permission as a value.

use std::{sync::Arc, time::SystemTime};

use relay_model::{Path, Scope};

use crate::{Key, KeyId, KeyMark};

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

/// Who shows a credential, and how long it lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) subject: Option<Arc<str>>,
    pub(crate) peer: bool,
    pub(crate) expires: Option<SystemTime>,
    pub(crate) key: Option<Signer>,
    /// Everybody has the same rights, without a credential and without being asked about.
    pub(crate) public: bool,
}

/// The key that a token was verified by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signer {
    id: Option<KeyId>,
    mark: KeyMark,
}

impl Signer {
    pub(crate) fn of(key: &Key) -> Self {
        Self { id: key.id().cloned(), mark: key.mark() }
    }
}

impl Permit {
    /// Scopes are absolute and lie within `root`.
    pub(crate) fn new(root: Path, publish: Scope, subscribe: Scope, holder: Holder) -> Self {
        Self(Arc::new(Grant { root, publish, subscribe, holder }))
    }

    pub(crate) fn holder(&self) -> &Holder {
        &self.0.holder
    }

    /// Absolute path every path the peer names is relative to.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Where it may publish, in absolute paths.
    pub fn publish(&self) -> &Scope {
        &self.0.publish
    }

    /// Where it may subscribe, in absolute paths.
    pub fn subscribe(&self) -> &Scope {
        &self.0.subscribe
    }

    /// When the session must end; `None` = never.
    pub fn expires(&self) -> Option<SystemTime> {
        self.0.holder.expires
    }

    /// Whom the credential names; `None` = the public.
    ///
    /// A token without `sub` names whoever shows that token, as `token:` and part of a digest: its
    /// holder can take over from itself, nobody else can.
    pub fn subject(&self) -> Option<&str> {
        self.0.holder.subject.as_deref()
    }

    /// Whether everybody has the same rights without a credential, so that what it shows may be shown to others. Not
    /// so of what an auth server granted, as that knows who asked.
    pub fn is_public(&self) -> bool {
        self.0.holder.public
    }

    /// Whether it is a relay of the same cluster, which speaks for publishers that others admitted.
    pub fn is_peer(&self) -> bool {
        self.0.holder.peer
    }

    /// Name of the key that the token was verified by, if there was a token and the key has one.
    pub fn key_id(&self) -> Option<&KeyId> {
        self.0.holder.key.as_ref()?.id.as_ref()
    }

    /// The key that the token was verified by; `None` = no token. The session must end once
    /// [`crate::Keys::holds`] denies it.
    pub fn key_mark(&self) -> Option<KeyMark> {
        self.0.holder.key.as_ref().map(|key| key.mark)
    }
}
