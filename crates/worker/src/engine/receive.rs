//! First steps of a turn: receiving datagrams, and settling the peers that got input or are due.

use std::{io, time::Instant};

use relay_model::{SessionCode, limits};
use relay_transport::quic::{ConnKey, ConnPhase, FeedOutcome};

use super::{
    PeerCarrier, PeerState, TurnStage, Worker, WorkerPeer, guard,
    share::{self, TurnShare},
};
use crate::{
    gate::Denial,
    socket::{Io, UdpReceived},
};

impl Worker {
    /// Receives and feeds datagrams until none is left or the share of the turn is used up.
    pub(super) fn receive(&mut self, now: Instant, io: &mut impl Io) {
        // Refused before the handshake: without memory for a session it need not begin.
        self.endpoint.refuse_new(self.ending.is_some() || self.is_out_of_memory());
        self.ready.begin_receive();
        let mut share = TurnShare::new(share::RECEIVE, now);
        while self.has_received() || (self.readable && self.receive_batch(io)) {
            let next = self.fed;
            self.fed += 1;
            if share.spend(self.feed(now, next), io) {
                break;
            }
        }
        self.clock = share.clock();
        if self.readable || self.has_received() {
            self.ready.is_receive_behind = true;
            self.meter.turns_cut += 1;
        }
    }

    /// Whether received datagrams are left to feed.
    pub(super) fn has_received(&self) -> bool {
        self.fed < self.received.len()
    }

    /// Makes one receive call. False: nothing was received.
    fn receive_batch(&mut self, io: &mut impl Io) -> bool {
        self.received.clear();
        self.fed = 0;
        self.meter.recv_calls += 1;
        match io.recv(&mut self.received) {
            Ok(more) => self.readable = more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
            // A past error, such as a port unreachable: the next turn continues.
            Err(_) => self.meter.recv_errors += 1,
        }
        self.meter.recv_batch.record(self.received.len() as u64);
        !self.received.is_empty()
    }

    /// Feeds each datagram of a segmented receive; returns their number.
    fn feed(&mut self, now: Instant, received: usize) -> usize {
        let Some(UdpReceived { remote, local_ip, ecn, stride, data }) = self.received.get_mut(received)
        else {
            return 0;
        };
        let (remote, local_ip, ecn, stride) = (*remote, *local_ip, *ecn, *stride);
        let mut data = std::mem::take(data);
        let mut count: usize = 0;
        self.meter.bytes_in += data.len() as u64;
        while !data.is_empty() {
            let datagram =
                if data.len() > stride { data.split_to(stride) } else { std::mem::take(&mut data) };
            count += 1;
            let mut answer = self.outbox.buffer();
            let endpoint = &mut self.endpoint;
            let fed = guard(|| endpoint.handle(now, remote, local_ip, ecn, datagram, &mut answer));
            match fed {
                Some(FeedOutcome::Respond(transmit)) if self.full_since.is_none() => {
                    self.meter.responses += 1;
                    self.outbox.push(&transmit, answer, None);
                    continue;
                }
                Some(FeedOutcome::Refused(transmit)) => {
                    self.count_refusal();
                    if self.full_since.is_none() {
                        self.outbox.push(&transmit, answer, None);
                        continue;
                    }
                }
                Some(FeedOutcome::Conn(key)) => self.touch_conn(key),
                Some(FeedOutcome::Dropped(key)) => {
                    self.meter.datagrams_dropped += 1;
                    self.touch_conn(key);
                }
                Some(FeedOutcome::New(key)) => self.arrive(key, now),
                // A reply without a connection is not worth a place in a full outbox.
                Some(FeedOutcome::Nothing | FeedOutcome::Respond(_)) => self.meter.datagrams_unknown += 1,
                None => self.endpoint_panicked(now),
            }
            self.outbox.recycle(answer);
        }
        self.meter.datagrams_in += count as u64;
        count
    }

    /// Handles a panic while a datagram was fed: drops the connection that took it, or else replaces the
    /// endpoint.
    fn endpoint_panicked(&mut self, now: Instant) {
        match self.endpoint.suspect().and_then(|key| self.peer_of(key)) {
            Some(index) => self.drop_panicked(index, TurnStage::Feed),
            None => self.rebuild_endpoint(now),
        }
    }

    fn count_refusal(&mut self) {
        if self.ending.is_some() {
            self.meter.refused_draining += 1;
        } else {
            self.meter.refused_memory += 1;
        }
    }

    fn peer_of(&self, key: ConnKey) -> Option<u32> {
        let index = *self.by_conn.get(key.slot())?;
        self.peers.get(index).is_some_and(|peer| peer.carrier.is(key)).then_some(index)
    }

    fn touch_conn(&mut self, key: ConnKey) {
        if let Some(index) = self.peer_of(key) {
            self.touch_since(index, self.ready.received_since());
        }
    }

