//! What a relay serves over HTTP: public routes, WebSocket upgrades, the private listener and the page.
//!
//! It reads what the relay holds and asks the same gate as every other entrance. The only crate that names
//! an HTTP server library; a WebSocket's socket leaves it for a worker as soon as the upgrade is agreed on.
//!
//! [`Server`] listens ([`accept`]), each connection is a [`socket::Guarded`] under hyper, a [`site`] answers.
//! Who reads announces or groups is a session of the [`hub`], which sits beside the workers. All of it runs on
//! a small runtime of its own: whatever happens here, no worker waits for it.

mod accept;
mod announced;
mod authority;
mod bearer;
mod client;
mod fetch;
mod hub;
pub mod internal;
pub mod limits;
mod link;
mod origin;
pub mod page;
mod proxies;
mod proxy;
mod server;
mod site;
mod slots;
mod socket;
pub mod status;
mod stream;
mod tap;
pub mod tls;
mod websocket;

pub use authority::Hosts;
pub use axum::Router;
pub use client::{Client, Network, NoNetwork};
pub use link::Allowed;
pub use origin::{NoOrigin, OriginPattern, Origins};
pub use proxies::{Proxies, ProxyHeader, TrustedProxy};
pub use server::{Addresses, Fingerprint, Options, Server, StartError};
