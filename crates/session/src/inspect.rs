//! What a session is about, in numbers.

use crate::{session::Session, sub::Kind};

impl Session {
    /// Broadcasts its peer announces, whether they count or not.
    pub fn publishes(&self) -> usize {
        self.heard.len()
    }

    /// Announces that are remembered and not routed, since as many as the session may have are.
    pub fn surplus(&self) -> usize {
        self.heard.surplus()
    }

    /// Announces not routed since the session began, for their number or their name.
    pub fn unrouted(&self) -> u64 {
        self.heard.unrouted()
    }

    /// Tracks it reads as their groups come.
    pub fn subscriptions(&self) -> usize {
        self.egress.subs().filter(|sub| sub.kind == Kind::Live).count()
    }
}
