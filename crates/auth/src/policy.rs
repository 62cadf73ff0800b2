//! Admission policy: request targets to permits.

#[cfg(any(test, feature = "test-cases"))]
pub mod cases;

use std::{borrow::Cow, sync::Arc, time::SystemTime};

use relay_model::{Path, Pattern, Scope};

use crate::{
    Algorithm, Expected, Grants, KeyId, Keys, Permit, Refusal, TokenError,
    permit::{CredentialHolder, VerifyingKey},
    target::{self, Target},
    token::{TOKEN_BYTES, Token},
};

/// Admission policy of a listener.
#[derive(Clone, Debug)]
pub struct Policy {
    publish: Scope,
    subscribe: Scope,
    holder: CredentialHolder,
    keys: Arc<Keys>,
    expected: Arc<Expected>,
    takes_tokens: bool,
}

/// Rights granted to a session by an auth server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// Root of the session instead of the requested path.
    pub root: Option<Path>,
    /// Patterns that it may publish, relative to the root.
    pub publish: Vec<Pattern>,
    /// Patterns that it may subscribe to, relative to the root.
    pub subscribe: Vec<Pattern>,
    /// Time at which the session must end; `None` = never.
    pub expires: Option<SystemTime>,
    /// Subject of the session.
    pub subject: Option<Arc<str>>,
    /// Whether the client is a relay of the same cluster.
    pub peer: bool,
}

impl Policy {
    /// Creates a policy of public access: any client may publish and subscribe in these scopes without a credential.
    /// No token is accepted.
    pub fn public(publish: Scope, subscribe: Scope) -> Self {
        let holder = CredentialHolder { public: true, ..CredentialHolder::default() };
        Self {
            publish,
            subscribe,
            holder,
            keys: Arc::default(),
            expected: Arc::default(),
            takes_tokens: false,
        }
    }

    /// Accepts tokens of these keys; the set may be empty. A session with a token gets the grants of the token only,
    /// not the public ones.
    #[must_use]
    pub fn with_keys(mut self, keys: impl Into<Arc<Keys>>) -> Self {
        self.keys = keys.into();
        self.takes_tokens = true;
        self
    }

    /// Accepts tokens only with these values of `aud` and `iss`.
    #[must_use]
    pub fn with_expected(mut self, expected: impl Into<Arc<Expected>>) -> Self {
        self.expected = expected.into();
        self
    }

    /// Sets the subject of sessions admitted without a token, for transports that identify the client otherwise, and
    /// for tests.
    #[must_use]
    pub fn with_subject(mut self, subject: impl Into<Arc<str>>) -> Self {
        self.holder.subject = Some(subject.into());
        self.holder.public = false;
        self
    }

    /// Marks the rights without a token as decided by an auth server for one client, so that they are not public.
    #[must_use]
    pub fn decided_elsewhere(mut self) -> Self {
        self.holder.public = false;
        self
    }

    /// Sets the latest time at which sessions admitted without a token must end, for transports whose credential
    /// expires, and for tests.
    #[must_use]
    pub fn until(mut self, expires: SystemTime) -> Self {
        self.holder.expires = Some(expires);
        self
    }

    /// Marks admitted sessions as relays of the same cluster, for the cluster listener.
    #[must_use]
    pub fn for_peers(mut self) -> Self {
        self.holder.peer = true;
        self.holder.public = false;
        self
    }

    /// Keys whose tokens are accepted.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Admits `raw_target`: path and query exactly as sent by the client (`/a/b?jwt=..`), not decoded. The path
    /// becomes the root of the session, to which the grants are narrowed; a root above the grants is allowed.
    ///
    /// Errors: [`Refusal::Malformed`] for an invalid path; [`Refusal::Unauthorized`] without a token if nothing is
    /// public at the root, or with a token if none are accepted; otherwise the fault of the token. After
    /// [`Refusal::UnknownKey`], [`Policy::missing_key`] returns the key.
    pub fn admit(&self, raw_target: &str, now: SystemTime) -> Result<Permit, Refusal> {
        let target = Target::parse(raw_target)?;
        let Some(token) = target.token else {
            let holder = self.holder.clone();
            return permit(target.path, &self.publish, &self.subscribe, holder, Refusal::Unauthorized);
        };
        if !self.takes_tokens {
            return Err(Refusal::Unauthorized);
        }
        let token = unescaped(token).map_err(|flaw| flaw.refusal())?;
        let verified = self.keys.check(&token, &self.expected, now).map_err(|flaw| flaw.refusal())?;
        let (publish, subscribe) = verified.claims.grants.scopes().map_err(|_| Refusal::MalformedToken)?;
        let holder = CredentialHolder {
            subject: Some(verified.subject),
            peer: self.holder.peer,
            expires: verified.claims.expires,
            key: Some(VerifyingKey::of(&verified.key)),
            public: false,
        };
        permit(target.path, &publish, &subscribe, holder, Refusal::OutOfScope)
    }

