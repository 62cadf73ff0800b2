//! Tokens in the compact serialization (RFC 7515 §7.1).

use aws_lc_rs::digest;

use crate::{
    Algorithm, Claims, KeyId, TokenError,
    claims::{CLAIMS, NAMELESS},
    encoding,
    json::Object,
    key_id::hex,
};

/// Longest token in bytes. Longer ones are rejected unparsed.
pub const TOKEN_BYTES: usize = 8 * 1024;
/// Bytes of the digest in an identity.
const IDENTITY_BYTES: usize = 16;

/// Token of which only the header was parsed. Not `Debug`, since it is a secret.
pub(crate) struct Token<'a> {
    /// Signing input: header and payload.
    pub(crate) signed: &'a str,
    pub(crate) signature: &'a str,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: Option<KeyId>,
    payload: &'a str,
}

impl<'a> Token<'a> {
    /// Parses a token. Of the header, only `alg`, `kid` and `crit` are evaluated (RFC 7515 §4.1). Key references
    /// (`jwk`, `jku`, `x5u`, `x5c`) are ignored: a token must not choose its key.
    pub(crate) fn parse(text: &'a str) -> Result<Self, TokenError> {
        if text.len() > TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Shape)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Shape)?;
        if header.is_empty() || payload.is_empty() || signature.is_empty() || payload.contains('.') {
            return Err(TokenError::Shape);
        }
        let header = encoding::decode(header).ok_or(TokenError::Shape)?;
        let header = Object::parse(&header).map_err(TokenError::Header)?;
        let algorithm = header.get("alg").and_then(|name| name.as_str()?.parse().ok());
        let algorithm = algorithm.ok_or(TokenError::UnknownAlgorithm)?;
        if header.get("crit").is_some() {
            return Err(TokenError::Critical);
        }
        let key = match header.get("kid") {
            None | Some(serde_json::Value::Null) => None,
            Some(id) => Some(id.as_str().and_then(|id| id.parse().ok()).ok_or(TokenError::BadKeyId)?),
        };
        Ok(Self { signed, signature, algorithm, key, payload })
    }

    /// Parses the claims, without verification.
    pub(crate) fn claims(&self) -> Result<Claims, TokenError> {
        Claims::read(&self.payload()?)
    }

    /// Returns the names of claims that are not evaluated.
    pub(crate) fn ignored(&self) -> Vec<String> {
        let object = self.payload().ok().and_then(|payload| Object::parse(&payload).ok());
        let names = object.as_ref().map(Object::names).into_iter().flatten();
        names.filter(|name| !CLAIMS.contains(name)).map(str::to_owned).collect()
    }

    /// Returns the identity of a token without a subject: a digest of its `kid` and all its claims.
    ///
    /// The signature is not included, since that of some algorithms differs each time. All claims are, since tokens
    /// with the same grants may have different holders, and the identity permits to take over a path.
    pub(crate) fn identity(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.key.as_ref().map_or("", KeyId::as_str).as_bytes());
        context.update(b".");
        context.update(self.payload.as_bytes());
        let digest = context.finish();
        let digest = digest.as_ref();
        format!("{NAMELESS}{}", hex(digest.get(..IDENTITY_BYTES).unwrap_or(digest)))
    }

    fn payload(&self) -> Result<Vec<u8>, TokenError> {
        encoding::decode(self.payload).ok_or(TokenError::Shape)
    }
}
