//! The rule that turns a request target into a permit.

use std::{sync::Arc, time::SystemTime};

use relay_model::Scope;

use crate::{Permit, Refusal, permit::Holder, target::Target};

/// Whom the relay lets in, and where.
#[derive(Clone, Debug)]
pub struct Policy {
    publish: Scope,
    subscribe: Scope,
    holder: Holder,
}

impl Policy {
    /// Anyone, without a credential, may publish and subscribe in these scopes.
    pub fn public(publish: Scope, subscribe: Scope) -> Self {
        Self { publish, subscribe, holder: Holder::default() }
    }

    /// Whoever is admitted is `subject` from now on: for an entrance that knows who comes through it
    /// without a token, and the way to a permit with a subject where a test needs one.
    #[must_use]
    pub fn with_subject(mut self, subject: impl Into<Arc<str>>) -> Self {
        self.holder.subject = Some(subject.into());
        self
    }

    /// Whoever is admitted may stay until then: for an entrance that knows how long, and the way to a permit
    /// that ends where a test needs one.
    #[must_use]
    pub fn until(mut self, expires: SystemTime) -> Self {
        self.holder.expires = Some(expires);
        self
    }

    /// Whoever is admitted is a relay of the same cluster: for the entrance that only those have.
    #[must_use]
    pub fn for_peers(mut self) -> Self {
        self.holder.peer = true;
        self
    }

    /// Admits `raw_target`: path and query exactly as the client sent them (`/a/b?jwt=..`),
    /// nothing decoded. The path becomes the root of the session and the grants are narrowed to it;
    /// a root above the grants is fine.
    ///
    /// Errors: [`Refusal::Malformed`] for a target that is no path, [`Refusal::Unauthorized`] when
    /// nothing is allowed at that root or a token is shown (none is accepted).
    pub fn admit(&self, raw_target: &str) -> Result<Permit, Refusal> {
        let target = Target::parse(raw_target)?;
        if target.token.is_some() {
            return Err(Refusal::Unauthorized);
        }
        let publish = self.publish.narrow(&target.path);
        let subscribe = self.subscribe.narrow(&target.path);
        if publish.is_empty() && subscribe.is_empty() {
            return Err(Refusal::Unauthorized);
        }
        Ok(Permit::new(target.path, publish, subscribe, self.holder.clone()))
    }
}

#[cfg(test)]
mod tests;
