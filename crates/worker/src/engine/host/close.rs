//! Refusal, close and end of sessions.

use std::time::Instant;

use relay_core::CoreEvent;
use relay_meter::Worker as Meter;
use relay_model::SessionId;
use relay_model::transport::TransportClosed;
use relay_transport::quic::ConnPhase;

use super::SessionHost;
use crate::{
    admission::CloseReason,
    engine::{
        carrier::PeerCarrier,
        core_queue::CoreQueue,
        guard::guard,
        peer::{PeerState, WorkerPeer},
        peers::Rearmed,
        shared::TurnStage,
        trace,
    },
    gate::SessionEnded,
};

/// Progress of a connection's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Conclusion {
    /// The connection is open.
    Open,
    /// The connection is closed and its session has ended.
    Over,
    /// The connection is closed, but its session has more to read first, in another share.
    Later,
    /// The peer was dropped.
    Gone,
}

impl SessionHost {
    /// Closes a connection that was never open. The caller counts the reason.
    pub(in crate::engine) fn refuse(&mut self, index: u32, now: Instant, close: CloseReason) {
        if let Some(peer) = self.peers.slots.get_mut(index) {
            let conn = peer.carrier.conn(&mut self.peers.quic.endpoint);
            trace::refused(peer.id, conn.as_ref(), &close);
            peer.admission.refuse(close.clone());
        }
        self.close(index, now, close);
    }

    /// Closes a connection; its session ends when the close is flushed.
    pub(in crate::engine) fn close(&mut self, index: u32, now: Instant, close: CloseReason) {
        if self.peers.close(index, now, &close).is_err() {
            self.drop_panicked(index, TurnStage::Flush);
        }
    }

    /// Closes a connection with the reason recorded by its admission.
    pub(super) fn close_recorded(&mut self, index: u32, now: Instant) {
        let close = self.peers.get(index).and_then(|peer| peer.admission.closing().cloned());
        if let Some(close) = close {
            self.close(index, now, close);
        }
    }

    /// Ends the session of a closed connection once it has read all input. Called before each flush of a
    /// peer.
    pub(in crate::engine) fn conclude(&mut self, index: u32, now: Instant) -> Conclusion {
        let Self { peers, .. } = self;
        let Some(peer) = peers.slots.get_mut(index) else { return Conclusion::Gone };
        let phase =
            peer.carrier.conn(&mut peers.quic.endpoint).map_or(ConnPhase::Drained, |conn| conn.phase());
        if matches!(phase, ConnPhase::Opening | ConnPhase::Ready) {
            return Conclusion::Open;
        }
        // The closed event comes last, after all data.
        if peer.has_unread_end() && peers.ready.contains(index) {
            return Conclusion::Later;
        }
        if peer.session.is_some()
            && !self.with_session(index, TurnStage::Input, now, |session, conn, cx| session.input(conn, cx))
        {
            return Conclusion::Gone;
        }
        let Some(peer) = self.peers.get(index) else { return Conclusion::Gone };
        if peer.has_unread_end() && self.peers.ready.contains(index) {
            return Conclusion::Later;
        }
        self.end_session(index, now)
    }

    /// Ends the session of a closed connection.
    fn end_session(&mut self, index: u32, now: Instant) -> Conclusion {
        let Some(peer) = self.peers.get_mut(index) else { return Conclusion::Gone };
        let (id, state, lasted) = (peer.id, peer.state(), trace::lasted(peer.admit_by, now));
        let session = peer.session.take();
        let why = session.as_ref().and_then(|session| session.closed()).cloned();
        let said = session.as_ref().and_then(|session| session.parting());
        let ours = peer.admission.closing().cloned();
        let ours = ours.or_else(|| said.map(|(code, reason)| CloseReason::new(code, reason)));
        self.report(index, now, why.as_ref(), ours.as_ref());
        self.peers.reject_arrival(index, self.drain.has_begun(), None);
        let Self { peers, fanout, .. } = self;
        let Some(peer) = peers.slots.get_mut(index) else { return Conclusion::Gone };
        let clean = guard(|| {
            match state {
                PeerState::Open => trace::ended(id, why.as_ref(), ours.as_ref(), lasted),
                PeerState::Pending => trace::failed(id, peer.carrier.conn(&mut peers.quic.endpoint)),
                PeerState::Over => {}
            }
            if let Some(mut session) = session {
                session.leave(fanout);
            }
            if let PeerCarrier::Quic(key) = peer.carrier {
                peers.quic.endpoint.process_connection(key, now);
            }
        });
        let vanished = !matches!(why, Some(TransportClosed::ByUs | TransportClosed::ByPeer(..)));
        count_end(&mut self.core, &mut self.meter, id, state, vanished);
        self.charge(index, now);
        if clean.is_err() {
            self.drop_panicked(index, TurnStage::Input);
            return Conclusion::Gone;
        }
        Conclusion::Over
    }

