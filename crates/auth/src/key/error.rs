//! What is wrong with a key, for whoever wrote it. Never what it holds.

use crate::{Algorithm, json::ObjectError, key_id::NoKeyId};

/// Why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// More than this many bytes: [`crate::KEY_BYTES`], or [`crate::SET_BYTES`] for a set.
    #[error("longer than {0} bytes")]
    TooLong(usize),
    /// Neither JSON nor base64url.
    #[error("neither a JSON object nor base64url of one")]
    Encoding,
    /// The JSON cannot be trusted.
    #[error("the key {0}")]
    Json(#[from] ObjectError),
    /// A field is not there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A field is not what it must be.
    #[error("`{0}` has a value it cannot have")]
    Field(&'static str),
    /// The algorithm is none of ours.
    #[error("`alg` is none of {}", Algorithm::NAMES)]
    Algorithm,
    /// The name of the key is none.
    #[error("`kid`: {NoKeyId}")]
    Id,
    /// A key to encrypt with.
    #[error("`use` says the key is for something other than signatures")]
    Purpose,
    /// The kind of key and the algorithm do not belong together.
    #[error("a key of this `kty` and `crv` cannot be used with {0}")]
    Family(Algorithm),
    /// A secret that could be guessed.
    #[error("the secret `k` has {0} bytes; it needs at least 32")]
    ShortSecret(usize),
    /// RSA keys outside of these sizes are unsafe, or a way to keep us busy.
    #[error("an RSA key has 2048 to 8192 bits, this one has {0}")]
    Size(usize),
    /// The numbers are no key, or its halves do not fit.
    #[error("the numbers in it are no valid key, or its private and public half do not fit")]
    Rejected,
    /// The limit it carries.
    #[error("`scope` {0}")]
    Scope(String),
    /// It may neither sign nor verify.
    #[error("it can neither sign nor verify: see `key_ops`, and whether the private half is there")]
    Useless,
    /// It may not do this.
    #[error("the key may not {0}: see `key_ops`")]
    Operation(&'static str),
    /// There is only a secret.
    #[error("a key for HS256, HS384 or HS512 is one secret: it has no public half")]
    NoPublicHalf,
    /// Two keys with one name and one algorithm.
    #[error("another key has the same `kid` and `alg`")]
    SameId,
    /// More keys than a set may have.
    #[error(
        "too many keys: at most {} in a set, {} of them without a `kid`",
        crate::KEYS,
        crate::NAMELESS_KEYS
    )]
    TooMany,
    /// No random numbers.
    #[error("the system has no random numbers")]
    Random,
}
