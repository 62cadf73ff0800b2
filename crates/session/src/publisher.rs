//! Publisher side of a session: the peer's announces, the tracks requested from it, and the requests that wait
//! for its stream credit.

use std::{collections::HashMap, time::Instant};

use foldhash::fast::RandomState;

use relay_model::transport::Transport;

use crate::{
    peer_announces::PeerAnnounces, request::RequestId, request_queue::RequestQueue, turn::Turn,
    upstream::Upstreams, upstream_request::UpstreamRequest, work,
};

mod announces;
mod pulls;
mod requests;
mod tracks;

/// State of the publisher side.
#[derive(Debug, Default)]
pub(crate) struct PublisherSide {
    pub(crate) upstreams: Upstreams,
    /// Announces of the peer, routed or not.
    pub(crate) announces: PeerAnnounces,
    /// Requests that wait for their turn and for stream credit.
    queue: RequestQueue,
    /// Requests sent and not answered to the end.
    sent: HashMap<RequestId, UpstreamRequest, RandomState>,
    /// Whether some requests wait for stream credit, as reported to core.
    is_blocked: bool,
}

impl PublisherSide {
    /// Earliest deadline.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let tracks = if self.upstreams.is_empty() { None } else { self.upstreams.deadline() };
        let requests = if self.queue.is_empty() { None } else { self.queue_deadline() };
        tracks.into_iter().chain(requests).min()
    }

    /// Number of requests that wait on behalf of sessions.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Appends received datagrams while the work budget lasts. True if some are left.
    pub(crate) fn read_datagrams<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>) -> bool {
        loop {
            if turn.cx.work.is_spent() {
                return true;
            }
            let Some(bytes) = turn.t.recv_datagram() else { return false };
            turn.cx.work.take(work::DATAGRAM);
            if turn.cx.store.budget().at_ceiling() {
                continue;
            }
            let Some(datagram) = turn.dialect.datagram(bytes) else { continue };
            let Some(up) = self.upstreams.by_alias(datagram.alias) else { continue };
            turn.cx.meter.media_datagrams_in += 1;
            let payload = turn.cx.store.budget().chunk(datagram.payload.to_vec());
            up.writer.datagram(datagram.group, datagram.tick, payload);
            self.upstreams.mark_dirty();
        }
    }
}

#[cfg(test)]
mod tests;
