//! Claims of a token: those of RFC 7519 §4.1, and the grants of deployed tools.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use relay_model::{Path, Pattern, Scope};
use serde_json::{Map, Value};

use crate::{
    TokenError,
    error::{ClaimError, Fault},
    json::Object,
};

/// Clock skew allowed for `nbf` (RFC 7519 §4.1.5). None is allowed for `exp`, as with deployed verifiers.
pub const LEEWAY: Duration = Duration::from_secs(60);
/// Limit of paths per verb in a token or key, since the comparison of patterns takes quadratic time.
pub const GRANTS: usize = 256;
/// Latest time of a claim, as a duration since 1970; later times are clamped to it.
const LATEST: Duration = Duration::from_secs(i64::MAX as u64);
/// Longest `sub` in bytes.
pub const SUBJECT_BYTES: usize = 256;
/// All claims that are evaluated.
pub(crate) const CLAIMS: [&str; 11] =
    ["root", "put", "get", "publish", "subscribe", "exp", "nbf", "iat", "sub", "aud", "iss"];
/// Prefix of the identity of tokens without `sub`.
pub(crate) const NAMELESS: &str = "token:";

/// Publish and subscribe rights, as patterns below a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// Path to which the patterns are relative.
    pub root: Path,
    /// Patterns of paths that may be published.
    pub publish: Vec<Pattern>,
    /// Patterns of paths that may be subscribed to.
    pub subscribe: Vec<Pattern>,
}

/// Claims of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Granted rights.
    pub grants: Grants,
    /// `exp` (RFC 7519 §4.1.4): time from which the token is rejected and its sessions end.
    pub expires: Option<SystemTime>,
    /// `nbf` (RFC 7519 §4.1.5): time before which the token is rejected.
    pub not_before: Option<SystemTime>,
    /// `iat` (RFC 7519 §4.1.6): time of issue. Not evaluated, as with deployed verifiers.
    pub issued: Option<SystemTime>,
    /// `sub` (RFC 7519 §4.1.2): subject. A later session with the same subject may take over its broadcasts.
    pub subject: Option<Arc<str>>,
    /// `aud` (RFC 7519 §4.1.3): audiences; `None` = absent. See [`crate::Expected`].
    pub audience: Option<Vec<Arc<str>>>,
    /// `iss` (RFC 7519 §4.1.1): issuer.
    pub issuer: Option<Arc<str>>,
}

impl Default for Grants {
    fn default() -> Self {
        Self { root: Path::root(), publish: Vec::new(), subscribe: Vec::new() }
    }
}

impl Grants {
    /// Returns whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        self.publish.is_empty() && self.subscribe.is_empty()
    }

    /// Returns the publish and subscribe scopes of a session with this root, in absolute paths; `None` if the
    /// session would be refused.
    pub fn at(&self, root: &Path) -> Option<(Scope, Scope)> {
        let (publish, subscribe) = self.scopes().ok()?;
        let (publish, subscribe) = (publish.narrow(root), subscribe.narrow(root));
        (!publish.is_empty() || !subscribe.is_empty()).then_some((publish, subscribe))
    }

    /// Returns the publish and subscribe scopes in absolute paths; an error when a path would be too long.
    pub(crate) fn scopes(&self) -> Result<(Scope, Scope), relay_model::PathError> {
        let absolute = |patterns: &[Pattern]| {
            patterns.iter().map(|pattern| pattern.under(&self.root)).collect::<Result<_, _>>()
        };
        Ok((absolute(&self.publish)?, absolute(&self.subscribe)?))
    }

    /// Parses `root`, and either `put` and `get` or `publish` and `subscribe`.
    fn read(object: &Object) -> Result<Self, ClaimError> {
        let root = match object.get("root") {
            None => Path::root(),
            Some(root) => path("root", root)?,
        };
        let has = |name: &str| object.get(name).is_some();
        let grants = if has("publish") || has("subscribe") {
            if has("put") || has("get") {
                return Err(ClaimError { claim: "publish", fault: Fault::Mixed });
            }
            Self {
                root,
                publish: list(object, "publish", pattern)?,
                subscribe: list(object, "subscribe", pattern)?,
            }
        } else {
            let subtree = |name, value: &Value| path(name, value).map(Pattern::subtree);
            Self { root, publish: list(object, "put", subtree)?, subscribe: list(object, "get", subtree)? }
        };
        grants.scopes().map_err(|_| ClaimError { claim: "root", fault: Fault::Path })?;
        Ok(grants)
    }

    /// Writes the grants as prefixes if all of them are prefixes, which every tool reads; otherwise as patterns,
    /// which old tools treat as no grant.
    fn write(&self, object: &mut Map<String, Value>) {
        if !self.root.is_root() {
            object.insert("root".into(), self.root.as_str().into());
        }
        let prefixes = |patterns: &[Pattern]| -> Option<Vec<String>> {
            patterns.iter().map(|pattern| Some(pattern.as_subtree()?.to_string())).collect()
        };
        let mut put = |name: &str, texts: Vec<String>| {
            if !texts.is_empty() {
                object.insert(name.to_owned(), texts.into());
            }
        };
        if let (Some(publish), Some(subscribe)) = (prefixes(&self.publish), prefixes(&self.subscribe)) {
            put("put", publish);
            put("get", subscribe);
        } else {
            put("publish", self.publish.iter().map(ToString::to_string).collect());
            put("subscribe", self.subscribe.iter().map(ToString::to_string).collect());
        }
    }
}

