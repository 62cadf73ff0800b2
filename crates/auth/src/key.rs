//! Keys that sign and verify tokens: JSON Web Keys (RFC 7517) as written by deployed tools.

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
    Algorithm, Claims, Expected, KeyId, SignError, TokenError,
    claims::{Ceiling, Grants},
    encoding,
    json::Object,
    token::Token,
};

/// Longest text of a key, in bytes.
pub const KEY_BYTES: usize = 64 * 1024;
/// Longest text of a key set, in bytes.
pub const SET_BYTES: usize = 256 * 1024;

/// Validated key. Cheap to clone.
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

/// Identity of a key: a digest of everything that determines which tokens it accepts. Not shown, since a short secret
/// could be guessed from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyMark([u8; digest::SHA256_OUTPUT_LEN]);

impl fmt::Debug for KeyMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyMark")
    }
}

impl Key {
    /// Parses a JSON Web Key (RFC 7517 §4), as JSON or as base64url of the JSON.
    ///
    /// Defaults of absent fields: `kty` is `oct`, `alg` of a public key is RS256 or that of its curve, `key_ops` is
    /// `sign` and `verify`. Values are base64url, padded or not. Unknown fields are ignored, except in the `scope`
    /// object, where a misread limit would be no limit.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        Self::read(&object(text, KEY_BYTES)?)
    }

    pub(crate) fn read(object: &Object) -> Result<Self, KeyError> {
        let text = |name| text(object, name);
        // Checked first, since encryption keys have unsupported algorithms.
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
                let scope = Object::of(scope).ok_or(KeyError::Scope("is not an object".into()))?;
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

    /// Generates a key. An error if the system provides no random bytes.
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
        // Built even if `key_ops` forbids signing, so that halves that do not match are detected here.
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

    /// Returns the key with an upper bound on the grants of its tokens. An error if the bound is empty.
    pub fn with_scope(self, scope: Grants) -> Result<Self, KeyError> {
        let ceiling = Ceiling::new(scope).map_err(|fault| KeyError::Scope(fault.to_string()))?;
        let Inner { id, algorithm, may_sign, may_verify, material, .. } = &*self.0;
        Self::new(id.clone(), *algorithm, (*may_sign, *may_verify), Some(ceiling), material.clone())
    }

    /// Returns the public half, which can only verify. An error for symmetric keys and for keys that must not verify.
    pub fn public(&self) -> Result<Self, KeyError> {
        if !self.0.may_verify {
            return Err(KeyError::Operation("verify"));
        }
        let material = self.0.material.public().ok_or(KeyError::NoPublicHalf)?;
        Self::new(self.0.id.clone(), self.0.algorithm, (false, true), self.0.ceiling.clone(), material)
    }

    /// Returns the key as JSON, including secrets; files of it need mode 0600 if [`Key::is_private`].
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

    /// Returns the key as base64url of its JSON, the file format of deployed tools.
    pub fn to_base64url(&self) -> String {
        encoding::encode(self.to_json().as_bytes())
    }

    /// Key id, which a token's `kid` must equal.
    pub fn id(&self) -> Option<&KeyId> {
        self.0.id.as_ref()
    }

    /// The only algorithm that the key accepts.
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// Returns whether the key contains a secret.
    pub fn is_private(&self) -> bool {
        self.0.material.is_private()
    }

    /// Returns whether the key can sign.
    pub fn may_sign(&self) -> bool {
        self.0.may_sign
    }

    /// Returns whether the key may verify.
    pub fn may_verify(&self) -> bool {
        self.0.may_verify
    }

    /// Upper bound of the grants of its tokens; `None` = unlimited.
    pub fn scope(&self) -> Option<&Grants> {
        self.0.ceiling.as_ref().map(Ceiling::grants)
    }

    /// Identity of the key.
    pub fn mark(&self) -> KeyMark {
        self.0.mark
    }

    /// Signs a token with `claims`. An error if this key would reject the token.
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

    /// Signs a token with any header and payload, for tests of parsers.
    #[cfg(any(test, feature = "test-cases"))]
    pub(crate) fn seal(&self, header: &str, payload: &str) -> Option<String> {
        seal(self.0.signer.as_ref()?, header, payload)
    }

    /// Verifies `token` with this key at `now` and returns its claims. No audience is expected, so that a token with
    /// `aud` is rejected. The `kid` of the token is not compared.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, TokenError> {
        let token = Token::parse(token)?;
        self.check_signature(&token)?;
        let claims = token.claims()?;
        Expected::default().check(&claims)?;
        claims.check_times(now)?;
        self.check_ceiling(&claims)?;
        Ok(claims)
    }

    /// Verifies the signature of a token with the algorithm of this key.
    pub(crate) fn check_signature(&self, token: &Token<'_>) -> Result<(), TokenError> {
        if !self.0.may_verify {
            return Err(TokenError::KeyCannotVerify);
        }
        if token.algorithm != self.0.algorithm {
            return Err(TokenError::OtherAlgorithm { token: token.algorithm, key: self.0.algorithm });
        }
        let signature = encoding::decode(token.signature).ok_or(TokenError::BadSignature)?;
        if !self.0.verifier.accepts(token.signed.as_bytes(), &signature) {
            return Err(TokenError::BadSignature);
        }
        Ok(())
    }

    pub(crate) fn check_ceiling(&self, claims: &Claims) -> Result<(), TokenError> {
        match &self.0.ceiling {
            Some(ceiling) if !ceiling.covers(claims) => Err(TokenError::ExceedsKey),
            _ => Ok(()),
        }
    }
}

/// Compares key material, name, limits and permitted operations.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.mark == other.0.mark && self.0.may_sign == other.0.may_sign
    }
}

impl Eq for Key {}

/// Formats the key without secrets.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.0.id.as_ref().map(KeyId::as_str);
        f.debug_struct("Key").field("kid", &id).field("alg", &self.0.algorithm.name()).finish_non_exhaustive()
    }
}

/// Parses the JSON object in the text of a key or key set of at most `limit` bytes.
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

/// Returns whether `key_ops` permits signing and verifying (RFC 7517 §4.3).
fn operations(listed: Option<&Value>) -> Result<(bool, bool), KeyError> {
    let Some(listed) = listed else { return Ok((true, true)) };
    let listed = listed.as_array().ok_or(KeyError::Field("key_ops"))?;
    let has = |name: &str| listed.iter().any(|operation| operation.as_str() == Some(name));
    Ok((has("sign"), has("verify")))
}

#[cfg(test)]
mod tests;
