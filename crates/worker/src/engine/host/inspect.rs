//! Answers to status requests about sessions.

use std::time::Instant;

use super::SessionHost;
use crate::{
    engine::{guard::guard, session_list},
    query::WorkerQuery,
};

impl SessionHost {
    /// Answers a request; a panic in its callback has no effect.
    pub(in crate::engine) fn answer_query(&mut self, now: Instant, query: WorkerQuery) {
        let answered = match query {
            WorkerQuery::Sessions { wanted, reply } => {
                let traffic = (&self.meter).into();
                let list = session_list::list(&mut self.peers, traffic, now, &wanted);
                guard(|| reply.give(list))
            }
            WorkerQuery::Kick { session, close, reply } => {
                let is_here = self.revoke(session, now, close);
                guard(|| reply.give(is_here))
            }
        };
        if answered.is_err() {
            tracing::error!("status request handler panicked");
        }
    }
}
