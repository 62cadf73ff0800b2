//! Authorization of sessions to publish and subscribe. Pure: no I/O, no clock.
//!
//! A [`Policy`] admits a request target (`/room/alice?jwt=...`, exactly as the client sent it) and returns a
//! [`Permit`], which only this crate can build, or a [`Refusal`]. Tokens are JSON Web Tokens (RFC 7519) with the
//! claims of deployed tools ([`Claims`]), signed by one of the [`Keys`] that the policy trusts.
//!
//! Token parsing is strict, so that no other parser can interpret a token differently: one encoding, no repeated
//! names, no algorithm but that of the key, no key references in the header. Signatures are verified by the
//! cryptography library that the whole tree uses; available JWT libraries accept more than needed.

#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::needless_pass_by_ref_mut,
        clippy::manual_let_else
    )
)]
#![warn(unused_qualifications, unnameable_types)]

mod algorithm;
mod claims;
mod encoding;
mod error;
mod expected;
mod explain;
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
pub use error::{ClaimError, Fault, SignError, TokenError};
pub use expected::{EXPECTED, Expected};
pub use explain::{UnverifiedToken, Verdict, explain, inspect};
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
