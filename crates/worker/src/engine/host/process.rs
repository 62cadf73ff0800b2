//! Input and timers of one peer.

use std::time::Instant;

use relay_model::SessionCode;
use relay_transport::quic::ConnPhase;

use super::SessionHost;
use crate::{
    admission::CloseReason,
    engine::{carrier::PeerCarrier, guard::guard, shared::TurnStage},
};

impl SessionHost {
    /// Handles input and due timers of a ready peer. Returns the earliest time since when it may have been ready.
    pub(in crate::engine) fn process(&mut self, index: u32, now: Instant) -> Instant {
        let Some(since) = self.peers.ready.begin(index) else { return now };
        let Self { peers, shared, meter, .. } = self;
        let Some(peer) = peers.slots.get_mut(index) else { return since };
        let (id, is_due) = (peer.id, peers.timers.take_due(index));
        let phase = guard(|| {
            shared.fault(TurnStage::Feed, id);
            match &mut peer.carrier {
                PeerCarrier::Quic(key) => {
                    if is_due {
                        peers.quic.endpoint.handle_timeout(*key, now);
                    }
                    peers.quic.endpoint.process_connection(*key, now)
                }
                PeerCarrier::Stream(stream) => stream.process_input(now, &mut peers.streams, meter),
            }
        });
        let Ok(phase) = phase else {
            self.drop_panicked(index, TurnStage::Feed);
            return since;
        };
        self.peers.mark_dirty(index);
        if phase == ConnPhase::Ready && !self.make_session(index, now) {
            return since;
        }
        let lives =
            self.with_session(index, TurnStage::Input, now, |session, conn, cx| session.input(conn, cx));
        if lives && is_due {
            self.time_out(index, now);
        }
        self.peers.finish_share(index, now);
        since
    }

    /// Handles due timers of the session, and those of the worker for the peer.
    fn time_out(&mut self, index: u32, now: Instant) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        let is_due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| now >= deadline);
        if let Some(rejection) = peer.admission.handle_timeout(now) {
            return self.deny(index, now, rejection);
        }
        if is_due(peer.ends_at()) {
            self.meter.refused_setup_timeout += 1;
            return self.refuse(index, now, CloseReason::new(SessionCode::TIMEOUT, "not set up in time"));
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
