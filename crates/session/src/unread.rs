//! Input that waits to be read, because a budget of work was spent, core is behind, or the peer asks too fast.

use std::time::Instant;

use crate::{
    session::{Cx, Role, Session},
    transport::Transport,
};

/// Deadlines of stream headers that are kept before those that do not matter any more are looked for.
const HEADERS_KEPT: usize = 64;

impl Session {
    /// Goes on with what the last budget of work did not suffice for. Events wait until that is done: the last
    /// one of all is the end of the transport, and what came before it is to be read before.
    pub(crate) fn go_on<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        while !cx.work.is_spent()
            && !self.is_over()
            && let Some(stream) = self.unread.pop_front()
        {
            self.readable(t, cx, stream);
        }
        if self.is_over() {
            return;
        }
        if self.is_resuming && self.may_ask() {
            self.resume_held(t, cx);
        }
        if self.datagrams_due {
            self.datagrams(t, cx);
        }
        if self.watches_due {
            self.pump_watches(t, cx);
        }
    }

    /// Reads on what was held back, oldest first, as far as it may be.
    pub(crate) fn resume_held<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        let mut waiting = std::mem::take(&mut self.held);
        while !cx.work.is_spent()
            && let Some(stream) = waiting.pop_first()
        {
            self.readable(t, cx, stream);
            if !self.held.is_empty() && self.is_held_back(cx.now) {
                break;
            }
        }
        self.is_resuming = cx.work.is_spent();
        self.held.append(&mut waiting);
        if self.held.is_empty() {
            self.pace.caught_up();
        }
    }

    /// Whether nothing held back may be read.
    fn is_held_back(&mut self, now: Instant) -> bool {
        !self.may_ask() || !self.pace.allows(now)
    }

    /// Lets a peer on that asked too fast; closes it if it does nothing else.
    pub(crate) fn let_on<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if !self.pace.resumes(cx.now) {
            return;
        }
        cx.meter.requests_paced += 1;
        if self.pace.is_flooded(cx.now) {
            self.violation(t, cx, "too many requests");
            return;
        }
        self.resume_held(t, cx);
    }

    /// Forgets the deadlines of streams whose header has come, or that are gone, once they are more than the
    /// streams: a peer that opens and resets streams must not make us keep one for each.
    pub(crate) fn prune_headers(&mut self) {
        if self.headers.len() > 2 * self.streams.len() + HEADERS_KEPT {
            let Self { headers, streams, .. } = self;
            headers.retain(|(_, stream)| {
                matches!(streams.get(stream), Some(Role::Request(..) | Role::Header(_)))
            });
        }
    }
}
