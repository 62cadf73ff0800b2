//! Facts of a session that all of its sides consult, and the credit of its messages to core.

use relay_auth::Permit;
use relay_model::{Hop, Path, Role, limits, limits::SessionLimits};

use crate::{context::SessionConfig, control::ControlQueue, phase::Phase};

/// Facts of a session that all its parts consult: its configuration, life and permit, and its peer.
#[derive(Debug)]
pub(crate) struct SessionState {
    pub(crate) config: SessionConfig,
    pub(crate) phase: Phase,
    pub(crate) control: ControlQueue,
    pub(crate) peer: PeerInfo,
    pub(crate) asks: AskCredit,
    /// Limits in force: those of the configuration, or none for a relay of the same cluster.
    pub(crate) limits: SessionLimits,
    /// Rights of the peer, once it is admitted.
    permit: Option<Permit>,
}

/// Properties of the peer, from SETUP and later messages.
#[derive(Debug)]
pub(crate) struct PeerInfo {
    /// Only role declared in SETUP; `None` = both, or none declared.
    pub(crate) role: Option<Role>,
    /// Hop whose routes are not advertised to it.
    pub(crate) exclude: Hop,
    /// Whether it sent GOAWAY.
    pub(crate) is_draining: bool,
    /// Whether it forwards other publishers' broadcasts; such a peer gets every route.
    pub(crate) is_relay: bool,
}

/// Number of messages that core has yet to process.
#[derive(Debug, Default)]
pub(crate) struct AskCredit {
    in_flight: u32,
}

impl SessionState {
    pub(crate) fn new(config: SessionConfig) -> Self {
        let peer = PeerInfo { role: None, exclude: Hop::ANONYMOUS, is_draining: false, is_relay: false };
        Self {
            limits: config.limits,
            config,
            phase: Phase::default(),
            control: ControlQueue::default(),
            peer,
            asks: AskCredit::default(),
            permit: None,
        }
    }

    /// Sets the rights of the peer. A relay of the same cluster has no limits.
    pub(crate) fn admit(&mut self, permit: Permit) {
        if permit.is_peer() {
            self.limits = SessionLimits::NONE;
        }
        self.permit = Some(permit);
    }

    /// Replaces the rights of the peer.
    pub(crate) fn revise(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// Rights of the peer, once it is admitted.
    pub(crate) fn permit(&self) -> Option<&Permit> {
        self.permit.as_ref()
    }

    /// Whether the peer is a relay of the same cluster, which requests on behalf of all of its sessions.
    pub(crate) fn is_cluster_peer(&self) -> bool {
        self.permit.as_ref().is_some_and(Permit::is_peer)
    }

    /// Path to which all paths of the peer are relative.
    pub(crate) fn root(&self) -> Path {
        self.permit.as_ref().map_or_else(Path::root, |permit| permit.root().clone())
    }

    /// Whether messages that lead to asks may be read, once the version is known.
    pub(crate) fn may_ask(&self) -> bool {
        self.permit.is_some() && self.asks.has_credit()
    }

    /// Reason to close the session of a peer that declared a single role which is not allowed, instead of
    /// letting it wait in vain.
    pub(crate) fn refused_role(&self) -> Option<&'static str> {
        let permit = self.permit.as_ref()?;
        match self.peer.role {
            Some(Role::Publisher) if permit.publish().is_empty() => Some("may not publish"),
            Some(Role::Subscriber) if permit.subscribe().is_empty() => Some("may not subscribe"),
            _ => None,
        }
    }
}

impl AskCredit {
    /// Counts a message sent.
    pub(crate) fn sent(&mut self) {
        self.in_flight = self.in_flight.saturating_add(1);
    }

    /// Returns credit for messages processed.
    pub(crate) fn done(&mut self, count: u32) {
        self.in_flight = self.in_flight.saturating_sub(count);
    }

    /// Messages that core has yet to process.
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    fn has_credit(&self) -> bool {
        self.in_flight < limits::ASKS_IN_FLIGHT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_returns_with_processed_asks() {
        let mut asks = AskCredit::default();
        (0..limits::ASKS_IN_FLIGHT).for_each(|_| asks.sent());
        assert!(!asks.has_credit());
        asks.done(1);
        assert!(asks.has_credit());
        asks.done(u32::MAX);
        assert_eq!(asks.in_flight(), 0);
    }
}
