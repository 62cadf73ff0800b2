//! Bytes to messages and back, for every protocol version the relay speaks.
//!
//! No I/O and no time. Decoding never panics, and allocates in proportion to bytes received,
//! never to bytes declared. Every length is capped by a constant of [`relay_model::limits`].
//!
//! - Control streams: push what arrives into an [`Inbox`], take messages out with
//!   [`Inbox::next`] (or [`Inbox::next_varint`] for the stream type). Messages implement
//!   [`lite::Message`].
//! - Group streams: [`lite::GroupReader`], which never copies a payload.
//! - Datagrams: [`lite::Datagram`].
//! - What a version can say, and what is lost between two: [`lite::carries`].

#![forbid(unsafe_code)]

pub mod app_error;
mod body;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod inbox;
pub mod lite;
pub mod varint;

pub use error::Error;
pub use inbox::Inbox;
