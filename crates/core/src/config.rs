//! Settings of the core.

use std::time::Duration;

use relay_model::{Hop, limits};

/// Settings of the core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreConfig {
    /// Our own hop; chains that contain it are loops.
    pub hop: Hop,
    /// Time that an unread log keeps its upstream, and that the path and logs of a vanished publisher are
    /// kept.
    pub linger: Duration,
    /// Time that the advertised routes stay unchanged after a publisher vanishes, or withdraws while another
    /// serves the path; at most the linger.
    pub hold_down: Duration,
    /// Rule for a second publisher of a path.
    pub takeover: Takeover,
    /// Limit on the memory of stale routes, bytes; past it a lost route is withdrawn at once.
    pub stale_bytes: u64,
    /// Limit on the memory of logs that linger, bytes; past it a log without readers is retired at once.
    pub linger_bytes: u64,
}

/// Rule for a second publisher of a path. Relays of the same cluster are always admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Takeover {
    /// Any session whose permit allows the path.
    Any,
    /// Only the subject that took the path while it was free; all public sessions are one subject. Routes of
    /// others wait until its last route is gone and not expected back.
    #[default]
    Identity,
}

impl CoreConfig {
    /// Default settings of a relay with the hop id `hop`.
    pub fn new(hop: Hop) -> Self {
        Self {
            hop,
            linger: limits::LINGER,
            hold_down: limits::HOLD_DOWN,
            takeover: Takeover::default(),
            stale_bytes: u64::MAX,
            linger_bytes: u64::MAX,
        }
    }
}
