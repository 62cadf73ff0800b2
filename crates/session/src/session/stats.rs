//! Statistics of a session.

use super::Session;
use crate::{
    footprint::{ASK, Footprint, SESSION, WAITING},
    sub::RequestKind,
};

impl Session {
    /// Number of broadcasts announced by the peer, routed or not.
    pub fn publishes(&self) -> usize {
        self.publisher.announces.len()
    }

    /// Number of announces that wait because the session's limit of routed ones is reached.
    pub fn surplus(&self) -> usize {
        self.publisher.announces.surplus()
    }

    /// Announces not routed since the session began, over the limit or with an invalid name.
    pub fn unrouted(&self) -> u64 {
        self.publisher.announces.unrouted()
    }

    /// Number of live subscriptions of the peer.
    pub fn subscriptions(&self) -> usize {
        self.subscriber.egress.subs().filter(|sub| sub.kind == RequestKind::Live).count()
    }

    /// Memory held for this session, without that of its transport. Constant time apart from the announce
    /// requests, which are few.
    pub fn footprint(&self) -> Footprint {
        let watches = self.subscriber.watches.iter().map(|watch| watch.footprint());
        Footprint {
            connection: SESSION,
            streams: self.dialect.footprint(),
            control: self.state.control.footprint() + u64::from(self.state.asks.in_flight()) * ASK,
            announces: self.publisher.announces.bytes(),
            subscriptions: self.subscriber.egress.footprint(),
            watches: watches.sum::<u64>() + self.publisher.waiting() as u64 * WAITING,
        }
    }
}