    /// Returns the percent-decoded token in `raw_target`; `None` without a token or with an invalid path.
    pub fn token(raw_target: &str) -> Option<String> {
        let token = Target::parse(raw_target).ok()?.token?;
        Some(target::decode(token).unwrap_or_else(|| token.to_owned()))
    }

    /// Returns `kid` and `alg` of the key that the token in `raw_target` requires and that is not in the set, so that
    /// the caller can fetch it and retry. Without `kid`, the key counts as missing only if the set is empty.
    pub fn missing_key(&self, raw_target: &str) -> Option<(Option<KeyId>, Algorithm)> {
        let token = unescaped(Target::parse(raw_target).ok()?.token?).ok()?;
        let token = Token::parse(&token).ok()?;
        let is_missing = match &token.key {
            Some(id) => self.keys.get(id, token.algorithm).is_none(),
            None => self.keys.is_empty(),
        };
        is_missing.then_some((token.key, token.algorithm))
    }

    /// Returns whether the key that verified the permit's token is still trusted. Expiry is separate:
    /// [`Permit::expires`].
    pub fn upholds(&self, permit: &Permit) -> bool {
        permit.key_mark().is_none_or(|key| self.keys.contains(key))
    }

    /// Admits a session with the rights granted by an auth server, which has checked the credential.
    ///
    /// Errors: [`Refusal::Malformed`] as for [`Policy::admit`]; [`Refusal::Expired`]; [`Refusal::Unauthorized`] if
    /// nothing is granted, or a granted path is too long.
    pub fn grant(raw_target: &str, granted: Granted, now: SystemTime) -> Result<Permit, Refusal> {
        let path = Target::parse(raw_target)?.path;
        let root = granted.root.unwrap_or(path);
        let grants = Grants { root, publish: granted.publish, subscribe: granted.subscribe };
        let (publish, subscribe) = grants.scopes().map_err(|_| Refusal::Unauthorized)?;
        let holder = CredentialHolder {
            subject: granted.subject,
            peer: granted.peer,
            expires: not_over(granted.expires, now)?,
            key: None,
            public: false,
        };
        permit(grants.root, &publish, &subscribe, holder, Refusal::Unauthorized)
    }

    /// Moves a permit below another root, for an auth server that returned an alias of the requested path.
    ///
    /// Errors: [`Refusal::Unauthorized`] if a path would be too long.
    pub fn moved(permit: &Permit, root: Path) -> Result<Permit, Refusal> {
        let moved = |scope: &Scope| -> Option<Scope> {
            let of = |pattern: &Pattern| pattern.within(permit.root())?.under(&root).ok();
            scope.patterns().iter().map(of).collect()
        };
        let publish = moved(permit.publish()).ok_or(Refusal::Unauthorized)?;
        let subscribe = moved(permit.subscribe()).ok_or(Refusal::Unauthorized)?;
        Ok(Permit::new(root, publish, subscribe, permit.holder().clone()))
    }

    /// Admits a relay of the same cluster with a trusted client certificate, valid until `not_after`, to everything
    /// below the requested path. `subject` is its name for logs.
    ///
    /// Errors: [`Refusal::Malformed`] as for [`Policy::admit`]; [`Refusal::Expired`].
    pub fn peer(
        raw_target: &str,
        subject: impl Into<Arc<str>>,
        not_after: SystemTime,
        now: SystemTime,
    ) -> Result<Permit, Refusal> {
        let root = Target::parse(raw_target)?.path;
        let expires = not_over(Some(not_after), now)?;
        let everything = Scope::everything();
        let holder =
            CredentialHolder { subject: Some(subject.into()), peer: true, expires, key: None, public: false };
        permit(root, &everything, &everything, holder, Refusal::Unauthorized)
    }
}

/// Creates a permit for the scopes narrowed to `root`, or fails with `nothing` if both are empty.
fn permit(
    root: Path,
    publish: &Scope,
    subscribe: &Scope,
    holder: CredentialHolder,
    nothing: Refusal,
) -> Result<Permit, Refusal> {
    let (publish, subscribe) = (publish.narrow(&root), subscribe.narrow(&root));
    if publish.is_empty() && subscribe.is_empty() {
        return Err(nothing);
    }
    Ok(Permit::new(root, publish, subscribe, holder))
}

fn not_over(expires: Option<SystemTime>, now: SystemTime) -> Result<Option<SystemTime>, Refusal> {
    if expires.is_some_and(|at| at <= now) { Err(Refusal::Expired) } else { Ok(expires) }
}

/// Percent-decodes a token. No character of a token needs escaping in a URL, but some tools escape anyway.
fn unescaped(token: &str) -> Result<Cow<'_, str>, TokenError> {
    if token.len() > TOKEN_BYTES {
        return Err(TokenError::TooLong);
    }
    if token.contains('%') {
        return target::decode(token).map(Cow::Owned).ok_or(TokenError::Shape);
    }
    Ok(Cow::Borrowed(token))
}

#[cfg(test)]
mod tests;
