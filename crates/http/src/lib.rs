//! HTTP side of a relay: public routes, WebSocket upgrades, the private listener and the page.
//!
//! It reads the relay's state and asks the same gate as every other transport. The only crate that names an HTTP server
//! library; the socket of a WebSocket is passed to a worker once the upgrade is agreed on.
//!
//! [`Server`] listens ([`accept`]), each [`connection`] is a [`timeouts::TimeoutStream`] under hyper, and the router of a
//! [`site`] answers. Readers of announcements or groups are sessions of a virtual worker ([`readers`]). Everything runs
//! on a small runtime of its own: no worker waits for it.

#![cfg_attr(not(test), warn(clippy::unwrap_used))]
#![warn(clippy::manual_let_else, clippy::needless_pass_by_ref_mut, unused_qualifications)]

mod accept;
mod announced;
mod authority;
mod bearer;
mod charge;
mod client;
mod connection;
mod cors;
mod fetch;
mod front;
pub mod internal;
pub mod limits;
mod link;
mod origin;
pub mod page;
mod proxies;
mod proxy;
mod readers;
mod reply;
mod request;
mod server;
mod shared_feed;
mod site;
mod slots;
mod socket;
pub mod status;
mod stream;
mod timeouts;
pub mod tls;
mod websocket;

pub use authority::Hosts;
pub use axum::Router;
pub use client::{ClientInfo, Network, NoNetwork};
pub use link::Allowed;
pub use origin::{NoOrigin, OriginPattern, Origins};
pub use proxies::{Proxies, ProxyHeader, TrustedProxy};
pub use server::{Addresses, Options, Server, StartError};
pub use tls::FingerprintSource;
