//! Departure of sessions while the relay drains.

use std::time::Instant;

use super::SessionHost;
use crate::{
    engine::{
        drain::DrainStep,
        peer::{Leaving, PeerState, WorkerPeer},
        shared::TurnStage,
    },
    mailbox::Drain,
};

impl SessionHost {
    /// Begins a drain: refuses sessions that are not admitted, and sends GOAWAY to all others.
    pub(in crate::engine) fn start_drain(&mut self, now: Instant, drain: Drain) {
        if self.drain.has_begun() {
            return;
        }
        for index in self.peers.indices() {
            match self.peers.get(index).map(WorkerPeer::state) {
                Some(PeerState::Open) => {
                    self.with_session(index, TurnStage::Order, now, |session, conn, cx| {
                        session.go_away(conn, cx)
                    });
                }
                Some(PeerState::Pending) => {
                    self.meter.refused_draining += 1;
                    self.refuse(index, now, drain.close_reason.clone());
                }
                Some(PeerState::Over) | None => {}
            }
        }
        self.drain.begin(drain);
        // The window may be so short that it is already over.
        self.continue_drain(now);
    }

    /// Does the steps of a drain that are due.
    pub(in crate::engine) fn continue_drain(&mut self, now: Instant) {
        while let Some(step) = self.drain.poll(now) {
            match step {
                DrainStep::WindDown(drain) => self.peers.schedule_departures(&drain),
                DrainStep::Close(drain) => {
                    for index in self.peers.select(|peer| peer.state() == PeerState::Open) {
                        self.meter.sessions_sent_away += 1;
                        self.close(index, now, drain.close_reason.clone());
                    }
                }
            }
        }
    }

    /// Does the next step of a session's departure, after its turn has come or its groups are finished.
    pub(super) fn leave(&mut self, index: u32, now: Instant) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        match peer.leaving {
            Some(Leaving::WindDown(_)) => {
                peer.leaving = Some(Leaving::Winding);
                self.with_session(index, TurnStage::Timeout, now, |session, conn, cx| {
                    session.wind_down(conn, cx)
                });
            }
            Some(Leaving::Close(_)) => {
                peer.leaving = None;
                if let Some(close) = self.drain.current().map(|drain| drain.close_reason.clone()) {
                    self.meter.sessions_sent_away += 1;
                    self.close(index, now, close);
                }
            }
            Some(Leaving::Winding) | None => {}
        }
    }
}
