//! What a relay serves over HTTP: public routes, WebSocket upgrades, the private listener and the page.
//!
//! It reads what the relay holds and asks the same gate as every other entrance. The only crate that names
//! an HTTP library; a WebSocket's socket leaves it for a worker as soon as the upgrade is agreed on.

pub mod page;
