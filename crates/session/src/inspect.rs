//! What a session is about, in numbers.

use crate::{session::Session, sub::Kind};

impl Session {
    /// Broadcasts its peer announces, whether they count or not.
    pub fn publishes(&self) -> usize {
        self.heard.len()
    }

    /// Tracks it reads as their groups come.
    pub fn subscriptions(&self) -> usize {
        self.egress.subs().filter(|sub| sub.kind == Kind::Live).count()
    }
}
