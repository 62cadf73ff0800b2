//! Connections of a worker, with their queues and timers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use relay_meter::Worker as Meter;
use relay_model::{SessionId, WorkerId, limits, transport::Transport};
use relay_transport::quic::{ConnKey, ConnPhase, QuicConfig};

use super::{
    carrier::PeerCarrier,
    charge_queue::ChargeQueue,
    flush_queue::FlushQueue,
    guard::{Panicked, guard},
    peer::{Leaving, PeerState, WorkerPeer},
    peer_timers::PeerTimers,
    quic_endpoint::QuicEndpoint,
    ready_queue::ReadyQueue,
    stream::StreamSockets,
};
use crate::{
    accept::{Admission, AdmittedSocket},
    admission::{CloseReason, Denial},
    ledger::Charge,
    mailbox::{Drain, Mailbox, WorkerMessage},
    slots::SessionSlots,
};

/// Round trips between the last write of a session and its close, at least, so that the data can arrive.
const ROUND_TRIPS: u32 = 3;
/// Least time between them.
const LAST_WRITES: Duration = Duration::from_millis(100);

/// Peers by index, their connections, and the queues in which they wait for their share of a turn.
pub(super) struct PeerSet {
    pub(super) slots: SessionSlots<WorkerPeer>,
    pub(super) quic: QuicEndpoint,
    pub(super) streams: StreamSockets,
    /// Peers with something to process.
    pub(super) ready: ReadyQueue,
    /// Peers with something to send.
    pub(super) flush: FlushQueue,
    /// Peers whose charge is to be updated.
    pub(super) charges: ChargeQueue,
    pub(super) timers: PeerTimers,
}

/// Outcome of setting a peer's timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rearmed {
    /// The timer is set, or there is no such peer.
    Set,
    /// The connection is drained: the peer can be removed.
    Drained,
}

