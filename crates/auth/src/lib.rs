//! Who may publish and subscribe where: the only maker of a permit. Pure: no I/O, no clock.
//!
//! A [`Policy`] admits a request target (`/room/alice?jwt=...`, exactly as the client sent it) and
//! hands out a [`Permit`], which nothing outside this crate can build; or says why not with a
//! [`Refusal`]. Tokens are JSON Web Tokens with the claims of deployed tools ([`Claims`]), signed by a
//! [`Key`] of the set of [`Keys`] that the policy trusts.
//!
//! What reads a token is strict, so that nobody can read it otherwise: one way to write it, no name
//! twice, no algorithm but the key's own, nothing that it says about keys. Signatures are those of
//! the one crypto library of the tree; of the rest of a token no library does as little as we want.

mod algorithm;
mod claims;
mod encoding;
mod expected;
mod explain;
mod flaw;
mod json;
mod key;
mod key_id;
mod keys;
mod permit;
mod policy;
mod refusal;
mod target;
mod token;

pub use algorithm::{Algorithm, UnknownAlgorithm};
pub use claims::{Claims, GRANTS, Grants, LEEWAY, SUBJECT_BYTES};
pub use expected::{EXPECTED, Expected};
pub use explain::{Said, Verdict, explain, inspect};
pub use flaw::{ClaimError, Fault, Flaw, SignError};
pub use json::ObjectError;
pub use key::{KEY_BYTES, Key, KeyError, KeyMark, SET_BYTES};
pub use key_id::{KEY_ID_BYTES, KeyId, NoKeyId};
pub use keys::{KEYS, Keys, NAMELESS_KEYS};
pub use permit::Permit;
#[cfg(any(test, feature = "test-cases"))]
pub use policy::cases;
pub use policy::{Granted, Policy};
pub use refusal::Refusal;
pub use target::{Split, TrackTarget, broadcast_path, form_value};
pub use token::TOKEN_BYTES;
