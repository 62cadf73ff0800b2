//! Last step of a turn: sending packets.

use std::time::Instant;

use relay_transport::quic::ConnPhase;

use super::{
    PeerCarrier, TurnStage, Worker,
    admit::Conclusion,
    guard,
    share::{self, TurnShare},
};
use crate::{outbox::Flushed, socket::Io};

/// Segmented packets one connection may send before the others have had their turn.
const TRAINS: usize = 4;

/// Progress of a connection's flush.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Transmitted {
    /// Nothing more to send now.
    All,
    /// More to send, or possibly more.
    Some,
    /// The connection panicked and was dropped.
    Gone,
}

impl Worker {
    /// Retries a full socket after a delay.
    pub(super) fn retry_full(&mut self, now: Instant, io: &mut impl Io) {
        let is_over = self.full_since.is_none_or(|since| now >= since + super::RETRY_FULL);
        if is_over && !self.outbox.is_empty() {
            self.full_since = None;
            self.send(now, io);
        }
    }

    /// Flushes every connection with something to send once, then the rest of it in turn.
    pub(super) fn flush(&mut self, io: &mut impl Io) {
        if self.dirty.is_empty() && self.dirty_streams.is_empty() && self.outbox.is_empty() {
            return;
        }
        // Earlier steps may have taken long, and packets need the current time.
        let now = io.now();
        let mut share = TurnShare::new(share::FLUSH, now);
        loop {
            let of_endpoint = if self.full_since.is_none() { self.dirty.pop_front() } else { None };
            let of_streams = self.dirty_streams.pop_front();
            // Alternates, so that neither kind starves the other.
            for index in of_endpoint.into_iter().chain(of_streams) {
                self.flush_peer(index, now, io);
            }
            let is_left =
                (self.full_since.is_none() && !self.dirty.is_empty()) || !self.dirty_streams.is_empty();
            if !is_left {
                break;
            }
            if share.spend(1, io) {
                self.meter.turns_cut += 1;
                break;
            }
        }
        if self.full_since.is_none() {
            self.send(now, io);
        }
    }

    fn flush_peer(&mut self, index: u32, now: Instant, io: &mut impl Io) {
        // Cleared after concluding, which may mark the peer dirty.
        let conclusion = self.conclude(index, now);
        if let Some(peer) = self.peers.get_mut(index) {
            peer.is_dirty = false;
        }
        match conclusion {
            Conclusion::Open | Conclusion::Over => {}
            Conclusion::Later | Conclusion::Gone => return,
        }
        match self.transmit(index, now, io) {
            Transmitted::Gone => return,
            Transmitted::Some => self.mark_dirty(index),
            Transmitted::All => {}
        }
        self.check_winding(index, now);
        self.rearm(index);
    }

    /// Writes packets of one connection to the outbox, and flushes the outbox when it is ripe.
    fn transmit(&mut self, index: u32, now: Instant, io: &mut impl Io) -> Transmitted {
        let Some(peer) = self.peers.get(index) else { return Transmitted::Gone };
        let PeerCarrier::Quic(key) = peer.carrier else { return self.send_stream(index, now) };
        let id = peer.id;
        let segments = if peer.unsegmented { 1 } else { self.shared.quic.segments(io.max_segments()) };
        for _ in 0..TRAINS {
            let mut buffer = self.outbox.buffer();
            let Self { endpoint, shared, .. } = self;
            let polled = guard(|| {
                shared.fault(TurnStage::Flush, id);
                endpoint.conn(key)?.poll_transmit(now, segments, &mut buffer)
            });
            match polled {
                None => {
                    self.drop_panicked(index, TurnStage::Flush);
                    return Transmitted::Gone;
                }
                Some(None) => {
                    self.outbox.recycle(buffer);
                    return Transmitted::All;
                }
                Some(Some(transmit)) => self.outbox.push(&transmit, buffer, Some(index)),
            }
            if self.outbox.is_ripe() {
                self.send(now, io);
                if self.full_since.is_some() {
                    break;
                }
            }
        }
        Transmitted::Some
    }

    /// Flushes the outbox to the socket, as far as it has room.
    fn send(&mut self, now: Instant, io: &mut impl Io) {
        let mut unsegmented = std::mem::take(&mut self.scratch.unsegmented);
        if self.outbox.flush(io, &mut self.meter, &mut unsegmented) == Flushed::Full {
            self.full_since = Some(now);
        }
        for index in unsegmented.drain(..) {
            if let Some(peer) = self.peers.get_mut(index) {
                peer.unsegmented = true;
            }
        }
        self.scratch.unsegmented = unsegmented;
    }

    /// Sets the peer's timer, or removes a drained peer.
    fn rearm(&mut self, index: u32) {
        let Self { peers, endpoint, wheel, .. } = self;
        let Some(peer) = peers.get_mut(index) else { return };
        let key = peer.carrier.key();
        let of_session = peer.session.as_ref().and_then(|session| session.next_deadline());
        let own = peer.deadline();
        let of_conn = guard(|| {
            let mut conn = peer.carrier.conn(endpoint)?;
            (conn.phase() != ConnPhase::Drained).then(|| conn.next_deadline())
        });
        match of_conn {
            Some(Some(of_conn)) => {
                wheel.set(index, [of_conn, of_session, own].into_iter().flatten().min());
            }
            Some(None) => {
                wheel.clear(index);
                let peer = peers.remove(index);
                match key {
                    Some(key) => {
                        if guard(|| endpoint.remove(key)).is_none() {
                            self.meter.panics_endpoint += 1;
                        }
                    }
                    None => peer.into_iter().for_each(|peer| self.forget_carrier(peer)),
                }
            }
            None => self.drop_panicked(index, TurnStage::Flush),
        }
    }
}