    /// Adds a peer for a new connection.
    fn arrive(&mut self, key: ConnKey, now: Instant) {
        self.meter.connections += 1;
        let admit_by = now + limits::SETUP_TIMEOUT;
        let Self { endpoint, shared, .. } = self;
        let Some(remote) = endpoint.conn(key).map(|conn| conn.remote().ip()) else { return };
        let ledger = &shared.ledger;
        let make = |id| WorkerPeer::new(id, PeerCarrier::Quic(key), admit_by, ledger.open(id, remote));
        let Some(index) = self.peers.insert(make) else {
            self.meter.refused_full += 1;
            self.endpoint.remove(key);
            return;
        };
        if self.by_conn.len() <= key.slot() {
            self.by_conn.resize(key.slot() + 1, u32::MAX);
        }
        if let Some(slot) = self.by_conn.get_mut(key.slot()) {
            *slot = index;
        }
        self.touch_since(index, self.ready.received_since());
    }

    /// Handles the input and timers of ready peers, in the order in which they became ready; then those of
    /// peers that have used up a budget of work before, at least of one.
    pub(super) fn process_ready(&mut self, now: Instant, io: &impl Io) {
        if self.ready.is_empty() {
            return;
        }
        let mut share = TurnShare::new(share::PROCESS, self.clock);
        let mut is_over = false;
        let mut oldest = now;
        // A peer that uses up a budget in this turn waits for the next one.
        let behind = self.ready.len_behind();
        // Peers that become ready meanwhile wait for the next turn.
        for _ in 0..self.ready.len() {
            let Some(index) = self.ready.pop() else { break };
            let before = self.ready.len_behind();
            oldest = oldest.min(self.process_since(index, now));
            // A peer that used up a budget may have taken as long as many others: the clock is read after it.
            let has_spent = self.ready.len_behind() > before;
            is_over = share.spend(if has_spent { share::PROCESS.least } else { 1 }, io);
            if is_over {
                break;
            }
        }
        for _ in 0..behind {
            let Some(index) = self.ready.pop_behind() else { break };
            oldest = oldest.min(self.process_since(index, now));
            is_over |= share.spend(share::PROCESS.least, io);
            if is_over {
                break;
            }
        }
        self.meter.turns_cut += u64::from(is_over);
        self.clock = share.clock();
        self.ready.processed_since(oldest);
    }

    /// Settles a peer; returns the earliest time since when it may have been ready.
    fn process_since(&mut self, index: u32, now: Instant) -> Instant {
        let Some(peer) = self.peers.get_mut(index) else { return now };
        peer.is_touched = false;
        let since = peer.ready_since;
        self.process_peer(index, now);
        since
    }

    fn process_peer(&mut self, index: u32, now: Instant) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let (id, is_due) = (peer.id, std::mem::take(&mut peer.is_due));
        let Self { endpoint, shared, streams, meter, .. } = self;
        let phase = guard(|| {
            shared.fault(TurnStage::Feed, id);
            match &mut peer.carrier {
                PeerCarrier::Quic(key) => {
                    if is_due {
                        endpoint.handle_timeout(*key, now);
                    }
                    endpoint.process_connection(*key, now)
                }
                PeerCarrier::Stream(stream) => stream.process_input(now, streams, meter),
            }
        });
        let Some(phase) = phase else { return self.drop_panicked(index, TurnStage::Feed) };
        self.mark_dirty(index);
        if phase == ConnPhase::Ready && !self.make_session(index, now) {
            return;
        }
        let lives =
            self.with_session(index, TurnStage::Input, now, |session, conn, cx| session.input(conn, cx));
        if lives && is_due {
            self.time_out(index, now);
        }
        self.charge_later(index);
        // Input held back by the budget must not wait for another datagram.
        if self.endpoint.has_waiting()
            && let Some(WorkerPeer { carrier: PeerCarrier::Quic(key), .. }) = self.peers.get(index)
            && self.endpoint.conn(*key).is_some_and(|conn| conn.has_input())
        {
            self.put_behind(index, now);
        }
    }

    /// Handles due timers of the session, and those of the worker for the peer.
    fn time_out(&mut self, index: u32, now: Instant) {
        let Some(peer) = self.peers.get(index) else { return };
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| now >= deadline);
        if is_due(peer.ends_at()) {
            if !matches!(peer.state, PeerState::Asked(_)) {
                self.meter.refused_setup_timeout += 1;
                self.refuse(index, now, SessionCode::TIMEOUT, "not set up in time");
            } else {
                self.deny(index, now, Denial::TimedOut);
            }
            return;
        }
        if is_due(peer.leaves_at()) {
            self.leave(index, now);
        }
        let Some(peer) = self.peers.get(index) else { return };
        if is_due(peer.session.as_ref().and_then(|session| session.next_deadline())) {
            self.with_session(index, TurnStage::Timeout, now, |session, conn, cx| session.timeout(conn, cx));
        }
    }
}
