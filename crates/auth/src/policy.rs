//! The rule that turns a request target into a permit.

#[cfg(any(test, feature = "test-cases"))]
pub mod cases;

use std::{borrow::Cow, sync::Arc, time::SystemTime};

use relay_model::{Path, Pattern, Scope};

use crate::{
    Algorithm, Expected, Flaw, Grants, KeyId, Keys, Permit, Refusal,
    permit::{Holder, Signer},
    target::{self, Target},
    token::{TOKEN_BYTES, Token},
};

/// Whom the relay lets in, and where.
#[derive(Clone, Debug)]
pub struct Policy {
    publish: Scope,
    subscribe: Scope,
    holder: Holder,
    keys: Arc<Keys>,
    expected: Arc<Expected>,
    takes_tokens: bool,
}

/// What an auth server allows a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// The root of the session instead of the path it asked for.
    pub root: Option<Path>,
    /// What it may publish, relative to the root.
    pub publish: Vec<Pattern>,
    /// What it may subscribe to, relative to the root.
    pub subscribe: Vec<Pattern>,
    /// When the session must end.
    pub expires: Option<SystemTime>,
    /// Whose session it is.
    pub subject: Option<Arc<str>>,
    /// Whether it is a relay of the same cluster.
    pub peer: bool,
}

impl Policy {
    /// Anyone, without a credential, may publish and subscribe in these scopes. No token is accepted.
    pub fn public(publish: Scope, subscribe: Scope) -> Self {
        let holder = Holder { public: true, ..Holder::default() };
        Self {
            publish,
            subscribe,
            holder,
            keys: Arc::default(),
            expected: Arc::default(),
            takes_tokens: false,
        }
    }

    /// Tokens of these keys are accepted from now on; there may be none yet. Whoever shows one gets what it
    /// grants, and nothing that is public.
    #[must_use]
    pub fn with_keys(mut self, keys: impl Into<Arc<Keys>>) -> Self {
        self.keys = keys.into();
        self.takes_tokens = true;
        self
    }

    /// Tokens are accepted only with these values of `aud` and `iss`.
    #[must_use]
    pub fn with_expected(mut self, expected: impl Into<Arc<Expected>>) -> Self {
        self.expected = expected.into();
        self
    }

    /// Whoever is admitted without a token is `subject` from now on: for an entrance that knows who comes
    /// through it, and the way to a permit with a subject where a test needs one.
    #[must_use]
    pub fn with_subject(mut self, subject: impl Into<Arc<str>>) -> Self {
        self.holder.subject = Some(subject.into());
        self.holder.public = false;
        self
    }

    /// Rights without a token are those of the client that was asked about from now on, as a server decided them:
    /// another client may have others, so they are not public.
    #[must_use]
    pub fn decided_elsewhere(mut self) -> Self {
        self.holder.public = false;
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
        self.holder.public = false;
        self
    }

    /// The keys whose tokens are accepted.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Admits `raw_target`: path and query exactly as the client sent them (`/a/b?jwt=..`),
    /// nothing decoded. The path becomes the root of the session and the grants are narrowed to it;
    /// a root above the grants is fine.
    ///
    /// Errors: [`Refusal::Malformed`] for a target that is no path; [`Refusal::Unauthorized`] when there
    /// is no token and nothing is public at that root, or a token where none is accepted; the others say what
    /// is wrong with the token. At [`Refusal::UnknownKey`], [`Policy::missing_key`] says which it is.
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
        let holder = Holder {
            subject: Some(verified.subject),
            peer: self.holder.peer,
            expires: verified.claims.expires,
            key: Some(Signer::of(&verified.key)),
            public: false,
        };
        permit(target.path, &publish, &subscribe, holder, Refusal::OutOfScope)
    }

    /// The token in `raw_target`, as whoever made the URL had it; `None` without one, or without a path.
    pub fn token(raw_target: &str) -> Option<String> {
        let token = Target::parse(raw_target).ok()?.token?;
        Some(target::decode(token).unwrap_or_else(|| token.to_owned()))
    }

    /// The `kid` and `alg` of the key that the token in `raw_target` names and that is not here: for whoever can
    /// fetch it and ask again. A token without `kid` misses its key only where there are no keys at all.
    pub fn missing_key(&self, raw_target: &str) -> Option<(Option<KeyId>, Algorithm)> {
        let token = unescaped(Target::parse(raw_target).ok()?.token?).ok()?;
        let token = Token::parse(&token).ok()?;
        let is_missing = match &token.key {
            Some(id) => self.keys.get(id, token.algorithm).is_none(),
            None => self.keys.is_empty(),
        };
        is_missing.then_some((token.key, token.algorithm))
    }

    /// Whether what a permit rests on still stands: the key its token was verified by. Its end in time
    /// is [`Permit::expires`].
    pub fn upholds(&self, permit: &Permit) -> bool {
        permit.key_mark().is_none_or(|key| self.keys.holds(key))
    }

    /// Admits by the word of an auth server, which was shown the credential.
    ///
    /// Errors: [`Refusal::Malformed`] as for [`Policy::admit`]; [`Refusal::Expired`];
    /// [`Refusal::Unauthorized`] when nothing is granted, or only paths that cannot be.
    pub fn grant(raw_target: &str, granted: Granted, now: SystemTime) -> Result<Permit, Refusal> {
        let path = Target::parse(raw_target)?.path;
        let root = granted.root.unwrap_or(path);
        let grants = Grants { root, publish: granted.publish, subscribe: granted.subscribe };
        let (publish, subscribe) = grants.scopes().map_err(|_| Refusal::Unauthorized)?;
        let holder = Holder {
            subject: granted.subject,
            peer: granted.peer,
            expires: not_over(granted.expires, now)?,
            key: None,
            public: false,
        };
        permit(grants.root, &publish, &subscribe, holder, Refusal::Unauthorized)
    }

    /// The same permit below another root: an auth server knows the path that was asked for under another
    /// name.
    ///
    /// Errors: [`Refusal::Unauthorized`] when no path is that long.
    pub fn moved(permit: &Permit, root: Path) -> Result<Permit, Refusal> {
        let moved = |scope: &Scope| -> Option<Scope> {
            let of = |pattern: &Pattern| pattern.within(permit.root())?.under(&root).ok();
            scope.patterns().iter().map(of).collect()
        };
        let publish = moved(permit.publish()).ok_or(Refusal::Unauthorized)?;
        let subscribe = moved(permit.subscribe()).ok_or(Refusal::Unauthorized)?;
        Ok(Permit::new(root, publish, subscribe, permit.holder().clone()))
    }

    /// Admits a relay of the same cluster that showed a certificate of ours, valid until `not_after`, to
    /// everything below the path it asked for. `subject` is its name, for the log.
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
        let holder = Holder { subject: Some(subject.into()), peer: true, expires, key: None, public: false };
        permit(root, &everything, &everything, holder, Refusal::Unauthorized)
    }
}

/// A permit for what is left of the scopes at `root`, or `nothing` if nothing is.
fn permit(
    root: Path,
    publish: &Scope,
    subscribe: &Scope,
    holder: Holder,
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

/// A token as it was before somebody built a URL with it. No character of a token needs an escape, but
/// some tools escape all the same.
fn unescaped(token: &str) -> Result<Cow<'_, str>, Flaw> {
    if token.len() > TOKEN_BYTES {
        return Err(Flaw::TooLong);
    }
    if token.contains('%') {
        return target::decode(token).map(Cow::Owned).ok_or(Flaw::Shape);
    }
    Ok(Cow::Borrowed(token))
}

#[cfg(test)]
mod tests;
