//! Keys that sign and verify tokens: JSON Web Keys as deployed tools write them.

mod crypto;
mod error;
mod material;

use std::{fmt, sync::Arc, time::SystemTime};

use aws_lc_rs::digest;
use serde_json::{Value, json};

use crypto::{Signer, Verifier};
pub use error::KeyError;
use material::Material;

use crate::{
    Algorithm, Claims, Expected, Flaw, KeyId, SignError,
    claims::{Ceiling, Grants},
    encoding,
    json::Object,
    token::Token,
};

/// Longest text of a key.
pub const KEY_BYTES: usize = 64 * 1024;
/// Longest text of a set of keys.
pub const SET_BYTES: usize = 256 * 1024;

/// A key, checked and ready.
#[derive(Clone)]
pub struct Key(Arc<Inner>);

struct Inner {
    id: Option<KeyId>,
    algorithm: Algorithm,
    may_sign: bool,
    may_verify: bool,
    ceiling: Option<Ceiling>,
    material: Material,
    verifier: Verifier,
    signer: Option<Signer>,
    mark: KeyMark,
}

/// Tells one key from another, whatever they are called: a digest of all that decides what a key
/// accepts. Not shown: that of a short secret could be searched for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyMark([u8; digest::SHA256_OUTPUT_LEN]);

impl fmt::Debug for KeyMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyMark")
    }
}

