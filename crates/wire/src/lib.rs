//! Message codec for every protocol version that the relay speaks (draft-lcurley-moq-lite-01 to 06).
//!
//! No I/O and no clock. Decoding never panics, and allocates in proportion to the bytes received, never to
//! a declared length. Every length is capped by a constant of [`relay_model::limits`].
//!
//! - Control streams: push received bytes into an [`MessageBuf`], take messages out with [`MessageBuf::next`] (or
//!   [`MessageBuf::next_varint`] for the stream type). Messages implement [`lite::Message`].
//! - Group streams: [`lite::GroupReader`], which never copies a payload.
//! - Datagrams: [`lite::Datagram`].
//! - Versions of all dialects, for code that only names them: [`Version`].
//! - Features of each version, and those lost between two versions: [`lite::carries`].

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
#![forbid(unsafe_code)]

mod body;
mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod lite;
mod message_buf;
pub mod varint;
mod version;

pub use error::DecodeError;
pub use message_buf::MessageBuf;
pub use version::Version;
