//! Arrival of connections, and hand-over of stream sockets.

use std::time::Instant;

use relay_meter::Worker as Meter;
use relay_model::{SessionCode, SessionId, limits};
use relay_transport::quic::ConnKey;

use super::SessionHost;
use crate::{
    accept::{AdmittedSocket, PendingAccept, RejectReason},
    admission::CloseReason,
    engine::{
        carrier::PeerCarrier,
        guard::guard,
        peer::PeerState,
        shared::TurnStage,
        stream::{Socketed, call_verdict},
        trace::SESSIONS,
    },
};

/// Progress of a connection's flush.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Transmitted {
    /// Nothing more to send now.
    All,
    /// More to send, or possibly more.
    Some,
    /// The connection panicked and was dropped.
    Gone,
}

impl SessionHost {
    /// Adds a peer for a new connection of the endpoint.
    pub(in crate::engine) fn arrive(&mut self, key: ConnKey, now: Instant) {
        self.meter.connections += 1;
        let Some(remote) = self.peers.quic.endpoint.conn(key).map(|conn| conn.remote().ip()) else { return };
        let ledger = &self.shared.ledger;
        let inserted = self.peers.insert(PeerCarrier::Quic(key), now, |id| ledger.open(id, remote));
        let Some(index) = inserted else {
            self.meter.refused_full += 1;
            self.peers.quic.remove(key);
            return;
        };
        self.peers.ready.push_received(index);
    }

    /// Adds a peer for a connection over a stream socket, and asks the gate.
    pub(in crate::engine) fn arrive_over_stream(&mut self, arrival: PendingAccept, now: Instant) {
        let PendingAccept { pending, verdict } = arrival;
        count_arrival(&mut self.meter, pending.conn.transport);
        if let Some(reason) = self.reject_reason() {
            return call_verdict(verdict, Err(reason));
        }
        let (has_target, remote) = (pending.conn.target.is_some(), pending.conn.remote.ip());
        let stream = Box::new(Socketed::new(pending, self.shared.quic.protocols(), now));
        let ledger = &self.shared.ledger;
        let inserted =
            self.peers.insert(PeerCarrier::Stream(stream), now, |id| ledger.open_pending(id, remote));
        let Some(index) = inserted else {
            self.meter.refused_full += 1;
            return call_verdict(verdict, Err(RejectReason::Full));
        };
        if let Some(stream) = self.peers.get_mut(index).and_then(|peer| peer.carrier.stream()) {
            stream.set_verdict(verdict);
        }
        self.peers.mark_dirty(index);
        self.charge(index, now);
        if self.peers.get(index).is_none_or(|peer| peer.admission.closing().is_some()) {
            return;
        }
        if has_target {
            self.ask_gate(index, now, None, None);
        } else {
            // SETUP will carry the target.
            self.peers.give_admission(index, &self.mailbox);
        }
    }

    /// Counts and returns the reason for rejecting every new connection, if there is one.
    fn reject_reason(&mut self) -> Option<RejectReason> {
        if self.drain.has_begun() {
            self.meter.refused_draining += 1;
            Some(RejectReason::Leaving)
        } else if self.shared.is_out_of_memory() {
            self.meter.refused_memory += 1;
            Some(RejectReason::Full)
        } else if self.peers.streams.is_full() {
            self.meter.refused_full += 1;
            Some(RejectReason::Full)
        } else {
            None
        }
    }

    /// Attaches the socket of a session.
    pub(in crate::engine) fn link(&mut self, session: SessionId, socket: AdmittedSocket, now: Instant) {
        let Some(index) = self.peers.index_of(session) else { return };
        let Self { peers, meter, shared, .. } = self;
        let Some(peer) = peers.slots.get_mut(index) else { return };
        if peer.admission.closing().is_some() || peer.state() == PeerState::Over {
            return;
        }
        let Some(stream) = peer.carrier.stream() else { return };
        if let Some(until) = &mut stream.socket_by {
            *until = now + limits::SETUP_TIMEOUT;
        }
        let linked = guard(|| {
            shared.fault(TurnStage::Feed, session);
            stream.link(socket, peers.streams.registration(index), now)
        });
        match linked {
            Ok(Ok(count)) => {
                meter.bytes_in += count as u64;
                meter.stream_bytes_in += count as u64;
                self.peers.ready.push(index);
            }
            Ok(Err(error)) => {
                tracing::debug!(target: SESSIONS, %session, %error, "cannot use the socket");
                self.unlinked(session, now);
            }
            Err(_) => self.drop_panicked(index, TurnStage::Feed),
        }
    }

    /// Closes a session that gets no socket.
    pub(in crate::engine) fn unlinked(&mut self, session: SessionId, now: Instant) {
        let Some(index) = self.peers.index_of(session) else { return };
        self.close(index, now, CloseReason::new(SessionCode::NONE, "no socket"));
    }

    /// Flushes a peer with a stream socket.
    pub(in crate::engine) fn flush_stream(&mut self, index: u32, now: Instant) -> Transmitted {
        let Self { peers, shared, meter, .. } = self;
        let Some(peer) = peers.slots.get_mut(index) else { return Transmitted::Gone };
        let id = peer.id;
        let Some(stream) = peer.carrier.stream() else { return Transmitted::All };
        let sent = guard(|| {
            shared.fault(TurnStage::Flush, id);
            stream.send(now, meter)
        });
        let Ok(sent) = sent else {
            self.drop_panicked(index, TurnStage::Flush);
            return Transmitted::Gone;
        };
        if sent.wants_turn {
            self.peers.ready.push(index);
        }
        // Sending has made room.
        if sent.has_event
            && !self.with_session(index, TurnStage::Input, now, |session, conn, cx| session.input(conn, cx))
        {
            return Transmitted::Gone;
        }
        if sent.has_more { Transmitted::Some } else { Transmitted::All }
    }
}

/// Counts a connection over a stream socket.
fn count_arrival(meter: &mut Meter, transport: &str) {
    meter.connections += 1;
    match transport {
        "websocket" => meter.connections_websocket += 1,
        "unix" => meter.connections_unix += 1,
        _ => meter.connections_tcp += 1,
    }
}
