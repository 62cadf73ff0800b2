//! Last step of a turn: sending packets.

use std::time::Instant;

use super::Worker;
use crate::{
    engine::{
        carrier::PeerCarrier,
        guard::guard,
        host::{Conclusion, Transmitted},
        share::{self, TurnShare},
        shared::TurnStage,
    },
    socket::Io,
};

/// Segmented packets one connection may send before the others have had their turn.
const TRAINS: usize = 4;

impl Worker {
    /// Flushes every connection with something to send once, then the rest of it in turn.
    pub(super) fn flush(&mut self, io: &mut impl Io) {
        if !self.host.peers.flush.has_any(false) && self.udp.packets.is_empty() {
            return;
        }
        // Earlier steps may have taken long, and packets need the current time.
        let now = io.now();
        let mut share = TurnShare::new(share::FLUSH, now);
        loop {
            let flush = &mut self.host.peers.flush;
            let of_endpoint = if self.udp.is_full() { None } else { flush.pop_udp() };
            let of_streams = flush.pop_stream();
            // Alternates, so that neither kind starves the other.
            for index in of_endpoint.into_iter().chain(of_streams) {
                self.flush_peer(index, now, io);
            }
            if !self.host.peers.flush.has_any(self.udp.is_full()) {
                break;
            }
            if share.spend(1, io) {
                self.host.meter.turns_cut += 1;
                break;
            }
        }
        if !self.udp.is_full() {
            self.send(now, io);
        }
    }

    fn flush_peer(&mut self, index: u32, now: Instant, io: &mut impl Io) {
        // Cleared after concluding, which may mark the peer dirty.
        let conclusion = self.host.conclude(index, now);
        self.host.peers.flush.unmark(index);
        match conclusion {
            Conclusion::Open | Conclusion::Over => {}
            Conclusion::Later | Conclusion::Gone => return,
        }
        match self.transmit(index, now, io) {
            Transmitted::Gone => return,
            Transmitted::Some => self.host.peers.mark_dirty(index),
            Transmitted::All => {}
        }
        self.host.peers.check_winding(index, now);
        self.host.rearm(index);
    }

    /// Writes packets of one connection to the queue, and flushes the queue when it is ripe.
    fn transmit(&mut self, index: u32, now: Instant, io: &mut impl Io) -> Transmitted {
        let Some(peer) = self.host.peers.get(index) else { return Transmitted::Gone };
        let PeerCarrier::Quic(key) = peer.carrier else { return self.host.flush_stream(index, now) };
        let id = peer.id;
        let segments = if peer.unsegmented { 1 } else { self.shared.quic.segments(io.max_segments()) };
        for _ in 0..TRAINS {
            let mut buffer = self.udp.packets.buffer();
            let (endpoint, shared) = (&mut self.host.peers.quic.endpoint, &self.shared);
            let polled = guard(|| {
                shared.fault(TurnStage::Flush, id);
                endpoint.conn(key)?.poll_transmit(now, segments, &mut buffer)
            });
            match polled {
                Err(_) => {
                    self.host.drop_panicked(index, TurnStage::Flush);
                    return Transmitted::Gone;
                }
                Ok(None) => {
                    self.udp.packets.recycle(buffer);
                    return Transmitted::All;
                }
                Ok(Some(transmit)) => self.udp.packets.push(&transmit, buffer, Some(index)),
            }
            if self.udp.packets.is_ripe() {
                self.send(now, io);
                if self.udp.is_full() {
                    break;
                }
            }
        }
        Transmitted::Some
    }

    /// Retries a full socket after a delay.
    pub(super) fn retry_full(&mut self, now: Instant, io: &mut impl Io) {
        self.udp.retry(now, io, &mut self.host.meter);
        self.mark_unsegmented();
    }

    /// Sends the queued packets, as far as the socket has room.
    fn send(&mut self, now: Instant, io: &mut impl Io) {
        self.udp.send(now, io, &mut self.host.meter);
        self.mark_unsegmented();
    }

    /// Lets the peers whose segmented packets failed send single datagrams.
    fn mark_unsegmented(&mut self) {
        while let Some(index) = self.udp.pop_unsegmented() {
            if let Some(peer) = self.host.peers.get_mut(index) {
                peer.unsegmented = true;
            }
        }
    }
}
