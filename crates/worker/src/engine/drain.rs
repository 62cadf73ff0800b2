//! End of a worker: graceful drain or shutdown.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{PeerState, TurnStage, Worker, peer::Leaving};
use crate::mailbox::Drain;

/// Round trips between the last write of a session and its close, at least, so that the data can arrive.
const ROUND_TRIPS: u32 = 3;
/// Least time between them.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// State of a worker that rejects new sessions.
#[derive(Clone, Debug)]
pub(super) enum Ending {
    /// Waits for sessions to leave on GOAWAY.
    Waiting(Drain),
    /// Remaining sessions wind down, each at its turn.
    Parting(Drain),
    /// All are closed; the worker ends at this time at the latest.
    Closed(Instant),
}

impl Ending {
    /// Latest time of the worker's end.
    pub(super) fn until(&self) -> Instant {
        match self {
            Self::Waiting(drain) | Self::Parting(drain) => drain.until,
            Self::Closed(until) => *until,
        }
    }

    /// Whether no worker has sessions any more.
    pub(super) fn is_everybody_done(&self) -> bool {
        match self {
            Self::Waiting(drain) | Self::Parting(drain) => drain.busy.load(Ordering::Relaxed) == 0,
            Self::Closed(_) => true,
        }
    }

    /// Time of the next step.
    pub(super) fn next(&self) -> Instant {
        match self {
            Self::Waiting(drain) => drain.wind_down,
            Self::Parting(drain) => drain.close,
            Self::Closed(until) => *until,
        }
    }
}

impl Worker {
    /// Subtracts this worker from the busy ones of a drain once it has no sessions.
    pub(super) fn count_off(&mut self) {
        let Some(Ending::Waiting(drain) | Ending::Parting(drain)) = &self.ending else { return };
        if !self.counted_off && self.has_nobody() {
            drain.busy.fetch_sub(1, Ordering::Relaxed);
            self.counted_off = true;
        }
    }

    /// Begins a drain: refuses sessions that are not admitted, and sends GOAWAY to all others.
    pub(super) fn start_drain(&mut self, now: Instant, drain: Drain) {
        if self.ending.is_some() {
            return;
        }
        let indices: Vec<u32> = self.peers.indices().collect();
        for index in indices {
            match self.peers.get(index).map(|peer| peer.state) {
                Some(PeerState::Open) => {
                    self.with_session(index, TurnStage::Order, now, |session, conn, cx| {
                        session.go_away(conn, cx)
                    });
                }
                Some(
                    PeerState::Opening | PeerState::Waiting | PeerState::Asked(_) | PeerState::Placed(_),
                ) => {
                    self.meter.refused_draining += 1;
                    self.refuse(index, now, drain.code, &drain.reason);
                }
                Some(PeerState::Over) | None => {}
            }
        }
        self.ending = Some(Ending::Waiting(drain));
        // The window may be so short that it is already over.
        self.part(now);
    }

    /// Does the steps of a drain that are due.
    pub(super) fn part(&mut self, now: Instant) {
        let Some(mut ending) = self.ending.take_if(|ending| now >= ending.next()) else { return };
        if let Ending::Waiting(drain) = ending {
            self.give_turns(&drain);
            ending = Ending::Parting(drain);
        }
        if let Ending::Parting(drain) = &ending
            && now >= drain.close
        {
            for index in self.open_peers() {
                self.meter.sessions_sent_away += 1;
                self.close(index, now, drain.code, &drain.reason);
            }
            ending = Ending::Closed(drain.until);
        }
        self.ending = Some(ending);
    }

    /// Schedules the wind-down of each remaining session.
    fn give_turns(&mut self, drain: &Drain) {
        let publishes = |index: &u32| self.peers.get(*index).is_some_and(|peer| peer.publishes);
        let (publishers, others): (Vec<u32>, Vec<u32>) = self.open_peers().into_iter().partition(publishes);
        for (left, publishes) in [(others, false), (publishers, true)] {
            for (place, index) in left.iter().enumerate() {
                if let Some(peer) = self.peers.get_mut(*index) {
                    let turn = drain.turn_of(place, left.len(), publishes);
                    peer.leaving = Some(Leaving::WindDown(turn));
                }
                self.mark_dirty(*index);
            }
        }
    }

    fn open_peers(&self) -> Vec<u32> {
        let is_open = |index: &u32| self.peers.get(*index).is_some_and(|peer| peer.state == PeerState::Open);
        self.peers.indices().filter(is_open).collect()
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
                if let Some(Ending::Waiting(drain) | Ending::Parting(drain)) = self.ending.clone() {
                    self.meter.sessions_sent_away += 1;
                    self.close(index, now, drain.code, &drain.reason);
                }
            }
            Some(Leaving::Winding) | None => {}
        }
    }

    /// Schedules the close of a winding-down session once it has written all of its groups.
    pub(super) fn check_winding(&mut self, index: u32, now: Instant) {
        let Self { peers, endpoint, .. } = self;
        let Some(peer) = peers.get_mut(index).filter(|peer| peer.leaving == Some(Leaving::Winding)) else {
            return;
        };
        if peer.session.as_ref().is_some_and(|session| session.is_quiet()) {
            let rtt = peer.carrier.conn(endpoint).and_then(|conn| conn.rtt()).unwrap_or_default();
            peer.leaving = Some(Leaving::Close(now + LAST_WORDS.max(rtt.saturating_mul(ROUND_TRIPS))));
        }
    }
}
