//! The keys a relay trusts.

use std::{collections::BTreeMap, time::SystemTime};

use crate::{
    Algorithm, Claims, Expected, Flaw, KEY_BYTES, Key, KeyError, KeyId, KeyMark,
    json::Object,
    key::{SET_BYTES, object},
    token::Token,
};

/// Most keys in a set: as many as one could still look through.
pub const KEYS: usize = 1_024;
/// Most keys without a name: each of them is tried.
pub const NAMELESS_KEYS: usize = 8;

/// A set of keys, found by the `kid` and `alg` of a token's header: some providers give keys of several algorithms
/// one `kid`.
///
/// A token without a name is the only key's of the set, or else of those without a name; a token with a
/// name that no key has is tried with those without one too, as deployed relays with one key do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    named: BTreeMap<(KeyId, Algorithm), Key>,
    nameless: Vec<Key>,
}

/// A token that was found good.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub(crate) claims: Claims,
    pub(crate) key: Key,
    /// Who shows it.
    pub(crate) subject: std::sync::Arc<str>,
}

impl Keys {
    /// No keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key. Errors when another has its `kid` and algorithm, or there are too many.
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

    /// Adds a key under a name that need not be its own: that of the file it was found in. Errors as for
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

    /// Removes the keys of that `kid`, whatever their algorithms.
    pub fn remove(&mut self, id: &KeyId) {
        self.named.retain(|(known, _), _| known != id);
    }

    /// Adds all keys of another set; of two with one name the one that is here stays. Returns why some
    /// could not be added.
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

    /// Reads a JSON Web Key Set, or a single key. Keys of a set that are no good are left out and
    /// reported by their place in it: one key of a kind we do not know must not lock out all others. Keys whose `use`
    /// is not `sig` are left out without a report: providers publish their encryption keys beside the others.
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

    /// The key of that `kid` and algorithm.
    pub fn get(&self, id: &KeyId, algorithm: Algorithm) -> Option<&Key> {
        self.named.get(&(id.clone(), algorithm))
    }

    /// Every key: those with a name in its order, then the others.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.named.values().chain(&self.nameless)
    }

    /// Those that are found by a name, with it.
    pub fn iter_named(&self) -> impl Iterator<Item = (&KeyId, &Key)> {
        self.named.iter().map(|((id, _), key)| (id, key))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.named.len() + self.nameless.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.nameless.is_empty()
    }

    /// Whether a key is still here, unchanged.
    pub fn holds(&self, mark: KeyMark) -> bool {
        self.iter().any(|key| key.mark() == mark)
    }

    /// The claims of `token`, if a key of ours signed it and it holds at `now` for a relay with these settings.
    pub fn verify(&self, token: &str, expected: &Expected, now: SystemTime) -> Result<Claims, Flaw> {
        self.check(token, expected, now).map(|verified| verified.claims)
    }

    pub(crate) fn check(&self, token: &str, expected: &Expected, now: SystemTime) -> Result<Verified, Flaw> {
        let token = Token::parse(token)?;
        let key = self.signer(&token)?;
        let claims = token.claims()?;
        expected.check(&claims)?;
        claims.check_times(now)?;
        key.check_ceiling(&claims)?;
        let subject = claims.subject.clone().unwrap_or_else(|| token.identity().into());
        Ok(Verified { claims, key: key.clone(), subject })
    }

    /// The key that signed it.
    pub(crate) fn signer(&self, token: &Token<'_>) -> Result<&Key, Flaw> {
        let only = || if self.named.len() == 1 { self.named.values().next() } else { None };
        let chosen = match &token.key {
            // Where that `kid` has keys of other algorithms only, the token is refused by one of them.
            Some(id) => self.get(id, token.algorithm).or_else(|| self.of(id)),
            None if self.nameless.is_empty() => only(),
            None => None,
        };
        if let Some(key) = chosen {
            return key.check_signature(token).map(|()| key);
        }
        let mut flaw = Flaw::UnknownKey(token.key.clone());
        for key in &self.nameless {
            match key.check_signature(token) {
                Ok(()) => return Ok(key),
                // With a name, the key may yet turn up; without one, it can only be these.
                Err(found) if token.key.is_none() => flaw = found,
                Err(_) => {}
            }
        }
        Err(flaw)
    }

    /// A key of that `kid`, of any algorithm.
    fn of(&self, id: &KeyId) -> Option<&Key> {
        let from = (id.clone(), Algorithm::FIRST);
        self.named.range(from..).next().filter(|((known, _), _)| known == id).map(|(_, key)| key)
    }
}

#[cfg(test)]
mod tests;