impl Key {
    /// Reads a JSON Web Key, as JSON or as base64url of it.
    ///
    /// `kty` may be absent and is `oct` then; `alg` of a public key may be absent and is RS256 or that of the curve
    /// then; `key_ops` may be absent and is `sign` and `verify` then. Values are base64url, padded or not. What is not known is ignored, but for the `scope` object: a
    /// limit that was misread would be none.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        Self::read(&object(text, KEY_BYTES)?)
    }

    pub(crate) fn read(object: &Object) -> Result<Self, KeyError> {
        let text = |name| text(object, name);
        // First: a key that encrypts has an algorithm that is none of ours.
        if text("use")?.is_some_and(|purpose| purpose != "sig") {
            return Err(KeyError::Purpose);
        }
        let algorithm: Algorithm = match text("alg")? {
            Some(name) => name.parse().map_err(|_| KeyError::Algorithm)?,
            None => Algorithm::of_key(text("kty")?.unwrap_or("oct"), text("crv")?)
                .ok_or(KeyError::Missing("alg"))?,
        };
        let id = text("kid")?.map(str::parse).transpose().map_err(|_| KeyError::Id)?;
        let (may_sign, may_verify) = operations(object.get("key_ops"))?;
        let ceiling = match object.get("scope") {
            None => None,
            Some(scope) => {
                let scope = Object::of(scope).ok_or(KeyError::Scope("is no object".into()))?;
                Some(Ceiling::read(&scope).map_err(|fault| KeyError::Scope(fault.to_string()))?)
            }
        };
        let material = Material::read(object, algorithm)?;
        let may_sign = may_sign && material.is_private();
        if !may_sign && !may_verify {
            return Err(KeyError::Useless);
        }
        Self::new(id, algorithm, (may_sign, may_verify), ceiling, material)
    }

    /// A new key. Errors when the system has no random numbers.
    pub fn generate(algorithm: Algorithm, id: Option<KeyId>) -> Result<Self, KeyError> {
        Self::new(id, algorithm, (true, true), None, Material::generate(algorithm)?)
    }

    fn new(
        id: Option<KeyId>,
        algorithm: Algorithm,
        (may_sign, may_verify): (bool, bool),
        ceiling: Option<Ceiling>,
        material: Material,
    ) -> Result<Self, KeyError> {
        let verifier = material.verifier(algorithm)?;
        // Also where it must not sign: that its halves do not fit should be heard of when it is read.
        let signer = material.signer(algorithm)?;
        let mut told = json!({ "alg": algorithm.name(), "may_verify": may_verify });
        if let Some(told) = told.as_object_mut() {
            material.write_public(told);
            told.insert("kid".into(), id.as_ref().map(KeyId::as_str).into());
            told.insert("scope".into(), ceiling.as_ref().map_or(Value::Null, Ceiling::to_json));
        }
        let digest = digest::digest(&digest::SHA256, told.to_string().as_bytes());
        let mut mark = [0; digest::SHA256_OUTPUT_LEN];
        mark.copy_from_slice(digest.as_ref());
        let inner = Inner {
            id,
            algorithm,
            may_sign,
            may_verify,
            ceiling,
            material,
            verifier,
            signer,
            mark: KeyMark(mark),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// The same key with a limit on what its tokens may grant: paths below `root`, relative to it.
    /// Errors when it would allow nothing.
    pub fn with_scope(self, scope: Grants) -> Result<Self, KeyError> {
        let ceiling = Ceiling::new(scope).map_err(|fault| KeyError::Scope(fault.to_string()))?;
        let Inner { id, algorithm, may_sign, may_verify, material, .. } = &*self.0;
        Self::new(id.clone(), *algorithm, (*may_sign, *may_verify), Some(ceiling), material.clone())
    }

    /// The half that can only verify. Errors for a key whose only half is secret, and for one that may
    /// not verify.
    pub fn public(&self) -> Result<Self, KeyError> {
        if !self.0.may_verify {
            return Err(KeyError::Operation("verify"));
        }
        let material = self.0.material.public().ok_or(KeyError::NoPublicHalf)?;
        Self::new(self.0.id.clone(), self.0.algorithm, (false, true), self.0.ceiling.clone(), material)
    }

    /// The key as JSON, secrets and all; in a file it wants mode 0600 if [`Key::is_private`].
    pub fn to_json(&self) -> String {
        let mut key = serde_json::Map::new();
        self.0.material.write_private(&mut key);
        key.insert("alg".into(), self.0.algorithm.name().into());
        let operations = [("sign", self.0.may_sign), ("verify", self.0.may_verify)];
        let operations = operations.into_iter().filter(|(_, may)| *may).map(|(name, _)| Value::from(name));
        key.insert("key_ops".into(), operations.collect());
        if let Some(id) = &self.0.id {
            key.insert("kid".into(), id.as_str().into());
        }
        if let Some(ceiling) = &self.0.ceiling {
            key.insert("scope".into(), ceiling.to_json());
        }
        Value::Object(key).to_string()
    }

    /// The key as base64url of its JSON: how deployed tools write files.
    pub fn to_base64url(&self) -> String {
        encoding::encode(self.to_json().as_bytes())
    }

    /// Its name, which a token's `kid` must be.
    pub fn id(&self) -> Option<&KeyId> {
        self.0.id.as_ref()
    }

    /// The only algorithm it takes.
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// Whether it holds what must stay secret.
    pub fn is_private(&self) -> bool {
        self.0.material.is_private()
    }

    /// Whether it can sign.
    pub fn may_sign(&self) -> bool {
        self.0.may_sign
    }

    /// Whether it may verify.
    pub fn may_verify(&self) -> bool {
        self.0.may_verify
    }

    /// The most its tokens may grant; `None` = anything.
    pub fn scope(&self) -> Option<&Grants> {
        self.0.ceiling.as_ref().map(Ceiling::grants)
    }

    /// What tells it from other keys.
    pub fn mark(&self) -> KeyMark {
        self.0.mark
    }

    /// A token that grants what `claims` say. Errors when it would be refused by this very key.
    pub fn sign(&self, claims: &Claims) -> Result<String, SignError> {
        let signer = self.0.signer.as_ref().filter(|_| self.0.may_sign).ok_or(SignError::CannotSign)?;
        if claims.grants.is_empty() {
            return Err(SignError::Useless);
        }
        self.check_ceiling(claims).map_err(|_| SignError::ExceedsKey)?;
        let payload = claims.to_json();
        Claims::read(payload.as_bytes()).map_err(SignError::Refused)?;
        let mut header = json!({ "alg": self.0.algorithm.name(), "typ": "JWT" });
        if let (Some(header), Some(id)) = (header.as_object_mut(), &self.0.id) {
            header.insert("kid".into(), id.as_str().into());
        }
        let token = seal(signer, &header.to_string(), &payload).ok_or(SignError::Failed)?;
        if token.len() > crate::TOKEN_BYTES {
            return Err(SignError::TooLong(token.len()));
        }
        Ok(token)
    }

    /// A token of any header and payload, for tests of what reads them.
    #[cfg(any(test, feature = "test-cases"))]
    pub(crate) fn seal(&self, header: &str, payload: &str) -> Option<String> {
        seal(self.0.signer.as_ref()?, header, payload)
    }

    /// The claims of `token`, if this key signed it and it holds at `now` where nothing is configured: a token with
    /// `aud` does not. The `kid` in it is not looked at.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, Flaw> {
        let token = Token::parse(token)?;
        self.check_signature(&token)?;
        let claims = token.claims()?;
        Expected::default().check(&claims)?;
        claims.check_times(now)?;
        self.check_ceiling(&claims)?;
        Ok(claims)
    }

    /// Whether this key signed it, with the one algorithm it has.
    pub(crate) fn check_signature(&self, token: &Token<'_>) -> Result<(), Flaw> {
        if !self.0.may_verify {
            return Err(Flaw::KeyCannotVerify);
        }
        if token.algorithm != self.0.algorithm {
            return Err(Flaw::OtherAlgorithm { token: token.algorithm, key: self.0.algorithm });
        }
        let signature = encoding::decode(token.signature).ok_or(Flaw::BadSignature)?;
        if !self.0.verifier.accepts(token.signed.as_bytes(), &signature) {
            return Err(Flaw::BadSignature);
        }
        Ok(())
    }

    pub(crate) fn check_ceiling(&self, claims: &Claims) -> Result<(), Flaw> {
        match &self.0.ceiling {
            Some(ceiling) if !ceiling.covers(claims) => Err(Flaw::ExceedsKey),
            _ => Ok(()),
        }
    }
}

