//! Async client of any moq-lite relay: publish, subscribe, watch announcements, send invalid messages.
//!
//! Built on the published `quinn` and `qmux` and, of this workspace, only on the codec; deliberately *not* on
//! `relay-session` or `relay-transport`: end-to-end tests and the load generator use it against the relay, and a
//! mistake shared by both ends would pass every test.
//!
//! ```no_run
//! # async fn example() -> Result<(), relay_client::Error> {
//! use relay_client::{Client, ClientConfig, Prefs, TrackInfo};
//!
//! let publisher = Client::connect("moqt://127.0.0.1:4443/", ClientConfig::default()).await?;
//! let broadcast = publisher.broadcast("live/cam")?;
//! let video = broadcast.track("video", TrackInfo::default())?;
//! broadcast.announce();
//!
//! let viewer = Client::connect("https://127.0.0.1:4443/", ClientConfig::default()).await?;
//! let mut subscription = viewer.subscribe("live/cam", "video", Prefs::default()).await?;
//! video.wait_subscribed().await;
//! let group = video.group(0);
//! group.frame(0, "hello".into());
//! group.finish();
//! let mut received = subscription.next_group().await?;
//! assert_eq!(received.frame().await?.map(|f| f.payload), Some("hello".into()));
//! # Ok(()) }
//! ```
//!
//! Supports moq-lite-03 to 06, selected by [`ClientConfig::version`]. Features that a version lacks are
//! [`Error::Unsupported`].
//!
//! A session lives as long as a [`Client`] handle; it is closed when the last one is dropped. Everything runs on the
//! tokio runtime it was started on, which may be a current-thread one. [`Reconnecting`] keeps a session through losses
//! and requests to move.

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

mod announced;
mod announcer;
mod carrier;
mod client;
mod code;
mod config;
mod control;
mod error;
mod group_log;
mod groups;
mod h3;
mod link;
mod publish;
mod publisher;
mod race;
mod raw;
mod reconnect;
mod requests;
mod serve;
mod session;
mod socket;
mod stream;
mod subscribe;
mod target;
mod tls;

pub use announced::{Announced, Announcement};
pub use client::Client;
pub use code::{Closed, Code};
pub use config::{AckFrequency, Certs, ClientConfig, ClientIdentity, SocketFactory, Tuning};
pub use error::Error;
pub use groups::{Frame, Piece, ReceivedGroup};
pub use link::Link;
pub use publisher::{Broadcast, Fetches, GroupWriter, Track, TrackFigures};
pub use raw::Raw;
pub use reconnect::{Reconnecting, Retry};
pub use requests::Probes;
pub use stream::{RecvStream, SendStream};
pub use subscribe::{Event, Subscription};
pub use target::addresses;

pub use quinn;
pub use relay_model::{Cost, Hop, Path, Prefs, SessionCode, Start, StreamCode, TrackInfo, TrackName};
pub use relay_wire::lite;

#[cfg(test)]
mod tests;
