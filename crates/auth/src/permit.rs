//! Proof of authorization.

use std::{sync::Arc, time::SystemTime};

use relay_model::{Path, Scope};

use crate::{Key, KeyId, KeyMark};

/// Rights of one session. Created only by [`crate::Policy`]; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit(Arc<Grant>);

#[derive(Debug, PartialEq, Eq)]
struct Grant {
    root: Path,
    publish: Scope,
    subscribe: Scope,
    holder: CredentialHolder,
}

/// Holder of a credential, and its expiry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CredentialHolder {
    pub(crate) subject: Option<Arc<str>>,
    pub(crate) peer: bool,
    pub(crate) expires: Option<SystemTime>,
    pub(crate) key: Option<VerifyingKey>,
    /// Whether the rights are those of every client without a credential, and were not decided for this client.
    pub(crate) public: bool,
}

/// Key that verified a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VerifyingKey {
    id: Option<KeyId>,
    mark: KeyMark,
}

impl VerifyingKey {
    pub(crate) fn of(key: &Key) -> Self {
        Self { id: key.id().cloned(), mark: key.mark() }
    }
}

impl Permit {
    /// Creates a permit. The scopes are absolute and lie within `root`.
    pub(crate) fn new(root: Path, publish: Scope, subscribe: Scope, holder: CredentialHolder) -> Self {
        Self(Arc::new(Grant { root, publish, subscribe, holder }))
    }

    pub(crate) fn holder(&self) -> &CredentialHolder {
        &self.0.holder
    }

    /// Absolute path to which all paths of the peer are relative.
    pub fn root(&self) -> &Path {
        &self.0.root
    }

    /// Scope in which the session may publish, in absolute paths.
    pub fn publish(&self) -> &Scope {
        &self.0.publish
    }

    /// Scope to which the session may subscribe, in absolute paths.
    pub fn subscribe(&self) -> &Scope {
        &self.0.subscribe
    }

    /// Time at which the session must end; `None` = never.
    pub fn expires(&self) -> Option<SystemTime> {
        self.0.holder.expires
    }

    /// Subject of the credential; `None` = public access.
    ///
    /// The subject of a token without `sub` is `token:` and part of a digest of its claims, so that only its holder
    /// can take over its own broadcasts.
    pub fn subject(&self) -> Option<&str> {
        self.0.holder.subject.as_deref()
    }

    /// Returns whether the rights are those of every client without a credential, so that responses may be cached and
    /// shared. False for rights granted by an auth server, which depend on the client.
    pub fn is_public(&self) -> bool {
        self.0.holder.public
    }

    /// Returns whether the peer is a relay of the same cluster, which announces broadcasts admitted elsewhere.
    pub fn is_peer(&self) -> bool {
        self.0.holder.peer
    }

    /// Returns whether this permit is for the same root, subject and role as `other`. Routes and paths are bound to
    /// these, so that a permit of another identity cannot replace one.
    pub fn has_identity_of(&self, other: &Self) -> bool {
        (self.root(), self.subject(), self.is_peer()) == (other.root(), other.subject(), other.is_peer())
    }

    /// Id of the key that verified the token, if there was a token and the key has an id.
    pub fn key_id(&self) -> Option<&KeyId> {
        self.0.holder.key.as_ref()?.id.as_ref()
    }

    /// Identity of the key that verified the token; `None` = no token. The session must end once
    /// [`crate::Keys::contains`] is false for it.
    pub fn key_mark(&self) -> Option<KeyMark> {
        self.0.holder.key.as_ref().map(|key| key.mark)
    }
}