impl PeerSet {
    /// Creates a set without peers.
    pub(super) fn new(worker: WorkerId, quic: QuicEndpoint, now: Instant) -> Self {
        Self {
            slots: SessionSlots::new(worker),
            quic,
            streams: StreamSockets::default(),
            ready: ReadyQueue::new(now),
            flush: FlushQueue::default(),
            charges: ChargeQueue::new(now),
            timers: PeerTimers::new(now),
        }
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&WorkerPeer> {
        self.slots.get(index)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut WorkerPeer> {
        self.slots.get_mut(index)
    }

    /// Index of the peer with a session id.
    #[inline]
    pub(super) fn index_of(&self, session: SessionId) -> Option<u32> {
        self.slots.index_of(session)
    }

    /// Index of the peer with a connection.
    #[inline]
    pub(super) fn index_of_conn(&self, key: ConnKey) -> Option<u32> {
        let index = self.quic.peer(key)?;
        self.get(index).is_some_and(|peer| peer.carrier.is(key)).then_some(index)
    }

    /// Indices of all peers, ascending.
    pub(super) fn indices(&self) -> Vec<u32> {
        self.slots.indices().collect()
    }

    /// Indices of the peers that `is_meant` selects, ascending.
    pub(super) fn select(&self, is_meant: impl Fn(&WorkerPeer) -> bool) -> Vec<u32> {
        self.slots.indices().filter(|index| self.get(*index).is_some_and(&is_meant)).collect()
    }

    /// Adds a peer, which has to send its request within the setup timeout; `charge` opens its charge. `None`: there
    /// is no room.
    pub(super) fn insert(
        &mut self,
        carrier: PeerCarrier,
        now: Instant,
        charge: impl FnOnce(SessionId) -> Charge,
    ) -> Option<u32> {
        let admit_by = now + limits::SETUP_TIMEOUT;
        let key = carrier.key();
        let index = self.slots.insert(|id| WorkerPeer::new(id, carrier, admit_by, charge(id)))?;
        match key {
            Some(key) => self.quic.set_peer(key, index),
            None => self.streams.add(),
        }
        Some(index)
    }

    /// Removes a peer from the set and from every queue; its connection stays in the endpoint.
    pub(super) fn remove(&mut self, index: u32) -> Option<WorkerPeer> {
        let peer = self.slots.remove(index)?;
        self.ready.forget(index);
        self.flush.unmark(index);
        self.charges.forget(index);
        self.timers.forget(index);
        if peer.carrier.is_stream() {
            self.streams.forget();
        }
        Some(peer)
    }

    /// Queues the peer of a connection that has received a datagram.
    #[inline]
    pub(super) fn received(&mut self, key: ConnKey) {
        if let Some(index) = self.index_of_conn(key) {
            self.ready.push_received(index);
        }
    }

    /// Queues a peer with something to send.
    #[inline]
    pub(super) fn mark_dirty(&mut self, index: u32) {
        if let Some(peer) = self.slots.get(index) {
            self.flush.push(index, peer.carrier.is_stream());
        }
    }

    /// Queues the peers whose deadlines have passed.
    pub(super) fn expire(&mut self, now: Instant) {
        let Self { timers, ready, .. } = self;
        timers.expire(now, |index| ready.push(index));
    }

    /// Records the close of a peer's session, and closes its connection. The first reason counts.
    pub(super) fn close(&mut self, index: u32, now: Instant, close: &CloseReason) -> Result<(), Panicked> {
        let Some(peer) = self.slots.get_mut(index) else { return Ok(()) };
        peer.admission.close(close.clone());
        guard(|| {
            if let Some(mut conn) = peer.carrier.conn(&mut self.quic.endpoint) {
                conn.close(now, close.code, &close.reason);
            }
        })?;
        self.mark_dirty(index);
        Ok(())
    }

    /// Sets the peer's timer.
    pub(super) fn rearm(&mut self, index: u32) -> Result<Rearmed, Panicked> {
        let Some(peer) = self.slots.get_mut(index) else { return Ok(Rearmed::Set) };
        let of_session = peer.session.as_ref().and_then(|session| session.next_deadline());
        let own = peer.deadline();
        let (is_drained, of_conn) = guard(|| match peer.carrier.conn(&mut self.quic.endpoint) {
            Some(mut conn) if conn.phase() != ConnPhase::Drained => (false, conn.next_deadline()),
            _ => (true, None),
        })?;
        if is_drained {
            return Ok(Rearmed::Drained);
        }
        self.timers.set(index, [of_conn, of_session, own].into_iter().flatten().min());
        Ok(Rearmed::Set)
    }

    /// Replaces the endpoint and empties all queues; the peers that are left are queued again.
    pub(super) fn rebuild(&mut self, quic: &QuicConfig, now: Instant) {
        self.quic.rebuild(quic);
        self.timers = PeerTimers::new(now);
        self.charges.clear();
        self.ready.clear();
        self.flush.clear();
        for index in self.indices() {
            self.ready.push(index);
        }
    }

    /// Queues what a processed peer needs next.
    #[inline]
    pub(super) fn finish_share(&mut self, index: u32, now: Instant) {
        let Some(peer) = self.slots.get(index) else { return };
        self.charges.push(index);
        // Input held back by the budget must not wait for another datagram.
        if self.quic.endpoint.has_waiting()
            && let PeerCarrier::Quic(key) = peer.carrier
            && self.quic.endpoint.conn(key).is_some_and(|conn| conn.has_input())
        {
            self.ready.push_behind(index, now);
        }
    }

    /// Gives the accepting thread a place to hand the socket of a peer over to, by a message to `mailbox`.
    pub(super) fn give_admission(&mut self, index: u32, mailbox: &Arc<Mailbox>) {
        let Some(peer) = self.slots.get_mut(index) else { return };
        let (session, mailbox) = (peer.id, mailbox.clone());
        let hand_over = move |socket: Option<AdmittedSocket>| {
            let message = match socket {
                Some(socket) => WorkerMessage::Link(session, Box::new(socket)),
                None => WorkerMessage::Unlinked(session),
            };
            mailbox.post(&mut vec![message]);
        };
        if let Some(stream) = peer.carrier.stream() {
            stream.call_verdict(Ok(Admission::new(session, Box::new(hand_over))));
        }
    }

    /// Rejects a connection over a stream socket, unless its verdict was given already.
    pub(super) fn reject_arrival(&mut self, index: u32, is_ending: bool, denial: Option<Denial>) {
        if let Some(stream) = self.slots.get_mut(index).and_then(|peer| peer.carrier.stream()) {
            stream.reject(is_ending, denial);
        }
    }

    /// Schedules the wind-down of each open session.
    pub(super) fn schedule_departures(&mut self, drain: &Drain) {
        for publishes in [false, true] {
            let left = self.select(|peer| peer.state() == PeerState::Open && peer.publishes == publishes);
            for (place, index) in left.iter().enumerate() {
                if let Some(peer) = self.slots.get_mut(*index) {
                    let turn = drain.turn_of(place, left.len(), publishes);
                    peer.leaving = Some(Leaving::WindDown(turn));
                }
                self.mark_dirty(*index);
            }
        }
    }

    /// Schedules the close of a winding-down session once it has written all of its groups.
    #[inline]
    pub(super) fn check_winding(&mut self, index: u32, now: Instant) {
        let peer = self.slots.get_mut(index).filter(|peer| peer.leaving == Some(Leaving::Winding));
        let Some(peer) = peer else { return };
        if peer.session.as_ref().is_some_and(|session| session.is_quiet()) {
            let rtt = peer.carrier.conn(&mut self.quic.endpoint).and_then(|conn| conn.rtt());
            let round_trips = rtt.unwrap_or_default().saturating_mul(ROUND_TRIPS);
            peer.leaving = Some(Leaving::Close(now + LAST_WRITES.max(round_trips)));
        }
    }

    /// Updates the gauges.
    pub(super) fn gauge(&mut self, now: Instant, meter: &mut Meter) {
        meter.ready_wait_peak_us = self.ready.peak_us(now);
        meter.connections_now = self.slots.len() as u64;
        meter.sessions = self.sessions() as u64;
    }

    /// Number of peers with a session.
    fn sessions(&self) -> usize {
        self.slots
            .indices()
            .filter(|index| self.get(*index).is_some_and(|peer| peer.session.is_some()))
            .count()
    }
}
