//! Every bound of a connection over a stream socket, with its reason.

use std::time::Duration;

/// Silence after which a peer is given up: what all known peers ask for.
pub(super) const IDLE: Duration = Duration::from_secs(30);
