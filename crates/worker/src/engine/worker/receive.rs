//! First steps of a turn: receiving datagrams, and processing the peers that got input or are due.

use std::time::Instant;

use relay_transport::quic::FeedOutcome;

use super::Worker;
use crate::{
    engine::{
        guard::guard,
        share::{self, TurnShare},
        shared::TurnStage,
    },
    socket::{Io, UdpReceived},
};

impl Worker {
    /// Receives and feeds datagrams until none is left or the share of the turn is used up.
    pub(super) fn receive(&mut self, now: Instant, io: &mut impl Io) {
        let is_refusing = self.host.drain.has_begun() || self.shared.is_out_of_memory();
        // Refused before the handshake: without memory for a session it need not begin.
        self.host.peers.quic.endpoint.refuse_new(is_refusing);
        self.host.peers.ready.begin_receive();
        let mut share = TurnShare::new(share::RECEIVE, now);
        while let Some(received) = self.udp.next(io, &mut self.host.meter) {
            if share.spend(self.feed(now, received), io) {
                break;
            }
        }
        self.clock.latest = share.clock();
        if self.udp.has_input() {
            self.host.peers.ready.leave_datagrams();
            self.host.meter.turns_cut += 1;
        }
    }

    /// Feeds each datagram of a segmented receive; returns their number.
    fn feed(&mut self, now: Instant, received: UdpReceived) -> usize {
        let UdpReceived { remote, local_ip, ecn, stride, mut data } = received;
        let mut count: usize = 0;
        self.host.meter.bytes_in += data.len() as u64;
        while !data.is_empty() {
            let datagram =
                if data.len() > stride { data.split_to(stride) } else { std::mem::take(&mut data) };
            count += 1;
            let mut answer = self.udp.packets.buffer();
            let endpoint = &mut self.host.peers.quic.endpoint;
            let fed = guard(|| endpoint.handle(now, remote, local_ip, ecn, datagram, &mut answer));
            match fed {
                Ok(FeedOutcome::Respond(transmit)) if !self.udp.is_full() => {
                    self.host.meter.responses += 1;
                    self.udp.packets.push(&transmit, answer, None);
                    continue;
                }
                Ok(FeedOutcome::Refused(transmit)) => {
                    self.count_refusal();
                    if !self.udp.is_full() {
                        self.udp.packets.push(&transmit, answer, None);
                        continue;
                    }
                }
                Ok(FeedOutcome::Conn(key)) => self.host.peers.received(key),
                Ok(FeedOutcome::Dropped(key)) => {
                    self.host.meter.datagrams_dropped += 1;
                    self.host.peers.received(key);
                }
                Ok(FeedOutcome::New(key)) => self.host.arrive(key, now),
                // A reply without a connection is not worth a place in a full queue.
                Ok(FeedOutcome::Nothing | FeedOutcome::Respond(_)) => {
                    self.host.meter.datagrams_unknown += 1;
                }
                Err(_) => self.endpoint_panicked(now),
            }
            self.udp.packets.recycle(answer);
        }
        self.host.meter.datagrams_in += count as u64;
        count
    }

    /// Handles a panic while a datagram was fed: drops the connection that took it, or else replaces the
    /// endpoint.
    fn endpoint_panicked(&mut self, now: Instant) {
        let peers = &self.host.peers;
        match peers.quic.endpoint.suspect().and_then(|key| peers.index_of_conn(key)) {
            Some(index) => self.host.drop_panicked(index, TurnStage::Feed),
            None => self.rebuild_endpoint(now),
        }
    }

    fn count_refusal(&mut self) {
        if self.host.drain.has_begun() {
            self.host.meter.refused_draining += 1;
        } else {
            self.host.meter.refused_memory += 1;
        }
    }

    /// Processes the ready peers within the share of the turn: those that have not used up a budget of work, then
    /// those that have, at least one of them.
    pub(super) fn process_ready(&mut self, now: Instant, io: &impl Io) {
        let host = &mut self.host;
        if host.peers.ready.is_empty() {
            return;
        }
        let mut share = TurnShare::new(share::PROCESS, self.clock.latest);
        let mut is_over = false;
        let mut oldest = now;
        // A peer that uses up a budget in this turn waits for the next one.
        let behind = host.peers.ready.len_behind();
        // Peers that become ready meanwhile wait for the next turn.
        for _ in 0..host.peers.ready.len() {
            let Some(index) = host.peers.ready.pop() else { break };
            let before = host.peers.ready.len_behind();
            oldest = oldest.min(host.process(index, now));
            // A peer that used up a budget may have taken as long as many others: the clock is read after it.
            let has_spent = host.peers.ready.len_behind() > before;
            is_over = share.spend(if has_spent { share::PROCESS.least } else { 1 }, io);
            if is_over {
                break;
            }
        }
        for _ in 0..behind {
            let Some(index) = host.peers.ready.pop_behind() else { break };
            oldest = oldest.min(host.process(index, now));
            is_over |= share.spend(share::PROCESS.least, io);
            if is_over {
                break;
            }
        }
        host.meter.turns_cut += u64::from(is_over);
        host.peers.ready.processed_since(oldest);
        self.clock.latest = share.clock();
    }
}
