//! Set of trusted keys.

use std::{collections::BTreeMap, time::SystemTime};

use crate::{
    Algorithm, Claims, Expected, KEY_BYTES, Key, KeyError, KeyId, KeyMark, TokenError,
    json::Object,
    key::{SET_BYTES, object},
    token::Token,
};

/// Limit of keys in a set.
pub const KEYS: usize = 1_024;
/// Limit of keys without `kid`, all of which are tried.
pub const NAMELESS_KEYS: usize = 8;

/// Set of keys, looked up by `kid` and `alg` of a token's header, since some providers use one `kid` for keys of
/// several algorithms.
///
/// A token without `kid` is verified with the only key of the set, or with the keys without `kid`. A token with an
/// unknown `kid` is verified with the keys without `kid` too, as deployed relays with a single key do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    named: BTreeMap<(KeyId, Algorithm), Key>,
    nameless: Vec<Key>,
}

/// Verified token.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub(crate) claims: Claims,
    pub(crate) key: Key,
    /// Subject, or the identity of a token without one.
    pub(crate) subject: std::sync::Arc<str>,
}

impl Keys {
    /// Creates an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key. An error if another key has the same `kid` and algorithm, or the set is full.
    pub fn insert(&mut self, key: Key) -> Result<(), KeyError> {
        let is_full = self.len() >= KEYS || key.id().is_none() && self.nameless.len() >= NAMELESS_KEYS;
        if is_full {
            return Err(KeyError::TooMany);
        }
        match key.id().cloned() {
            Some(id) => return self.insert_as(id, key),
            None if !self.nameless.contains(&key) => self.nameless.push(key),
            None => {}
        }
        Ok(())
    }

    /// Adds a key under a name that may differ from its `kid`, such as that of its file. Errors as for
    /// [`Keys::insert`].
    pub fn insert_as(&mut self, id: KeyId, key: Key) -> Result<(), KeyError> {
        if self.len() >= KEYS {
            return Err(KeyError::TooMany);
        }
        let name = (id, key.algorithm());
        match self.named.get(&name) {
            Some(other) if *other != key => Err(KeyError::SameId),
            _ => {
                self.named.insert(name, key);
                Ok(())
            }
        }
    }

    /// Removes the keys with this `kid` of all algorithms.
    pub fn remove(&mut self, id: &KeyId) {
        self.named.retain(|(known, _), _| known != id);
    }

    /// Adds all keys of another set; existing keys take precedence. Returns the errors of keys that were not added.
    pub fn absorb(&mut self, other: &Self) -> Vec<KeyError> {
        let named = other.iter_named().map(|(id, key)| (Some(id), key));
        let all = named.chain(other.nameless.iter().map(|key| (None, key)));
        let mut faults = Vec::new();
        for (id, key) in all {
            let added = match id {
                Some(id) => self.insert_as(id.clone(), key.clone()),
                None => self.insert(key.clone()),
            };
            faults.extend(added.err());
        }
        faults
    }

    /// Parses a JSON Web Key Set (RFC 7517 §5) or a single key. Invalid keys of a set are skipped and returned with
    /// their index, so that one unsupported key does not disable the others. Keys whose `use` is not `sig` are skipped
    /// silently, since providers publish encryption keys in the same set.
    pub fn parse(text: &str) -> Result<(Self, Vec<(usize, KeyError)>), KeyError> {
        let object = object(text, SET_BYTES)?;
        let mut keys = Self::new();
        let Some(listed) = object.get("keys") else {
            if text.trim().len() > KEY_BYTES {
                return Err(KeyError::TooLong(KEY_BYTES));
            }
            keys.insert(Key::read(&object)?)?;
            return Ok((keys, Vec::new()));
        };
        let listed = listed.as_array().ok_or(KeyError::Field("keys"))?;
        let mut faults = Vec::new();
        for (at, value) in listed.iter().enumerate() {
            let key = Object::of(value).ok_or(KeyError::Field("keys")).and_then(|key| Key::read(&key));
            match key.and_then(|key| keys.insert(key)) {
                Ok(()) | Err(KeyError::Purpose) => {}
                Err(error) => faults.push((at, error)),
            }
        }
        Ok((keys, faults))
    }

    /// Returns the key with this `kid` and algorithm.
    pub fn get(&self, id: &KeyId, algorithm: Algorithm) -> Option<&Key> {
        self.named.get(&(id.clone(), algorithm))
    }

    /// Returns all keys: those with a name, in order of name, then the others.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.named.values().chain(&self.nameless)
    }

    /// Returns the keys with a name, with their names.
    pub fn iter_named(&self) -> impl Iterator<Item = (&KeyId, &Key)> {
        self.named.iter().map(|((id, _), key)| (id, key))
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.named.len() + self.nameless.len()
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.nameless.is_empty()
    }

    /// Returns whether the set contains this key unchanged.
    pub fn contains(&self, mark: KeyMark) -> bool {
        self.iter().any(|key| key.mark() == mark)
    }

    /// Verifies `token` with the keys of the set at `now` and returns its claims.
    pub fn verify(&self, token: &str, expected: &Expected, now: SystemTime) -> Result<Claims, TokenError> {
        self.check(token, expected, now).map(|verified| verified.claims)
    }

    pub(crate) fn check(
        &self,
        token: &str,
        expected: &Expected,
        now: SystemTime,
    ) -> Result<Verified, TokenError> {
        let token = Token::parse(token)?;
        let key = self.signer(&token)?;
        let claims = token.claims()?;
        expected.check(&claims)?;
        claims.check_times(now)?;
        key.check_ceiling(&claims)?;
        let subject = claims.subject.clone().unwrap_or_else(|| token.identity().into());
        Ok(Verified { claims, key: key.clone(), subject })
    }

    /// Returns the key that verifies the signature.
    pub(crate) fn signer(&self, token: &Token<'_>) -> Result<&Key, TokenError> {
        let only = || if self.named.len() == 1 { self.named.values().next() } else { None };
        let chosen = match &token.key {
            // If this `kid` has only keys of other algorithms, one of them rejects the token.
            Some(id) => self.get(id, token.algorithm).or_else(|| self.of(id)),
            None if self.nameless.is_empty() => only(),
            None => None,
        };
        if let Some(key) = chosen {
            return key.check_signature(token).map(|()| key);
        }
        let mut flaw = TokenError::UnknownKey(token.key.clone());
        for key in &self.nameless {
            match key.check_signature(token) {
                Ok(()) => return Ok(key),
                // A named key may still be fetched; without `kid` these are the only candidates.
                Err(found) if token.key.is_none() => flaw = found,
                Err(_) => {}
            }
        }
        Err(flaw)
    }

    /// Returns a key with this `kid` of any algorithm.
    fn of(&self, id: &KeyId) -> Option<&Key> {
        let from = (id.clone(), Algorithm::FIRST);
        self.named.range(from..).next().filter(|((known, _), _)| known == id).map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests;