impl Claims {
    pub(crate) fn read(payload: &[u8]) -> Result<Self, TokenError> {
        let object = Object::parse(payload).map_err(TokenError::Payload)?;
        let claims = Self {
            grants: Grants::read(&object)?,
            expires: time(&object, "exp")?,
            not_before: time(&object, "nbf")?,
            issued: time(&object, "iat")?,
            subject: subject(&object)?,
            audience: audience(&object)?,
            issuer: object.get("iss").map(|value| text("iss", value).map(Arc::from)).transpose()?,
        };
        if claims.grants.is_empty() {
            return Err(TokenError::Useless);
        }
        Ok(claims)
    }

    /// Returns the payload of a token with these claims.
    pub fn to_json(&self) -> String {
        let mut object = Map::new();
        // Some verifiers require `root` even if it is empty.
        object.insert("root".into(), "".into());
        self.grants.write(&mut object);
        let times = [("exp", self.expires), ("nbf", self.not_before), ("iat", self.issued)];
        for (name, time) in times {
            if let Some(time) = time {
                object.insert(name.into(), seconds(time).into());
            }
        }
        if let Some(subject) = &self.subject {
            object.insert("sub".into(), subject.as_ref().into());
        }
        if let Some(audience) = &self.audience {
            let names: Vec<Value> = audience.iter().map(|name| name.as_ref().into()).collect();
            let only = <[Value; 1]>::try_from(names);
            object.insert("aud".into(), only.map_or_else(Value::Array, |[name]| name));
        }
        if let Some(issuer) = &self.issuer {
            object.insert("iss".into(), issuer.as_ref().into());
        }
        Value::Object(object).to_string()
    }

    pub(crate) fn check_times(&self, now: SystemTime) -> Result<(), TokenError> {
        if let Some(at) = self.expires.filter(|at| *at <= now) {
            return Err(TokenError::Expired { at });
        }
        match self.not_before {
            Some(at) if now.checked_add(LEEWAY).is_some_and(|latest| at > latest) => {
                Err(TokenError::NotYetValid { at })
            }
            _ => Ok(()),
        }
    }
}

/// Upper bound of the grants of a key's tokens (`scope` of the key).
#[derive(Clone, Debug)]
pub(crate) struct Ceiling {
    grants: Grants,
    publish: Scope,
    subscribe: Scope,
}

impl Ceiling {
    pub(crate) fn new(grants: Grants) -> Result<Self, Fault> {
        if grants.is_empty() {
            return Err(Fault::Nothing);
        }
        let (publish, subscribe) = grants.scopes().map_err(|_| Fault::Path)?;
        Ok(Self { grants, publish, subscribe })
    }

    pub(crate) fn read(object: &Object) -> Result<Self, Fault> {
        let known = ["root", "put", "get", "publish", "subscribe"];
        if object.names().any(|name| !known.contains(&name)) {
            return Err(Fault::Unknown);
        }
        Self::new(Grants::read(object).map_err(|error| error.fault)?)
    }