    /// Notifies the gate of the end of the session at `index`, once. `ours`: code and reason of our close, if
    /// we closed it.
    pub(in crate::engine) fn report(
        &mut self,
        index: u32,
        now: Instant,
        why: Option<&TransportClosed>,
        ours: Option<&CloseReason>,
    ) {
        let Self { peers, gate, expiry, meter, .. } = self;
        let Some(peer) = peers.slots.get_mut(index) else { return };
        let end = peer.admission.end();
        expiry.clear(peer.id, end.permit.as_ref().and_then(relay_auth::Permit::expires));
        if !end.is_owed {
            return;
        }
        let (by, code, reason) = trace::cause(why, ours);
        let reported = guard(|| {
            let traffic = peer.carrier.conn(&mut peers.quic.endpoint).map(|conn| conn.traffic());
            let traffic = traffic.unwrap_or_default();
            gate.report(&SessionEnded {
                session: peer.id,
                admitted: end.permit.is_some(),
                bytes_in: traffic.bytes_in,
                bytes_out: traffic.bytes_out,
                lasted: trace::lasted(peer.admit_by, now),
                by,
                code,
                reason,
            })
        });
        meter.panics_input += u64::from(reported != Ok(true));
    }

    /// Drops a connection and its session after a panic in `stage`; everything else stays.
    pub(in crate::engine) fn drop_panicked(&mut self, index: u32, stage: TurnStage) {
        *panics(&mut self.meter, stage) += 1;
        let Some(peer) = self.peers.get(index) else { return };
        tracing::error!(session = %peer.id, ?stage, "session lost to a panic");
        let key = peer.carrier.key();
        self.forget(index, Instant::now());
        if let Some(key) = key
            && !self.peers.quic.remove(key)
        {
            tracing::error!("a panic while a lost connection was removed");
            self.meter.panics_endpoint += 1;
        }
    }

    /// Removes a peer and ends its session: its readers, its writers, and its entry in core. Its connection stays in
    /// the endpoint.
    fn forget(&mut self, index: u32, now: Instant) {
        let Some(state) = self.peers.get(index).map(WorkerPeer::state) else { return };
        self.report(index, now, None, None);
        let Some(mut peer) = self.peers.remove(index) else { return };
        if let Some(mut session) = peer.session.take() {
            let fanout = &mut self.fanout;
            if guard(|| session.leave(fanout)).is_err() || guard(|| drop(session)).is_err() {
                tracing::error!(session = %peer.id, "a panic while a session was dropped");
            }
        }
        count_end(&mut self.core, &mut self.meter, peer.id, state, true);
        drop_carrier(peer, self.drain.has_begun());
    }

    /// Sets the peer's timer, or removes a drained peer.
    pub(in crate::engine) fn rearm(&mut self, index: u32) {
        match self.peers.rearm(index) {
            Ok(Rearmed::Set) => {}
            Ok(Rearmed::Drained) => {
                let Some(peer) = self.peers.remove(index) else { return };
                match peer.carrier.key() {
                    Some(key) => self.meter.panics_endpoint += u64::from(!self.peers.quic.remove(key)),
                    None => drop_carrier(peer, self.drain.has_begun()),
                }
            }
            Err(_) => self.drop_panicked(index, TurnStage::Flush),
        }
    }

    /// Recovers from a panic outside of any connection's share: replaces the endpoint, and ends the sessions that
    /// `ends` selects, at least those over QUIC.
    pub(in crate::engine) fn rebuild(&mut self, now: Instant, ends: impl Fn(&WorkerPeer) -> bool) {
        self.meter.panics_endpoint += 1;
        tracing::error!(worker = self.id.0, "endpoint lost to a panic: rebuilding it, all its sessions end");
        for index in self.peers.select(ends) {
            self.forget(index, now);
        }
        self.peers.rebuild(&self.shared.quic, now);
    }
}

/// Counts the end of a session. `vanished`: neither side closed it.
fn count_end(core: &mut CoreQueue, meter: &mut Meter, session: SessionId, state: PeerState, vanished: bool) {
    match state {
        PeerState::Pending => meter.sessions_abandoned += 1,
        PeerState::Open => {
            meter.sessions_closed += 1;
            core.push(CoreEvent::Closed { session, vanished });
        }
        PeerState::Over => {}
    }
}

/// Drops the carrier of a removed peer.
fn drop_carrier(mut peer: WorkerPeer, is_ending: bool) {
    if let Some(stream) = peer.carrier.stream() {
        stream.reject(is_ending, None);
        if guard(|| drop(peer)).is_err() {
            tracing::error!("a panic while a lost connection was dropped");
        }
    }
}

/// Counter of panics in a stage.
fn panics(meter: &mut Meter, stage: TurnStage) -> &mut u64 {
    match stage {
        TurnStage::Feed => &mut meter.panics_feed,
        TurnStage::Input => &mut meter.panics_input,
        TurnStage::Timeout => &mut meter.panics_timeout,
        TurnStage::Order => &mut meter.panics_order,
        TurnStage::News => &mut meter.panics_news,
        TurnStage::Flush => &mut meter.panics_flush,
    }
}
