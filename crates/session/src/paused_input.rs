//! Unread input: deferred because the work budget was spent, core is behind, or the peer exceeds its request
//! rate.

use relay_model::transport::Transport;
use std::time::Instant;

use crate::session::{Cx, Session, StreamKind};

/// Header deadlines kept before obsolete ones are pruned.
const HEADERS_KEPT: usize = 64;

impl Session {
    /// Continues the input left when the last work budget was spent. Events are processed only after it: the
    /// last event is the end of the transport, and earlier input must be read before.
    #[inline]
    pub(crate) fn go_on<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if self.is_resuming || self.datagrams_due || self.watches_due || !self.unread.is_empty() {
            self.go_on_due(t, cx);
        }
    }

    fn go_on_due<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
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
            self.resume_paused(t, cx);
        }
        if self.datagrams_due {
            self.datagrams(t, cx);
        }
        if self.watches_due {
            self.pump_watches(t, cx);
        }
    }

    /// Continues to read deferred streams, oldest first, as far as allowed.
    pub(crate) fn resume_paused<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        let mut waiting = std::mem::take(&mut self.paused_streams);
        while !cx.work.is_spent()
            && let Some(stream) = waiting.pop_first()
        {
            self.readable(t, cx, stream);
            if !self.paused_streams.is_empty() && self.is_held_back(cx.now) {
                break;
            }
        }
        self.is_resuming = cx.work.is_spent();
        self.paused_streams.append(&mut waiting);
        if self.paused_streams.is_empty() {
            self.pace.caught_up();
        }
    }

    /// Whether no deferred stream may be read.
    fn is_held_back(&mut self, now: Instant) -> bool {
        !self.may_ask() || !self.pace.allows(now)
    }

    /// Resumes the streams of a peer that exceeded its request rate; closes the session if it does so
    /// continuously.
    pub(crate) fn resume_throttled<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if !self.pace.resumes(cx.now) {
            return;
        }
        cx.meter.requests_paced += 1;
        if self.pace.is_flooded(cx.now) {
            self.violation(t, cx, "request rate exceeded");
            return;
        }
        self.resume_paused(t, cx);
    }

    /// Prunes deadlines of streams that are gone or whose header has arrived, once they outnumber the streams:
    /// a peer that opens and resets streams must not grow the queue.
    pub(crate) fn prune_headers(&mut self) {
        if self.headers.len() > 2 * self.streams.len() + HEADERS_KEPT {
            let Self { headers, streams, .. } = self;
            headers.retain(|(_, stream)| {
                matches!(streams.get(stream), Some(StreamKind::Request(..) | StreamKind::Header(_)))
            });
        }
    }
}