/// Same key, same name, same limits.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.mark == other.0.mark && self.0.may_sign == other.0.may_sign
    }
}

impl Eq for Key {}

/// Without secrets.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.0.id.as_ref().map(KeyId::as_str);
        f.debug_struct("Key").field("kid", &id).field("alg", &self.0.algorithm.name()).finish_non_exhaustive()
    }
}

/// The JSON object in the text of a key or a set of keys, of at most `limit` bytes.
pub(crate) fn object(text: &str, limit: usize) -> Result<Object, KeyError> {
    let text = text.trim();
    if text.len() > limit {
        return Err(KeyError::TooLong(limit));
    }
    if text.starts_with('{') {
        return Ok(Object::parse(text.as_bytes())?);
    }
    let json = encoding::decode_padded(text).ok_or(KeyError::Encoding)?;
    Ok(Object::parse(&json)?)
}

fn seal(signer: &Signer, header: &str, payload: &str) -> Option<String> {
    let [header, payload] = [header, payload].map(|part| encoding::encode(part.as_bytes()));
    let signed = format!("{header}.{payload}");
    let signature = signer.sign(signed.as_bytes())?;
    Some(format!("{signed}.{}", encoding::encode(&signature)))
}

fn text<'a>(object: &'a Object, name: &'static str) -> Result<Option<&'a str>, KeyError> {
    object.get(name).map(|value| value.as_str().ok_or(KeyError::Field(name))).transpose()
}

/// Whether it may sign and verify.
fn operations(listed: Option<&Value>) -> Result<(bool, bool), KeyError> {
    let Some(listed) = listed else { return Ok((true, true)) };
    let listed = listed.as_array().ok_or(KeyError::Field("key_ops"))?;
    let has = |name: &str| listed.iter().any(|operation| operation.as_str() == Some(name));
    Ok((has("sign"), has("verify")))
}

#[cfg(test)]
mod tests;
