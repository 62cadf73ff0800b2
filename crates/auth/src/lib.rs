//! Who may publish and subscribe where: the only maker of a permit. Pure: no I/O, no clock.
//!
//! A [`Policy`] admits a request target (`/room/alice?jwt=...`, exactly as the client sent it) and
//! hands out a [`Permit`], which nothing outside this crate can build; or says why not with a
//! [`Refusal`].

mod permit;
mod policy;
mod refusal;
mod target;

pub use permit::Permit;
pub use policy::Policy;
pub use refusal::Refusal;