    pub(crate) fn grants(&self) -> &Grants {
        &self.grants
    }

    pub(crate) fn covers(&self, claims: &Claims) -> bool {
        claims.grants.scopes().is_ok_and(|(publish, subscribe)| {
            self.publish.covers(&publish) && self.subscribe.covers(&subscribe)
        })
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut object = Map::new();
        self.grants.write(&mut object);
        Value::Object(object)
    }
}

/// Parses a string or a list of strings.
fn list(
    object: &Object,
    claim: &'static str,
    read: impl Fn(&'static str, &Value) -> Result<Pattern, ClaimError>,
) -> Result<Vec<Pattern>, ClaimError> {
    match object.get(claim) {
        None => Ok(Vec::new()),
        Some(Value::Array(values)) if values.len() > GRANTS => {
            Err(ClaimError { claim, fault: Fault::TooMany })
        }
        Some(Value::Array(values)) => values.iter().map(|value| read(claim, value)).collect(),
        Some(value) => Ok(vec![read(claim, value)?]),
    }
}

fn path(claim: &'static str, value: &Value) -> Result<Path, ClaimError> {
    let path = Path::parse(text(claim, value)?).map_err(|_| ClaimError { claim, fault: Fault::Path })?;
    check_segments(claim, path.as_str())?;
    Ok(path)
}

fn pattern(claim: &'static str, value: &Value) -> Result<Pattern, ClaimError> {
    let text = text(claim, value)?;
    check_segments(claim, text)?;
    Pattern::parse(text).map_err(|error| ClaimError { claim, fault: Fault::Pattern(error) })
}

/// Rejects segments that no request can name or that another parser could interpret as another path.
fn check_segments(claim: &'static str, text: &str) -> Result<(), ClaimError> {
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(ClaimError { claim, fault: Fault::Dots });
    }
    if text.contains(char::is_control) {
        return Err(ClaimError { claim, fault: Fault::Control });
    }
    Ok(())
}

/// Parses a NumericDate (RFC 7519 §2): any finite JSON number of seconds since 1970, fractions allowed. Times
/// before 1970 or after the latest time are clamped. `null` counts as absent, as with deployed verifiers.
fn time(object: &Object, claim: &'static str) -> Result<Option<SystemTime>, ClaimError> {
    let error = ClaimError { claim, fault: Fault::Time };
    let number = match object.get(claim) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number,
        Some(_) => return Err(error),
    };
    let since = match (number.as_u64(), number.as_f64()) {
        (Some(seconds), _) => Duration::from_secs(seconds),
        (None, Some(seconds)) if seconds.is_finite() => {
            Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(LATEST)
        }
        _ => return Err(error),
    };
    SystemTime::UNIX_EPOCH.checked_add(since.min(LATEST)).map(Some).ok_or(error)
}

/// Returns whole seconds since 1970, rounded down, so that a token never lasts longer than requested.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Parses a string or a list of strings.
fn audience(object: &Object) -> Result<Option<Vec<Arc<str>>>, ClaimError> {
    let name = |value: &Value| text("aud", value).map(Arc::from);
    match object.get("aud") {
        None => Ok(None),
        Some(Value::Array(values)) => values.iter().map(name).collect::<Result<_, _>>().map(Some),
        Some(value) => Ok(Some(vec![name(value)?])),
    }
}

fn text<'a>(claim: &'static str, value: &'a Value) -> Result<&'a str, ClaimError> {
    value.as_str().ok_or(ClaimError { claim, fault: Fault::Text })
}

fn subject(object: &Object) -> Result<Option<Arc<str>>, ClaimError> {
    let claim = "sub";
    let Some(value) = object.get(claim) else { return Ok(None) };
    let text = text(claim, value)?;
    check_subject(text).map_err(|fault| ClaimError { claim, fault })?;
    Ok(if text.is_empty() { None } else { Some(text.into()) })
}

/// Checks a `sub`: bounded length, no control characters, no reserved prefix.
pub(crate) fn check_subject(text: &str) -> Result<(), Fault> {
    if text.len() > SUBJECT_BYTES {
        return Err(Fault::TooLong);
    }
    if text.contains(char::is_control) {
        return Err(Fault::Control);
    }
    if text.starts_with(NAMELESS) {
        return Err(Fault::Reserved);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
