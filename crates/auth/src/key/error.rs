//! Errors of keys, for their authors. They never contain key material.

use crate::{Algorithm, json::ObjectError, key_id::NoKeyId};

/// Error of a key or key set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Longer than this many bytes: [`crate::KEY_BYTES`], or [`crate::SET_BYTES`] for a set.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// Neither JSON nor base64url.
    #[error("neither a JSON object nor base64url of one")]
    Encoding,
    /// The JSON is malformed.
    #[error("the key {0}")]
    Json(#[from] ObjectError),
    /// A field is missing.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A field has an invalid value.
    #[error("`{0}` has an invalid value")]
    Field(&'static str),
    /// The algorithm is not supported.
    #[error("`alg` is not one of {}", Algorithm::NAMES)]
    Algorithm,
    /// The key id is invalid.
    #[error("`kid`: {NoKeyId}")]
    Id,
    /// The key is not for signatures (RFC 7517 §4.2).
    #[error("`use` is not `sig`: the key is not for signatures")]
    Purpose,
    /// Key type and algorithm do not match.
    #[error("a key of this `kty` and `crv` cannot be used with {0}")]
    Family(Algorithm),
    /// The secret is too short.
    #[error("the secret `k` has {0} bytes; it needs at least 32")]
    ShortSecret(usize),
    /// The RSA key is too short to be safe, or so long that verifying is too expensive.
    #[error("an RSA key needs 2048 to 8192 bits; this one has {0}")]
    Size(usize),
    /// The parameters are not a valid key, or its halves do not match.
    #[error("the key is invalid, or its private and public half do not match")]
    Rejected,
    /// Invalid `scope`.
    #[error("`scope` {0}")]
    Scope(String),
    /// The key can neither sign nor verify.
    #[error("the key can neither sign nor verify; check `key_ops` and the private half")]
    Useless,
    /// `key_ops` does not permit this operation.
    #[error("the key cannot {0}: its `key_ops` has no `{0}`")]
    Operation(&'static str),
    /// Symmetric keys have no public half.
    #[error("a key for HS256, HS384 or HS512 is one secret: it has no public half")]
    NoPublicHalf,
    /// Two keys have the same `kid` and algorithm.
    #[error("another key has the same `kid` and `alg`")]
    SameId,
    /// The key set is full.
    #[error(
        "too many keys: at most {} in a set, {} of them without a `kid`",
        crate::KEYS,
        crate::NAMELESS_KEYS
    )]
    TooMany,
    /// The system provides no random bytes.
    #[error("the system provides no random bytes")]
    Random,
}
