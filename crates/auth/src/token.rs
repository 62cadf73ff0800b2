//! Tokens as they travel: RFC 7515, compact.

use aws_lc_rs::digest;

use crate::{
    Algorithm, Claims, Flaw, KeyId,
    claims::{CLAIMS, NAMELESS},
    encoding,
    json::Object,
    key_id::hex,
};

/// Longest token. Longer ones are refused unread.
pub const TOKEN_BYTES: usize = 8 * 1024;
/// Bytes of a digest that make an identity.
const IDENTITY_BYTES: usize = 16;

/// A token of which the header was read and nothing else. Not `Debug`: it is a secret.
pub(crate) struct Token<'a> {
    /// What the signature is over.
    pub(crate) signed: &'a str,
    pub(crate) signature: &'a str,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: Option<KeyId>,
    payload: &'a str,
}

impl<'a> Token<'a> {
    /// Of the header, `alg`, `kid` and `crit` are looked at. What it says of keys (`jwk`, `jku`, `x5u`,
    /// `x5c`) is not: which key verifies is not for the token to say.
    pub(crate) fn parse(text: &'a str) -> Result<Self, Flaw> {
        if text.len() > TOKEN_BYTES {
            return Err(Flaw::TooLong);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Flaw::Shape)?;
        let (header, payload) = signed.split_once('.').ok_or(Flaw::Shape)?;
        if header.is_empty() || payload.is_empty() || signature.is_empty() || payload.contains('.') {
            return Err(Flaw::Shape);
        }
        let header = encoding::decode(header).ok_or(Flaw::Shape)?;
        let header = Object::parse(&header).map_err(Flaw::Header)?;
        let algorithm = header.get("alg").and_then(|name| name.as_str()?.parse().ok());
        let algorithm = algorithm.ok_or(Flaw::UnknownAlgorithm)?;
        if header.get("crit").is_some() {
            return Err(Flaw::Critical);
        }
        let key = match header.get("kid") {
            None | Some(serde_json::Value::Null) => None,
            Some(id) => Some(id.as_str().and_then(|id| id.parse().ok()).ok_or(Flaw::BadKeyId)?),
        };
        Ok(Self { signed, signature, algorithm, key, payload })
    }

    /// What it says, whoever signed it.
    pub(crate) fn claims(&self) -> Result<Claims, Flaw> {
        Claims::read(&self.payload()?)
    }

    /// Names of claims that decide nothing.
    pub(crate) fn ignored(&self) -> Vec<String> {
        let object = self.payload().ok().and_then(|payload| Object::parse(&payload).ok());
        let names = object.as_ref().map(Object::names).into_iter().flatten();
        names.filter(|name| !CLAIMS.contains(name)).map(str::to_owned).collect()
    }

    /// Who shows it, where it names no subject: whoever shows the same claims under the same key again.
    ///
    /// What the signature covers, not the signature: that of some algorithms differs each time. Nothing
    /// less than all claims: a token of the same grants may be anybody's, and identity is what lets a
    /// session take a path from another.
    pub(crate) fn identity(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.key.as_ref().map_or("", KeyId::as_str).as_bytes());
        context.update(b".");
        context.update(self.payload.as_bytes());
        let digest = context.finish();
        let digest = digest.as_ref();
        format!("{NAMELESS}{}", hex(digest.get(..IDENTITY_BYTES).unwrap_or(digest)))
    }

    fn payload(&self) -> Result<Vec<u8>, Flaw> {
        encoding::decode(self.payload).ok_or(Flaw::Shape)
    }
}
