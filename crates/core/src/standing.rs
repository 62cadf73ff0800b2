//! Standing of a route: whether it is advertised, and whether it serves data. The words are those of BGP
//! (stale routes: RFC 4724; suppression and hold-down: RFC 2439).

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

use std::time::Instant;

use relay_model::Hop;

/// Standing of a route among the routes of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Announced; serves data.
    Live,
    /// Announced while another subject holds the path: not advertised.
    Waiting,
    /// Announced, but a relay of its chain has withdrawn the path since: serves no data, and is advertised
    /// only beside a live route.
    Suppressed,
    /// Its session vanished: advertised unchanged until its publisher is back, and serves no data.
    Stale {
        /// Advertised regardless of other routes; afterwards it is a last resort.
        in_hold_down: bool,
        /// Time of its timer: the end of the hold-down, then of the linger.
        due: Instant,
        /// Latest time of its removal.
        until: Instant,
    },
    /// Its session, which may still be open, withdrew it: advertised unchanged during the hold-down, and serves
    /// no data.
    Withdrawn {
        withdrawal: Withdrawal,
        /// Advertised beside live routes.
        in_hold_down: bool,
        /// End of the hold-down.
        due: Instant,
    },
}

/// A withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Withdrawal {
    /// Relay that withdrew its last route to the path (all others it has lead through us). Older routes
    /// through that relay are about to be withdrawn too: as long as this withdrawal is kept they are
    /// suppressed.
    pub(crate) relay: Option<Hop>,
    /// Comparable to the serials of routes.
    pub(crate) serial: u64,
}

impl Standing {
    /// Whether the session announces the route now.
    pub(crate) fn is_announced(self) -> bool {
        self.due().is_none()
    }

    /// Whether the subject of the route holds the path, or need not.
    pub(crate) fn is_admitted(self) -> bool {
        self != Self::Waiting
    }

    /// Whether the publisher of the lost route may come back.
    pub(crate) fn is_stale(self) -> bool {
        matches!(self, Self::Stale { .. })
    }

    /// Deadline of a lost route.
    pub(crate) fn due(self) -> Option<Instant> {
        match self {
            Self::Live | Self::Waiting | Self::Suppressed => None,
            Self::Stale { due, .. } | Self::Withdrawn { due, .. } => Some(due),
        }
    }

    pub(crate) fn in_hold_down(self) -> bool {
        matches!(self, Self::Stale { in_hold_down: true, .. } | Self::Withdrawn { in_hold_down: true, .. })
    }

    pub(crate) fn withdrawal(self) -> Option<Withdrawal> {
        match self {
            Self::Withdrawn { withdrawal, .. } => Some(withdrawal),
            _ => None,
        }
    }

    /// Ends the hold-down of a lost route; its deadline stays.
    pub(crate) fn end_hold_down(&mut self) {
        if let Self::Stale { in_hold_down, .. } | Self::Withdrawn { in_hold_down, .. } = self {
            *in_hold_down = false;
        }
    }
}
